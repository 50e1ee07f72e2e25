//! Collects what the rules find, so that a request meets every fault at once, and words the parts that all messages share.

use std::fmt;

use super::{Accepted, Violation};

/// Longest piece of a request that a message or a field path repeats.
const LONGEST_QUOTE: usize = 80;

/// Faults and warnings found so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    violations: Vec<Violation>,
    warnings: Vec<String>,
}

impl Findings {
    /// Refuses a part of the request that no configuration allows.
    pub fn refuse(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.violations.push(Violation {
            field: field.into(),
            message: message.into(),
            key: None,
            is_precondition: false,
        });
    }

    /// Refuses a part of the request that `key` of values.yaml does not allow.
    pub fn refuse_by(
        &mut self,
        key: impl Into<String>,
        field: impl Into<String>,
        message: impl fmt::Display,
    ) {
        let key = key.into();
        self.violations.push(Violation {
            field: field.into(),
            message: format!("{message} ({key})"),
            key: Some(key),
            is_precondition: false,
        });
    }

    /// Refuses what no request can have before the administrator changes `key` of values.yaml.
    pub fn refuse_until(
        &mut self,
        key: impl Into<String>,
        field: impl Into<String>,
        message: impl fmt::Display,
    ) {
        self.refuse_by(key, field, message);
        if let Some(violation) = self.violations.last_mut() {
            violation.is_precondition = true;
        }
    }

    /// Tells something worth knowing that is no fault.
    pub fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// Returns `granted` if nothing was refused.
    pub fn conclude<T>(self, granted: T) -> Result<Accepted<T>, Vec<Violation>> {
        if self.violations.is_empty() {
            Ok(Accepted { granted, warnings: self.warnings })
        } else {
            Err(self.violations)
        }
    }
}

/// Returns the text in quotation marks, escaped and no longer than a message can bear.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(LONGEST_QUOTE) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}

/// Returns the path of an entry of a map field.
pub(super) fn entry(field: &str, key: &str) -> String {
    format!("{field}[{}]", quoted(key))
}

/// Returns "are" or "is", as a number asks for.
pub(super) fn are(number: u32) -> &'static str {
    if number == 1 { "is" } else { "are" }
}
