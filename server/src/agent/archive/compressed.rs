//! Tars that are compressed.

use std::fs::File;
use std::io::{BufReader, Cursor, Read};

use super::{Refused, Tree, UnpackError, head_of, read_error, tape};

/// Base-2 logarithm of the most bytes that zstd may look back: 16 MiB, so that the agent stays below 64 MiB. Levels up to 19 look back
/// half as far.
const WINDOW_LOG: u32 = 24;

/// Unpacks a tar.gz, of several members too, as parallel gzips write them.
pub fn gzip(file: File, tree: &mut Tree) -> Result<(), UnpackError> {
    unpack("gzip", flate2::bufread::MultiGzDecoder::new(BufReader::new(file)), tree)
}

/// Unpacks a tar.zst.
pub fn zstd(file: File, tree: &mut Tree) -> Result<(), UnpackError> {
    let mut decoder = zstd::stream::read::Decoder::new(file).map_err(UnpackError::Files)?;
    decoder.window_log_max(WINDOW_LOG).map_err(UnpackError::Files)?;
    unpack("zstd", decoder, tree)
}

fn unpack(by: &'static str, mut inside: impl Read, tree: &mut Tree) -> Result<(), UnpackError> {
    let head = head_of(&mut inside).map_err(read_error)?;
    if !tape::is_tar(&head) {
        return Err(Refused::NotATar { by }.into());
    }
    tape::unpack(Cursor::new(head).chain(inside), tree)
}
