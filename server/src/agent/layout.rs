//! Triton's model repository in the pod: one directory or link for each model, put in its place in one step when it is whole.
//!
//! Work is done in a directory beside the models, on the same file system. What is finished there is marked with the uri it
//! came from, so that an agent that is started again in the same pod fetches nothing twice.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::archive::{self, Bounds, Refused, UnpackError};
use super::fault::Fault;
use super::inside::{Bound, Leak};
use super::model::{self, Unfit};
use super::room::{self, Room};
use crate::chain::chain;

/// The directory for work, which Triton is never told to load.
const WORK: &str = ".tms-work";
/// Most entries of an archive.
const MOST_ENTRIES: u64 = 100_000;

/// The repository.
#[derive(Clone)]
pub struct Repository {
    models: PathBuf,
    claims: PathBuf,
    room: Room,
}

/// Whether a claim's path gives a directory or an archive, and so how it is laid out.
enum Claimed {
    Directory {
        /// The claim, both without links.
        root: PathBuf,
        directory: PathBuf,
    },
    Archive(PathBuf),
}

impl Repository {
    /// Opens the repository and removes what an agent before left half done.
    pub fn open(models: &Path, claims: &Path, room: Room) -> io::Result<Self> {
        let repository = Self { models: models.to_owned(), claims: claims.to_owned(), room };
        fs::create_dir_all(repository.work())?;
        for entry in fs::read_dir(repository.work())? {
            let path = entry?.path();
            let is_mark = path.extension().is_some_and(|extension| extension == "mark");
            if !is_mark {
                remove(&path)?;
            }
        }
        Ok(repository)
    }

    /// Returns whether this model has been laid out from this uri.
    pub fn has(&self, name: &str, uri: &str) -> bool {
        let marked = fs::read_to_string(self.mark(name)).is_ok_and(|mark| mark == digest(uri));
        marked && self.models.join(name).is_dir()
    }

    /// Returns where a download may be written.
    pub fn download_path(&self) -> PathBuf {
        self.work().join("download")
    }

    /// Returns the room that is left beside the models that are laid out.
    pub fn room(&self) -> Result<Room, Fault> {
        let taken = room::taken(&self.models, |name| name == WORK);
        let taken = taken.map_err(|error| Fault::of_files("cannot count what the models take", &error))?;
        Ok(self.room.without(taken))
    }

    /// Returns whether every model had been loaded in this pod before.
    pub fn was_loaded(&self) -> bool {
        self.work().join("loaded.mark").exists()
    }

    /// Remembers for agents to come that every model has been loaded.
    pub fn note_loaded(&self) -> io::Result<()> {
        fs::write(self.work().join("loaded.mark"), "")
    }

    /// Lays out a model from a path inside a claim: a directory is linked, an archive unpacked.
    pub fn place_claim(&self, name: &str, uri: &str, claim: &str, path: &str) -> Result<(), Fault> {
        match self.find(claim, path)? {
            Claimed::Archive(file) => self.place_archive(name, uri, &file),
            Claimed::Directory { root, directory } => {
                self.keep_inside(uri, &root, &directory)?;
                model::check(&directory, name).map_err(|unfit| of_model(uri, &unfit))?;
                self.finish(name, uri, |place| symlink(&directory, place))
            }
        }
    }

    /// Lays out a model from an archive.
    pub fn place_archive(&self, name: &str, uri: &str, archive: &Path) -> Result<(), Fault> {
        let unpacked = self.work().join("unpacked");
        remove(&unpacked).map_err(|error| Fault::of_files("cannot make room for the model", &error))?;
        let file = File::open(archive).map_err(|error| of_claim(uri, &error))?;
        let room = self.room_beside(archive)?;
        let bounds = Bounds { bytes: room.bytes(), entries: MOST_ENTRIES };
        let outcome = archive::unpack(file, &unpacked, bounds)
            .map_err(|error| of_archive(uri, &error, &room))
            .and_then(|()| model::check(&unpacked, name).map_err(|unfit| of_model(uri, &unfit)))
            .and_then(|()| self.finish(name, uri, |place| fs::rename(&unpacked, place)));
        if outcome.is_err() {
            let removed = remove(&unpacked).and_then(|()| remove(&self.work().join("unpacked.inner")));
            if let Err(error) = removed {
                tracing::warn!(error = %error, "cannot remove what was unpacked");
            }
        }
        outcome
    }

    /// Returns the room for what an archive holds, which is the less for the archive itself where that was downloaded.
    fn room_beside(&self, archive: &Path) -> Result<Room, Fault> {
        let room = self.room()?;
        if archive != self.download_path() {
            return Ok(room);
        }
        let size = fs::metadata(archive).map_err(|error| Fault::of_files("cannot read the model", &error))?;
        Ok(room.without(size.len()))
    }

