//! Archives of one model: tar, plain or compressed by gzip or zstd, and zip. What an archive is, its first bytes say and
//! never its name. [`unpack`] writes nothing outside the directory it is given, however hostile the archive.

mod compressed;
mod links;
mod name;
mod tape;
#[cfg(test)]
mod tests;
mod tree;
mod zip;

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

pub use tree::Tree;

use super::inside;

/// How large an archive may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most bytes of all files.
    pub bytes: u64,
    /// Most entries, with the directories that they imply.
    pub entries: u64,
}

/// Bytes that tell what a file is.
const HEAD: usize = 512;

/// An archive that is not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It will not do, however often it is tried.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The disk or the network behind it failed.
    #[error("cannot unpack the archive")]
    Files(#[source] io::Error),
}

/// Why an archive will not do. Names of entries are escaped.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not an archive.
    #[error(
        "{what} is not an archive: expected tar, tar.gz, tar.zst or zip with the model's directory (version directories such as 1/, \
         and config.pbtxt), told by its first bytes"
    )]
    NotAnArchive {
        /// What it seems to be.
        what: &'static str,
    },
    /// Compressed, but not a tar.
    #[error(
        "the file is compressed by {by}, but what is inside is not a tar: pack the model's directory with tar first"
    )]
    NotATar {
        /// The compression.
        by: &'static str,
    },
    /// Broken.
    #[error("the archive is broken: {0}")]
    Broken(String),
    /// Needs more memory than the agent has.
    #[error(
        "the archive needs more than 16 MiB of memory to unpack: compress it with zstd -19 or less, without --ultra and --long"
    )]
    Window,
    /// Bigger than allowed.
    #[error("the archive unpacks to more than {maximum} bytes (server.modelRepositories.maximumSize)")]
    TooLarge {
        /// The bound.
        maximum: u64,
    },
    /// Too many files.
    #[error("the archive has more than {most} entries")]
    TooManyEntries {
        /// The bound.
        most: u64,
    },
    /// Too much to remember.
    #[error("the archive has directories whose paths are longer than {} bytes together", inside::MOST_BYTES)]
    LongPaths,
    /// Too many links.
    #[error(
        "the archive has more links than the agent takes: at most {} with {} bytes of names",
        links::MOST,
        links::MOST_BYTES
    )]
    TooManyLinks,
    /// A name that leads elsewhere or cannot be one.
    #[error("the archive has an entry {name:?}, whose name {problem}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A kind of entry that no model needs.
    #[error(
        "the archive has an entry {name:?}, which is {kind}: only files, directories and links inside the model are taken"
    )]
    Kind {
        /// The name.
        name: String,
        /// The kind.
        kind: &'static str,
    },
    /// Two entries of one name that differ in kind.
    #[error("the archive has {name:?} twice, as entries of different kinds")]
    Twice {
        /// The name.
        name: String,
    },
    /// A link that leads elsewhere.
    #[error(
        "the archive has a link {name:?} to {target:?}, which {problem}: only links to files inside the model are taken"
    )]
    Link {
        /// The name.
        name: String,
        /// Where it points.
        target: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Encrypted, or compressed in a way that is not known.
    #[error("the archive has an entry {name:?}, which {problem}")]
    Method {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// What a file is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Tar,
    Gzip,
    Zstd,
    Zip,
}

/// Unpacks an archive into the directory `to`, which it makes, and which is the caller's to remove after an error.
pub fn unpack(mut file: File, to: &Path, bounds: Bounds) -> Result<(), UnpackError> {
    let head = head_of(&mut file).map_err(UnpackError::Files)?;
    file.rewind().map_err(UnpackError::Files)?;
    let Some(format) = format(&head) else {
        return Err(Refused::NotAnArchive { what: resemblance(&head) }.into());
    };
    let mut tree = Tree::create(to, bounds).map_err(UnpackError::Files)?;
    match format {
        Format::Tar => tape::unpack(io::BufReader::new(file), &mut tree)?,
        Format::Gzip => compressed::gzip(file, &mut tree)?,
        Format::Zstd => compressed::zstd(file, &mut tree)?,
        Format::Zip => zip::unpack(file, &mut tree)?,
    }
    tree.finish()
}

fn format(head: &[u8]) -> Option<Format> {
    match head {
        [0x1f, 0x8b, ..] => Some(Format::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Format::Zstd),
        // The second is a zip without entries.
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Some(Format::Zip),
        _ if tape::is_tar(head) => Some(Format::Tar),
        _ => None,
    }
}

/// Says what a file that is no archive seems to be, since people hand over the one file that they know.
fn resemblance(head: &[u8]) -> &'static str {
    let text = head.trim_ascii_start();
    match head {
        [] => "an empty file",
        [b'B', b'Z', b'h', ..] => "a file compressed by bzip2",
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "a file compressed by xz",
        [b'7', b'z', 0xbc, 0xaf, ..] => "a 7z file",
        [0x89, b'H', b'D', b'F', ..] => "an HDF5 file",
        // The first field of an ONNX ModelProto is ir_version.
        [0x08, version, 0x12, ..] if *version < 32 => "a single ONNX file",
        _ if text.starts_with(b"<") => "a web page (does the address ask to log in?)",
        _ if text.starts_with(b"{") || text.starts_with(b"[") => "a JSON document",
        _ if text.starts_with(b"version https://git-lfs") => "a pointer of git-lfs",
        _ => "the file",
    }
}

/// Reads as many bytes as there are, up to those that tell what a file is.
fn head_of(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD);
    reader.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// Tells a failing disk from an archive that says of itself what it is not.
fn read_error(error: io::Error) -> UnpackError {
    if error.raw_os_error().is_some() {
        return UnpackError::Files(error);
    }
    let text = error.to_string();
    if text.contains("too much memory") {
        return Refused::Window.into();
    }
    Refused::Broken(text).into()
}
