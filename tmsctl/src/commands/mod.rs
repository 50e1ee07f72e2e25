//! The commands, one file each, and the options that all of them share.

mod completions;
mod doctor;
mod lease;
mod server;
mod target;
mod version;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::connection::Connection;
use crate::failure::Failure;
use crate::output::Form;
use crate::targets::{self, Target, Targets};

/// Lease Triton Inference Servers from TMS
#[derive(Debug, Parser)]
#[command(
    name = "tmsctl",
    version,
    after_help = "\
Begin with:
  tmsctl target add lab https://tms.example.com:30345
  tmsctl lease create -m name=resnet50,uri=https://models.example.com/resnet50.tar.gz --lifetime 2h
  tmsctl lease list

Exit codes:
  0    done
  1    refused, by the server or by this machine
  2    the command line makes no sense
  3    the server cannot be reached
  4    the lease failed, or was not ready within --timeout
  5    tmsctl doctor could not look at everything, and found nothing broken
  130  interrupted with Ctrl-C

Environment:
  TMS_TARGET       the target, in place of --target
  TMS_CA           the authority of the server, in place of --ca
  TMS_CERTIFICATE  your certificate, in place of --certificate
  TMS_KEY          your private key, in place of --key
  TMSCTL_CONFIG    the file that holds the saved targets
  NO_COLOR         no colour, also on a terminal"
)]
pub struct CommandLine {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(subcommand)]
    Lease(lease::Command),
    #[command(subcommand)]
    Target(target::Command),
    #[command(subcommand)]
    Server(server::Command),
    Doctor(doctor::Arguments),
    Version(version::Arguments),
    Completions(completions::Arguments),
}

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Server to talk to: a URL that begins with http:// or https://, or the name of a saved target
    #[arg(short, long, global = true, value_name = "URL|NAME", env = "TMS_TARGET", hide_env = true)]
    target: Option<String>,

    /// PEM file of the authority that signed the server's certificate [default: those of the system]
    #[arg(long, global = true, value_name = "FILE", env = "TMS_CA", hide_env = true)]
    ca: Option<PathBuf>,

    /// PEM file of your certificate
    #[arg(long, global = true, value_name = "FILE", env = "TMS_CERTIFICATE", hide_env = true)]
    certificate: Option<PathBuf>,

    /// PEM file of the private key of your certificate
    #[arg(long, global = true, value_name = "FILE", env = "TMS_KEY", hide_env = true)]
    key: Option<PathBuf>,

    /// Form of the data on standard output [default: table]
    #[arg(short, long, global = true, value_enum, value_name = "FORM", hide_possible_values = false)]
    output: Option<OutputOption>,

    /// Plain output for shell scripts: fields separated by tabs, no headers, no colour
    #[arg(short = 'z', long, global = true)]
    porcelain: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OutputOption {
    Table,
    Json,
    Yaml,
}

impl Global {
    /// Returns the form of the output.
    pub fn form(&self) -> Result<Form, Failure> {
        match (self.output, self.porcelain) {
            (Some(_), true) => {
                Err(Failure::usage("--output and --porcelain exclude each other")
                    .hint("leave one of them out"))
            }
            (None, true) => Ok(Form::Porcelain),
            (None | Some(OutputOption::Table), false) => Ok(Form::Table),
            (Some(OutputOption::Json), false) => Ok(Form::Json),
            (Some(OutputOption::Yaml), false) => Ok(Form::Yaml),
        }
    }

    /// Connects to the target.
    pub async fn connect(&self) -> Result<Connection, Failure> {
        Connection::open(&self.resolve(&load_targets()?)?).await
    }

    /// Returns whether a target is named or saved as the default.
    pub fn has_target(&self) -> Result<bool, Failure> {
        Ok(self.target().is_some() || load_targets()?.default.is_some())
    }

    /// Returns the target that is meant, with the files that the command line names.
    fn resolve(&self, targets: &Targets) -> Result<Target, Failure> {
        let saved = targets.resolve(self.target())?;
        Ok(Target {
            url: saved.url,
            ca: self.ca.clone().or(saved.ca),
            certificate: self.certificate.clone().or(saved.certificate),
            key: self.key.clone().or(saved.key),
        })
    }

    fn target(&self) -> Option<&str> {
        self.target.as_deref().filter(|target| !target.is_empty())
    }
}

/// Runs the command.
pub async fn run(command_line: CommandLine) -> Result<(), Failure> {
    let CommandLine { global, command } = command_line;
    match command {
        Command::Lease(command) => lease::run(&global, command).await,
        Command::Target(command) => target::run(&global, command),
        Command::Server(command) => server::run(&global, command).await,
        Command::Doctor(arguments) => doctor::run(&global, arguments).await,
        Command::Version(_) => version::run(&global).await,
        Command::Completions(arguments) => completions::run(&arguments),
    }
}

fn load_targets() -> Result<Targets, Failure> {
    Targets::load(&targets::path()?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (line, part) in [
            ("lease create", "--model"),
            ("lease create -m name=a,uri=b --replicas 2 --enable-autoscaling", "--enable-autoscaling"),
            ("lease create -m name=a", "`uri=` is missing"),
            ("lease create -m name=a,uri=b --lifetime 90", "the unit is missing"),
            ("lease release", "<LEASE>"),
            ("lease list --state sleepy", "asleep"),
            ("target add lab", "<URL>"),
        ] {
            let error = CommandLine::try_parse_from(format!("tmsctl {line}").split(' ')).unwrap_err();
            assert!(error.use_stderr() && error.to_string().contains(part), "{line}: {error}");
        }
    }
}
