//! What others see of a server: clients that were not written for it, and readers of its log.

use std::process::Command;

use tms_tests::postgres;

use crate::assert_shows;
use crate::harness::{CREATE, Place, Said, Server, VALUES, clean, ended};

const PASSWORD: &str = "correct-horse-battery";

/// Runs grpcurl against a server. `None` where there is no grpcurl, which is counted as a skipped test.
fn grpcurl(server: &Server, flags: &[&str], call: &[&str]) -> Option<Said> {
    let Some(program) = tms_tests::tool("grpcurl") else {
        tms_tests::skip("there is no grpcurl: tests/cluster/cluster build makes it");
        return None;
    };
    let mut command: Command = clean(&program);
    command.arg("-plaintext").args(flags).arg(server.address()).args(call);
    Some(ended(command, 30))
}

#[test]
fn grpcurl_finds_the_services_acquires_a_lease_and_is_told_what_is_out_of_bounds() {
    let place = Place::new(VALUES);
    let server = place.start();
    let Some(listed) = grpcurl(&server, &[], &["list"]) else { return };
    assert_shows!(listed.whole(), @r"
    grpc.health.v1.Health
    grpc.reflection.v1.ServerReflection
    tms.v1.LeaseService
    tms.v1.ServerService
    exit 0
    ");

    let acquire = |maximum: u32, minimum: u32| {
        let models = r#"[{"name": "resnet50", "uri": "https://models.example.com/resnet50.tar.gz"}]"#;
        let autoscaling = format!(r#"{{"minReplicas": {minimum}, "maxReplicas": {maximum}}}"#);
        let request = format!(r#"{{"spec": {{"models": {models}, "autoscaling": {autoscaling}}}}}"#);
        grpcurl(&server, &["-d", &request], &["tms.v1.LeaseService/Acquire"]).unwrap()
    };
    let acquired = acquire(4, 1);
    assert_eq!(acquired.code, 0, "{}", acquired.whole());
    assert!(acquired.out.contains(r#""state": "LEASE_STATE_WRITTEN""#), "{}", acquired.out);
    assert_shows!(acquire(9, 5).whole(), @r#"
    ERROR:
      Code: InvalidArgument
      Message: a minimum of 5 asked, 1 to 4 are allowed (server.autoscaling.replicas.limits.minimum.upperBound); 9 replicas asked, at most 8 are allowed (server.autoscaling.replicas.limits.maximum)
      Details:
      1)	{
        	  "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        	  "domain": "tms",
        	  "metadata": {
        	    "keys": "server.autoscaling.replicas.limits.maximum,server.autoscaling.replicas.limits.minimum.upperBound",
        	    "rpc": "Acquire"
        	  },
        	  "reason": "OUT_OF_BOUNDS"
        	}
      2)	{
        	  "@type": "type.googleapis.com/google.rpc.BadRequest",
        	  "fieldViolations": [
        	    {
        	      "field": "spec.autoscaling.min_replicas",
        	      "description": "a minimum of 5 asked, 1 to 4 are allowed (server.autoscaling.replicas.limits.minimum.upperBound)"
        	    },
        	    {
        	      "field": "spec.autoscaling.max_replicas",
        	      "description": "9 replicas asked, at most 8 are allowed (server.autoscaling.replicas.limits.maximum)"
        	    }
        	  ]
        	}
    exit 67
    "#);
}

#[test]
fn every_method_describes_itself() {
    let place = Place::new(VALUES);
    let server = place.start();
    for what in ["tms.v1.LeaseService", "tms.v1.ServerService", "tms.v1.Autoscaling"] {
        let Some(said) = grpcurl(&server, &[], &["describe", what]) else { return };
        assert!(said.code == 0 && said.out.contains("// "), "{what} has no comments: {}", said.whole());
    }
}

#[test]
fn the_password_of_the_database_is_shown_to_nobody() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let Some(url) = runtime.block_on(postgres::database()) else { return };
    let values = format!("{VALUES}  database: {{url: \"{url}\", passwordFile: password}}\n");
    let place = Place::new(&values).variable("RUST_LOG", "trace");
    place.write("password", &format!("{PASSWORD}\n"));
    let server = place.start();
    server.person().tmsctl(CREATE).done();
    assert_eq!(server.terminate().code(), Some(0));
    assert!(place.log().contains("TRACE"), "it logs what it can");
    for said in [place.log(), place.check_config().whole()] {
        assert!(!said.contains(PASSWORD), "{said}");
    }
}

#[test]
fn a_password_in_a_wrong_place_is_not_repeated() {
    let url = format!("postgres://tms:{PASSWORD}@127.0.0.1:1/tms");
    let in_url = Place::new(&format!("{VALUES}  database: {{url: \"{url}\"}}\n"));
    assert_shows!(in_url.check_config().whole(), @r"
    1 fault
    error: values.yaml:13:14: server.database.url
      must not hold a password
      help: give the password by server.database.passwordFile or TMS_DATABASE_PASSWORD
    exit 1
    ");
    for said in [in_url.refused(), in_url.check_config()] {
        assert_eq!(said.code, 1, "{}", said.whole());
        assert!(!said.whole().contains(PASSWORD), "{}", said.whole());
    }
}
