//! Hostile archives and uris: each is refused with its reason, nothing is written outside the repository, and the agent stays
//! small.

use std::fs;

use tar::EntryType::{self, Block, Char, Directory, Fifo, Link, Regular, Symlink};

use crate::archives::{gzip, tar, zstd};
use crate::harness::Pod;
use tms_tests::site::{Asked, Reply, Site, answer};

/// Most memory of the agent, in MiB.
const MEMORY: u64 = 64;

fn archives() -> Vec<(&'static str, Vec<u8>)> {
    let file: (&str, EntryType, &[u8]) = ("1/x", Regular, b"x");
    let link = |target: &'static str| tar(&[file, ("1/l", Symlink, target.as_bytes())]);
    let hard = |target: &'static str| tar(&[file, ("1/l", Link, target.as_bytes())]);
    let many: Vec<_> = (0..100_001).map(|_| ("1/", Directory, &b""[..])).collect();
    let links: Vec<_> = (0..10_001).map(|n| format!("1/{n}")).collect();
    let links: Vec<_> = links.iter().map(|name| (name.as_str(), Symlink, &b"."[..])).collect();
    let zeros = vec![0; 80 << 20];
    vec![
        ("path upwards", tar(&[file, ("../escaped", Regular, b"x")])),
        ("path upwards in the middle", tar(&[("1/../../escaped", Regular, b"x")])),
        ("absolute path", tar(&[("/tmp/tms-escaped", Regular, b"x")])),
        ("control character", tar(&[("1/a\nb", Regular, b"x")])),
        ("backslashes", tar(&[("..\\escaped", Regular, b"x")])),
        ("link upwards", link("../../../../credentials")),
        ("absolute link", link("/etc/passwd")),
        ("link to nothing", link("nowhere")),
        (
            "links that leave together",
            tar(&[file, ("r", Symlink, b"."), ("1/o", Symlink, b"../r/../../../claims")]),
        ),
        ("write through a link", tar(&[("1", Symlink, b"../../.."), ("1/escaped", Regular, b"x")])),
        ("hard link upwards", hard("../../log")),
        ("absolute hard link", hard("/etc/passwd")),
        ("character device", tar(&[("1/null", Char, b"")])),
        ("block device", tar(&[("1/sda", Block, b"")])),
        ("pipe", tar(&[("1/pipe", Fifo, b"")])),
        ("file and directory of one name", tar(&[file, ("1/x/", Directory, b"")])),
        ("file in a file", tar(&[file, ("1/x/y", Regular, b"x")])),
        ("bomb in gzip", gzip(&tar(&[("1/zeros", Regular, &zeros[..5 << 20])]))),
        ("bomb in zstd", zstd(&tar(&[("1/zeros", Regular, &zeros)]), 20)),
        ("window too wide", zstd(&tar(&[("1/zeros", Regular, &zeros[..9])]), 25)),
        ("bomb of entries", zstd(&tar(&many), 20)),
        ("bomb of links", zstd(&tar(&links), 20)),
        ("bomb of a long name", zstd(&tar(&[("x", EntryType::GNULongName, &zeros)]), 20)),
        ("bomb of extended attributes", zstd(&tar(&[("x", EntryType::XHeader, &zeros)]), 20)),
        ("cut short", tar(&[("1/x", Regular, &[0; 4000])])[..2000].to_vec()),
        ("damaged", {
            let mut bytes = tar(&[file]);
            bytes[150] ^= 1;
            bytes
        }),
        ("no version", tar(&[("model/readme", Regular, b"x")])),
        ("other name", tar(&[file, ("config.pbtxt", Regular, b"name: 'other'")])),
        ("no archive", b"\x08\x07\x12\x07pytorch".to_vec()),
        ("a web page", b"<html>Log in</html>".to_vec()),
        ("nothing", Vec::new()),
    ]
}

/// Addresses, of which `SITE` is a server that redirects as the path says.
const URIS: [(&str, &str); 14] = [
    ("claim upwards", "pvc://c/../credentials"),
    ("claim that is not mounted", "pvc://other/model"),
    ("link out of the claim", "pvc://c/out"),
    ("pipe in a claim", "pvc://c/pipe"),
    ("file of the node", "file:///etc/passwd"),
    ("scheme of later", "s3://bucket/model"),
    ("credentials in the uri", "https://user:hush@localhost/m"),
    ("wrong fragment", "https://localhost/m#md5=00"),
    ("redirect to a file", "http://SITE/to?file:///etc/passwd"),
    ("redirect in a circle", "http://SITE/to?/to?/to"),
    ("redirect to nowhere", "http://SITE/none"),
    ("not there", "http://SITE/missing"),
    ("secret missing", "http://SITE/secret"),
    ("larger than allowed", "http://SITE/large"),
];