    /// Puts a model in its place and marks it.
    fn finish(&self, name: &str, uri: &str, put: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), Fault> {
        let place = self.models.join(name);
        let finish = || {
            remove(&place)?;
            put(&place)?;
            fs::write(self.mark(name), digest(uri))
        };
        finish().map_err(|error| Fault::of_files("cannot put the model in its place", &error))
    }

    fn find(&self, claim: &str, path: &str) -> Result<Claimed, Fault> {
        let uri = format!("pvc://{claim}/{path}");
        let root = fs::canonicalize(self.claims.join(claim)).map_err(|error| of_claim(&uri, &error))?;
        let found = fs::canonicalize(root.join(path)).map_err(|error| of_claim(&uri, &error))?;
        if !found.starts_with(&root) {
            return Err(Fault::permanent(format!("{uri} is a link that leads out of the claim")));
        }
        let about = fs::metadata(&found).map_err(|error| of_claim(&uri, &error))?;
        if about.is_dir() {
            Ok(Claimed::Directory { root, directory: found })
        } else if about.is_file() {
            Ok(Claimed::Archive(found))
        } else {
            Err(Fault::permanent(format!("{uri} is neither a directory nor a file")))
        }
    }

    /// Refuses a directory from which links lead out of its claim: to what else the pod holds, such as the Secrets of the agent.
    /// Inside the claim models may share files. Whoever can write to the claim later can change it, as they can the models.
    fn keep_inside(&self, uri: &str, root: &Path, directory: &Path) -> Result<(), Fault> {
        let bound = Bound { path: root, name: "the claim", most_entries: MOST_ENTRIES };
        bound.check(directory).map_err(|leak| match leak {
            Leak::Files(error) => of_claim(uri, &error),
            Leak::Out { .. } | Leak::TooMany(_) | Leak::TooLong => {
                Fault::permanent(format!("{} {leak}", shown(uri)))
            }
        })
    }

    fn work(&self) -> PathBuf {
        self.models.join(WORK)
    }

    fn mark(&self, name: &str) -> PathBuf {
        self.work().join(format!("{name}.laid-out.mark"))
    }
}

fn of_archive(uri: &str, error: &UnpackError, room: &Room) -> Fault {
    match error {
        UnpackError::Refused(Refused::TooLarge { .. }) => {
            Fault::permanent(format!("{}: the archive unpacks to more than {room}", shown(uri)))
        }
        UnpackError::Refused(refused) => Fault::permanent(format!("{}: {refused}", shown(uri))),
        UnpackError::Files(_) => Fault::transient(chain(error)),
    }
}

fn of_model(uri: &str, unfit: &Unfit) -> Fault {
    match unfit {
        Unfit::Unreadable(error) => of_claim(uri, error),
        _ => Fault::permanent(format!("{}: {unfit}", shown(uri))),
    }
}

/// What an error means on files that others made: those that do not pass by themselves are permanent.
fn of_claim(uri: &str, error: &io::Error) -> Fault {
    let uri = shown(uri);
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            Fault::permanent(format!("{uri} is not there: the claim has no such path"))
        }
        io::ErrorKind::PermissionDenied => Fault::permanent(format!(
            "{uri} cannot be read: the agent and Triton run as other users than whoever wrote it; let everyone read its files and enter its directories"
        )),
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            Fault::permanent(format!("{uri} is a link that leads to itself"))
        }
        _ => Fault::of_files(&format!("cannot read {uri}"), error),
    }
}

fn shown(uri: &str) -> &str {
    crate::domain::uri::without_query(uri)
}

