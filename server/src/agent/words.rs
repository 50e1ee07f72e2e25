//! Triton's errors in plain words: one line that says what to change, without the wrapping.

use serde::Deserialize;

use super::fault::cut;

/// What Triton says of a model whose configuration it could not read; the reason is only in its log.
pub const NOT_POLLED: &str = "failed to poll from model repository";

/// Most bytes of a message.
const LONGEST: usize = 600;

/// How Python begins to say where an error arose.
const TRACEBACK: &str = "Traceback (most recent call last)";

/// What errors say, in lower case, that a busy node or a full card causes.
///
/// Such a load is tried again for as long as the lease may take to load, however often it fails in the same words. A card may
/// be shared, and who held its memory may be a Triton that drains for minutes: no number of failures, and no pause between
/// them that is much shorter, tells that from a model which never fits. The lease says at once that it is tried again, how
/// often that was in vain, and until when, so that nobody has to wait for it.
const PASSING: [&str; 6] =
    ["timed out occur", "stub process", "out of memory", "out_of_memory", "shared memory", "no space left"];

/// The pod itself, in which another container may be starting.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// How Triton names the kinds of its errors.
const KINDS: [&str; 9] = [
    "Internal",
    "Invalid argument",
    "Unavailable",
    "Not found",
    "Unsupported",
    "Unknown",
    "Already exists",
    "Cancelled",
    "<invalid code>",
];

#[derive(Deserialize)]
struct Body {
    error: String,
}

/// Returns the error in the body of an answer.
pub fn error_of(body: &str) -> String {
    serde_json::from_str(body).map_or_else(|_| body.to_owned(), |body: Body| body.error)
}

/// Returns what an error means for whoever made the model.
pub fn plain(error: &str) -> String {
    if error.contains(NOT_POLLED) {
        return "Triton cannot read the model's config.pbtxt: it is not a valid ModelConfig (the log of the container triton says where)"
            .to_owned();
    }
    let text = unwrapped(error);
    if let Some(backend) = between(text, "unable to find backend library for backend '", "'") {
        return format!(
            "config.pbtxt asks for the backend {backend:?}, which this Triton image does not have: change it, or choose another image"
        );
    }
    if text.contains("at least one version must be available") {
        return "no version directory of the model fits its version_policy".to_owned();
    }
    match reason(text) {
        reason if reason.is_empty() => "Triton gives no reason".to_owned(),
        reason => cut(&reason, LONGEST),
    }
}

/// Returns whether an error is about what the pod lacks at the moment, which the same load may find later.
pub fn may_pass(error: &str) -> bool {
    let text = complaint(unwrapped(error)).to_lowercase();
    let is_local = || LOCAL.iter().any(|host| text.contains(host));
    PASSING.iter().any(|words| text.contains(words))
        || text.split(|c: char| !c.is_alphanumeric()).any(|word| word == "shm")
        || (text.contains("connection refused") && is_local())
}

/// Takes off where in the code an error arose: names of files and lines of code are not what it says.
fn complaint(text: &str) -> String {
    let text = text.split_once("\n\nAt:\n").map_or(text, |(complaint, _)| complaint);
    if !text.contains(TRACEBACK) {
        return text.to_owned();
    }
    text.lines().filter(|line| !line.starts_with(' ')).collect::<Vec<_>>().join("\n")
}

/// Takes off what says only that a load failed.
fn unwrapped(error: &str) -> &str {
    let mut text = error.trim().trim_end_matches(';').trim_end();
    if let Some((_, rest)) =
        text.split_once("load failed for model '").and_then(|(_, rest)| rest.split_once("': "))
    {
        text = rest;
    }
    if let Some((_, rest)) = text.split_once(" is at UNAVAILABLE state: ") {
        text = rest;
    }
    let kind = KINDS.iter().find_map(|kind| text.strip_prefix(kind)?.strip_prefix(": "));
    kind.unwrap_or(text)
}

/// Returns the reason in an error of several lines: of a Python traceback its last line, of the Python backend's own form
/// its first, with the place.
fn reason(text: &str) -> String {
    if let Some((reason, places)) = text.split_once("\n\nAt:\n") {
        let place = places.lines().next().and_then(place).map(|place| format!(" ({place})"));
        return format!("{}{}", one_line(reason), place.unwrap_or_default());
    }
    if text.contains(TRACEBACK) {
        let last = text.lines().map(str::trim).rfind(|line| !line.is_empty() && *line != ";");
        return last.unwrap_or(text).to_owned();
    }
    one_line(text)
}

