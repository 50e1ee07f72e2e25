//! Zips, read through their central directory one entry at a time, so that its length costs no memory.

use std::fs::File;
use std::io::Read;

use flate2::read::DeflateDecoder;
use rawzip::{
    CompressionMethod, Error, ErrorKind, MAX_CENTRAL_DIRECTORY_RECORD_SIZE, ZipArchive,
    ZipArchiveEntryWayfinder,
};

use super::{Refused, Tree, UnpackError, name, read_error};

/// Most bytes that the target of a link may have.
const LONGEST_TARGET: u64 = 4096;

/// The part of an entry's mode that says what it is, and its values.
const KIND: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const LINK: u32 = 0o120_000;

/// What the central directory says of an entry.
struct Listed {
    name: Vec<u8>,
    mode: u32,
    method: CompressionMethod,
    is_directory: bool,
    is_encrypted: bool,
    place: ZipArchiveEntryWayfinder,
}

type Archive = ZipArchive<rawzip::FileReader>;

/// Unpacks a zip.
pub fn unpack(file: File, tree: &mut Tree) -> Result<(), UnpackError> {
    let mut buffer = vec![0; MAX_CENTRAL_DIRECTORY_RECORD_SIZE];
    let archive = ZipArchive::from_file(file, &mut buffer).map_err(zip_error)?;
    let mut entries = archive.entries(&mut buffer);
    while let Some(entry) = entries.next_entry().map_err(zip_error)? {
        let listed = Listed {
            name: entry.file_path().as_bytes().to_owned(),
            mode: entry.mode().value(),
            method: entry.compression_method(),
            is_directory: entry.is_dir(),
            is_encrypted: entry.flags().is_encrypted(),
            place: entry.wayfinder(),
        };
        take(&archive, &listed, tree)?;
    }
    Ok(())
}

fn take(archive: &Archive, listed: &Listed, tree: &mut Tree) -> Result<(), UnpackError> {
    let name = &listed.name;
    if listed.is_encrypted {
        return Err(method(name, "is encrypted: the agent knows no password").into());
    }
    if listed.is_directory {
        return tree.directory(name);
    }
    match listed.mode & KIND {
        // Zips from elsewhere than Unix say nothing.
        0 | REGULAR => {
            let executable = listed.mode & 0o111 != 0;
            content(archive, listed, |reader| tree.file(name, executable, reader).map(drop))
        }
        DIRECTORY => tree.directory(name),
        LINK => content(archive, listed, |reader| {
            let mut target = Vec::new();
            reader.take(LONGEST_TARGET).read_to_end(&mut target).map_err(read_error)?;
            tree.symbolic_link(name, &target)
        }),
        _ => Err(Refused::Kind { name: name::shown(name), kind: "a device, pipe or socket" }.into()),
    }
}

/// Gives the content of an entry to `take`; its checksum is verified when it has been read to its end.
fn content(
    archive: &Archive,
    listed: &Listed,
    take: impl FnOnce(&mut dyn Read) -> Result<(), UnpackError>,
) -> Result<(), UnpackError> {
    let entry = archive.get_entry(listed.place).map_err(zip_error)?;
    match listed.method {
        CompressionMethod::STORE => take(&mut entry.verifying_reader(entry.reader())),
        CompressionMethod::DEFLATE => take(&mut entry.verifying_reader(DeflateDecoder::new(entry.reader()))),
        _ => Err(method(
            &listed.name,
            "is compressed by another method than deflate: pack it again without that",
        )
        .into()),
    }
}

fn zip_error(error: Error) -> UnpackError {
    match error.into_kind() {
        ErrorKind::IO(error) => read_error(error),
        kind => Refused::Broken(kind.to_string()).into(),
    }
}

fn method(name: &[u8], problem: &'static str) -> Refused {
    Refused::Method { name: name::shown(name), problem }
}