fn digest(uri: &str) -> String {
    Sha256::digest(uri).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Removes a file, a link or a directory with all that is in it, if it is there. Links are not followed.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Places {
        folder: tempfile::TempDir,
    }

    impl Places {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir_all(folder.path().join("claims/c/good/1")).unwrap();
            fs::create_dir_all(folder.path().join("claims/c/bare")).unwrap();
            fs::create_dir_all(folder.path().join("elsewhere/1")).unwrap();
            fs::write(folder.path().join("claims/c/file.onnx"), "onnx").unwrap();
            symlink("../../elsewhere", folder.path().join("claims/c/out")).unwrap();
            symlink("good", folder.path().join("claims/c/current")).unwrap();
            symlink("loop", folder.path().join("claims/c/loop")).unwrap();
            fs::create_dir_all(folder.path().join("claims/c/leaks/1")).unwrap();
            symlink("/credentials/s/authorization", folder.path().join("claims/c/leaks/config.pbtxt"))
                .unwrap();
            fs::create_dir_all(folder.path().join("claims/c/shares/1")).unwrap();
            symlink("../../file.onnx", folder.path().join("claims/c/shares/1/model.onnx")).unwrap();
            Self { folder }
        }

        fn open(&self) -> Repository {
            let at = |name: &str| self.folder.path().join(name);
            Repository::open(&at("models"), &at("claims"), Room::new(1 << 20, 3 << 20)).unwrap()
        }

        fn place(&self, path: &str) -> String {
            let outcome = self.open().place_claim("m", &format!("pvc://c/{path}"), "c", path);
            outcome.err().map_or_else(|| "laid out".to_owned(), |fault| format!("{fault:?}"))
        }
    }

    #[test]
    fn a_directory_of_a_claim_is_linked_to_where_it_really_is() {
        let places = Places::new();
        assert_eq!(places.place("current"), "laid out");
        let link = fs::read_link(places.folder.path().join("models/m")).unwrap();
        assert!(link.ends_with("claims/c/good"), "{}", link.display());
        assert!(places.open().has("m", "pvc://c/current"), "an agent started again finds it");
        assert!(!places.open().has("m", "pvc://c/good"));
        fs::remove_file(places.folder.path().join("models/m")).unwrap();
        assert!(!places.open().has("m", "pvc://c/current"));
    }

    #[test]
    fn what_is_wrong_with_a_claim_is_said_and_stays() {
        let places = Places::new();
        let table = ["none", "file.onnx/x", "bare", "file.onnx", "out", "loop", "leaks", "shares"]
            .map(|path| places.place(path));
        insta::assert_snapshot!(table.join("\n"), @r#"
        Permanent("pvc://c/none is not there: the claim has no such path")
        Permanent("pvc://c/file.onnx/x is not there: the claim has no such path")
        Permanent("pvc://c/bare: there is no version directory: put the model's files into a directory named by a number, such as 1/ (an ensemble needs an empty one)")
        Permanent("pvc://c/file.onnx: the file is not an archive: expected tar, tar.gz, tar.zst or zip with the model's directory (version directories such as 1/, and config.pbtxt), told by its first bytes")
        Permanent("pvc://c/out is a link that leads out of the claim")
        Permanent("pvc://c/loop is a link that leads to itself")
        Permanent("pvc://c/leaks has a link leaks/config.pbtxt to /credentials/s/authorization, which leads out of the claim")
        laid out
        "#);
    }

    #[test]
    fn what_was_half_done_is_removed_and_what_was_done_is_not() {
        let places = Places::new();
        assert_eq!(places.place("good"), "laid out");
        let work = places.folder.path().join("models/.tms-work");
        fs::create_dir_all(work.join("unpacked/1")).unwrap();
        fs::write(work.join("download"), "half").unwrap();
        assert!(places.open().has("m", "pvc://c/good") && !places.open().was_loaded());
        let left: Vec<_> = fs::read_dir(work).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["m.laid-out.mark"]);
        places.open().note_loaded().unwrap();
        assert!(places.open().was_loaded());
    }

    #[test]
    fn models_that_are_too_large_together_are_refused_by_the_bound_of_all() {
        let places = Places::new();
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(900 << 10);
        tar.append_data(&mut header, "m/1/weights", &vec![7; 900 << 10][..]).unwrap();
        fs::write(places.folder.path().join("claims/c/m.tar"), tar.into_inner().unwrap()).unwrap();
        let place = |name| places.open().place_claim(name, "pvc://c/m.tar", "c", "m.tar");
        for name in ["a", "b", "c"] {
            assert_eq!(place(name), Ok(()), "{name}");
        }
        let Err(Fault::Permanent(refusal)) = place("d") else { panic!("it is refused") };
        assert!(refusal.starts_with("pvc://c/m.tar: the archive unpacks to more than the "), "{refusal}");
        assert!(refusal.contains("left of 3145728 for all models of the lease"), "{refusal}");
        assert!(!places.folder.path().join("models/d").exists());
    }

    #[test]
    fn everyone_may_read_what_is_unpacked() {
        let places = Places::new();
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o4700);
        header.set_size(1);
        tar.append_data(&mut header, "m/1/run", &b"x"[..]).unwrap();
        let archive = places.folder.path().join("claims/c/m.tar");
        fs::write(archive, tar.into_inner().unwrap()).unwrap();
        assert_eq!(places.place("m.tar"), "laid out");
        let mode = |path: &str| {
            fs::metadata(places.folder.path().join("models/m").join(path)).unwrap().permissions().mode()
                & 0o7777
        };
        assert_eq!((mode("."), mode("1"), mode("1/run")), (0o755, 0o755, 0o755));
    }
}