/// Reads `  /models/a/1/model.py(3): initialize`.
fn place(line: &str) -> Option<String> {
    let (path, rest) = line.trim().rsplit_once('(')?;
    let (number, _) = rest.split_once(')')?;
    let path: Vec<_> = path.rsplit('/').take(2).collect();
    let path: Vec<_> = path.into_iter().rev().collect();
    Some(format!("{}, line {number}", path.join("/")))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    Some(text.split_once(before)?.1.split_once(after)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Errors of a real Triton 2.51.
    #[test]
    fn the_errors_of_triton_are_said_in_plain_words() {
        let table = [
            r#"{"error":"load failed for model 'bad': version 1 is at UNAVAILABLE state: Internal: ModuleNotFoundError: No module named 'nothere'\n\nAt:\n  /models/bad/1/model.py(1): <module>\n  <frozen importlib._bootstrap>(241): _call_with_frames_removed\n;\n"}"#,
            r#"{"error":"load failed for model 'r': version 1 is at UNAVAILABLE state: Internal: ValueError: weights are missing: a.bin\n\nAt:\n  /models/r/1/model.py(3): initialize\n;\n"}"#,
            r#"{"error":"load failed for model 'n': version 1 is at UNAVAILABLE state: Invalid argument: unable to find backend library for backend 'nothere', try specifying runtime on the model configuration.;\n"}"#,
            r#"{"error":"failed to load 'badcfg', failed to poll from model repository"}"#,
            r#"{"error":"load failed for model 'v': at least one version must be available under the version policy of model 'v'\n"}"#,
            r#"{"error":"load failed for model 't': version 2 is at UNAVAILABLE state: Internal: Traceback (most recent call last):\n  File \"/models/t/2/model.py\", line 4, in initialize\nKeyError: 'weights'\n;\n"}"#,
            r#"{"error":"load failed for model 'e': ensemble 'e' depends on 'a' which has no loaded version"}"#,
            "not JSON",
            "",
        ];
        insta::assert_snapshot!(table.map(|body| plain(&error_of(body))).join("\n"), @r#"
        ModuleNotFoundError: No module named 'nothere' (1/model.py, line 1)
        ValueError: weights are missing: a.bin (1/model.py, line 3)
        config.pbtxt asks for the backend "nothere", which this Triton image does not have: change it, or choose another image
        Triton cannot read the model's config.pbtxt: it is not a valid ModelConfig (the log of the container triton says where)
        no version directory of the model fits its version_policy
        KeyError: 'weights'
        ensemble 'e' depends on 'a' which has no loaded version
        not JSON
        Triton gives no reason
        "#);
        assert!(plain(&"x".repeat(10_000)).len() <= LONGEST);
    }

    #[test]
    fn only_what_a_pod_lacks_for_a_while_may_pass() {
        let of = |error: &str| {
            format!("load failed for model 'shm': version 1 is at UNAVAILABLE state: Internal: {error};\n")
        };
        let passing = [
            "Timed out occurred while waiting for the stub process. Failed to initialize",
            "Stub process 'a_0_0' is not healthy.",
            "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n\nAt:\n  /models/a/1/model.py(3): initialize\n",
            "Traceback (most recent call last):\n  File \"/models/a/1/model.py\", line 4, in initialize\nRuntimeError: CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA",
            "CUDA_ERROR_OUT_OF_MEMORY",
            "Failed to initialize Python stub: unable to open shared memory object",
            "No space left on device: '/dev/x'",
            "OSError: /dev/shm is full",
            "HTTPConnectionPool(host='localhost', port=9000): [Errno 111] Connection refused",
        ];
        for error in passing {
            assert!(may_pass(&of(error)), "{error}");
        }
        let lasting = [
            "ValueError: weights are missing",
            "ConnectionError: models.example.com:443: Connection refused",
            "ValueError: marshmallow 3 is needed\n\nAt:\n  /models/shm/1/model.py(3): initialize\n",
            "Traceback (most recent call last):\n  File \"/models/shm/1/model.py\", line 4, in initialize\n    shm = settings['x']\nKeyError: 'x'",
            "unable to find backend library for backend 'nothere'",
            "",
        ];
        for error in lasting {
            assert!(!may_pass(&of(error)), "{error}");
        }
    }
}
