//! Archives, good and hostile, against what may be written.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ::tar::{EntryType, Header};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// An entry of an archive, with a name as an attacker would write it.
#[derive(Clone, Debug)]
struct Item {
    name: Vec<u8>,
    kind: EntryType,
    mode: u32,
    /// Content of a file, target of a link.
    content: Vec<u8>,
}

fn item(name: &str, kind: EntryType, content: &[u8]) -> Item {
    Item { name: name.into(), kind, mode: 0o644, content: content.to_vec() }
}

fn file(name: &str, content: &str) -> Item {
    item(name, EntryType::Regular, content.as_bytes())
}

fn directory(name: &str) -> Item {
    item(name, EntryType::Directory, b"")
}

fn link(name: &str, target: &str) -> Item {
    item(name, EntryType::Symlink, target.as_bytes())
}

fn hard(name: &str, target: &str) -> Item {
    item(name, EntryType::Link, target.as_bytes())
}

/// Writes a tar without the tar crate's own care. Names of up to 100 bytes fit into its headers.
fn tar(items: &[Item]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for item in items {
        let mut header = Header::new_gnu();
        header.set_entry_type(item.kind);
        header.set_mode(item.mode);
        header.as_old_mut().name[..item.name.len()].copy_from_slice(&item.name);
        let is_link = matches!(item.kind, EntryType::Symlink | EntryType::Link);
        if is_link {
            header.as_old_mut().linkname[..item.content.len()].copy_from_slice(&item.content);
        }
        let content = if is_link { &[][..] } else { &item.content };
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn zip(items: &[Item]) -> Vec<u8> {
    let mut archive = rawzip::ZipArchiveWriter::new(Vec::new());
    for item in items {
        let is_open = item.kind == EntryType::Directory && !item.name.ends_with(b"/");
        let name = if is_open { [&item.name, &b"/"[..]].concat() } else { item.name.clone() };
        let path = rawzip::path::EntryPath::verbatim(name);
        let kind = match item.kind {
            EntryType::Directory => {
                archive.new_dir(path).create().unwrap();
                continue;
            }
            EntryType::Symlink => 0o120_000,
            EntryType::Fifo => 0o010_000,
            _ => 0o100_000,
        };
        let new = archive.new_file(path).compression_method(rawzip::CompressionMethod::DEFLATE);
        let (mut entry, config) = new.unix_permissions(kind | item.mode).start().unwrap();
        let encoder = flate2::write::DeflateEncoder::new(&mut entry, flate2::Compression::fast());
        let mut writer = config.wrap(encoder);
        writer.write_all(&item.content).unwrap();
        let (encoder, descriptor) = writer.finish().unwrap();
        encoder.finish().unwrap();
        entry.finish(descriptor).unwrap();
    }
    archive.finish().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8], window: u32) -> Vec<u8> {
    let mut encoder = ::zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(window).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A place to unpack, with a neighbour that nothing may touch.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("neighbour")).unwrap();
        fs::write(folder.path().join("neighbour/secret"), "untouched").unwrap();
        Self { folder }
    }

    fn unpack(&self, archive: &[u8], maximum: u64) -> Result<(), UnpackError> {
        let path = self.folder.path().join("archive");
        fs::write(&path, archive).unwrap();
        let bounds = Bounds { bytes: maximum, entries: 500 };
        unpack(File::open(&path).unwrap(), &self.folder.path().join("model"), bounds)
    }

    /// What was unpacked: a line for each file, directory and link.
    fn found(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        walk(&self.folder.path().join("model"), "", &mut found);
        found
    }

    /// Nothing but the model was written, and no link leads out of it.
    fn is_clean(&self) -> bool {
        let mut names: Vec<_> =
            fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.retain(|name| name != "model" && name != "archive");
        let mut neighbour = BTreeMap::new();
        walk(&self.folder.path().join("neighbour"), "", &mut neighbour);
        names == ["neighbour"]
            && neighbour == BTreeMap::from([("secret".to_owned(), "file 644 untouched".to_owned())])
    }
}

