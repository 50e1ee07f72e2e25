//! What others may do to a server: parts of the cluster that freeze, end and come back, a rival who edits the same
//! objects, and a second server that acts on the same leases. The cluster is this file's own, and its tests take turns.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod handover;
mod lead;
mod orphans;
mod outages;
mod rivals;
mod servers;
mod sightings;

use std::sync::{Mutex, PoisonError};

use tms_proto::v1::LeaseState;
use tms_tests::cluster::{Cluster, Fault, Part};
use tms_tests::server::{Database, Server, Target, VALUES, World};
use tms_tests::wait::{inside, until};

/// Runs a scenario on the cluster of this process, while no other does. `settings` go into `server` of values.yaml.
fn on_our_cluster<F: Future<Output = ()>>(
    database: Database,
    settings: &str,
    scenario: impl FnOnce(World, &'static Cluster) -> F + Send,
) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(cluster) = Cluster::own("faults") else { return };
    inside(cluster, || async {
        let Some(mut world) = World::new(database, Target::Kubernetes(cluster)).await else { return };
        world.values = format!("{VALUES}  {settings}\n");
        scenario(world, cluster).await;
    });
}

/// Breaks a part or mends it, while the server in this process goes on.
async fn fault(cluster: &'static Cluster, part: Part, fault: Fault) {
    tokio::task::spawn_blocking(move || cluster.fault(part, fault)).await.unwrap();
}

/// Waits until all of these leases are ready, with nothing to complain of.
async fn until_ready(server: &Server, ids: &[String]) {
    for id in ids {
        until(&format!("lease {id} is ready and content"), 60, async || {
            let lease = server.lease(id).await;
            (lease.state() == LeaseState::Ready && lease.message.is_empty()).then_some(())
        })
        .await;
    }
}

/// Waits until the objects of a lease are those of this generation, and returns its Deployment.
async fn until_applied(world: &World, id: &str, generation: i64) -> serde_json::Value {
    let what = format!("lease {id} is applied in generation {generation}");
    until(&what, 60, async || applied(world, id, generation)).await
}

/// Returns the Deployment of a lease if all of its objects are of this generation.
fn applied(world: &World, id: &str, generation: i64) -> Option<serde_json::Value> {
    let objects = world.kubectl(&["get", KINDS, "--selector", &format!("tms.internal/lease-id={id}")]);
    let objects = objects["items"].as_array().unwrap();
    let is_new = |object: &serde_json::Value| {
        object["metadata"]["annotations"]["tms.internal/generation"] == *generation.to_string()
    };
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment")?;
    assert_eq!(deployment["metadata"]["name"], format!("tms-{id}"));
    objects.iter().all(is_new).then(|| deployment.clone())
}

/// The kinds of a lease's objects, as kubectl takes them.
const KINDS: &str = "deployments,services,hpa,pdb,podmonitors,prometheusrules";
