//! Scenarios of TMS over real parts. What several test files share is here.

pub mod cluster;
pub mod postgres;

use std::fs::OpenOptions;
use std::io::Write;

/// Says that the calling test is skipped and why, and counts it in the file that `TMS_TEST_SKIPS` names.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let line = format!("{}: {reason}\n", thread.name().unwrap_or("unnamed test"));
    eprint!("SKIPPED: {line}");
    if let Some(path) = std::env::var_os("TMS_TEST_SKIPS") {
        let mut file =
            OpenOptions::new().append(true).create(true).open(path).expect("TMS_TEST_SKIPS names a file");
        file.write_all(line.as_bytes()).expect("the file of TMS_TEST_SKIPS takes a line");
    }
}
