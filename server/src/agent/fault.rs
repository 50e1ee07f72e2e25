//! Why a model is not there (yet), and whether trying again can help.

use std::io;
use std::time::Duration;

/// Most characters of a message about a model.
const LONGEST_MESSAGE: usize = 1000;

/// A model is not there. The message is for whoever asked for the lease.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It stays so until somebody changes the model or the lease.
    #[error("{0}")]
    Permanent(String),
    /// It may pass.
    #[error("{message}")]
    Transient {
        /// What went wrong.
        message: String,
        /// Time that the other side asked to be left alone.
        wait: Option<Duration>,
    },
}

impl Fault {
    /// Returns a fault that stays.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self::Permanent(bounded(&message.into()))
    }

    /// Returns a fault that may pass.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::Transient { message: bounded(&message.into()), wait: None }
    }

    /// Returns the fault that an operation on files means; `what` says which, such as `cannot write /models/a`.
    pub fn of_files(what: &str, error: &io::Error) -> Self {
        Self::transient(format!("{what}: {error}"))
    }
}

/// A permanent fault of one model.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Failure {
    /// Name of the model.
    pub name: String,
    /// Why.
    pub message: String,
}

/// Cuts a text to `most` bytes at a character's border, and says so by an ellipsis.
pub fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let room = most.saturating_sub('…'.len_utf8());
    format!("{}…", &text[..text.floor_char_boundary(room)])
}

/// Returns a text that fits on one line of a table: no control characters, bounded.
fn bounded(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    cut(plain.trim(), LONGEST_MESSAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("short", 5), "short");
        assert_eq!(cut("ääääää", 8), "ää…");
        assert_eq!(cut("abc", 2), "…");
    }

    #[test]
    fn a_message_is_one_bounded_line() {
        let Fault::Permanent(message) = Fault::permanent(format!("a\nb\u{1b}[31m{}", "x".repeat(5000)))
        else {
            panic!("it is permanent");
        };
        assert!(message.starts_with("a b [31mx") && message.len() <= LONGEST_MESSAGE, "{message}");
    }
}
