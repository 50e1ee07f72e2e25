//! `tmsctl target list`.

use std::path::PathBuf;

use serde::Serialize;

use super::Global;
use crate::commands::load_targets;
use crate::failure::Failure;
use crate::targets::Targets;
use crate::{output, text};

/// List the saved servers
#[derive(Debug, clap::Args)]
#[command(after_help = "With -z: name, URL, and `default` for the default target.")]
pub struct Arguments {}

#[derive(Serialize)]
struct TargetList {
    targets: Vec<SavedTarget>,
}

#[derive(Serialize)]
struct SavedTarget {
    name: String,
    url: String,
    default: bool,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

pub fn run(global: &Global) -> Result<(), Failure> {
    let form = global.form()?;
    let list = list(load_targets()?);
    if list.targets.is_empty() {
        output::say("There are no targets; save one with `tmsctl target add NAME URL`\n");
    }
    form.print(&list, || table(&list), || lines(&list))
}

fn list(targets: Targets) -> TargetList {
    let Targets { default, targets } = targets;
    let saved = targets.into_iter().map(|(name, target)| SavedTarget {
        default: default.as_ref() == Some(&name),
        name,
        url: target.url,
        ca: target.ca,
        certificate: target.certificate,
        key: target.key,
    });
    TargetList { targets: saved.collect() }
}

fn table(list: &TargetList) -> String {
    if list.targets.is_empty() {
        return String::new();
    }
    let rows =
        list.targets.iter().map(|target| [target.name.clone(), default_mark(target), target.url.clone()]);
    text::table(&["NAME", "DEFAULT", "URL"], rows, output::width())
}

fn lines(list: &TargetList) -> String {
    let fields = |target: &SavedTarget| [target.name.clone(), target.url.clone(), default_mark(target)];
    list.targets.iter().map(|target| text::line(&fields(target))).collect()
}

fn default_mark(target: &SavedTarget) -> String {
    if target.default { "default".to_owned() } else { String::new() }
}
