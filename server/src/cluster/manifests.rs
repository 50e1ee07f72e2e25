//! A cluster that is a folder: one folder a lease with its manifests and a kustomization.yaml, for a tool such as a
//! GitOps controller to sync. Nothing is observed beyond the files. A directory belongs to one installation, which a file
//! in it names: whoever takes a folder there for a lease may delete it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::{fs, io};

use futures::future::BoxFuture;

use super::{Act, ActError, Inspect, Measure, Observe, Sight};
use crate::domain::autoscaler::explanation::Evidence;
use crate::domain::capabilities::Capabilities;
use crate::domain::doctor::evidence::Evidence as Chain;
use crate::domain::lease::{Happening, Lease, LeaseId, Replicas};
use crate::domain::observed::{Objects, Observed};
use crate::domain::plan::{Plan, to_yaml};
use crate::domain::usage::Served;

/// Folders of manifests below one directory.
#[derive(Clone)]
pub struct Manifests {
    directory: PathBuf,
}

/// A directory cannot hold the manifests of an installation.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It holds those of another one.
    #[error(
        "{} belongs to installation {theirs:?} of TMS, and this one is {ours:?}: give each a directory of its own. If the \
         other is gone for good, remove {} and the folders beside it",
        directory.display(), directory.join(MARKER).display()
    )]
    Foreign {
        /// The directory.
        directory: PathBuf,
        /// Whose manifests it holds.
        theirs: String,
        /// Whose it shall hold.
        ours: String,
    },
    /// A file or folder cannot be used.
    #[error("cannot use {}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Manifests {
    /// Returns the manifests of an installation below `directory`, which is made if it is not there, and clears what an
    /// interrupted write left.
    pub fn open(directory: &Path, installation: &str) -> Result<Self, OpenError> {
        let manifests = Self { directory: directory.to_owned() };
        let fail = |source| OpenError::File { path: directory.to_owned(), source };
        fs::create_dir_all(directory).map_err(fail)?;
        manifests.claim(installation)?;
        for entry in manifests.entries().map_err(fail)? {
            if entry.starts_with(SCRATCH) {
                let path = directory.join(entry);
                remove_if_there(&path).map_err(|source| OpenError::File { path, source })?;
            }
        }
        Ok(manifests)
    }

    /// Marks the directory as the installation's, unless it is another's.
    fn claim(&self, installation: &str) -> Result<(), OpenError> {
        let path = self.directory.join(MARKER);
        let fail = |source| OpenError::File { path: path.clone(), source };
        let held = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // In one step, so that another server of the installation never reads half of it.
                let scratch = self.directory.join(format!("{SCRATCH}{MARKER}"));
                remove_if_there(&scratch).map_err(fail)?;
                write_durably(&scratch, &format!("{installation}\n")).map_err(fail)?;
                fs::rename(&scratch, &path).map_err(fail)?;
                fs::read_to_string(&path).map_err(fail)?
            }
            held => held.map_err(fail)?,
        };
        match held.trim() {
            held if held == installation => Ok(()),
            theirs => Err(OpenError::Foreign {
                directory: self.directory.clone(),
                theirs: theirs.to_owned(),
                ours: installation.to_owned(),
            }),
        }
    }

    fn folder(&self, id: LeaseId) -> PathBuf {
        self.directory.join(id.to_string())
    }

    fn entries(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.directory)?.map(|entry| Ok(entry?.file_name()));
        let names: io::Result<Vec<_>> = entries.collect();
        Ok(names?.into_iter().filter_map(|name| name.into_string().ok()).collect())
    }

    fn write(&self, id: LeaseId, files: &BTreeMap<String, String>) -> Result<(), ActError> {
        let folder = self.folder(id);
        let scratch = self.directory.join(format!("{SCRATCH}{id}"));
        let fail = |source| file_error(&folder, source);
        remove_if_there(&scratch).map_err(fail)?;
        fs::create_dir(&scratch).map_err(fail)?;
        for (name, text) in files {
            write_durably(&scratch.join(name), text).map_err(fail)?;
        }
        swap(&scratch, &folder).map_err(fail)?;
        remove_if_there(&scratch).map_err(fail)
    }

    fn remove(&self, id: LeaseId) -> Result<(), ActError> {
        let folder = self.folder(id);
        let scratch = self.directory.join(format!("{SCRATCH}{id}"));
        let fail = |source| file_error(&folder, source);
        remove_if_there(&scratch).map_err(fail)?;
        match fs::rename(&folder, &scratch) {
            Ok(()) => remove_if_there(&scratch).map_err(fail),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(fail(error)),
        }
    }
}

impl Observe for Manifests {
    fn observe(&self, lease: &Lease, plan: &Plan) -> Observed {
        let objects = match read(&self.folder(lease.id)) {
            None => Objects::Absent,
            Some(files) if files == self::files(plan) => Objects::Written,
            Some(_) => Objects::Differ,
        };
        Observed {
            objects,
            replicas: Replicas::default(),
            deployment_fault: None,
            pods: Vec::new(),
            active_at: None,
        }
    }

    fn seen(&self) -> BTreeSet<LeaseId> {
        self.entries().unwrap_or_default().iter().filter_map(|name| name.parse().ok()).collect()
    }

