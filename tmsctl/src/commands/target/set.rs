//! `tmsctl target set NAME`.

use crate::failure::Failure;
use crate::output;
use crate::targets::{self, Targets};

/// Choose the server that is used where none is named
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Name of a saved target
    name: String,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let path = targets::path()?;
    let mut targets = Targets::load(&path)?;
    let url = targets.get(&arguments.name)?.url.clone();
    targets.default = Some(arguments.name.clone());
    targets.save(&path)?;
    output::say(&format!("Target {} ({url}) is the default\n", arguments.name));
    Ok(())
}
