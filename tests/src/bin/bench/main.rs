//! Measures a server of the release profile, always beside something else in the same run, so that a slow machine slows
//! both. `tests/bench` builds what this needs and starts the cluster.

mod acquire;
mod commands;
mod creation;
mod disk;
#[path = "../../../tests/node/installation.rs"]
#[expect(dead_code, reason = "the tests of the node use the rest")]
mod installation;
mod memory;
#[path = "../../../tests/node/namespace.rs"]
#[expect(dead_code, reason = "the tests of the node use the rest")]
mod namespace;
mod process;
#[path = "../../../tests/node/registration.rs"]
mod registration;
mod scaling;
#[path = "../../../tests/node/site.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "the tests of the node use the rest")]
mod site;
mod table;

use std::env;
use std::path::Path;
use std::time::Duration;

use tms_tests::cluster::Cluster;

use crate::table::Table;

/// What is measured, in the order in which it is.
const SUBJECTS: [&str; 4] = ["creation", "acquire", "memory", "commands"];
/// What is measured alone, on a cluster of its own.
const SCALING: &str = "scaling";

/// How much is measured.
pub struct Sizes {
    /// Leases of one round of creation, and how many rounds.
    creation: (usize, usize),
    /// How long one round of Acquire takes, and how many rounds.
    acquire: (Duration, usize),
    /// Leases that a server holds while its memory is measured.
    held: usize,
    /// Runs of each command.
    commands: usize,
}

const FULL: Sizes =
    Sizes { creation: (200, 5), acquire: (Duration::from_secs(3), 5), held: 1000, commands: 50 };
const QUICK: Sizes =
    Sizes { creation: (50, 1), acquire: (Duration::from_millis(700), 1), held: 100, commands: 10 };

fn main() {
    let subjects: Vec<_> = env::args().skip(1).collect();
    if subjects == [SCALING] {
        return scaling::run();
    }
    if let Some(unknown) = subjects.iter().find(|subject| !SUBJECTS.contains(&subject.as_str())) {
        eprintln!("{unknown:?} is none of {SUBJECTS:?}, and not {SCALING:?} alone");
        std::process::exit(2);
    }
    let Some(cluster) = Cluster::shared() else { std::process::exit(1) };
    // Threads and processes that start from here on are inside the cluster's network.
    cluster.enter();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be made");
    let sizes = if env::var_os("TMS_BENCH_QUICK").is_some_and(|value| value == "1") { QUICK } else { FULL };
    let table = runtime.block_on(measure(cluster, &sizes, &subjects));
    println!("\n{table}");
}

async fn measure(cluster: &'static Cluster, sizes: &Sizes, subjects: &[String]) -> Table {
    let is_wanted = |subject| subjects.is_empty() || subjects.iter().any(|wanted| wanted == subject);
    let mut table = Table::new(&disk::machine(&env::temp_dir()));
    if is_wanted("creation") {
        creation::measure(cluster, sizes, &mut table).await;
    }
    if is_wanted("acquire") {
        acquire::measure(sizes, &mut table).await;
    }
    if is_wanted("memory") {
        memory::measure(cluster, sizes, &mut table).await;
    }
    if is_wanted("commands") {
        commands::measure(cluster, sizes, &mut table).await;
    }
    table
}

/// The cluster of what is measured on real Tritons.
fn cluster() -> Option<&'static Cluster> {
    Cluster::shared_pipeline()
}

/// Returns the value in the middle.
fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Says on the way what was measured just now.
fn say(line: &str) {
    eprintln!("   {line}");
}

/// Returns the folder of the programs to measure: the one of this program.
fn programs() -> &'static Path {
    static FOLDER: std::sync::OnceLock<std::path::PathBuf> = std::sync::OnceLock::new();
    FOLDER.get_or_init(|| {
        let own = env::current_exe().expect("the system knows which program runs");
        own.parent().expect("a program lies in a folder").to_owned()
    })
}
