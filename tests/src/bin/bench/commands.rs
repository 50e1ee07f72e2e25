//! `tmsctl lease status` as a whole process, beside `kubectl get deployment` on the same lease.

use std::process::{Command, Stdio};

use tms_server::clock::stopwatch;
use tms_tests::cluster::Cluster;
use tms_tests::server::{Database, Target, World, autoscaled};

use crate::process::{Process, acquire};
use crate::table::Table;
use crate::{Sizes, median, programs, say};

/// Measures both in turn.
pub async fn measure(cluster: &'static Cluster, sizes: &Sizes, table: &mut Table) {
    say(&format!("commands: {} runs of each", sizes.commands));
    let world = World::new(Database::Sqlite, Target::Kubernetes(cluster)).await.expect("the cluster runs");
    let server = Process::start(&world).await;
    let id = acquire(&mut server.leases().await, autoscaled(1, 4), true).await.expect("a lease is granted");

    let mut status = Command::new(programs().join("tmsctl"));
    status.args(["lease", "status", &id, "--target", &server.url]);
    let mut get = Command::new(tms_tests::tool("kubectl").expect("the cluster was built with it"));
    get.args(["get", "deployment", &format!("tms-{id}"), "--namespace", &world.namespace]);
    // Its cache of what the cluster serves is warm from the second run on.
    get.env("KUBECONFIG", cluster.kubeconfig("admin")).env("HOME", world.folder.path());
    for command in [&mut status, &mut get] {
        time(command);
    }
    let runs: Vec<_> = (0..sizes.commands).map(|_| (time(&mut status), time(&mut get))).collect();
    let (ours, theirs) = (median(runs.iter().map(|run| run.0)), median(runs.iter().map(|run| run.1)));
    table.add(
        "tmsctl lease status",
        &format!("{ours:.1} ms"),
        &format!("kubectl get deployment: {theirs:.1} ms"),
        &format!("{:.2} times", ours / theirs),
    );
    server.stop().await;
    cluster
        .kubectl(&["delete", "namespace", &world.namespace, "--wait=false"])
        .expect("a namespace can be deleted");
}

/// Returns how many milliseconds a command takes from its start to its end.
fn time(command: &mut Command) -> f64 {
    let started = stopwatch();
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    let milliseconds = started.elapsed().as_secs_f64() * 1000.0;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    milliseconds
}
