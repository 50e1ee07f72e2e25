//! Servers with certificates, and people with and without them.

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};

use crate::assert_shows;
use crate::harness::{CREATE, Person, Place, Server, VALUES, until};

/// An authority that issues certificates into a place.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(parameters, key), certificate }
    }

    /// Writes `NAME.pem` and `NAME.key` for a name, valid for hosts.
    fn issue(&self, place: &Place, name: &str, hosts: &[&str]) {
        let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut parameters = CertificateParams::new(hosts).unwrap();
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        place.write(&format!("{name}.pem"), &parameters.signed_by(&key, &self.issuer).unwrap().pem());
        place.write(&format!("{name}.key"), &key.serialize_pem());
    }
}

/// A place whose server shows a certificate for `host`; `more` goes to its keys of TLS.
fn place(authority: &Authority, host: &str, more: &str) -> Place {
    let place = Place::new("");
    let tls = format!("{{certificateFile: server.pem, keyFile: server.key, {more}}}");
    place.write("values.yaml", &format!("{VALUES}  tls: {tls}\n"));
    authority.issue(&place, "server", &[host]);
    place.write("ca.pem", &authority.certificate);
    place
}

/// Runs `version -z` at a target with flags, in which `@` stands for the place's folder.
fn asks(place: &Place, target: &str, flags: &str) -> String {
    let flags = flags.replace('@', &format!("{}/", place.path("").display()).replace("//", "/"));
    Person::new().tmsctl(&format!("version -z -t {target} {flags}")).whole()
}

