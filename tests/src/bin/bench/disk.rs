//! The machine: how often its disk syncs, and what else a reader of the figures wants to know.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use tms_server::clock::stopwatch;

/// As much as a database writes for a small change.
const BLOCK: [u8; 4096] = [b'x'; 4096];

/// Returns how often a second one thread can append a block to a file and have it synced.
pub fn syncs_per_second(folder: &Path, time: Duration) -> f64 {
    let mut file = tempfile::tempfile_in(folder).expect("a file can be made");
    let started = stopwatch();
    let mut syncs = 0;
    while started.elapsed() < time {
        file.write_all(&BLOCK).expect("the disk has room");
        file.sync_data().expect("the disk can be synced");
        syncs += 1;
    }
    f64::from(syncs) / started.elapsed().as_secs_f64()
}

/// Returns a line about the machine and the disk of `folder`.
pub fn machine(folder: &Path) -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = first_number(read("/proc/meminfo").lines().next().unwrap_or_default()) / 1_048_576;
    let kernel = read("/proc/sys/kernel/osrelease");
    let syncs = syncs_per_second(folder, Duration::from_secs(1));
    format!("{cores} cores, {memory} GiB, Linux {}, {syncs:.0} fdatasync/s", kernel.trim())
}

/// Returns the number in a line of the proc file system.
pub fn first_number(line: &str) -> u64 {
    line.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or_default()
}
