//! Where data and words go: data to standard output in the form that was asked for, words to standard error.

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::failure::Failure;

const WARNING: Style = AnsiColor::Yellow.on_default().bold();

/// Form of the data on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Table,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
    /// For shell scripts: fields separated by tabs, without headers and colour.
    Porcelain,
}

impl Form {
    /// Prints data in this form, given how people and shell scripts read it.
    pub fn print(
        self,
        data: &impl Serialize,
        table: impl FnOnce() -> String,
        porcelain: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        print(&match self {
            Self::Table => table(),
            Self::Json => json(data)?,
            Self::Yaml => yaml(data)?,
            Self::Porcelain => porcelain(),
        })
    }
}

/// Returns data as a JSON document.
pub fn json(data: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(data)
        .map(|text| text + "\n")
        .map_err(|error| Failure::local(format!("the answer cannot be written as JSON: {error}")))
}

/// Returns data as JSON on one line.
pub fn json_line(data: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(data)
        .map(|text| text + "\n")
        .map_err(|error| Failure::local(format!("the answer cannot be written as JSON: {error}")))
}

/// Returns data as a YAML document.
pub fn yaml(data: &impl Serialize) -> Result<String, Failure> {
    serde_saphyr::to_string(data)
        .map_err(|error| Failure::local(format!("the answer cannot be written as YAML: {error}")))
}

/// Writes data to standard output at once; colour reaches a terminal only.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = anstream::AutoStream::auto(io::stdout().lock());
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Writes words to standard error; colour reaches a terminal only.
pub fn say(text: &str) {
    // Nobody is left to be told where standard error is closed.
    let _ = anstream::AutoStream::auto(io::stderr().lock()).write_all(text.as_bytes());
}

/// Writes a warning to standard error.
pub fn warn(text: &str) {
    say(&format!("{WARNING}warning:{WARNING:#} {text}\n"));
}

/// Returns the columns of the terminal on standard output, if it is one.
pub fn width() -> Option<u16> {
    if !io::stdout().is_terminal() {
        return None;
    }
    terminal_size::terminal_size().map(|(width, _)| width.0)
}
