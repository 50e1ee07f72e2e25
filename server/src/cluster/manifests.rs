//! A cluster that is a folder: one folder a lease with its manifests and a kustomization.yaml, for a tool such as a
//! GitOps controller to sync. Nothing is observed beyond the files.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::{fs, io};

use futures::future::BoxFuture;

use super::{Act, ActError, Observe, Sight};
use crate::domain::capabilities::Capabilities;
use crate::domain::lease::{Happening, Lease, LeaseId, Replicas};
use crate::domain::observed::{Objects, Observed};
use crate::domain::plan::{INSTALLATION_LABEL, Plan, to_yaml};

/// Folders of manifests below one directory.
#[derive(Clone)]
pub struct Manifests {
    directory: PathBuf,
    /// The line that every manifest of this installation has.
    label: String,
}

impl Manifests {
    /// Returns the manifests of an installation below `directory`, which is made if it is not there, and clears what an
    /// interrupted write left.
    pub fn open(directory: &Path, installation: &str) -> Result<Self, ActError> {
        let label = format!("{INSTALLATION_LABEL}: {installation}");
        let manifests = Self { directory: directory.to_owned(), label };
        fs::create_dir_all(directory).map_err(|source| file_error(directory, source))?;
        for entry in manifests.entries().map_err(|source| file_error(directory, source))? {
            if entry.starts_with(SCRATCH) {
                let path = directory.join(entry);
                fs::remove_dir_all(&path).map_err(|source| file_error(&path, source))?;
            }
        }
        Ok(manifests)
    }

    fn folder(&self, id: LeaseId) -> PathBuf {
        self.directory.join(id.to_string())
    }

    fn entries(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.directory)?.map(|entry| Ok(entry?.file_name()));
        let names: io::Result<Vec<_>> = entries.collect();
        Ok(names?.into_iter().filter_map(|name| name.into_string().ok()).collect())
    }

    /// Returns whether this installation wrote a lease's folder; others may keep theirs beside it.
    fn is_ours(&self, id: LeaseId) -> bool {
        let has_label = |text: String| text.lines().any(|line| line.trim() == self.label);
        read(&self.folder(id)).is_some_and(|files| files.into_values().any(has_label))
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
        Observed { objects, replicas: Replicas::default(), deployment_fault: None, pods: Vec::new() }
    }

    fn seen(&self) -> BTreeSet<LeaseId> {
        let ids = self.entries().unwrap_or_default().into_iter().filter_map(|name| name.parse().ok());
        ids.filter(|id| self.is_ours(*id)).collect()
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

/// Returns the files of a lease: a manifest for each object and a kustomization that names them in order.
fn files(plan: &Plan) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut resources = String::new();
    for object in plan.objects() {
        let name = format!("{}.yaml", object.kind.as_str().to_lowercase());
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
    match renameat_with(CWD, new, CWD, current, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        Err(error) if error == rustix::io::Errno::NOENT => fs::rename(new, current),
        Err(error) => Err(error.into()),
    }
}

fn remove_if_there(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn file_error(path: &Path, source: io::Error) -> ActError {
    ActError::File { path: path.display().to_string(), source }
}
