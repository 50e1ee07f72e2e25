//! `tms-server check-config`: says everything that is wrong with a configuration, and starts nothing.

use std::io::{self, Write};
use std::path::PathBuf;

use super::finding::{Finding, count};

/// What is to be said about a configuration.
#[derive(Debug)]
pub struct Report {
    faults: Vec<Finding>,
    warnings: Vec<Finding>,
}

/// Reads a configuration as the server would.
pub fn check(files: &[PathBuf], environment: impl Iterator<Item = (String, String)>) -> Report {
    let reading = super::read(files, environment);
    Report { faults: reading.faults, warnings: reading.warnings }
}

impl Report {
    /// Returns the exit code: 0 if a server would start, otherwise 1.
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.faults.is_empty())
    }

    /// Writes the summary to `out` and everything found to `err`.
    pub fn write(&self, out: &mut impl Write, err: &mut impl Write) -> io::Result<()> {
        for fault in &self.faults {
            writeln!(err, "error: {fault}")?;
        }
        for warning in &self.warnings {
            writeln!(err, "warning: {warning}")?;
        }
        err.flush()?;
        writeln!(out, "{}", self.summary())
    }

    fn summary(&self) -> String {
        match (self.faults.len(), self.warnings.len()) {
            (0, 0) => "ok".to_owned(),
            (0, warnings) => format!("ok, with {}", count(warnings, "warning")),
            (faults, 0) => count(faults, "fault"),
            (faults, warnings) => format!("{}, {}", count(faults, "fault"), count(warnings, "warning")),
        }
    }
}
