//! What makes a directory a model of Triton: a version directory, and a config.pbtxt that does not call it otherwise.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::config_name::{Named, config_name};

/// Name of a model's configuration.
pub const CONFIG: &str = "config.pbtxt";
/// Most bytes of a configuration.
const LARGEST_CONFIG: u64 = 1 << 20;

/// A directory that is not the model that the lease asks for.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// No version directory.
    #[error(
        "there is no version directory: put the model's files into a directory named by a number, such as 1/ (an ensemble needs an empty one){hint}"
    )]
    NoVersion {
        /// What may have gone wrong.
        hint: String,
    },
    /// The configuration has another name.
    #[error("config.pbtxt says name: {found:?}; the lease calls it {wanted:?}: change one of them")]
    Name {
        /// The name there.
        found: String,
        /// The name of the lease.
        wanted: String,
    },
    /// The configuration is not text.
    #[error("config.pbtxt is not text: it must be a ModelConfig in protobuf's text format, in UTF-8")]
    NotText,
    /// The configuration is no file.
    #[error("config.pbtxt is not a file")]
    NotAFile,
    /// The configuration is huge.
    #[error("config.pbtxt is larger than 1 MiB")]
    TooLarge,
    /// It cannot be read.
    #[error("the model's directory cannot be read: {0}")]
    Unreadable(io::Error),
}

/// Checks that a directory is a model of this name.
pub fn check(directory: &Path, name: &str) -> Result<(), Unfit> {
    let mut directories = Vec::new();
    for entry in fs::read_dir(directory).map_err(Unfit::Unreadable)? {
        let entry = entry.map_err(Unfit::Unreadable)?;
        match is_directory(&entry.path()) {
            Ok(true) => directories.push(entry.file_name()),
            Ok(false) => {}
            // What is no version does not matter, nor does whether it can be read.
            Err(_) if !is_version(&entry.file_name()) => {}
            Err(error) => return Err(Unfit::Unreadable(error)),
        }
    }
    if !directories.iter().any(|name| is_version(name)) {
        return Err(Unfit::NoVersion { hint: hint(&directories) });
    }
    let Some(text) = config(directory)? else { return Ok(()) };
    match config_name(&text) {
        Named::As(found) if found != name && !found.is_empty() => {
            Err(Unfit::Name { found: super::fault::cut(&found, 120), wanted: name.to_owned() })
        }
        // What is no configuration at all, Triton explains.
        Named::As(_) | Named::Not | Named::Unreadable => Ok(()),
    }
}

/// Returns whether a path leads to a directory. A link that leads nowhere does not; what cannot be told is an error.
fn is_directory(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(found) => Ok(found.is_dir()),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(false)
        }
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns whether Triton takes a directory of this name for a version: a positive number without leading zeros.
pub fn is_version(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| {
        !name.starts_with('0')
            && name.bytes().all(|b| b.is_ascii_digit())
            && name.parse::<i64>().is_ok_and(|n| n > 0)
    })
}

fn config(directory: &Path) -> Result<Option<String>, Unfit> {
    let path = directory.join(CONFIG);
    // Opening a pipe would wait for whoever writes to it.
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Unfit::Unreadable(error)),
        Ok(found) if !found.is_file() => return Err(Unfit::NotAFile),
        Ok(found) if found.len() > LARGEST_CONFIG => return Err(Unfit::TooLarge),
        Ok(_) => {}
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Unfit::Unreadable)?;
    file.take(LARGEST_CONFIG).read_to_end(&mut bytes).map_err(Unfit::Unreadable)?;
    String::from_utf8(bytes).map(Some).map_err(|_| Unfit::NotText)
}

fn hint(directories: &[std::ffi::OsString]) -> String {
    match directories {
        [only] => format!(
            "; there is only a directory {:?}: if that is the model, name it in the uri",
            super::fault::cut(&only.to_string_lossy(), 120)
        ),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(files: &[(&str, &[u8])], name: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        check(folder.path(), name).map_or_else(|unfit| unfit.to_string(), |()| "fits".to_owned())
    }

    #[test]
    fn a_version_directory_and_a_fitting_name_make_a_model() {
        let config = "name: \"a\"\nbackend: \"python\"\n".as_bytes();
        let table = [
            refusal(&[("1/model.py", b"")], "a"),
            refusal(&[("12/x", b""), ("config.pbtxt", config)], "a"),
            refusal(&[("1/x", b""), ("config.pbtxt", b"")], "a"),
            refusal(&[("1/x", b""), ("config.pbtxt", config)], "b"),
            refusal(&[("1/x", b""), ("config.pbtxt", b"\x08\xff\xfe")], "a"),
            refusal(&[("1/x", b""), ("config.pbtxt/y", b"")], "a"),
            refusal(&[("config.pbtxt", config)], "a"),
            refusal(&[("01/x", b""), ("0/x", b""), ("v1/x", b"")], "a"),
            refusal(&[("model/1/x", b"")], "a"),
            refusal(&[("99999999999999999999/x", b"")], "a"),
        ];
        insta::assert_snapshot!(table.join("\n"), @r#"
        fits
        fits
        fits
        config.pbtxt says name: "a"; the lease calls it "b": change one of them
        config.pbtxt is not text: it must be a ModelConfig in protobuf's text format, in UTF-8
        config.pbtxt is not a file
        there is no version directory: put the model's files into a directory named by a number, such as 1/ (an ensemble needs an empty one)
        there is no version directory: put the model's files into a directory named by a number, such as 1/ (an ensemble needs an empty one)
        there is no version directory: put the model's files into a directory named by a number, such as 1/ (an ensemble needs an empty one); there is only a directory "model": if that is the model, name it in the uri
        there is no version directory: put the model's files into a directory named by a number, such as 1/ (an ensemble needs an empty one); there is only a directory "99999999999999999999": if that is the model, name it in the uri
        "#);
    }

    #[test]
    fn a_version_that_cannot_be_looked_at_is_not_said_to_be_missing() {
        let linked = |name: &str, target: &str| {
            let folder = tempfile::tempdir().unwrap();
            std::os::unix::fs::symlink(target, folder.path().join(name)).unwrap();
            check(folder.path(), "a").unwrap_err()
        };
        for nowhere in ["nothing", "1", "/dev/null/x"] {
            assert!(matches!(linked("1", nowhere), Unfit::NoVersion { .. }), "{nowhere}");
        }
        // No file system has a name that long; it stands for any other error.
        let long = "x".repeat(300);
        assert!(matches!(linked("1", &long), Unfit::Unreadable(_)));
        assert!(matches!(linked("notes", &long), Unfit::NoVersion { .. }));
    }
}