fn walk(at: &Path, prefix: &str, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(at).into_iter().flatten() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        let about = entry.path().symlink_metadata().unwrap();
        if about.is_dir() {
            found.insert(format!("{name}/"), "directory".to_owned());
            walk(&entry.path(), &format!("{name}/"), found);
        } else if about.is_symlink() {
            found.insert(name, format!("link to {}", fs::read_link(entry.path()).unwrap().display()));
        } else {
            let content = String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned();
            found.insert(name, format!("file {:o} {content}", about.permissions().mode() & 0o7777));
        }
    }
}

/// A model with what archives of models have.
fn model(prefix: &str) -> Vec<Item> {
    let at = |name: &str| format!("{prefix}{name}");
    vec![
        directory(&at("")),
        file(&at("config.pbtxt"), "backend: 'python'"),
        directory(&at("1/")),
        Item { mode: 0o6755, ..file(&at("1/run.sh"), "old") },
        Item { mode: 0o6755, ..file(&at("1/run.sh"), "#!/bin/sh") },
        file(&at("lib/deep/er/lib.so"), "elf"),
        directory(&at("2/")),
        link(&at("1/lib.so"), "../lib/deep/er/lib.so"),
        link(&at("3"), "./1"),
    ]
}

#[test]
fn every_format_gives_the_same_model_whether_it_holds_the_directory_or_its_content() {
    let mut seen = Vec::new();
    for prefix in ["./", "resnet/", "./a b/"] {
        let items = model(prefix);
        for archive in [tar(&items), gzip(&tar(&items)), zstd(&tar(&items), 24), zip(&items)] {
            let place = Place::new();
            place.unpack(&archive, 1 << 20).unwrap();
            assert!(place.is_clean());
            seen.push(place.found());
        }
    }
    assert!(seen.iter().all(|found| *found == seen[0]), "{seen:#?}");
    let lines: Vec<_> = seen[0].iter().map(|(name, what)| format!("{name}: {what}")).collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    1/: directory
    1/lib.so: link to ../lib/deep/er/lib.so
    1/run.sh: file 755 #!/bin/sh
    2/: directory
    3: link to ./1
    config.pbtxt: file 644 backend: 'python'
    lib/: directory
    lib/deep/: directory
    lib/deep/er/: directory
    lib/deep/er/lib.so: file 644 elf
    ");
}

#[test]
fn a_version_alone_is_a_model_and_the_litter_of_macos_is_left_out() {
    let place = Place::new();
    place.unpack(&tar(&[directory("1"), file("1/model.onnx", "x")]), 100).unwrap();
    assert!(place.found().contains_key("1/model.onnx"));
    let place = Place::new();
    place.unpack(&tar(&[file("50/config.pbtxt", ""), file("50/1/x", "x")]), 100).unwrap();
    assert!(place.found().contains_key("1/x"), "the model's directory may be a number");
    let place = Place::new();
    let items = [
        file("m/1/x", "x"),
        file("__MACOSX/m/._1", "litter"),
        file("m/1/._x", "litter"),
        directory("__MACOSX/"),
    ];
    place.unpack(&zip(&items), 100).unwrap();
    assert_eq!(place.found().into_keys().collect::<Vec<_>>(), ["1/", "1/x"]);
}

#[test]
fn long_names_hard_links_and_what_git_adds_are_understood() {
    let long = format!("m/1/{}/{}", "d".repeat(120), "f".repeat(200));
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut global = Header::new_ustar();
    global.set_entry_type(EntryType::XGlobalHeader);
    let comment = b"19 comment=0123456\n";
    global.set_size(comment.len() as u64);
    builder.append_data(&mut global, "pax_global_header", &comment[..]).unwrap();
    let mut header = Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o600);
    builder.append_data(&mut header, &long, &b"abc"[..]).unwrap();
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Link);
    header.set_size(0);
    builder.append_link(&mut header, "m/1/again", &long).unwrap();
    let place = Place::new();
    place.unpack(&builder.into_inner().unwrap(), 100).unwrap();
    assert_eq!(place.found()["1/again"], "file 644 abc");
    assert_eq!(place.found().len(), 4);
}

