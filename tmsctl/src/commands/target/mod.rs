//! `tmsctl target …`: the saved servers.

mod add;
mod list;
mod remove;
mod set;

use clap::Subcommand;

use super::Global;
use crate::failure::Failure;

/// Save servers under names, and choose the default one
#[derive(Debug, Subcommand)]
#[command(after_help = "\
The targets are kept in a file in your folder for configuration, which only you can read; TMSCTL_CONFIG names another.")]
pub enum Command {
    Add(add::Arguments),
    List(list::Arguments),
    Remove(remove::Arguments),
    Set(set::Arguments),
}

pub fn run(global: &Global, command: Command) -> Result<(), Failure> {
    match command {
        Command::Add(arguments) => add::run(global, arguments),
        Command::List(_) => list::run(global),
        Command::Remove(arguments) => remove::run(&arguments),
        Command::Set(arguments) => set::run(&arguments),
    }
}
