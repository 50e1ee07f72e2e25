//! `tmsctl target add NAME URL`.

use std::path::{Path, PathBuf};

use super::Global;
use crate::failure::Failure;
use crate::output;
use crate::targets::{self, Target, Targets};

/// Save a server under a name, or change a saved one
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The first target that is saved becomes the default. --ca, --certificate and --key are saved with the target.

Examples:
  tmsctl target add lab http://localhost:30345
  tmsctl target add prod https://tms.example.com --ca ca.pem --certificate me.pem --key me.key \\
      --default")]
pub struct Arguments {
    /// Name to save it under
    #[arg(value_parser = name)]
    name: String,

    /// Where the server is: http:// or https://, host and port
    #[arg(value_parser = targets::parse_url)]
    url: String,

    /// Use this target where none is named
    #[arg(long)]
    default: bool,
}

pub fn run(global: &Global, arguments: Arguments) -> Result<(), Failure> {
    let Arguments { name, url, default } = arguments;
    let target = Target {
        ca: global.ca.as_deref().map(absolute).transpose()?,
        certificate: global.certificate.as_deref().map(absolute).transpose()?,
        key: global.key.as_deref().map(absolute).transpose()?,
        url,
    };
    if target.certificate.is_some() != target.key.is_some() {
        return Err(Failure::usage("a certificate and its key belong together")
            .hint("give both --certificate and --key"));
    }
    if targets::is_exposed(&target.url) {
        output::warn(&format!(
            "{} is not encrypted: others on the way can read and change leases",
            target.url
        ));
    }
    let path = targets::path()?;
    let mut targets = Targets::load(&path)?;
    let becomes_default = default || targets.targets.is_empty();
    if becomes_default {
        targets.default = Some(name.clone());
    }
    let verb = match targets.targets.insert(name.clone(), target) {
        Some(_) => "changed",
        None => "saved",
    };
    targets.save(&path)?;
    let role = if becomes_default { ", and is the default" } else { "" };
    output::say(&format!("Target {name} is {verb}{role}\n"));
    Ok(())
}

fn name(text: &str) -> Result<String, String> {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => Ok(text.to_owned()),
        false => Err("a name consists of letters, digits, dots, dashes and underscores".to_owned()),
    }
}

/// Returns the path of a file that is there, from whatever folder it shall be read later.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    let unreadable = |error| Failure::usage(format!("{} cannot be read: {error}", path.display()));
    std::fs::metadata(path).map_err(unreadable)?;
    // Links stay, since those who renew certificates often move them.
    std::path::absolute(path).map_err(unreadable)
}
