//! `tmsctl completions SHELL`.

use clap::CommandFactory;
use clap_complete::Shell;

use super::CommandLine;
use crate::failure::Failure;
use crate::output;

/// Print the completions of a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tmsctl completions bash > ~/.local/share/bash-completion/completions/tmsctl
  tmsctl completions zsh > ~/.zfunc/_tmsctl
  tmsctl completions fish > ~/.config/fish/completions/tmsctl.fish")]
pub struct Arguments {
    /// The shell
    shell: Shell,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut CommandLine::command(), "tmsctl", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}
