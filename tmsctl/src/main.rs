//! `tmsctl`, the command line of TMS: reads the arguments, runs one command, and ends with a code that tells scripts
//! how it went.

mod arguments;
mod clock;
mod commands;
mod connection;
mod failure;
mod follow;
mod kubernetes;
mod output;
mod progress;
mod targets;
mod text;
mod view;
mod words;

#[cfg(test)]
mod testing;

use std::process::ExitCode;

use clap::Parser;

use crate::commands::CommandLine;
use crate::failure::Failure;

fn main() -> ExitCode {
    rustls::crypto::ring::default_provider()
        .install_default()
        .expect("no other provider is installed before the first line of main");
    match CommandLine::try_parse() {
        Ok(command_line) => end(run(command_line)),
        Err(error) => misread(&error),
    }
}

fn run(command_line: CommandLine) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::local(format!("the runtime does not start: {error}")))?
        .block_on(commands::run(command_line))
}

fn end(result: Result<(), Failure>) -> ExitCode {
    let Err(failure) = result else { return ExitCode::SUCCESS };
    output::say(&failure.report());
    ExitCode::from(failure.exit_code())
}

/// Prints what clap has to say: help and version as they are, errors with the prefix that every error here has.
fn misread(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        return end(output::print(&error.render().ansi().to_string()));
    }
    output::say(&error.render().ansi().to_string().replacen("error:", "fatal:", 1));
    ExitCode::from(failure::USAGE)
}
