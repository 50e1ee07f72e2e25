//! `tmsctl server …`: what a server allows and has found.

mod bounds;
mod info;

use clap::Subcommand;

use super::Global;
use crate::failure::Failure;

/// Show what the server allows, and what it found in its cluster
#[derive(Debug, Subcommand)]
pub enum Command {
    Bounds(bounds::Arguments),
    Info(info::Arguments),
}

pub async fn run(global: &Global, command: Command) -> Result<(), Failure> {
    match command {
        Command::Bounds(_) => bounds::run(global).await,
        Command::Info(_) => info::run(global).await,
    }
}
