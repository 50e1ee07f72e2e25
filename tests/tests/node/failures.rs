//! What breaks while leases are served, and heals.

use tms_proto::v1::{LeaseSpec, LeaseState};
use tms_tests::cluster::Cluster;
use tms_tests::models::Model;
use tms_tests::server::Database;
use tms_tests::wait::until;

use crate::installation::{alone_on, models, on};
use crate::site::Store;
use crate::traffic::Traffic;

#[test]
fn a_triton_that_is_killed_gets_its_models_again() {
    on(Database::Sqlite, async |client| {
        let store = Store::start(&[Model::echo("first"), Model::asks("second", "first")]).await;
        let lease =
            client.ready(models([("first", &store.uri("first")), ("second", &store.uri("second"))])).await;
        let before = client.installation.pods(&lease.id);
        let namespace = client.installation.namespace.name;
        client.installation.cluster.kill_container(namespace, &before[0].name, "triton");
        let after = until("the Triton runs again", 120, async || {
            let pods = client.installation.pods(&lease.id);
            (pods[0].triton_restarts == before[0].triton_restarts + 1).then_some(pods)
        })
        .await;
        assert_eq!(after[0].uid, before[0].uid, "the pod stays");
        let is_ready = |lease: &tms_proto::v1::Lease| {
            lease.state() == LeaseState::Ready
                && lease.replicas.as_ref().is_some_and(|replicas| replicas.ready == 1)
        };
        // The restart is seen first, and what it means for readiness a moment later.
        let url = format!("{}/v2/models/second/ready", lease_url(&lease));
        until("the second model is ready again", 120, async || {
            client.installation.namespace.ask(&get(&url)).ok().filter(|said| said == "200\n")
        })
        .await;
        client.until(&lease.id, "is ready again", is_ready).await;
        assert_eq!(store.asked("first.tar.gz"), 1, "models that are there are not fetched again");
        client.release(&lease.id).await;
    });
}

#[test]
fn a_drained_node_keeps_one_replica_until_the_other_is_back_and_no_request_fails() {
    alone_on(Database::Postgres, async |client| {
        let store = Store::start(&[Model::echo("echo").with("service_time_ms", "20")]).await;
        let spec = LeaseSpec { replicas: Some(2), ..models([("echo", &store.uri("echo"))]) };
        let lease = client.ready(spec).await;
        let before = client.installation.pods(&lease.id);
        let traffic = Traffic::start(client.installation, &lease, "echo");
        let selector = format!("--pod-selector=tms.internal/lease-id={}", lease.id);
        let drain = ["drain", "node-0", &selector, "--delete-emptydir-data", "--timeout=20s"];
        let cluster = client.installation.cluster;
        let drained = Drained(cluster);
        // The second replica may not go before the first has a successor, for which a drained node has no place.
        let complaint = cluster.kubectl(&drain).expect_err("the budget holds the second replica");
        assert!(complaint.contains("disruption budget"), "{complaint}");
        client.until(&lease.id, "has one replica", |lease| lease.state() == LeaseState::Degraded).await;
        drop(drained);
        client.until(&lease.id, "is whole again", |lease| lease.state() == LeaseState::Ready).await;
        let after = client.installation.pods(&lease.id);
        assert_eq!(after.iter().filter(|pod| before.contains(pod)).count(), 1, "{before:?} {after:?}");
        println!("a drained node: {}", traffic.end().all_good());
        client.release(&lease.id).await;
    });
}

/// A node that takes no pods until this is dropped.
struct Drained(&'static Cluster);

impl Drop for Drained {
    fn drop(&mut self) {
        self.0.kubectl(&["uncordon", "node-0"]).expect("the node takes pods again");
    }
}

#[test]
fn a_server_deleted_during_creation_goes_on_where_it_was() {
    // The others would lose their server for a moment.
    alone_on(Database::Sqlite, async |client| {
        let store = Store::start(&[Model::echo("slow").with("load_time_ms", "4000")]).await;
        let mut stream = client.acquire(models([("slow", &store.uri("slow"))])).await.expect("granted");
        let id = stream.message().await.unwrap().unwrap().lease.unwrap().id;
        let selector = ["--selector", "app.kubernetes.io/name=tms-server"];
        let delete = [&["delete", "pod", "--wait=false"], &selector[..]].concat();
        client.installation.namespace.kubectl(&delete).expect("the server's pod is deleted");
        let lease = client.until(&id, "is ready", |lease| lease.state() == LeaseState::Ready).await;
        assert_eq!(client.installation.pods(&lease.id).len(), 1);
        client.release(&id).await;
    });
}

/// Where a lease answers.
pub fn lease_url(lease: &tms_proto::v1::Lease) -> String {
    let endpoint = lease.endpoint.as_ref().expect("a lease has an address");
    format!("http://{}:{}", endpoint.host, endpoint.http_port)
}

fn get(url: &str) -> String {
    format!("import urllib.request; print(urllib.request.urlopen({url:?}, timeout=5).status)")
}