#[test]
fn hostile_archives_are_refused_with_a_reason_and_write_nothing_outside() {
    let inside = || file("1/x", "x");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("path upwards", tar(&[inside(), file("../neighbour/secret", "taken")])),
        ("path upwards inside", tar(&[file("1/../../x", "x")])),
        ("path upwards in a zip", zip(&[file("../neighbour/secret", "taken")])),
        ("absolute path", tar(&[file("/tmp/tms-taken", "x")])),
        ("absolute path in a zip", zip(&[file("/tmp/tms-taken", "x")])),
        ("backslashes", zip(&[file("..\\neighbour\\secret", "x")])),
        ("control character", tar(&[file("1/a\nb", "x")])),
        ("not UTF-8", tar(&[Item { name: b"1/\xff".to_vec(), ..inside() }])),
        ("link upwards", tar(&[inside(), link("1/up", "../../neighbour/secret")])),
        ("link to the repository", tar(&[inside(), link("1/up", "../..")])),
        ("absolute link", tar(&[inside(), link("1/etc", "/etc/passwd")])),
        ("link to nothing", tar(&[inside(), link("1/none", "nowhere")])),
        ("link to itself", tar(&[inside(), link("1/loop", "loop")])),
        (
            "links that leave together",
            tar(&[inside(), link("1/root", ".."), link("out", "1/root/../neighbour")]),
        ),
        ("link by the archive's own name", tar(&[file("m/1/x", "x"), link("m/1/up", "../../m/1/x")])),
        ("link that leaves and comes back", tar(&[inside(), link("1/up", "../../model/1/x")])),
        ("write through a link", tar(&[link("1", "../neighbour"), file("1/secret", "taken")])),
        ("file over a link", tar(&[inside(), link("1/y", "x"), file("1/y", "x")])),
        ("link in a zip", zip(&[inside(), link("1/up", "../../neighbour/secret")])),
        ("hard link upwards", tar(&[inside(), hard("1/up", "../neighbour/secret")])),
        ("hard link to an absolute path", tar(&[inside(), hard("1/up", "/etc/passwd")])),
        ("hard link through a link", tar(&[inside(), link("l", "../neighbour"), hard("1/up", "l/secret")])),
        ("hard link to nothing", tar(&[inside(), hard("1/up", "1/none")])),
        ("character device", tar(&[item("1/null", EntryType::Char, b"")])),
        ("block device", tar(&[item("1/sda", EntryType::Block, b"")])),
        ("pipe", tar(&[item("1/pipe", EntryType::Fifo, b"")])),
        ("pipe in a zip", zip(&[item("1/pipe", EntryType::Fifo, b"")])),
        ("kind unknown", tar(&[item("1/what", EntryType::new(b'V'), b"")])),
        ("file and directory", tar(&[inside(), directory("1/x")])),
        ("file in a file", tar(&[inside(), file("1/x/y", "x")])),
        ("directory and file", tar(&[inside(), file("1", "x")])),
        ("the directory itself as a file", tar(&[file(".", "x")])),
        ("too large", tar(&[file("1/x", &"x".repeat(2000))])),
        ("too large in a zip", zip(&[file("1/x", &"x".repeat(2000))])),
        ("too large when compressed", gzip(&tar(&[file("1/x", &"x".repeat(2000))]))),
        ("a window too wide", zstd(&tar(&vec![inside(); 3]), 25)),
        ("cut short", tar(&[file("1/x", &"x".repeat(900))])[..1200].to_vec()),
        ("gzip cut short", gzip(&tar(&[inside()]))[..40].to_vec()),
        ("zip cut short", zip(&[inside()])[..50].to_vec()),
        ("a gzip of something else", gzip(b"onnx")),
        ("an empty file", Vec::new()),
        ("a web page", b"\n<!DOCTYPE html>".to_vec()),
        ("an ONNX file", b"\x08\x07\x12\x07pytorch".to_vec()),
    ];
    let mut lines = Vec::new();
    for (name, archive) in cases {
        let place = Place::new();
        let outcome = place.unpack(&archive, 1000);
        assert!(place.is_clean() && !Path::new("/tmp/tms-taken").exists(), "{name}");
        let Err(UnpackError::Refused(refused)) = outcome else { panic!("{name}: {outcome:?}") };
        lines.push(format!("{name}: {refused}"));
    }
    insta::assert_snapshot!(lines.join("\n"), @r#"
    path upwards: the archive has an entry "../neighbour/secret", whose name leads out of the model's directory
    path upwards inside: the archive has an entry "1/../../x", whose name leads out of the model's directory
    path upwards in a zip: the archive has an entry "../neighbour/secret", whose name leads out of the model's directory
    absolute path: the archive has an entry "/tmp/tms-taken", whose name is an absolute path
    absolute path in a zip: the archive has an entry "/tmp/tms-taken", whose name is an absolute path
    backslashes: the archive has an entry "..\\neighbour\\secret", whose name contains a backslash
    control character: the archive has an entry "1/a\nb", whose name contains a control character
    not UTF-8: the archive has an entry "1/�", whose name is not UTF-8
    link upwards: the archive has a link "1/up" to "../../neighbour/secret", which leads out of the model's directory: only links to files inside the model are taken
    link to the repository: the archive has a link "1/up" to "../..", which leads out of the model's directory: only links to files inside the model are taken
    absolute link: the archive has a link "1/etc" to "/etc/passwd", which is an absolute path: only links to files inside the model are taken
    link to nothing: the archive has a link "1/none" to "nowhere", which leads nowhere: only links to files inside the model are taken
    link to itself: the archive has a link "1/loop" to "loop", which leads nowhere: only links to files inside the model are taken
    links that leave together: the archive has a link "out" to "1/root/../neighbour", which leads out of the model's directory: only links to files inside the model are taken
    link by the archive's own name: the archive has a link "1/up" to "../../m/1/x", which leads out of the model's directory: only links to files inside the model are taken
    link that leaves and comes back: the archive has a link "1/up" to "../../model/1/x", which leads out of the model's directory: only links to files inside the model are taken
    write through a link: the archive has "1" twice, as entries of different kinds
    file over a link: the archive has "1/y" twice, as entries of different kinds
    link in a zip: the archive has a link "1/up" to "../../neighbour/secret", which leads out of the model's directory: only links to files inside the model are taken
    hard link upwards: the archive has a link "1/up" to "../neighbour/secret", which is not a name inside the archive: only links to files inside the model are taken
    hard link to an absolute path: the archive has a link "1/up" to "/etc/passwd", which is not a name inside the archive: only links to files inside the model are taken
    hard link through a link: the archive has a link "1/up" to "l/secret", which is not a file of the archive: only links to files inside the model are taken
    hard link to nothing: the archive has a link "1/up" to "1/none", which is not a file of the archive: only links to files inside the model are taken
    character device: the archive has an entry "1/null", which is a device: only files, directories and links inside the model are taken
    block device: the archive has an entry "1/sda", which is a device: only files, directories and links inside the model are taken
    pipe: the archive has an entry "1/pipe", which is a named pipe: only files, directories and links inside the model are taken
    pipe in a zip: the archive has an entry "1/pipe", which is a device, pipe or socket: only files, directories and links inside the model are taken
    kind unknown: the archive has an entry "1/what", which is of a kind that is not known: only files, directories and links inside the model are taken
    file and directory: the archive has "1/x" twice, as entries of different kinds
    file in a file: the archive has "1/x" twice, as entries of different kinds
    directory and file: the archive has "1" twice, as entries of different kinds
    the directory itself as a file: the archive has an entry ".", whose name is that of the model's directory itself
    too large: the archive unpacks to more than 1000 bytes (server.modelRepositories.maximumSize)
    too large in a zip: the archive unpacks to more than 1000 bytes (server.modelRepositories.maximumSize)
    too large when compressed: the archive unpacks to more than 1000 bytes (server.modelRepositories.maximumSize)
    a window too wide: the archive needs more than 16 MiB of memory to unpack: compress it with zstd -19 or less, without --ultra and --long
    cut short: the archive is broken: it ends in the middle of a file
    gzip cut short: the archive is broken: incomplete deflate stream
    zip cut short: the archive is broken: Missing end of central directory
    a gzip of something else: the file is compressed by gzip, but what is inside is not a tar: pack the model's directory with tar first
    an empty file: an empty file is not an archive: expected tar, tar.gz, tar.zst or zip with the model's directory (version directories such as 1/, and config.pbtxt), told by its first bytes
    a web page: a web page (does the address ask to log in?) is not an archive: expected tar, tar.gz, tar.zst or zip with the model's directory (version directories such as 1/, and config.pbtxt), told by its first bytes
    an ONNX file: a single ONNX file is not an archive: expected tar, tar.gz, tar.zst or zip with the model's directory (version directories such as 1/, and config.pbtxt), told by its first bytes
    "#);
}