#[test]
fn a_server_with_a_certificate_is_believed_by_those_who_know_its_authority() {
    let place = place(&Authority::new(), "127.0.0.1", "");
    let server = place.start();
    let https = format!("https://{}", server.address());
    assert_shows!(asks(&place, &https, "--ca @ca.pem"), @r"
    0.1.0	0.1.0	https://<address>	anonymous
    exit 0
    ");
    let ca = place.path("ca.pem");
    let person = Person::at(&https).with(&format!("--ca {}", ca.display()));
    assert!(person.tmsctl(CREATE).done().contains("WRITTEN"));
}

#[test]
fn each_way_to_miss_a_server_with_a_certificate_is_told_apart() {
    let place = place(&Authority::new(), "127.0.0.1", "");
    place.write("other.pem", &Authority::new().certificate);
    place.write("empty.pem", "");
    let server = place.start();
    let https = format!("https://{}", server.address());
    let elsewhere = format!("https://localhost:{}", server.port());
    assert_shows!(asks(&place, &https, "--ca @other.pem"), @r"
    0.1.0			
    fatal: https://<address> cannot be reached: its certificate is not signed by an authority that is trusted here
    hint: --ca FILE names the authority that signed the server's certificate; save it with `tmsctl target add`
    exit 3
    ");
    assert_shows!(asks(&place, &https, ""), @r"
    0.1.0			
    fatal: https://<address> cannot be reached: its certificate is not signed by an authority that is trusted here
    hint: --ca FILE names the authority that signed the server's certificate; save it with `tmsctl target add`
    exit 3
    ");
    assert_shows!(asks(&place, &https, "--ca @nowhere.pem"), @r"
    0.1.0			
    fatal: <folder>/nowhere.pem cannot be read: No such file or directory (os error 2)
    exit 2
    ");
    assert_shows!(asks(&place, &https, "--ca @empty.pem"), @r"
    0.1.0			
    fatal: <folder>/empty.pem has no certificate in PEM
    exit 2
    ");
    assert_shows!(asks(&place, &elsewhere, "--ca @ca.pem").replace(&elsewhere, "<elsewhere>"), @r#"
    0.1.0			
    fatal: <elsewhere> cannot be reached: invalid peer certificate: certificate not valid for name "localhost"; certificate is only valid for IpAddress(127.0.0.1)
    hint: name the server in the target as its certificate does
    exit 3
    "#);
    assert_shows!(asks(&place, &https, "--ca @ca.pem --certificate @server.pem"), @r"
    0.1.0			
    fatal: a certificate and its key belong together
    hint: give both --certificate and --key
    exit 2
    ");
    assert_shows!(asks(&place, &https, "--ca @ca.pem --certificate @server.pem --key @ca.pem"), @r"
    0.1.0			
    fatal: <folder>/ca.pem has no private key in PEM
    exit 2
    ");
}

#[test]
fn http_at_a_server_with_a_certificate_and_https_at_one_without_are_told_to_change() {
    let secured = place(&Authority::new(), "127.0.0.1", "");
    let server = secured.start();
    let said = asks(&secured, &format!("http://{}", server.address()), "");
    // What there is to see of a server that hangs up depends on when it does.
    assert!(said.contains("fatal: http://127.0.0.1:") && said.ends_with("exit 3"), "{said}");
    assert!(said.contains("hint: does the server expect https://… instead?"), "{said}");

    let plain = Place::new(VALUES);
    let server = plain.start();
    assert_shows!(asks(&plain, &format!("https://{}", server.address()), ""), @r"
    0.1.0			
    fatal: https://<address> cannot be reached: it does not speak TLS
    hint: does the server expect http://… instead?
    exit 3
    ");
}

#[test]
fn a_certificate_of_an_authority_itself_is_refused_in_words() {
    let authority = Authority::new();
    let place = place(&authority, "127.0.0.1", "");
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own = place.write("server.pem", &parameters.self_signed(&key).unwrap().pem());
    place.write("server.key", &key.serialize_pem());
    let server = place.start();
    let said = asks(&place, &format!("https://{}", server.address()), &format!("--ca {}", own.display()));
    assert_shows!(said, @r"
    0.1.0			
    fatal: https://<address> cannot be reached: its certificate is that of an authority, which no server may show
    hint: the server needs a certificate with CA:FALSE, signed by an authority that --ca FILE names
    exit 3
    ");
}

fn somebody(place: &Place, server: &Server, name: &str) -> Person {
    let file = |name: &str| place.path(name).display().to_string();
    Person::at(&format!("https://{}", server.address())).with(&format!(
        "--ca {} --certificate {} --key {}",
        file("ca.pem"),
        file(&format!("{name}.pem")),
        file(&format!("{name}.key"))
    ))
}

#[test]
fn people_are_known_by_their_certificates_and_see_only_their_own_leases() {
    let authority = Authority::new();
    let place = place(&authority, "127.0.0.1", "clientCaFile: ca.pem");
    authority.issue(&place, "alice", &[]);
    authority.issue(&place, "bob", &[]);
    Authority::new().issue(&place, "mallory", &[]);
    let server = place.start();
    let [alice, bob, mallory] = ["alice", "bob", "mallory"].map(|name| somebody(&place, &server, name));

    let id = alice.tmsctl(&format!("{CREATE} -z")).done();
    assert!(alice.tmsctl(&format!("lease status {id}")).done().contains("Owner       alice"));
    assert_eq!(bob.tmsctl("lease list -z --all").done(), "");
    for line in ["status", "renew", "release", "watch", "update --replicas 2"] {
        let (verb, flags) = line.split_once(' ').unwrap_or((line, ""));
        let said = bob.tmsctl(&format!("lease {verb} {id} {flags}"));
        assert_eq!(said.code, 1, "{}", said.whole());
        assert!(said.err.contains("you have no lease"), "{}", said.err);
    }
    assert_shows!(bob.tmsctl("lease list --owner alice").whole(), @r"
    fatal: you are bob and may not see the leases of alice (owner @ List)
    hint: `tmsctl version` shows who you are to the server; --certificate and --key say it
    exit 1
    ");
    // What there is to see of a server that hangs up depends on when it does.
    let nobody = Person::at(&format!("https://{}", server.address()))
        .with(&format!("--ca {}", place.path("ca.pem").display()));
    for said in [mallory.tmsctl("lease list"), nobody.tmsctl("lease list")] {
        assert_eq!(said.code, 3, "{}", said.whole());
        let hint = "hint: --certificate FILE and --key FILE show the server who you are";
        assert!(said.err.contains(hint), "{}", said.err);
    }
}

#[test]
fn certificates_are_saved_with_a_target() {
    let authority = Authority::new();
    let place = place(&authority, "127.0.0.1", "clientCaFile: ca.pem");
    authority.issue(&place, "alice", &[]);
    let server = place.start();
    let alice = Person::new();
    let folder = place.path("").display().to_string();
    let files = format!("--ca {folder}ca.pem --certificate {folder}alice.pem --key {folder}alice.key");
    alice.tmsctl(&format!("target add prod https://{} {files}", server.address())).done();
    assert!(alice.tmsctl("version").done().contains("You are     alice"));
}

#[test]
fn a_server_refuses_to_listen_to_everybody_without_a_certificate() {
    let place = Place::new("server: {apiService: {address: 0.0.0.0}}");
    assert_shows!(place.refused().whole(), @r#"
    fatal: the configuration has 1 fault
    values.yaml:1:23: server.apiService.address: "0.0.0.0"
      is not a loopback address, so it needs TLS
      help: set server.tls.certificateFile and server.tls.keyFile, or server.tls.insecure: true
    exit 1
    "#);
    let place = Place::new("server: {apiService: {address: 0.0.0.0}, tls: {insecure: true}}");
    assert_shows!(place.check_config().whole(), @r"
    ok, with 1 warning
    warning: values.yaml:1:48: server.tls.insecure: true
      listens on 0.0.0.0 without TLS: everyone on the way can read and change what is said
    exit 0
    ");
}

#[test]
fn a_running_server_shows_the_certificate_that_its_files_hold_by_then() {
    let first = Authority::new();
    let place = place(&first, "127.0.0.1", "");
    let server = place.start();
    let https = format!("https://{}", server.address());
    let is_believed = |ca: &str| asks(&place, &https, &format!("--ca @{ca}")).ends_with("exit 0");
    assert!(is_believed("ca.pem"));
    let ca = place.path("ca.pem").display().to_string();
    let person = Person::at(&https).with(&format!("--ca {ca}"));
    let id = person.tmsctl(&format!("{CREATE} -z")).done();
    let mut watch = person.starts("lease watch");
    assert!(watch.line().ends_with("WRITTEN"));

    place.write("server.pem", "no certificate");
    until("the server warns", 30, || {
        assert!(is_believed("ca.pem"), "the certificate before is shown still");
        place.log().contains("new files of TLS cannot be used").then_some(())
    });

    let second = Authority::new();
    second.issue(&place, "server", &["127.0.0.1"]);
    place.write("second.pem", &second.certificate);
    until("the new certificate is shown", 30, || is_believed("second.pem").then_some(()));
    assert!(!is_believed("ca.pem"));

    // A connection of before lives on: its stream tells what becomes of the lease now.
    let second = place.path("second.pem").display().to_string();
    Person::at(&https).with(&format!("--ca {second}")).tmsctl(&format!("lease renew {id}")).done();
    assert!(watch.line().contains("Renewed"));
}
