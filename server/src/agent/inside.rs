//! Whether what a model is made of stays where it belongs, told by what stands on the disk: every symbolic link is resolved
//! part by part, so that a way which leaves and comes back is seen, which may lead elsewhere once the model has moved.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// Links on one way, after which it leads in circles; Linux gives up there too.
const MOST_LINKS: u32 = 40;

/// Bytes of the paths of the directories that are yet to be looked at, most of which lie beside each other: the agent has little
/// memory.
pub const MOST_BYTES: usize = 16 << 20;

/// A model that cannot be taken as it stands.
#[derive(Debug, thiserror::Error)]
pub enum Leak {
    /// A link leads out.
    #[error("has a link {} to {}, which leads out of {bound}", link.display(), target.display())]
    Out {
        /// The link, below the model's directory.
        link: PathBuf,
        /// Where it points.
        target: PathBuf,
        /// What it must stay in.
        bound: &'static str,
    },
    /// There is too much to look at.
    #[error("has more than {0} entries")]
    TooMany(u64),
    /// There is too much to remember.
    #[error("has directories whose paths are longer than {MOST_BYTES} bytes together")]
    TooLong,
    /// It cannot be read.
    #[error("cannot be read")]
    Files(#[from] io::Error),
}

/// A place that links must stay in.
pub struct Bound<'a> {
    /// Its path, without links.
    pub path: &'a Path,
    /// How it is called.
    pub name: &'static str,
    /// Most entries that are looked at.
    pub most_entries: u64,
}

