//! Servers and commands that end, wait, are stopped or killed; and the exit code of each way to fail.

use std::fs;

use crate::assert_shows;
use crate::harness::{CREATE, Going, Person, Place, VALUES, ended};

/// A place where nothing can be written, so that leases stay pending until [`Stuck::loosen`].
struct Stuck(Place);

impl Stuck {
    fn new() -> Self {
        Self(Place::new(VALUES))
    }

    /// Puts a file where the folder of manifests was.
    fn block(&self) {
        fs::remove_dir_all(self.0.path("manifests")).unwrap();
        self.0.write("manifests", "");
    }

    fn loosen(&self) {
        fs::remove_file(self.0.path("manifests")).unwrap();
    }
}

/// Begins to create a lease; returns the command once the lease exists, and its id.
fn creating(person: &Person, flags: &str) -> (Going, String) {
    let mut create = person.starts(&format!("{CREATE} {flags}"));
    let line = create.line();
    assert!(line.starts_with("Lease "), "{line}");
    (create, line[6..38].to_owned())
}

#[test]
fn a_server_that_is_killed_while_a_lease_is_created_finishes_it_later() {
    let stuck = Stuck::new();
    let server = stuck.0.start();
    let (port, person) = (server.port(), server.person());
    stuck.block();
    let (create, id) = creating(&person, "");
    server.kill();
    stuck.loosen();
    let _server = stuck.0.start_on(port);
    let said = create.end();
    assert_eq!(said.code, 0, "{}", said.whole());
    assert!(said.out.starts_with(&format!("Lease {id} is WRITTEN at ")), "{}", said.whole());
    assert!(said.err.contains("the connection broke"), "{}", said.err);
    assert_eq!(person.tmsctl("lease list --all -z").done().lines().count(), 1);
}

#[test]
fn a_lease_that_ends_while_it_is_created_is_a_failure_with_its_own_code() {
    let stuck = Stuck::new();
    let server = stuck.0.start();
    let person = server.person();
    stuck.block();

    let (create, id) = creating(&person, "");
    person.tmsctl(&format!("lease release {id}")).done();
    let said = create.end();
    assert!(said.err.contains("ended before it was ready: it is RELEASED"), "{}", said.err);
    assert_eq!(said.code, 4);

    let said = person.tmsctl(&format!("{CREATE} --lifetime 1s"));
    assert!(said.err.contains("ended before it was ready: it is EXPIRED"), "{}", said.err);
    assert_eq!(said.code, 4);

    let said = person.tmsctl(&format!("{CREATE} --timeout 1s"));
    assert!(said.err.contains("is not ready after 1s"), "{}", said.err);
    assert_eq!(said.code, 4);

    let (create, id) = creating(&person, "");
    create.interrupt();
    let said = create.end();
    assert!(said.err.contains(&format!("interrupted; lease {id} exists")), "{}", said.err);
    assert_eq!(said.code, 130);
}

#[test]
fn every_kind_of_failure_has_its_own_code() {
    let place = Place::new(VALUES);
    let server = place.start();
    let person = server.person();
    let nobody = Person::new();
    for (code, said) in [
        (0, person.tmsctl("lease list")),
        (1, person.tmsctl("lease status 0123456789abcdef0123456789abcdef")),
        (1, person.tmsctl(&format!("{CREATE} --replicas 9"))),
        (2, person.tmsctl("lease create")),
        (2, person.tmsctl("lease list -z -o json")),
        (2, nobody.tmsctl("lease list")),
        (2, nobody.tmsctl("lease list -t nowhere")),
        (3, nobody.tmsctl("lease list -t http://127.0.0.1:1")),
        (3, nobody.tmsctl("lease list -t http://nowhere.invalid:1")),
    ] {
        assert_eq!(said.code, code, "{}", said.whole());
        assert_eq!(said.err.contains("fatal: "), code != 0, "{}", said.whole());
        assert!(code == 0 || said.err.contains("hint: ") || said.err.contains("--help"), "{}", said.whole());
    }
}