fn reply(asked: &Asked) -> Reply {
    match asked.path.split_once('?') {
        Some((_, to)) => answer(302, &[("location", to)], b""),
        None if asked.path == "/to" => answer(302, &[("location", "/to")], b""),
        None if asked.path == "/none" => answer(301, &[], b""),
        None if asked.path == "/secret" => answer(401, &[], b""),
        None if asked.path == "/large" => answer(200, &[("content-length", "99999999999")], b""),
        None => answer(404, &[], b""),
    }
}

/// Runs an agent that must end with a reason, and returns the reason and its peak memory in KiB.
async fn refused(pod: &Pod) -> (String, u64) {
    let mut agent = pod.start().await;
    assert_eq!(agent.ended().await.code(), Some(3), "{}", pod.log());
    let message: serde_json::Value = serde_json::from_str(&pod.termination()).unwrap();
    let log = pod.log();
    let memory =
        log.split("peak_memory_kib=").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    let left: Vec<_> =
        fs::read_dir(pod.path("models")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [".tms-work"]);
    let mut around: Vec<_> =
        fs::read_dir(pod.path(".")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    around.retain(|name| name != "address" && name != "log" && name != "termination-log");
    around.sort();
    assert_eq!(around, ["claims", "credentials", "models"]);
    assert!(!fs::exists("/tmp/tms-escaped").unwrap());
    assert!(!log.contains("hush"), "{log}");
    (message["failed"][0]["message"].as_str().unwrap().to_owned(), memory.parse().unwrap())
}

#[tokio::test]
async fn hostile_archives_and_uris_are_refused_with_a_reason_in_little_memory() {
    let mut table = Vec::new();
    let mut peak = 0;
    for (name, archive) in archives() {
        let pod = Pod::new().claim("archive", &archive).model("m", "pvc://c/archive");
        let pod = pod.with("TMS_MAXIMUM_BYTES", 4 << 20);
        let (reason, memory) = refused(&pod).await;
        peak = peak.max(memory);
        table.push(format!("{name}: {reason}"));
    }
    let site = Site::http(|asked, _| reply(asked)).await;
    for (name, uri) in URIS {
        let address = site.address.to_string();
        let pod = Pod::new().with("TMS_ALLOW_HTTP", "true").model("m", &uri.replace("SITE", &address));
        std::os::unix::fs::symlink("../../credentials", pod.path("claims/c/out")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(pod.path("claims/c/pipe")).status();
        assert!(made.unwrap().success());
        let (reason, memory) = refused(&pod).await;
        peak = peak.max(memory);
        table.push(format!("{name}: {}", reason.replace(&address, "SITE")));
    }
    let pod = Pod::new().model("m", "http://localhost/m");
    table.push(format!("not encrypted: {}", refused(&pod).await.0));
    println!("{}\n{} refusals; the agent's peak memory: {} MiB", table.join("\n"), table.len(), peak >> 10);
    assert!(peak >> 10 < MEMORY, "{} MiB", peak >> 10);
    insta::assert_snapshot!(table.join("\n"), @r#"
    path upwards: pvc://c/archive: the archive has an entry "../escaped", whose name leads out of the model's directory
    path upwards in the middle: pvc://c/archive: the archive has an entry "1/../../escaped", whose name leads out of the model's directory
    absolute path: pvc://c/archive: the archive has an entry "/tmp/tms-escaped", whose name is an absolute path
    control character: pvc://c/archive: the archive has an entry "1/a\nb", whose name contains a control character
    backslashes: pvc://c/archive: the archive has an entry "..\\escaped", whose name contains a backslash
    link upwards: pvc://c/archive: the archive has a link "1/l" to "../../../../credentials", which leads out of the model's directory: only links to files inside the model are taken
    absolute link: pvc://c/archive: the archive has a link "1/l" to "/etc/passwd", which is an absolute path: only links to files inside the model are taken
    link to nothing: pvc://c/archive: the archive has a link "1/l" to "nowhere", which leads nowhere: only links to files inside the model are taken
    links that leave together: pvc://c/archive: the archive has a link "1/o" to "../r/../../../claims", which leads out of the model's directory: only links to files inside the model are taken
    write through a link: pvc://c/archive: the archive has "1" twice, as entries of different kinds
    hard link upwards: pvc://c/archive: the archive has a link "1/l" to "../../log", which is not a name inside the archive: only links to files inside the model are taken
    absolute hard link: pvc://c/archive: the archive has a link "1/l" to "/etc/passwd", which is not a name inside the archive: only links to files inside the model are taken
    character device: pvc://c/archive: the archive has an entry "1/null", which is a device: only files, directories and links inside the model are taken
    block device: pvc://c/archive: the archive has an entry "1/sda", which is a device: only files, directories and links inside the model are taken
    pipe: pvc://c/archive: the archive has an entry "1/pipe", which is a named pipe: only files, directories and links inside the model are taken
    file and directory of one name: pvc://c/archive: the archive has "1/x" twice, as entries of different kinds
    file in a file: pvc://c/archive: the archive has "1/x" twice, as entries of different kinds
    bomb in gzip: pvc://c/archive: the archive unpacks to more than 4194304 bytes (server.modelRepositories.maximumSize)
    bomb in zstd: pvc://c/archive: the archive unpacks to more than 4194304 bytes (server.modelRepositories.maximumSize)
    window too wide: pvc://c/archive: the archive needs more than 16 MiB of memory to unpack: compress it with zstd -19 or less, without --ultra and --long
    bomb of entries: pvc://c/archive: the archive has more than 100000 entries
    bomb of links: pvc://c/archive: the archive has more links than the agent takes: at most 10000 with 4194304 bytes of names
    bomb of a long name: pvc://c/archive: the archive is broken: more than 1 MiB of headers before a file
    bomb of extended attributes: pvc://c/archive: the archive is broken: more than 1 MiB of headers before a file
    cut short: pvc://c/archive: the archive is broken: it ends in the middle of a file
    damaged: pvc://c/archive: the archive is broken: archive header checksum mismatch
    no version: pvc://c/archive: there is no version directory: put the model's files into a directory named by a number, such as 1/ (an ensemble needs an empty one)
    other name: pvc://c/archive: config.pbtxt says name: "other"; the lease calls it "m": change one of them
    no archive: pvc://c/archive: a single ONNX file is not an archive: expected tar, tar.gz, tar.zst or zip with the model's directory (version directories such as 1/, and config.pbtxt), told by its first bytes
    a web page: pvc://c/archive: a web page (does the address ask to log in?) is not an archive: expected tar, tar.gz, tar.zst or zip with the model's directory (version directories such as 1/, and config.pbtxt), told by its first bytes
    nothing: pvc://c/archive: an empty file is not an archive: expected tar, tar.gz, tar.zst or zip with the model's directory (version directories such as 1/, and config.pbtxt), told by its first bytes
    claim upwards: the path inside the claim has a segment "..": write it without empty segments, . and ..
    claim that is not mounted: pvc://other/model is not there: the claim has no such path
    link out of the claim: pvc://c/out is a link that leads out of the claim
    pipe in a claim: pvc://c/pipe is neither a directory nor a file
    file of the node: the uri begins with file://, which is never served, since replicas see no files but their own: put the model on a PersistentVolumeClaim (pvc://) or on a web server (https://)
    scheme of later: the uri begins with s3://, and object stores come in a later version: use a signed https:// address of the archive, or pvc://
    credentials in the uri: the uri contains credentials: leave them out, since others can read a lease; the administrator binds a Secret to the address (server.modelRepositories.https)
    wrong fragment: the fragment of the uri is not #sha256= with the 64 hexadecimal digits of the file: write # as %23 where it belongs to the address
    redirect to a file: http://SITE/to redirects to file:, and only https: and http: are followed
    redirect in a circle: http://SITE/to is redirected more than 10 times
    redirect to nowhere: http://SITE/none redirects without saying where
    not there: http://SITE/missing answers 404 Not Found
    secret missing: http://SITE/secret answers 401 Unauthorized and no Secret applies to this address (server.modelRepositories.https)
    larger than allowed: the file is larger than 67108864 bytes (server.modelRepositories.maximumSize)
    not encrypted: http://localhost/m is not encrypted: use https://, or let the administrator allow http:// (server.modelRepositories.allowHttp)
    "#);
}

#[tokio::test]
async fn the_largest_that_is_allowed_is_laid_out_in_little_memory() {
    let mut random = tms_tests::random::Random::new(1);
    let block: Vec<_> = (0..1 << 20).map(|_| random.within(0..256) as u8).collect();
    let weights = block.repeat(60);
    let wide = zstd(&tar(&[("1/w", Regular, &weights)]), 24);
    let files: Vec<_> = (0..1_000).map(|n| format!("1/{n}")).collect();
    let files: Vec<_> = files.iter().map(|name| (name.as_str(), Regular, &b"x"[..])).collect();
    let site = Site::http(move |_, _| answer(200, &[], &wide)).await;
    let pod = Pod::new().with("TMS_ALLOW_HTTP", "true").claim("many.tar", &tar(&files));
    let pod = pod.model("wide", &format!("http://{}/wide", site.address)).model("many", "pvc://c/many.tar");
    let mut agent = pod.start().await;
    agent.answers("/fetched").await;
    assert_eq!(pod.files("wide"), [format!("1/w {}", 60 << 20)]);
    assert_eq!(pod.files("many").len(), 1_000);
    let peak = agent.peak_memory();
    println!("the agent's peak memory: {} MiB", peak >> 10);
    assert!(peak >> 10 < MEMORY, "{} MiB", peak >> 10);
}
