//! Tars: entry by entry, with bounds on what lies between the files.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use ::tar::{Archive, Entry, EntryType};

use super::{Refused, Tree, UnpackError, name, read_error};

/// Most bytes between two files: headers, long names and extended attributes, which the tar crate keeps in memory.
const MOST_HEADER_BYTES: u64 = 1 << 20;

/// Returns whether a file that begins so is a tar.
pub fn is_tar(head: &[u8]) -> bool {
    head.get(257..262) == Some(b"ustar")
}

/// Unpacks a tar.
pub fn unpack(reader: impl Read, tree: &mut Tree) -> Result<(), UnpackError> {
    let allowance = Rc::new(Cell::new(MOST_HEADER_BYTES));
    let mut archive = Archive::new(Metered { reader, allowance: allowance.clone() });
    let mut entries = archive.entries().map_err(read_error)?;
    loop {
        allowance.set(MOST_HEADER_BYTES);
        let Some(entry) = entries.next() else { return Ok(()) };
        let mut entry = entry.map_err(read_error)?;
        // The tree counts what it writes.
        allowance.set(u64::MAX);
        take(&mut entry, tree)?;
    }
}

fn take(entry: &mut Entry<'_, impl Read>, tree: &mut Tree) -> Result<(), UnpackError> {
    let name = entry.path_bytes().into_owned();
    let kind = entry.header().entry_type();
    let refuse = |kind| Refused::Kind { name: name::shown(&name), kind };
    match kind {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => file(&name, entry, tree),
        EntryType::Directory => tree.directory(&name),
        EntryType::Symlink => tree.symbolic_link(&name, &target(entry)),
        EntryType::Link => tree.hard_link(&name, &target(entry)),
        // What `git archive` says of the commit.
        EntryType::XGlobalHeader => Ok(()),
        EntryType::Char | EntryType::Block => Err(refuse("a device").into()),
        EntryType::Fifo => Err(refuse("a named pipe").into()),
        EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader => {
            Err(refuse("a header without its file").into())
        }
        _ => Err(refuse("of a kind that is not known").into()),
    }
}

fn file(name: &[u8], entry: &mut Entry<'_, impl Read>, tree: &mut Tree) -> Result<(), UnpackError> {
    if name.ends_with(b"/") {
        // Archives of before 1988 mark directories so.
        return tree.directory(name);
    }
    if is_sparse_by_extension(entry)? {
        let problem =
            "is a sparse file in the form of pax: pack it with tar --format=gnu, or without --sparse";
        return Err(Refused::Method { name: name::shown(name), problem }.into());
    }
    let executable = entry.header().mode().is_ok_and(|mode| mode & 0o111 != 0);
    let size = entry.size();
    let written = tree.file(name, executable, entry)?;
    if written != size {
        return Err(Refused::Broken("it ends in the middle of a file".to_owned()).into());
    }
    Ok(())
}

fn is_sparse_by_extension(entry: &mut Entry<'_, impl Read>) -> Result<bool, UnpackError> {
    let Some(extensions) = entry.pax_extensions().map_err(read_error)? else { return Ok(false) };
    for extension in extensions {
        if extension.map_err(read_error)?.key_bytes().starts_with(b"GNU.sparse.") {
            return Ok(true);
        }
    }
    Ok(false)
}

fn target(entry: &Entry<'_, impl Read>) -> Vec<u8> {
    entry.link_name_bytes().map(|target| target.into_owned()).unwrap_or_default()
}

/// A reader that gives no more than the allowance.
struct Metered<R> {
    reader: R,
    allowance: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.allowance.get();
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::other("more than 1 MiB of headers before a file"));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.reader.read(&mut buffer[..most])?;
        self.allowance.set(left - length as u64);
        Ok(length)
    }
}
