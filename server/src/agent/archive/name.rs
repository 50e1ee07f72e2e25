//! Names of entries: what may become a path inside a model's directory.

use std::path::{Path, PathBuf};

use super::Refused;

/// Most bytes of a whole name.
const LONGEST: usize = 1024;
/// Most bytes between two slashes, as on every file system of Linux.
const LONGEST_PART: usize = 255;

/// Returns the relative path that a name means: plain parts only. The archive's own directory gives an empty path.
pub fn path(name: &[u8]) -> Result<PathBuf, Refused> {
    let refuse = |problem| Refused::Name { name: shown(name), problem };
    let text = std::str::from_utf8(name).map_err(|_| refuse("is not UTF-8"))?;
    if text.len() > LONGEST {
        return Err(refuse("is longer than 1024 bytes"));
    }
    if text.starts_with('/') {
        return Err(refuse("is an absolute path"));
    }
    if text.contains('\\') {
        return Err(refuse("contains a backslash"));
    }
    if text.chars().any(char::is_control) {
        return Err(refuse("contains a control character"));
    }
    let mut path = PathBuf::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(refuse("leads out of the model's directory")),
            _ if part.len() > LONGEST_PART => return Err(refuse("has a part of more than 255 bytes")),
            _ => path.push(part),
        }
    }
    Ok(path)
}

/// Returns whether the Finder of macOS put it there beside the files that its user chose.
pub fn is_litter(path: &Path) -> bool {
    let is_double = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"._"));
    is_double || path.starts_with("__MACOSX")
}

/// Returns a name as it may be shown.
pub fn shown(name: &[u8]) -> String {
    crate::agent::fault::cut(&String::from_utf8_lossy(name), 120)
}