impl Bound<'_> {
    /// Checks every link below `directory`, and below the directories that links lead to. Links that lead nowhere lead nowhere
    /// else either; whether that matters, Triton says.
    pub fn check(&self, directory: &Path) -> Result<(), Leak> {
        let start = directory.strip_prefix(self.path).unwrap_or(Path::new("")).to_owned();
        let mut seen = BTreeSet::from([identity(&fs::metadata(self.path.join(&start))?)]);
        let mut open_bytes = start.as_os_str().len();
        let mut open = vec![start];
        let mut left = self.most_entries;
        while let Some(at) = open.pop() {
            open_bytes -= at.as_os_str().len();
            let entries = match fs::read_dir(self.path.join(&at)) {
                // Such as lost+found. What the agent cannot enter, it cannot be led out of.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => continue,
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                left = left.checked_sub(1).ok_or(Leak::TooMany(self.most_entries))?;
                let (kind, link) = (entry.file_type()?, at.join(entry.file_name()));
                let further = match kind {
                    kind if kind.is_dir() => Some(link),
                    kind if kind.is_symlink() => self.directory_behind(&link)?,
                    _ => None,
                };
                let Some(further) = further else { continue };
                let found = match fs::metadata(self.path.join(&further)) {
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => continue,
                    found => found?,
                };
                if seen.insert(identity(&found)) {
                    open_bytes += further.as_os_str().len();
                    open.push(further);
                    if open_bytes > MOST_BYTES {
                        return Err(Leak::TooLong);
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns the directory that a link leads to, if it is one.
    fn directory_behind(&self, link: &Path) -> Result<Option<PathBuf>, Leak> {
        let out = || {
            let target = fs::read_link(self.path.join(link)).unwrap_or_default();
            Leak::Out { link: link.to_owned(), target, bound: self.name }
        };
        let mut left: VecDeque<_> = parts(link);
        let (mut here, mut links) = (PathBuf::new(), 0);
        while let Some(part) = left.pop_front() {
            if part == ".." {
                if !here.pop() {
                    return Err(out());
                }
                continue;
            }
            let next = here.join(part);
            let found = match fs::symlink_metadata(self.path.join(&next)) {
                Err(error) if is_closed(&error) => return Ok(None),
                found => found?,
            };
            if !found.is_symlink() {
                here = next;
                continue;
            }
            links += 1;
            if links > MOST_LINKS {
                return Ok(None);
            }
            let target = fs::read_link(self.path.join(&next))?;
            let target = match target.strip_prefix(self.path) {
                Ok(inside) => {
                    here.clear();
                    inside
                }
                Err(_) if target.is_absolute() => return Err(out()),
                Err(_) => &target,
            };
            parts(target).into_iter().rev().for_each(|part| left.push_front(part));
        }
        Ok(self.path.join(&here).is_dir().then_some(here))
    }
}

/// Returns what tells a directory from all others, by whichever path it is reached.
fn identity(found: &fs::Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

/// Returns the parts of a path, of which only `..` means something else than a name.
fn parts(path: &Path) -> VecDeque<OsString> {
    let parts = path.components().filter(|part| !matches!(part, Component::CurDir | Component::RootDir));
    parts.map(|part| part.as_os_str().to_owned()).collect()
}

/// Whether a way goes on nowhere, or the agent may not go it.
fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), NotADirectory | NotFound | PermissionDenied)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// What is said of a model in a claim that has these links.
    fn said(links: &[(&str, &str)]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let claim = fs::canonicalize(folder.path()).unwrap().join("claim");
        for directory in ["m/1", "shared/deep", "../other"] {
            fs::create_dir_all(claim.join(directory)).unwrap();
        }
        fs::write(claim.join("shared/weights"), "w").unwrap();
        for (at, target) in links {
            let target = target.replace('@', claim.to_str().unwrap());
            symlink(target, claim.join(at)).unwrap();
        }
        let bound = Bound { path: &claim, name: "the claim", most_entries: 10 };
        let outcome = bound.check(&claim.join("m"));
        let said = outcome.map_or_else(|leak| leak.to_string(), |()| "stays inside".to_owned());
        said.replace(claim.to_str().unwrap(), "@")
    }

    #[test]
    fn links_stay_inside_on_their_whole_way_and_so_do_those_behind_them() {
        let table = [
            said(&[]),
            said(&[("m/1/a", "../../shared/weights")]),
            said(&[("m/1/a", "@/shared/weights")]),
            said(&[("m/1/a", "nothing")]),
            said(&[("m/1/a", "a")]),
            said(&[("m/1/a", "../../shared"), ("shared/up", "../m")]),
            said(&[("m/1/a", "/etc")]),
            said(&[("m/1/a", "@/../other")]),
            said(&[("m/1/a", "../../../other")]),
            said(&[("m/1/a", "../../../claim/shared/weights")]),
            said(&[("m/1/a", "b/c"), ("m/1/b", "../../shared/deep"), ("shared/deep/c", "../../..")]),
            said(&[("m/1/a", "../../shared"), ("shared/deep/out", "/credentials")]),
            said(&[("m/1/a", "x/../../../..")]),
        ];
        insta::assert_snapshot!(table.join("\n"), @r"
        stays inside
        stays inside
        stays inside
        stays inside
        stays inside
        stays inside
        has a link m/1/a to /etc, which leads out of the claim
        has a link m/1/a to @/../other, which leads out of the claim
        has a link m/1/a to ../../../other, which leads out of the claim
        has a link m/1/a to ../../../claim/shared/weights, which leads out of the claim
        has a link m/1/a to b/c, which leads out of the claim
        has a link shared/deep/out to /credentials, which leads out of the claim
        stays inside
        ");
    }

    #[test]
    fn more_than_can_be_looked_at_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in 0..4 {
            fs::write(folder.path().join(name.to_string()), "").unwrap();
        }
        let bound = Bound { path: folder.path(), name: "the claim", most_entries: 3 };
        assert_eq!(bound.check(folder.path()).unwrap_err().to_string(), "has more than 3 entries");
    }

    #[test]
    fn directories_side_by_side_below_a_long_path_are_refused_before_they_take_much_memory() {
        let folder = tempfile::tempdir().unwrap();
        let mut deep = folder.path().to_owned();
        (0..14).for_each(|_| deep.push("d".repeat(250)));
        fs::create_dir_all(&deep).unwrap();
        let count = MOST_BYTES / 3_500;
        (0..count).for_each(|number| fs::create_dir(deep.join(number.to_string())).unwrap());
        let bound = Bound { path: folder.path(), name: "the claim", most_entries: 100_000 };
        let said = bound.check(folder.path()).unwrap_err().to_string();
        assert_eq!(said, "has directories whose paths are longer than 16777216 bytes together");
        fs::remove_dir(deep.join("0")).unwrap();
        (1..count / 2).for_each(|number| fs::remove_dir(deep.join(number.to_string())).unwrap());
        bound.check(folder.path()).unwrap();
    }
}
