//! Links of an archive. They are made when everything else is there, so that nothing is ever written through one, and each is
//! then followed to its end, which must lie inside the model.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::{Refused, UnpackError, name};

/// Most links of an archive.
pub const MOST: usize = 10_000;
/// What is wrong with a link that leaves the model.
const LEADS_OUT: &str = "leads out of the model's directory";
/// Most bytes of their names and targets.
pub const MOST_BYTES: usize = 4 << 20;

/// Links that wait until the files are there.
#[derive(Default)]
pub struct Links {
    hard: Vec<(PathBuf, PathBuf)>,
    symbolic: Vec<(PathBuf, String)>,
    bytes: usize,
}

impl Links {
    /// Takes note of a second name of a file.
    pub fn add_hard(&mut self, at: PathBuf, target: &[u8]) -> Result<(), Refused> {
        self.count(&at, target)?;
        let target_path =
            name::path(target).map_err(|_| link(&at, target, "is not a name inside the archive"))?;
        self.hard.push((at, target_path));
        Ok(())
    }

    /// Takes note of a symbolic link.
    pub fn add_symbolic(&mut self, at: PathBuf, target: &[u8]) -> Result<(), Refused> {
        self.count(&at, target)?;
        let text = std::str::from_utf8(target).map_err(|_| link(&at, target, "is not UTF-8"))?;
        if text.starts_with('/') {
            return Err(link(&at, target, "is an absolute path"));
        }
        if text.is_empty() || text.len() > 1024 || text.chars().any(char::is_control) {
            return Err(link(&at, target, "cannot be a path"));
        }
        self.symbolic.push((at, text.to_owned()));
        Ok(())
    }

    /// Makes them all below `root`, the hard ones first: there is nothing then through which they could lead elsewhere.
    pub fn make(&self, root: &Path) -> Result<(), UnpackError> {
        for (at, target) in &self.hard {
            let shown = target.as_os_str().as_encoded_bytes();
            let from = root.join(target);
            if !fs::symlink_metadata(&from).is_ok_and(|found| found.is_file()) {
                return Err(link(at, shown, "is not a file of the archive").into());
            }
            made(at, fs::hard_link(from, root.join(at)))?;
        }
        for (at, target) in &self.symbolic {
            made(at, symlink(target, root.join(at)))?;
        }
        Ok(())
    }

    /// Follows every symbolic link below `root` to its end, which must lie inside `model`.
    pub fn verify(&self, root: &Path, model: &Path) -> Result<(), UnpackError> {
        let model = fs::canonicalize(model).map_err(UnpackError::Files)?;
        for (at, target) in &self.symbolic {
            let problem = match fs::canonicalize(root.join(at)) {
                Ok(end) if end.starts_with(&model) => continue,
                Ok(_) => LEADS_OUT,
                Err(_) => "leads nowhere",
            };
            return Err(link(at, target.as_bytes(), problem).into());
        }
        Ok(())
    }

    fn count(&mut self, at: &Path, target: &[u8]) -> Result<(), Refused> {
        self.bytes += at.as_os_str().len() + target.len();
        if self.bytes > MOST_BYTES || self.hard.len() + self.symbolic.len() >= MOST {
            return Err(Refused::TooManyLinks);
        }
        Ok(())
    }
}

/// Returns the refusal of a link that leaves the model's directory.
pub fn leads_out(at: &Path, target: &Path) -> Refused {
    link(at, target.as_os_str().as_encoded_bytes(), LEADS_OUT)
}

fn made(at: &Path, outcome: io::Result<()>) -> Result<(), UnpackError> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(Refused::Twice { name: at.display().to_string() }.into())
        }
        other => other.map_err(UnpackError::Files),
    }
}

fn link(at: &Path, target: &[u8], problem: &'static str) -> Refused {
    Refused::Link {
        name: name::shown(at.as_os_str().as_encoded_bytes()),
        target: name::shown(target),
        problem,
    }
}
