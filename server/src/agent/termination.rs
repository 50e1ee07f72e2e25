//! The message with which the agent ends when a model cannot be had: Kubernetes puts it into the pod's status, where
//! tms-server reads it.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use super::fault::{Failure, cut};

/// Most bytes that Kubernetes takes.
const LONGEST: usize = 4096;

#[derive(Serialize)]
struct Message<'a> {
    failed: &'a [Failure],
}

/// Writes the message.
pub fn write(path: &Path, failures: &[Failure]) -> io::Result<()> {
    fs::write(path, message(failures))
}

/// Returns the message: with shorter reasons, and at last with fewer models, where it would be too long.
fn message(failures: &[Failure]) -> String {
    let mut room = LONGEST;
    let mut kept = failures.to_vec();
    loop {
        let text = serde_json::to_string(&Message { failed: &kept }).expect("names and messages are JSON");
        if text.len() <= LONGEST {
            return text;
        }
        if room > 64 {
            room /= 2;
            for (failure, whole) in kept.iter_mut().zip(failures) {
                failure.message = cut(&whole.message, room);
            }
        } else {
            kept.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(count: usize, length: usize) -> Vec<Failure> {
        let failure = |n| Failure { name: format!("model-{n}"), message: "\"ä".repeat(length) };
        (0..count).map(failure).collect()
    }

    #[test]
    fn the_message_always_fits() {
        let short = message(&failures(1, 1));
        assert_eq!(short, r#"{"failed":[{"name":"model-0","message":"\"ä"}]}"#);
        for (count, length) in [(1, 5000), (3, 700), (20, 400), (500, 10)] {
            let text = message(&failures(count, length));
            let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(text.len() <= LONGEST && parsed["failed"][0]["name"] == "model-0", "{count} {length}");
            assert!(parsed["failed"][0]["message"].as_str().unwrap().len() > 25);
        }
    }
}