#[test]
fn wrong_words_are_told_what_would_be_right() {
    let place = Place::new(VALUES);
    let server = place.start();
    let person = server.person();
    assert_shows!(person.tmsctl("lease create -m name=a,uri=models/a").whole(), @r"
    fatal: the uri has no scheme: write it in full, such as https://models.example.com/resnet.tar.gz or pvc://claim/resnet (spec.models[0].uri @ Acquire)
    hint: look at --model; `tmsctl server bounds` shows what this server allows
    exit 1
    ");
    assert_shows!(person.tmsctl(&format!("{CREATE} --replicas -1")).whole(), @r"
    fatal: invalid value '-1' for '--replicas <COUNT>': write a whole number from 0 to 4294967295

    For more information, try '--help'.
    exit 2
    ");
    assert_shows!(person.tmsctl(&format!("{CREATE} --lifetime 90")).whole(), @r"
    fatal: invalid value '90' for '--lifetime <DURATION>': the unit is missing: 90s, 90m, 90h or 90d

    For more information, try '--help'.
    exit 2
    ");
    assert_shows!(person.tmsctl(&format!("{CREATE} --autoscaling-max-replicas 4")).whole(), @r"
    fatal: --autoscaling-max-replicas means nothing without --enable-autoscaling
    hint: add --enable-autoscaling
    exit 2
    ");
    assert_shows!(person.tmsctl(&format!("{CREATE} --gpus 9 --cpu much --lifetime 9h --label a=/")).whole(), @r#"
    fatal: 9 GPUs asked for each replica, at most 8 are allowed (server.resources.maximum.gpus) (spec.bespoke.gpus @ Acquire)
    fatal: "much" is not a quantity of Kubernetes, such as 4, 500m or 16Gi (spec.bespoke.cpu @ Acquire)
    fatal: a lifetime of 9h asked, 1s to 8h is allowed (server.leases.maximumLifetime) (spec.lifetime @ Acquire)
    fatal: "/" is not a label value: at most 63 of A-Z a-z 0-9 _ . - are, with a letter or digit at both ends, or nothing (spec.labels["a"] @ Acquire)
    hint: look at --gpus, --cpu, --lifetime, --label; `tmsctl server bounds` shows what this server allows
    exit 1
    "#);
    assert_shows!(person.tmsctl("lease list").whole(), @r"
    You have no leases; --all shows those that have ended, too
    exit 0
    ");
    assert_shows!(person.tmsctl("lease list --label a=b").whole(), @r"
    There are no such leases
    exit 0
    ");
    assert_shows!(person.tmsctl("lease status beef").whole(), @r#"
    fatal: you have no lease "beef" (@ Status)
    hint: `tmsctl lease list --all` shows your leases, those that have ended too
    exit 1
    "#);
    assert_shows!(person.tmsctl("target set nowhere").whole(), @r#"
    fatal: there is no target "nowhere"
    hint: the saved ones are lab; a URL begins with http:// or https://
    exit 2
    "#);
    assert_shows!(Person::new().tmsctl("lease list").whole(), @r"
    fatal: no server is named, and there is no default target
    hint: save one with `tmsctl target add NAME URL`, or give --target URL or TMS_TARGET
    exit 2
    ");
    assert_shows!(Person::new().tmsctl("lease list -t http://127.0.0.1:1").whole(), @r"
    fatal: http://<address> cannot be reached: Connection refused (os error 111)
    hint: is the server running, and is the target right? `tmsctl target list` shows the saved ones
    exit 3
    ");
}

#[test]
fn a_server_stops_within_a_second_though_somebody_watches() {
    let place = Place::new(VALUES);
    let server = place.start();
    let person = server.person();
    person.tmsctl(&format!("{CREATE} -z")).done();
    let mut watch = person.starts("lease watch");
    assert!(watch.line().ends_with("WRITTEN"));
    let status = server.terminate();
    assert_eq!(status.code(), Some(0));
    assert!(place.log().trim_end().ends_with("stopped"), "{}", place.log());
    // Whoever watches waits for the server to come back, until Ctrl-C, of which there is nothing to say.
    watch.interrupt();
    let said = watch.end();
    assert_eq!(said.code, 130, "{}", said.whole());
    assert!(!said.err.contains("fatal"), "{}", said.err);
}

#[test]
fn a_second_server_on_the_same_files_refuses_to_start() {
    let place = Place::new(VALUES);
    let _server = place.start();
    assert_shows!(place.refused().whole(), @r"
    fatal: cannot open the database (server.database.url): tms.db is in use by another server; several servers need PostgreSQL
    exit 1
    ");
}

#[test]
fn a_folder_of_manifests_has_one_installation() {
    let place = Place::new(VALUES);
    let server = place.start();
    server.person().tmsctl(&format!("{CREATE} -z")).done();
    let folder = place.path("manifests");
    let manifests = format!("  cluster: {{manifests: {{directory: {}}}}}\n", folder.display());
    let other = Place::new(&format!("{VALUES}{manifests}"));
    let refused = other.refused();
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("(server.cluster.manifests.directory): "), "{}", refused.err);
    assert!(refused.err.contains("belongs to installation"), "{}", refused.err);
}

#[test]
fn a_database_that_is_away_is_told_with_its_key_and_why() {
    let place = Place::new("server: {database: {url: \"postgres://tms@127.0.0.1:1/tms\"}}");
    assert_shows!(place.refused().whole(), @r"
    fatal: cannot open the database (server.database.url): the database failed: error communicating with database: Connection refused (os error 111)
    exit 1
    ");
}

#[test]
fn a_port_that_is_taken_is_told_with_its_key() {
    let place = Place::new(VALUES);
    let server = place.start();
    let other = Place::new(&format!("server: {{apiService: {{port: {}}}}}", server.port()));
    assert_shows!(ended(other.serve(), 10).whole(), @r"
    fatal: cannot listen on <address> (server.apiService.port): Address already in use (os error 98)
    exit 1
    ");
}
