//! The directory that an archive becomes: counts what is written, and lets nothing lead out of it.
//!
//! Its safety rests on three things: names are plain parts; the directory is new and nobody else writes to it; and links are
//! made last, so that no path leads through one while files are written.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::links::{self, Links};
use super::{Bounds, Refused, UnpackError, name, read_error};
use crate::agent::inside::{Bound, Leak};
use crate::agent::model;

/// Bytes that are copied at once.
const BUFFER: usize = 64 << 10;

/// A directory that is being filled.
pub struct Tree {
    root: PathBuf,
    bounds: Bounds,
    left: Bounds,
    /// The directory of the entry before, which need not be made again.
    latest: PathBuf,
    links: Links,
    buffer: Vec<u8>,
}

impl Tree {
    /// Makes the directory, which must not be there.
    pub fn create(root: &Path, bounds: Bounds) -> io::Result<Self> {
        make_directory(root)?;
        Ok(Self {
            root: root.to_owned(),
            bounds,
            left: bounds,
            latest: PathBuf::new(),
            links: Links::default(),
            buffer: vec![0; BUFFER],
        })
    }

    /// Makes a directory, if it is not there.
    pub fn directory(&mut self, name: &[u8]) -> Result<(), UnpackError> {
        self.count()?;
        let path = name::path(name)?;
        if name::is_litter(&path) {
            return Ok(());
        }
        self.make_directories(&path)
    }

    /// Writes a file. Its content takes the place of that of an earlier entry, as tar has it.
    pub fn file(
        &mut self,
        name: &[u8],
        executable: bool,
        content: &mut dyn Read,
    ) -> Result<u64, UnpackError> {
        if name::is_litter(&name::path(name)?) {
            self.count()?;
            return self.copy(content, &mut io::sink());
        }
        let path = self.place(name)?;
        let at = self.root.join(&path);
        let mode = if executable { 0o755 } else { 0o644 };
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(mode);
        let mut file = match options.open(&at) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if at.is_dir() {
                    return Err(twice(&path));
                }
                fs::remove_file(&at).and_then(|()| options.open(&at)).map_err(UnpackError::Files)?
            }
            other => other.map_err(UnpackError::Files)?,
        };
        // Triton may run as another user, whatever our umask.
        file.set_permissions(Permissions::from_mode(mode)).map_err(UnpackError::Files)?;
        self.copy(content, &mut file)
    }

    /// Makes a symbolic link, at the end.
    pub fn symbolic_link(&mut self, name: &[u8], target: &[u8]) -> Result<(), UnpackError> {
        let path = self.place(name)?;
        Ok(self.links.add_symbolic(path, target)?)
    }

    /// Gives a file another name, at the end.
    pub fn hard_link(&mut self, name: &[u8], target: &[u8]) -> Result<(), UnpackError> {
        let path = self.place(name)?;
        Ok(self.links.add_hard(path, target)?)
    }

    /// Makes the links and follows them, and leaves the model's directory at the place that the tree was made at, also where
    /// the archive holds that directory rather than its content.
    pub fn finish(self) -> Result<(), UnpackError> {
        self.links.make(&self.root)?;
        let inner = only_directory(&self.root).map_err(UnpackError::Files)?;
        let model = inner.as_deref().unwrap_or(&self.root);
        self.links.verify(&self.root, model)?;
        if let Some(inner) = &inner {
            raise(inner, &self.root).map_err(UnpackError::Files)?;
        }
        self.verify()
    }

    /// Looks at what stands in the end, wherever it is moved to: no link may leave the model's directory, not even on a way
    /// back into it, which held only while it had the name that it had in the archive.
    fn verify(&self) -> Result<(), UnpackError> {
        let root = fs::canonicalize(&self.root).map_err(UnpackError::Files)?;
        let bound = Bound { path: &root, name: "the model's directory", most_entries: self.bounds.entries };
        bound.check(&root).map_err(|leak| match leak {
            Leak::Out { link, target, .. } => links::leads_out(&link, &target).into(),
            Leak::TooMany(most) => Refused::TooManyEntries { most }.into(),
            Leak::TooLong => Refused::LongPaths.into(),
            Leak::Files(error) => UnpackError::Files(error),
        })
    }

    /// Returns the path that a name means, with the directories above it made.
    fn place(&mut self, name: &[u8]) -> Result<PathBuf, UnpackError> {
        self.count()?;
        let path = name::path(name)?;
        let Some(parent) = path.parent() else {
            let problem = "is that of the model's directory itself";
            return Err(Refused::Name { name: name::shown(name), problem }.into());
        };
        self.make_directories(parent)?;
        Ok(path)
    }

    fn make_directories(&mut self, path: &Path) -> Result<(), UnpackError> {
        if path == self.latest {
            return Ok(());
        }
        let mut at = self.root.clone();
        for part in path {
            at.push(part);
            match make_directory(&at) {
                Ok(()) => self.count()?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let found = fs::symlink_metadata(&at).map_err(UnpackError::Files)?;
                    if !found.is_dir() {
                        return Err(twice(path));
                    }
                }
                Err(error) => return Err(UnpackError::Files(error)),
            }
        }
        path.clone_into(&mut self.latest);
        Ok(())
    }

    fn copy(&mut self, from: &mut dyn Read, to: &mut dyn Write) -> Result<u64, UnpackError> {
        let mut written = 0;
        loop {
            let length = match from.read(&mut self.buffer) {
                Ok(0) => return Ok(written),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(read_error(error)),
            };
            let left = self.left.bytes.checked_sub(length as u64);
            self.left.bytes = left.ok_or(Refused::TooLarge { maximum: self.bounds.bytes })?;
            to.write_all(&self.buffer[..length]).map_err(UnpackError::Files)?;
            written += length as u64;
        }
    }

    fn count(&mut self) -> Result<(), Refused> {
        let left = self.left.entries.checked_sub(1);
        self.left.entries = left.ok_or(Refused::TooManyEntries { most: self.bounds.entries })?;
        Ok(())
    }
}

fn make_directory(at: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o755).create(at)?;
    fs::set_permissions(at, Permissions::from_mode(0o755))
}

/// Returns the directory that is all there is, unless it is a version of the model.
fn only_directory(root: &Path) -> io::Result<Option<PathBuf>> {
    let mut entries = fs::read_dir(root)?;
    let (Some(first), None) = (entries.next().transpose()?, entries.next()) else {
        return Ok(None);
    };
    // A model may have a number for a name, but a version of it has no configuration.
    let is_version = model::is_version(&first.file_name()) && !first.path().join(model::CONFIG).exists();
    let is_inner = first.file_type()?.is_dir() && !is_version;
    Ok(is_inner.then(|| first.path()))
}

/// Puts a directory in the place of the one that holds nothing but it.
fn raise(inner: &Path, root: &Path) -> io::Result<()> {
    let mut aside = root.as_os_str().to_owned();
    aside.push(OsStr::new(".inner"));
    fs::rename(inner, &aside)?;
    // Linux replaces an empty directory by another in one step.
    fs::rename(&aside, root)
}

fn twice(path: &Path) -> UnpackError {
    Refused::Twice { name: name::shown(path.as_os_str().as_encoded_bytes()) }.into()
}
