//! What is said on standard error while a lease comes up: a spinner on a terminal, a line for each change elsewhere.

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::view::{Lease, ModelStatus};
use crate::{output, text};

const TICK: Duration = Duration::from_millis(100);

/// Progress of one lease.
pub enum Progress {
    /// Nothing is said.
    Quiet,
    /// A line for each change.
    Lines(Seen),
    /// A line for the lease that turns, and one for each model.
    Spinner(Spinner),
}

/// What has been said already.
#[derive(Default)]
pub struct Seen {
    lease: (String, String),
    models: HashMap<String, ModelStatus>,
}

/// The lines on a terminal.
pub struct Spinner {
    lines: MultiProgress,
    lease: ProgressBar,
    models: HashMap<String, ProgressBar>,
}

impl Progress {
    /// Returns the progress that suits standard error.
    pub fn new(is_quiet: bool) -> Self {
        if is_quiet {
            Self::Quiet
        } else if io::stderr().is_terminal() {
            Self::Spinner(Spinner::new())
        } else {
            Self::Lines(Seen::default())
        }
    }

    /// Says how the lease is now.
    pub fn show(&mut self, lease: &Lease) {
        match self {
            Self::Quiet => {}
            Self::Lines(seen) => output::say(&seen.changes(lease)),
            Self::Spinner(spinner) => spinner.show(lease),
        }
    }

    /// Says something besides.
    pub fn note(&self, text: &str) {
        match self {
            Self::Quiet | Self::Lines(_) => output::warn(text),
            Self::Spinner(spinner) => spinner.lines.suspend(|| output::warn(text)),
        }
    }

    /// Removes the lines that move, so that the end is written on a clean terminal.
    pub fn clear(&mut self) {
        if let Self::Spinner(spinner) = self {
            spinner.clear();
        }
    }
}

impl Seen {
    /// Returns a line for each change since the last call.
    fn changes(&mut self, lease: &Lease) -> String {
        let mut lines = String::new();
        let report = (lease.state.to_owned(), lease.message.clone());
        if self.lease != report {
            // The lines of the models say it, in their own places.
            let is_said = lease
                .models
                .iter()
                .any(|model| !model.message.is_empty() && lease.message.contains(&model.message));
            let message = if is_said { "" } else { &lease.message };
            lines += &format!("{}{}\n", lease.state, after_colon(message));
            self.lease = report;
        }
        for model in &lease.models {
            if self.models.get(&model.name) != Some(model) {
                lines += &format!(
                    "model {} {}{}\n",
                    model.name,
                    model.state,
                    after_colon(&text::model_words(model))
                );
                self.models.insert(model.name.clone(), model.clone());
            }
        }
        lines
    }
}

impl Spinner {
    fn new() -> Self {
        let lines = MultiProgress::new();
        let style = ProgressStyle::with_template("{spinner:.cyan} {msg} {elapsed:.dim}")
            .expect("the template is written here and is right");
        let lease = lines.add(ProgressBar::new_spinner().with_style(style));
        lease.enable_steady_tick(TICK);
        Self { lines, lease, models: HashMap::new() }
    }

    fn show(&mut self, lease: &Lease) {
        self.lease.set_message(format!("{}{}", text::state(lease.state), after_colon(&lease.message)));
        for model in &lease.models {
            let line = self.models.entry(model.name.clone()).or_insert_with(|| {
                let style = ProgressStyle::with_template("  {msg}")
                    .expect("the template is written here and is right");
                self.lines.add(ProgressBar::new_spinner().with_style(style))
            });
            let state = text::state(model.state);
            line.set_message(format!("{} {state}{}", model.name, after_colon(&text::model_words(model))));
        }
    }

    fn clear(&mut self) {
        for line in self.models.values() {
            line.finish_and_clear();
        }
        self.lease.finish_and_clear();
    }
}

fn after_colon(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn only_changes_are_said() {
        let mut seen = Seen::default();
        let mut lease = testing::lease_view();
        lease.state = "LOADING";
        lease.models[0].state = "DOWNLOADING";
        let mut said = seen.changes(&lease);
        said += "--\n";
        said += &seen.changes(&lease);
        lease.models[0].downloaded_bytes = Some(3 << 29);
        lease.models[0].total_bytes = Some(6 << 30);
        said += &seen.changes(&lease);
        lease.models[0].message = "no answer within 10s; trying again".into();
        said += &seen.changes(&lease);
        (lease.models[0].downloaded_bytes, lease.models[0].total_bytes) = (None, None);
        lease.models[0].state = "FAILED";
        lease.models[0].message = "404 Not Found".into();
        said += &seen.changes(&lease);
        lease.state = "INVALID";
        lease.message = "a model cannot be loaded".into();
        said += &seen.changes(&lease);
        lease.message = "models cannot be loaded: resnet50: 404 Not Found".into();
        said += &seen.changes(&lease);
        insta::assert_snapshot!(said, @r"
        LOADING
        model resnet50 DOWNLOADING
        model ensemble READY
        --
        model resnet50 DOWNLOADING: 1.5 GiB of 6.0 GiB (25 %)
        model resnet50 DOWNLOADING: 1.5 GiB of 6.0 GiB (25 %): no answer within 10s; trying again
        model resnet50 FAILED: 404 Not Found
        INVALID: a model cannot be loaded
        INVALID
        ");
    }
}
