//! Leases that change while clients ask them.

use tms_proto::v1::{Lease, LeaseSpec, LeaseState, UpdateRequest};
use tms_tests::models::Model;
use tms_tests::server::Database;

use crate::installation::{Client, models, on};
use crate::site::Store;
use crate::traffic::{LongRequest, Traffic};

#[test]
fn no_request_fails_while_replicas_come_and_go_and_all_are_restarted() {
    on(Database::Sqlite, async |client| {
        let store = Store::start(&[Model::echo("echo").with("service_time_ms", "20")]).await;
        let lease = client.ready(models([("echo", &store.uri("echo"))])).await;
        let traffic = Traffic::start(client.installation, &lease, "echo");
        resized(&client, &lease, 3).await;
        resized(&client, &lease, 1).await;
        let name = format!("deployment/tms-{}", lease.id);
        let namespace = &client.installation.namespace;
        namespace.kubectl(&["rollout", "restart", &name]).expect("a restart begins");
        namespace.kubectl(&["rollout", "status", &name, "--timeout=180s"]).expect("all are restarted");
        client.until(&lease.id, "is ready", |lease| lease.state() == LeaseState::Ready).await;
        println!("replicas 1, 3, 1 and a restart: {}", traffic.end().all_good());
        client.release(&lease.id).await;
    });
}

/// Changes the number of replicas, and waits until there are exactly so many.
async fn resized(client: &Client<'_>, lease: &Lease, replicas: u32) {
    let request =
        UpdateRequest { lease_id: lease.id.clone(), replicas: Some(replicas), ..UpdateRequest::default() };
    client.leases.clone().update(request).await.expect("it is within the bounds");
    client
        .until(&lease.id, &format!("has {replicas} replicas"), |lease| {
            let seen = lease.replicas.unwrap_or_default();
            lease.state() == LeaseState::Ready && seen.ready == replicas && seen.current == replicas
        })
        .await;
}

#[test]
fn requests_under_way_when_their_lease_is_released_are_answered() {
    on(Database::Postgres, async |client| {
        let store = Store::start(&[Model::echo("slow").with("service_time_ms", "4000")]).await;
        let spec = LeaseSpec { replicas: Some(1), ..models([("slow", &store.uri("slow"))]) };
        let lease = client.ready(spec).await;
        let requests = LongRequest::start(client.installation, &lease, "slow").await;
        client.release(&lease.id).await;
        assert_eq!(requests.answers(), "http 200, grpc ok");
    });
}
