//! Archives of models, as people make them and as attackers do.

use std::io::Write;

use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// Writes a tar whose names and targets are taken word for word. A link's content is its target.
pub fn tar(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        let is_link = matches!(*kind, EntryType::Symlink | EntryType::Link);
        if is_link {
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content);
        }
        let content = if is_link { &[][..] } else { content };
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A model in a tar.gz: its directory with a config.pbtxt, a version and a file that cannot be compressed.
pub fn model(name: &str, bytes: usize) -> Vec<u8> {
    let config = format!("name: \"{name}\"\nbackend: \"python\"\n");
    let mut random = tms_tests::random::Random::new(7);
    let weights: Vec<_> = (0..bytes).map(|_| random.within(0..256) as u8).collect();
    gzip(&tar(&[
        (&format!("{name}/config.pbtxt"), EntryType::Regular, config.as_bytes()),
        (&format!("{name}/1/"), EntryType::Directory, b""),
        (&format!("{name}/1/weights.bin"), EntryType::Regular, &weights),
    ]))
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8], window: u32) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(window).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
