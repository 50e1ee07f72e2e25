//! The text of an error with its causes, for logs and for messages that have to stand alone.

use std::error::Error;
use std::fmt::Write;

/// Returns an error and all its causes in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Some libraries repeat their cause in their own message, and not always at its end.
        if !text.contains(&cause_text) {
            // Writing to a String cannot fail.
            let _ = write!(text, ": {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("cannot connect")]
        Plain(#[source] std::io::Error),
        #[error("failed ({0}) for good")]
        Repeats(#[source] std::io::Error),
    }

    #[test]
    fn each_cause_is_said_once() {
        let refused = || std::io::Error::other("refused");
        assert_eq!(chain(&Outer::Plain(refused())), "cannot connect: refused");
        assert_eq!(chain(&Outer::Repeats(refused())), "failed (refused) for good");
    }
}
