//! Leases at rest: once the cluster holds what was asked for, nothing is written to it, whatever makes the server look
//! again. `TMS_TEST_LEASES` says how many there are.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use tms_proto::v1::{LeaseSpec, LeaseState};
use tms_server::clock::stopwatch;
use tms_tests::audit::AuditLine;
use tms_tests::cluster::{Cluster, Fault, Part};
use tms_tests::random::number;
use tms_tests::server::{Database, Server, Target, VALUES, World, autoscaled, spec};
use tms_tests::wait::{inside, until};

/// Leases, unless `TMS_TEST_LEASES` says.
const LEASES: u64 = 100;
/// Acquires under way at once.
const CALLERS: usize = 16;
/// Longer than three sweeps, with a look around before each.
const THREE_SWEEPS: Duration = Duration::from_secs(4);

#[test]
fn leases_at_rest_are_not_written_to_over_sweeps_a_watch_reset_and_a_restart() {
    let Some(cluster) = Cluster::own("rest") else { return };
    inside(cluster, || async {
        let Some(mut world) = World::new(Database::Sqlite, Target::Kubernetes(cluster)).await else { return };
        world.values = format!("{VALUES}  cluster: {{sweepIntervalSeconds: 1}}\n");
        let count = number("TMS_TEST_LEASES").unwrap_or(LEASES);
        let begin = stopwatch();
        let server = world.start().await;
        let leases = acquire(&server, count).await;
        let acquired = begin.elapsed();
        for id in &leases {
            server.until_state(id, LeaseState::Ready).await;
        }
        let made_ready = begin.elapsed();
        let written = server.until_quiet(cluster).await;
        let at_rest = begin.elapsed();

        tokio::time::sleep(THREE_SWEEPS).await;
        assert_nothing_written(cluster, &written, "three sweeps");

        tokio::task::spawn_blocking(|| cluster.fault(Part::Apiserver, Fault::Restart)).await.unwrap();
        sees(&world, &server, &leases[0], 2).await;
        tokio::time::sleep(THREE_SWEEPS).await;
        assert_nothing_written(cluster, &written, "a watch reset");

        server.stop().await;
        let server = world.start().await;
        sees(&world, &server, &leases[0], 3).await;
        tokio::time::sleep(THREE_SWEEPS).await;
        assert_nothing_written(cluster, &written, "a restart");
        println!(
            "{count} leases: acquired after {acquired:.1?}, ready after {made_ready:.1?} and at rest after \
             {at_rest:.1?} with {} writes, 0 from then on",
            written.len()
        );
        server.stop().await;
    });
}

/// Acquires so many leases, autoscaled and fixed ones in turn, and returns their ids.
async fn acquire(server: &Server, count: u64) -> Vec<String> {
    let wish = |number: u64| match number % 3 {
        0 => autoscaled(1, 4),
        1 => spec(),
        _ => LeaseSpec { replicas: Some(2), ..spec() },
    };
    let acquired = stream::iter(0..count).map(|number| server.acquire(wish(number))).buffered(CALLERS);
    acquired.map(|lease| lease.unwrap().id).collect().await
}

fn assert_nothing_written(cluster: &Cluster, before: &[AuditLine], what: &str) {
    let after = cluster.writes_of("tms");
    assert_eq!(after[before.len()..], [], "{what}");
}

/// Lets somebody scale an autoscaled lease, and waits until the server has seen it: its watches work.
async fn sees(world: &World, server: &Server, id: &str, replicas: u32) {
    let deployment = format!("deployment/tms-{id}");
    world.kubectl(&["scale", &deployment, &format!("--replicas={replicas}")]);
    until(&format!("the server sees {replicas} replicas"), 60, async || {
        let seen = server.lease(id).await.replicas.unwrap();
        (seen.desired == replicas && seen.ready == replicas).then_some(())
    })
    .await;
}
