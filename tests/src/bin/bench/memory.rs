//! Memory of a server that follows many leases on a real control plane: once all are ready, after a sweep, and after a
//! restart.

use std::time::Duration;

use futures::future::try_join_all;
use tms_tests::cluster::Cluster;
use tms_tests::server::{Database, Target, VALUES, World, autoscaled};

use crate::process::{Process, acquire, rest};
use crate::table::Table;
use crate::{Sizes, say};

/// Callers that each wait until their lease is ready before they ask for the next.
const CALLERS: usize = 50;
/// Seconds between two sweeps, and time in which one is over.
const SWEEP: u64 = 10;
const SWEPT: Duration = Duration::from_secs(2 * SWEEP);

/// Measures one server through its life.
pub async fn measure(cluster: &'static Cluster, sizes: &Sizes, table: &mut Table) {
    let leases = sizes.held;
    say(&format!("memory: {leases} leases"));
    let world = World::new(Database::Sqlite, Target::Kubernetes(cluster)).await;
    let mut world = world.expect("the cluster runs");
    world.values = format!("{VALUES}  cluster: {{sweepIntervalSeconds: {SWEEP}}}\n");
    let mut note = |when: &str, server: &Process| {
        let (now, most) = server.memory();
        say(&format!("{when}: {now:.1} MB, at most {most:.1} MB"));
        table.add(
            &format!("memory with {leases} leases, {when}"),
            &format!("{now:.1} MB"),
            &format!("at most: {most:.1} MB"),
            "(aim: 60 MB at most)",
        );
    };

    let server = Process::start(&world).await;
    rest(Duration::from_secs(1)).await;
    let (empty, _) = server.memory();
    say(&format!("without a lease: {empty:.1} MB"));
    let mut clients = Vec::new();
    for _ in 0..CALLERS.min(leases) {
        clients.push(server.leases().await);
    }
    let share = |caller: usize| (0..leases).filter(move |number| number % CALLERS == caller);
    let callers = clients.into_iter().enumerate().map(|(caller, mut client)| async move {
        for _ in share(caller) {
            acquire(&mut client, autoscaled(1, 4), true).await?;
        }
        Ok::<_, tonic::Status>(())
    });
    try_join_all(callers).await.expect("leases are granted and become ready");
    note("all ready", &server);
    rest(SWEPT).await;
    note("after sweeps", &server);
    server.stop().await;

    let server = Process::start(&world).await;
    rest(SWEPT).await;
    note("after a restart and sweeps", &server);
    server.stop().await;
    cluster
        .kubectl(&["delete", "namespace", &world.namespace, "--wait=false"])
        .expect("a namespace can be deleted");
}