#[test]
fn bombs_of_entries_headers_and_links_are_refused() {
    let refusal = |archive: &[u8]| Place::new().unpack(archive, 1 << 20).unwrap_err().to_string();
    let many: Vec<_> = (0..501).map(|_| directory("1")).collect();
    let mut links = links::Links::default();
    let refused = (0..=links::MOST).find_map(|n| links.add_symbolic(n.to_string().into(), b".").err());
    let mut headers = ::tar::Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(2 << 20);
    headers.append_data(&mut header, "x", io::repeat(b'a').take(2 << 20)).unwrap();
    let deep = |n: usize| file(&format!("{n}/{}x", "d/".repeat(40)), "");
    let implied: Vec<_> = (0..13).map(deep).collect();
    let table = [
        refusal(&gzip(&tar(&many))),
        refused.unwrap().to_string(),
        refusal(&gzip(&headers.into_inner().unwrap())),
        refusal(&tar(&implied)),
    ];
    insta::assert_snapshot!(table.join("\n"), @r"
    the archive has more than 500 entries
    the archive has more links than the agent takes: at most 10000 with 4194304 bytes of names
    the archive is broken: more than 1 MiB of headers before a file
    the archive has more than 500 entries
    ");
}

/// Names of few parts, so that entries meet, and now and then a hostile one.
fn names() -> impl Strategy<Value = String> {
    let part = prop_oneof![8 => "[ab1]", 1 => Just(".".to_owned()), 1 => Just("..".to_owned()), 1 => Just(String::new())];
    prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"))
}

fn items() -> impl Strategy<Value = Vec<Item>> {
    let kind = prop_oneof![
        6 => Just(EntryType::Regular),
        3 => Just(EntryType::Directory),
        2 => Just(EntryType::Symlink),
        2 => Just(EntryType::Link),
        1 => Just(EntryType::Char),
    ];
    let one = (names(), kind, names(), 0..0o10000_u32).prop_map(|(name, kind, content, mode)| Item {
        name: name.into_bytes(),
        kind,
        mode,
        content: if kind == EntryType::Directory { Vec::new() } else { content.into_bytes() },
    });
    prop::collection::vec(one, 0..8)
}

/// What the files of an archive without links must be, or nothing where it must be refused.
fn expected(items: &[Item]) -> Option<BTreeMap<String, String>> {
    let mut files: BTreeMap<Vec<String>, Option<String>> = BTreeMap::new();
    for item in items {
        let name = String::from_utf8(item.name.clone()).unwrap();
        let parts: Vec<_> =
            name.split('/').filter(|part| !matches!(*part, "" | ".")).map(str::to_owned).collect();
        let is_file = item.kind == EntryType::Regular && !name.ends_with('/');
        let is_bad =
            name.starts_with('/') || parts.iter().any(|part| part == "..") || (is_file && parts.is_empty());
        if is_bad || item.kind == EntryType::Char {
            return None;
        }
        for length in 1..=parts.len() {
            let is_last = length == parts.len();
            let wanted = (is_last && is_file).then(|| String::from_utf8(item.content.clone()).unwrap());
            let was = files.insert(parts[..length].to_vec(), wanted.clone());
            if was.is_some_and(|was| was.is_some() != wanted.is_some()) {
                return None;
            }
        }
    }
    let mut tops: Vec<_> = files.iter().filter(|(parts, _)| parts.len() == 1).collect();
    let top = tops.pop().filter(|_| tops.is_empty());
    let inner = top
        .filter(|(parts, content)| parts[0] != "1" && content.is_none())
        .map(|(parts, _)| parts[0].clone());
    let below = |parts: &[String]| match &inner {
        Some(inner) => parts.strip_prefix(std::slice::from_ref(inner)).unwrap().join("/"),
        None => parts.join("/"),
    };
    let found =
        files.iter().filter(|(parts, _)| !below(parts).is_empty()).map(|(parts, content)| match content {
            Some(content) => (below(parts), content.clone()),
            None => (format!("{}/", below(parts)), "directory".to_owned()),
        });
    Some(found.collect())
}

/// Without modes, which the archive only partly decides.
fn contents(found: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let plain = |text: String| match text.strip_prefix("file ") {
        Some(file) => file[4..].to_owned(),
        None => text,
    };
    found.into_iter().map(|(name, text)| (name, plain(text))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn an_archive_writes_exactly_what_it_says_and_nothing_outside(items in items(), as_zip: bool) {
        let place = Place::new();
        let usable = |item: &&Item| !as_zip || !matches!(item.kind, EntryType::Link | EntryType::Char) && !item.name.is_empty();
        let items: Vec<_> = items.iter().filter(usable).cloned().collect();
        let outcome = place.unpack(&if as_zip { zip(&items) } else { tar(&items) }, 1 << 20);
        prop_assert!(place.is_clean());
        let root = fs::canonicalize(place.folder.path()).unwrap().join("model");
        for (name, what) in place.found() {
            if outcome.is_ok() && what.starts_with("link") {
                prop_assert!(fs::canonicalize(root.join(&name)).unwrap().starts_with(&root), "{name} {what}");
            }
        }
        let has_links = items.iter().any(|item| matches!(item.kind, EntryType::Symlink | EntryType::Link));
        if !has_links && !items.is_empty() {
            let found = outcome.is_ok().then(|| contents(place.found()));
            prop_assert_eq!(found, expected(&items), "{:?}", outcome);
        }
    }

    #[test]
    fn a_damaged_archive_never_harms(
        items in items(),
        form in 0..4_usize,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        length in any::<prop::sample::Index>(),
        is_cut: bool,
    ) {
        let mut bytes = match form {
            0 => tar(&items),
            1 => gzip(&tar(&items)),
            2 => zstd(&tar(&items), 20),
            _ => zip(&items),
        };
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if is_cut {
            bytes.truncate(length.index(bytes.len()));
        }
        let place = Place::new();
        let outcome = place.unpack(&bytes, 1 << 20);
        prop_assert!(!matches!(outcome, Err(UnpackError::Files(_))), "{outcome:?}");
        prop_assert!(place.is_clean());
    }

    #[test]
    fn random_bytes_never_harm(start in 0..6_usize, bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let starts: [&[u8]; 6] = [b"", &[0x1f, 0x8b, 8], &[0x28, 0xb5, 0x2f, 0xfd], b"PK\x03\x04", b"PK\x05\x06", b"x"];
        let place = Place::new();
        let outcome = place.unpack(&[starts[start], &bytes].concat(), 1 << 20);
        prop_assert!(!matches!(outcome, Err(UnpackError::Files(_))), "{outcome:?}");
        prop_assert!(place.is_clean());
    }
}
