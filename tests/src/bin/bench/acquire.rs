//! Acquire calls a second, each answered with a committed and synced row, beside the syncs of the disk itself. The
//! cluster is away, so that only taking leases on is measured, not following them.

use std::env;
use std::fmt;
use std::time::Duration;

use futures::future::join_all;
use tms_server::clock::stopwatch;
use tms_tests::server::{Database, Target, VALUES, World, autoscaled};

use crate::process::{Process, acquire, kubeconfig_of_nothing};
use crate::table::Table;
use crate::{Sizes, disk, median, say};

const CALLERS: [usize; 3] = [1, 16, 64];
const DATABASES: [(&str, Database); 2] = [("SQLite", Database::Sqlite), ("PostgreSQL", Database::Postgres)];

/// Measures every number of callers on both databases in turn.
pub async fn measure(sizes: &Sizes, table: &mut Table) {
    let is_synced = env::var("TMS_TEST_POSTGRES_FSYNC").is_ok_and(|value| value == "on");
    assert!(is_synced, "TMS_TEST_POSTGRES_FSYNC=on must be set, or PostgreSQL does not sync");
    let (time, rounds) = sizes.acquire;
    say(&format!("acquire: {rounds} rounds of {time:?} for each number of callers"));
    let mut servers = Vec::new();
    for (name, database) in DATABASES {
        servers.push((name, start(database).await));
    }
    let mut syncs = Vec::new();
    let mut measured = vec![Vec::new(); servers.len() * CALLERS.len()];
    for _ in 0..rounds {
        syncs.push(disk::syncs_per_second(&env::temp_dir(), time.min(Duration::from_secs(1))));
        let cases = servers.iter().flat_map(|server| CALLERS.map(|callers| (server, callers)));
        for (((name, (_, server)), callers), results) in cases.zip(&mut measured) {
            let rate = rate(server, callers, time).await;
            say(&format!("{name}, {callers} callers: {rate}"));
            results.push(rate);
        }
    }
    let syncs = median(syncs);
    let cases = DATABASES.iter().flat_map(|(name, _)| CALLERS.map(|callers| (name, callers)));
    for ((name, callers), rates) in cases.zip(measured) {
        let per_second = median(rates.iter().map(|rate| rate.per_second));
        table.add(
            &format!("Acquire, {name}, {callers} callers"),
            &format!("{per_second:.0} /s"),
            &format!("disk: {syncs:.0} fdatasync/s"),
            &format!(
                "{:.2} times; half of them within {:.1} ms",
                per_second / syncs,
                median(rates.iter().map(|rate| rate.median_ms))
            ),
        );
    }
}

async fn start(database: Database) -> (World, Process) {
    let mut world = World::new(database, Target::Manifests).await.expect("the database runs");
    let kubeconfig = kubeconfig_of_nothing(world.folder.path());
    world.values = format!("{VALUES}  cluster: {{kind: kubernetes, kubeconfig: {}}}\n", kubeconfig.display());
    let server = Process::start(&world).await;
    (world, server)
}

/// What a number of callers got.
#[derive(Clone)]
struct Rate {
    per_second: f64,
    median_ms: f64,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} /s, half of them within {:.1} ms", self.per_second, self.median_ms)
    }
}

async fn rate(server: &Process, callers: usize, time: Duration) -> Rate {
    let mut clients = Vec::new();
    for _ in 0..callers {
        clients.push(server.leases().await);
    }
    let started = stopwatch();
    let calls = clients.into_iter().map(|mut client| {
        tokio::spawn(async move {
            let mut latencies = Vec::new();
            while started.elapsed() < time {
                let called = stopwatch();
                acquire(&mut client, autoscaled(1, 4), false).await.expect("a lease is granted");
                latencies.push(called.elapsed().as_secs_f64() * 1000.0);
            }
            latencies
        })
    });
    let latencies: Vec<f64> =
        join_all(calls).await.into_iter().flat_map(|calls| calls.expect("it ends")).collect();
    let per_second = latencies.len() as f64 / started.elapsed().as_secs_f64();
    Rate { per_second, median_ms: median(latencies) }
}
