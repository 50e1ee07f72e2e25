//! `tmsctl target remove NAME`.

use crate::failure::Failure;
use crate::output;
use crate::targets::{self, Targets};

/// Forget a saved server; its leases stay
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Name of the target
    name: String,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let path = targets::path()?;
    let mut targets = Targets::load(&path)?;
    targets.get(&arguments.name)?;
    targets.targets.remove(&arguments.name);
    let was_default = targets.default.take_if(|default| *default == arguments.name).is_some();
    targets.save(&path)?;
    output::say(&format!("Target {} is removed\n", arguments.name));
    if was_default {
        output::warn("it was the default; choose another with `tmsctl target set NAME`");
    }
    Ok(())
}
