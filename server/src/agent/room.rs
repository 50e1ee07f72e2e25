//! How much a model may take on the pod's disk: what one model may, or what is left of all that the models of a lease may.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Bytes of a block, as `stat` counts them.
const BLOCK: u64 = 512;

/// Room for one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Most bytes of each model.
    each: u64,
    /// Most bytes of all models of a lease together, with what is being unpacked.
    total: u64,
    /// Bytes of these that are taken.
    taken: u64,
}

impl Room {
    /// Returns the room where nothing is taken yet.
    pub fn new(each: u64, total: u64) -> Self {
        Self { each, total, taken: 0 }
    }

    /// Returns what is left once so many bytes more are taken.
    pub fn without(self, taken: u64) -> Self {
        Self { taken: self.taken.saturating_add(taken), ..self }
    }

    /// Most bytes that the model may take.
    pub fn bytes(&self) -> u64 {
        self.each.min(self.total.saturating_sub(self.taken))
    }
}

/// The bound as a refusal names it, after `more than` or `larger than`.
impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { each, total, .. } = self;
        match self.bytes() {
            bytes if bytes == *each => write!(f, "{each} bytes (server.modelRepositories.maximumSize)"),
            left => write!(
                f,
                "the {left} bytes that are left of {total} for all models of the lease, with what is being unpacked \
                 (server.modelRepositories.maximumTotalSize)"
            ),
        }
    }
}

/// Returns the bytes that everything below a directory takes on the disk, without what `is_left_out` by its name at the top.
pub fn taken(directory: &Path, is_left_out: impl Fn(&str) -> bool) -> io::Result<u64> {
    let mut sum = 0;
    let mut linked = BTreeSet::new();
    // Directories alone: a model may have a hundred thousand files side by side, and the agent has little memory.
    let mut open = vec![directory.to_owned()];
    while let Some(path) = open.pop() {
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            if path == directory && entry.file_name().to_str().is_some_and(&is_left_out) {
                continue;
            }
            let found = entry.metadata()?;
            // Files of several names take their place once.
            if found.is_file() && found.nlink() > 1 && !linked.insert((found.dev(), found.ino())) {
                continue;
            }
            sum += found.blocks() * BLOCK;
            if found.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_bound_counts_and_is_named() {
        let room = Room::new(100, 250);
        assert_eq!(room.bytes(), 100);
        assert_eq!(room.without(150).to_string(), "100 bytes (server.modelRepositories.maximumSize)");
        let left = room.without(150).without(60);
        assert_eq!(left.bytes(), 40);
        insta::assert_snapshot!(left, @"the 40 bytes that are left of 250 for all models of the lease, with what is being unpacked (server.modelRepositories.maximumTotalSize)");
        assert_eq!(room.without(u64::MAX).bytes(), 0);
        assert_eq!(Room::new(7, u64::MAX).bytes(), 7);
    }

    #[test]
    fn what_is_taken_is_counted_as_the_disk_does_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("work")).unwrap();
        fs::create_dir_all(at("a/1")).unwrap();
        fs::write(at("work/download"), vec![1; 1 << 20]).unwrap();
        fs::write(at("a/1/x"), vec![1; 100_000]).unwrap();
        fs::hard_link(at("a/1/x"), at("a/1/y")).unwrap();
        std::os::unix::fs::symlink(at("work"), at("b")).unwrap();
        let found = taken(folder.path(), |name| name == "work").unwrap();
        assert!((100_000..150_000).contains(&found), "{found}");
    }
}
