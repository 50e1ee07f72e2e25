//! Scenarios of TMS over real parts. What several test files share is here.

pub mod audit;
pub mod cluster;
pub mod http;
pub mod kubelet;
pub mod load;
pub mod models;
pub mod node;
pub mod pipeline;
pub mod pod;
pub mod postgres;
pub mod process;
pub mod random;
pub mod samples;
pub mod server;
pub mod site;
pub mod triton;
pub mod wait;

use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Says that the calling test is skipped and why, and counts it in the file that `TMS_TEST_SKIPS` names.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let line = format!("{}: {reason}\n", thread.name().unwrap_or("unnamed test"));
    eprint!("SKIPPED: {line}");
    if let Some(path) = env::var_os("TMS_TEST_SKIPS") {
        let mut file =
            OpenOptions::new().append(true).create(true).open(path).expect("TMS_TEST_SKIPS names a file");
        file.write_all(line.as_bytes()).expect("the file of TMS_TEST_SKIPS takes a line");
    }
}

/// Returns a program that tests run: from the folder `TMS_TEST_BIN`, from the `PATH`, or from what
/// `tests/cluster/cluster build` left in its cache.
pub fn tool(name: &str) -> Option<PathBuf> {
    let given = env::var_os("TMS_TEST_BIN").map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = given.into_iter().chain(env::split_paths(&path)).chain(built_parts());
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}

fn built_parts() -> Vec<PathBuf> {
    let under =
        |variable: &str, rest: &str| env::var_os(variable).map(|folder| Path::new(&folder).join(rest));
    let cache = under("TMS_TEST_CACHE", "")
        .or_else(|| under("XDG_CACHE_HOME", "tms-test"))
        .or_else(|| under("HOME", ".cache/tms-test"));
    let parts = cache.and_then(|cache| fs::read_dir(cache.join("parts")).ok());
    let mut folders: Vec<_> = parts.into_iter().flatten().flatten().map(|part| part.path()).collect();
    folders.sort_by(|one, other| other.cmp(one));
    folders
}