    fn sight(&self) -> Sight {
        Sight::Full
    }

    fn listed(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn has_objects(&self, id: LeaseId) -> bool {
        self.folder(id).exists()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::assumed()
    }
}

impl Measure for Manifests {
    fn served(&self, _id: LeaseId) -> BoxFuture<'_, Vec<Served>> {
        Box::pin(async { Vec::new() })
    }

    fn follow_progress(&self, _is_wanted: bool) {}
}

impl Inspect for Manifests {
    fn autoscaler<'a>(&'a self, _lease: &'a Lease) -> BoxFuture<'a, Option<Evidence>> {
        Box::pin(async { None })
    }

    fn chain<'a>(&'a self, _lease: Option<&'a Lease>, _is_wide: bool) -> BoxFuture<'a, Option<Chain>> {
        Box::pin(async { None })
    }
}

impl Act for Manifests {
    fn apply<'a>(&'a self, lease: &'a Lease, plan: &'a Plan) -> BoxFuture<'a, Result<(), ActError>> {
        let (manifests, id, files) = (self.clone(), lease.id, files(plan));
        Box::pin(off_thread(move || manifests.write(id, &files)))
    }

    fn delete(&self, id: LeaseId) -> BoxFuture<'_, Result<(), ActError>> {
        let manifests = self.clone();
        Box::pin(off_thread(move || manifests.remove(id)))
    }

    fn forget(&self, _id: LeaseId) {}

    fn announce(&self, _lease: &Lease, _happening: &Happening) {}

    fn refresh(&self) -> BoxFuture<'_, Result<bool, ActError>> {
        Box::pin(async { Ok(false) })
    }
}

/// Runs what waits for the disk where it holds nobody up.
async fn off_thread(work: impl FnOnce() -> Result<(), ActError> + Send + 'static) -> Result<(), ActError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Begins the names of folders that are not finished; the rest is the lease id.
const SCRATCH: &str = ".tms-";
/// File that names the installation whose manifests a directory holds.
const MARKER: &str = "installation";

/// Returns the files of a lease: a manifest for each object and a kustomization that names them in order.
fn files(plan: &Plan) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut resources = String::new();
    for object in plan.objects() {
        let name = format!("{}{}.yaml", object.kind.as_str().to_lowercase(), object.kind.suffix());
        resources.push_str(&format!("  - {name}\n"));
        files.insert(name, to_yaml(&object.body));
    }
    let kustomization =
        format!("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n{resources}");
    files.insert("kustomization.yaml".to_owned(), kustomization);
    files
}

fn read(folder: &Path) -> Option<BTreeMap<String, String>> {
    let entries = fs::read_dir(folder).ok()?;
    let file = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        Some((entry.file_name().into_string().ok()?, fs::read_to_string(entry.path()).ok()?))
    };
    Some(entries.filter_map(file).collect())
}

fn write_durably(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::File::create_new(path)?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    file.sync_all()
}

/// Puts `new` in the place of `current` in one step; what was there is then found under `new`.
fn swap(new: &Path, current: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, new, CWD, current, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        Err(Errno::NOENT) => fs::rename(new, current),
        // Some file systems, those of networks above all, cannot exchange.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => replace(new, current),
        Err(error) => Err(error.into()),
    }
}

/// Puts `new` in the place of `current` in two steps. Between them a lease has no folder, as if it were new.
fn replace(new: &Path, current: &Path) -> io::Result<()> {
    remove_if_there(current)?;
    fs::rename(new, current)
}

/// Removes a folder or a file.
fn remove_if_there(path: &Path) -> io::Result<()> {
    let removed = match fs::remove_dir_all(path) {
        Err(error) if error.kind() == ErrorKind::NotADirectory => fs::remove_file(path),
        removed => removed,
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn file_error(path: &Path, source: io::Error) -> ActError {
    ActError::File { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_another_installation_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("manifests");
        for _ in 0..2 {
            Manifests::open(&directory, "ours").unwrap();
        }
        let refused = Manifests::open(&directory, "theirs").err().unwrap().to_string();
        insta::assert_snapshot!(refused.replace(&directory.display().to_string(), "<directory>"), @r#"<directory> belongs to installation "ours" of TMS, and this one is "theirs": give each a directory of its own. If the other is gone for good, remove <directory>/installation and the folders beside it"#);
    }

    #[test]
    fn what_an_interrupted_write_left_is_cleared_whatever_it_is() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".tms-file"), "").unwrap();
        fs::create_dir_all(folder.path().join(".tms-folder/full")).unwrap();
        let manifests = Manifests::open(folder.path(), "ours").unwrap();
        assert_eq!(manifests.entries().unwrap(), [MARKER]);
    }

    #[test]
    fn a_folder_takes_the_place_of_another_with_or_without_an_exchange() {
        let folder = tempfile::tempdir().unwrap();
        let (new, current) = (folder.path().join("new"), folder.path().join("current"));
        for put in [swap, replace] {
            fs::create_dir_all(&current).unwrap();
            remove_if_there(&new).unwrap();
            fs::create_dir(&new).unwrap();
            fs::write(new.join("file"), "").unwrap();
            put(&new, &current).unwrap();
            assert!(current.join("file").exists());
            fs::remove_file(current.join("file")).unwrap();
        }
    }
}
