//! Every kind of refusal, as people and programs read it.

use std::collections::BTreeMap;

use insta::assert_snapshot;
use tms_proto::v1;
use tonic::Code;

use crate::harness::{Server, Wishes, lifetime, spec, told, told_of};

async fn refused(server: &Server, spec: v1::LeaseSpec) -> tonic::Status {
    let request = v1::AcquireRequest { spec: Some(spec), no_wait: true, ..Default::default() };
    server.leases().await.acquire(request).await.unwrap_err()
}

fn named(lease: &v1::Lease) -> String {
    lease.id.clone()
}

#[tokio::test]
async fn more_replicas_than_allowed_are_refused_with_the_key_that_decides() {
    let server = Server::start().await;
    let autoscaling = v1::Autoscaling { max_replicas: Some(99), ..Default::default() };
    let status = refused(&server, v1::LeaseSpec { autoscaling: Some(autoscaling), ..spec(&["a"]) }).await;
    assert_snapshot!(told(&status), @r"
    InvalidArgument: 99 replicas asked, at most 10 are allowed (server.autoscaling.replicas.limits.maximum)
    error: OUT_OF_BOUNDS (tms) keys=server.autoscaling.replicas.limits.maximum rpc=Acquire
    field: spec.autoscaling.max_replicas: 99 replicas asked, at most 10 are allowed (server.autoscaling.replicas.limits.maximum)
    ");
}

#[tokio::test]
async fn every_fault_is_told_at_once() {
    let server = Server::start().await;
    let request = v1::AcquireRequest {
        spec: Some(v1::LeaseSpec {
            models: vec![v1::Model { name: "/".to_owned(), uri: "models/a".to_owned() }],
            lifetime: lifetime(-1),
            labels: BTreeMap::from([("-".to_owned(), String::new())]),
            ..Default::default()
        }),
        request_id: "\u{e9}".to_owned(),
        no_wait: true,
    };
    let status = server.leases().await.acquire(request).await.unwrap_err();
    assert_snapshot!(told(&status), @r#"
    InvalidArgument: a request id has 1 to 64 characters of printable ASCII; and 4 more faults
    error: INVALID_REQUEST (tms) rpc=Acquire
    field: request_id: a request id has 1 to 64 characters of printable ASCII
    field: spec.lifetime: a duration cannot be negative
    field: spec.models[0].name: "/" is not a model name: 1 to 128 of A-Z a-z 0-9 _ . - are, beginning with a letter, a digit or an underscore
    field: spec.models[0].uri: the uri has no scheme: write it in full, such as https://models.example.com/resnet.tar.gz or pvc://claim/resnet
    field: spec.labels["-"]: "-" is not a label key: at most 63 of A-Z a-z 0-9 _ . - are, with a letter or digit at both ends, after an optional domain and a slash
    "#);
    let listed = server.leases().await.list(v1::ListRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.leases, []);
}

#[tokio::test]
async fn autoscaling_that_the_administrator_did_not_enable_is_a_failed_precondition() {
    let server = Server::start_with(Wishes { values: Some("{}"), ..Wishes::default() }).await;
    let autoscaling = Some(v1::Autoscaling::default());
    let status = refused(&server, v1::LeaseSpec { autoscaling, ..spec(&["a"]) }).await;
    assert_snapshot!(told(&status), @r"
    FailedPrecondition: autoscaling asked, but the administrator has not enabled it (server.autoscaling.enable); no metric scales the lease and none may be chosen for it: the administrator has to set server.autoscaling.metrics.<metric>.allowed or .enabled to true for one of cpuUtilization, memoryUtilization, gpuUtilization, gpuMemoryUtilization, queueTime (server.autoscaling.metrics)
    error: NOT_CONFIGURED (tms) keys=server.autoscaling.enable,server.autoscaling.metrics rpc=Acquire
    field: spec.autoscaling: autoscaling asked, but the administrator has not enabled it (server.autoscaling.enable)
    field: spec.autoscaling.metrics: no metric scales the lease and none may be chosen for it: the administrator has to set server.autoscaling.metrics.<metric>.allowed or .enabled to true for one of cpuUtilization, memoryUtilization, gpuUtilization, gpuMemoryUtilization, queueTime (server.autoscaling.metrics)
    precondition: CONFIGURATION server.autoscaling.enable: autoscaling asked, but the administrator has not enabled it (server.autoscaling.enable)
    precondition: CONFIGURATION server.autoscaling.metrics: no metric scales the lease and none may be chosen for it: the administrator has to set server.autoscaling.metrics.<metric>.allowed or .enabled to true for one of cpuUtilization, memoryUtilization, gpuUtilization, gpuMemoryUtilization, queueTime (server.autoscaling.metrics)
    ");
}

#[tokio::test]
async fn renewal_by_use_is_refused_where_nothing_is_observed() {
    let server = Server::start().await;
    let automatic_renewal = Some(v1::AutomaticRenewal::default());
    let status = refused(&server, v1::LeaseSpec { automatic_renewal, ..spec(&["a"]) }).await;
    assert_snapshot!(told(&status), @r"
    FailedPrecondition: renewal by use asked, but what becomes of manifests is not observed, so that their use is unknown: renew the lease by hand (server.cluster.kind)
    error: NOT_CONFIGURED (tms) keys=server.cluster.kind rpc=Acquire
    field: spec.automatic_renewal: renewal by use asked, but what becomes of manifests is not observed, so that their use is unknown: renew the lease by hand (server.cluster.kind)
    precondition: CONFIGURATION server.cluster.kind: renewal by use asked, but what becomes of manifests is not observed, so that their use is unknown: renew the lease by hand (server.cluster.kind)
    ");
}

#[tokio::test]
async fn an_overlong_wish_is_refused_in_an_answer_that_fits() {
    let server = Server::start().await;
    let models: Vec<_> = (0..64).map(|number| format!("/{number}{}", "用".repeat(2_000))).collect();
    let models: Vec<_> = models.iter().map(String::as_str).collect();
    let status = refused(&server, spec(&models)).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.details().len() + 3 * status.message().len() < 12_000);
    assert!(told(&status).contains("more faults"), "{}", told(&status));
}

#[tokio::test]
async fn a_request_of_many_megabytes_is_refused() {
    let server = Server::start().await;
    let status = refused(&server, spec(&["x".repeat(2 * 1024 * 1024).as_str()])).await;
    assert_eq!(status.code(), Code::OutOfRange);
}

#[tokio::test]
async fn an_unknown_lease_is_not_found() {
    let server = Server::start().await;
    let request = v1::StatusRequest { lease_id: "0123".to_owned() };
    let status = server.leases().await.status(request).await.unwrap_err();
    assert_snapshot!(told(&status), @r#"
    NotFound: you have no lease "0123"
    error: LEASE_NOT_FOUND (tms) rpc=Status
    resource: lease 0123
    "#);
    let status = server.leases().await.status(v1::StatusRequest::default()).await.unwrap_err();
    assert_snapshot!(told(&status), @r"
    InvalidArgument: a lease is named by its id or a unique prefix of it
    error: INVALID_REQUEST (tms) rpc=Status
    field: lease_id: a lease is named by its id or a unique prefix of it
    ");
}

#[tokio::test]
async fn a_prefix_of_several_leases_is_refused_with_their_ids() {
    let server = Server::start().await;
    let mut ids = Vec::new();
    let prefix = loop {
        let id = server.acquire(spec(&["a"])).await.id;
        if let Some(twin) = ids.iter().find(|other: &&String| other[..1] == id[..1]) {
            ids = vec![twin.clone(), id];
            break ids[0][..1].to_owned();
        }
        ids.push(id);
    };
    ids.sort();
    let request = v1::ReleaseRequest { lease_id: prefix.clone() };
    let status = server.leases().await.release(request).await.unwrap_err();
    let text = told(&status).replace(&ids[0], "<first>").replace(&ids[1], "<second>");
    assert_snapshot!(text.replace(&format!("{prefix:?}"), "<prefix>"), @r"
    InvalidArgument: <prefix> is the beginning of several lease ids: <first>, <second>
    error: AMBIGUOUS_LEASE_ID (tms) rpc=Release
    field: lease_id: <prefix> is the beginning of several lease ids: <first>, <second>
    ");
}

#[tokio::test]
async fn an_ended_lease_cannot_be_renewed_or_updated() {
    let server = Server::start().await;
    let lease = server.acquire(spec(&["a"])).await;
    let mut client = server.leases().await;
    client.release(v1::ReleaseRequest { lease_id: named(&lease) }).await.unwrap();
    let renewal = v1::RenewRequest { lease_id: named(&lease), lifetime: None };
    assert_snapshot!(told_of(&client.renew(renewal).await.unwrap_err(), &lease), @r"
    FailedPrecondition: lease <lease> was released at 2026-01-01T00:00:00Z
    error: LEASE_ENDED (tms) ended_at=2026-01-01T00:00:00Z rpc=Renew
    precondition: LEASE_STATE <lease>: lease <lease> was released at 2026-01-01T00:00:00Z
    ");
    let update = v1::UpdateRequest { lease_id: named(&lease), replicas: Some(2), ..Default::default() };
    assert_snapshot!(told_of(&client.update(update).await.unwrap_err(), &lease), @r"
    FailedPrecondition: lease <lease> was released at 2026-01-01T00:00:00Z
    error: LEASE_ENDED (tms) ended_at=2026-01-01T00:00:00Z rpc=Update
    precondition: LEASE_STATE <lease>: lease <lease> was released at 2026-01-01T00:00:00Z
    ");
}

#[tokio::test]
async fn a_lease_past_its_end_cannot_be_renewed_before_anybody_noticed() {
    let server = Server::start().await;
    let lease = server.acquire(v1::LeaseSpec { lifetime: lifetime(60), ..spec(&["a"]) }).await;
    server.clock.advance(jiff::SignedDuration::from_secs(60));
    let renewal = v1::RenewRequest { lease_id: named(&lease), lifetime: None };
    let status = server.leases().await.renew(renewal).await.unwrap_err();
    assert_snapshot!(told_of(&status, &lease), @r"
    FailedPrecondition: lease <lease> expired at 2026-01-01T00:01:00Z
    error: LEASE_ENDED (tms) ended_at=2026-01-01T00:01:00Z rpc=Renew
    precondition: LEASE_STATE <lease>: lease <lease> expired at 2026-01-01T00:01:00Z
    ");
}

#[tokio::test]
async fn a_renewal_for_less_than_the_shortest_lifetime_is_refused() {
    let server = Server::start().await;
    let lease = server.acquire(spec(&["a"])).await;
    let renewal = v1::RenewRequest { lease_id: named(&lease), lifetime: lifetime(1) };
    let status = server.leases().await.renew(renewal).await.unwrap_err();
    assert_snapshot!(told(&status), @r"
    InvalidArgument: asked for 1s, and the shortest lifetime is 1m
    error: OUT_OF_BOUNDS (tms) keys=server.leases.minimumLifetime rpc=Renew
    field: lifetime: asked for 1s, and the shortest lifetime is 1m (server.leases.minimumLifetime)
    ");
}

#[tokio::test]
async fn an_update_of_another_version_is_refused() {
    let server = Server::start().await;
    let lease = server.acquire(spec(&["a"])).await;
    let update = v1::UpdateRequest {
        lease_id: named(&lease),
        replicas: Some(2),
        expected_version: Some(7),
        ..Default::default()
    };
    let status = server.leases().await.update(update).await.unwrap_err();
    assert_snapshot!(told_of(&status, &lease), @r"
    Aborted: lease <lease> is at version 1, not 7; look at it again
    error: VERSION_MISMATCH (tms) rpc=Update version=1
    ");
}

#[tokio::test]
async fn a_request_id_with_another_spec_is_refused() {
    let server = Server::start().await;
    let request =
        |name| v1::AcquireRequest { spec: Some(spec(&[name])), request_id: "r-1".to_owned(), no_wait: true };
    let mut client = server.leases().await;
    let first = client.acquire(request("a")).await.unwrap().into_inner().message().await.unwrap().unwrap();
    let status = client.acquire(request("b")).await.unwrap_err();
    assert_snapshot!(told_of(&status, &first.lease.unwrap()), @r#"
    AlreadyExists: request id "r-1" belongs to lease <lease>, for which something else was asked
    error: REQUEST_ID_REUSED (tms) rpc=Acquire
    field: request_id: request id "r-1" belongs to lease <lease>, for which something else was asked
    resource: lease <lease>
    "#);
}

#[tokio::test]
async fn one_lease_too_many_is_refused_as_exhausted() {
    let server = Server::start_with(Wishes { maximum_per_owner: 1, ..Wishes::default() }).await;
    server.acquire(spec(&["a"])).await;
    assert_snapshot!(told(&refused(&server, spec(&["b"])).await), @r"
    ResourceExhausted: anonymous holds 1, the most leases that an owner may hold; release one first
    error: TOO_MANY_LEASES (tms) keys=server.leases.maximumPerOwner rpc=Acquire
    quota: owner:anonymous: anonymous holds 1, the most leases that an owner may hold; release one first
    ");
}

#[tokio::test]
async fn leases_of_another_owner_are_not_listed() {
    let server = Server::start().await;
    let request = v1::ListRequest { owner: "someone-else".to_owned(), ..Default::default() };
    let status = server.leases().await.list(request).await.unwrap_err();
    assert_snapshot!(told(&status), @r"
    PermissionDenied: you are anonymous and may not see the leases of someone-else
    error: NOT_OWNER (tms) rpc=List
    field: owner: you are anonymous and may not see the leases of someone-else
    ");
}

#[tokio::test]
async fn a_list_of_impossible_things_is_refused() {
    let server = Server::start().await;
    let request = v1::ListRequest {
        states: vec![0, 99],
        page_size: 501,
        page_token: "second".to_owned(),
        ..Default::default()
    };
    let status = server.leases().await.list(request).await.unwrap_err();
    assert_snapshot!(told(&status), @r"
    InvalidArgument: 0 is no state of a lease; and 3 more faults
    error: INVALID_REQUEST (tms) rpc=List
    field: states[0]: 0 is no state of a lease
    field: states[1]: 99 is no state of a lease
    field: page_size: asked for 501 leases, and a page has at most 500
    field: page_token: this is not a token that a page ended with
    ");
}

#[tokio::test]
async fn a_watch_of_all_leases_cannot_resume() {
    let server = Server::start().await;
    let request = v1::WatchRequest { lease_id: String::new(), after_version: 3 };
    let status = server.leases().await.watch(request).await.unwrap_err();
    assert_snapshot!(told(&status), @r"
    InvalidArgument: only the watch of one lease can resume; without lease_id it must be 0
    error: INVALID_REQUEST (tms) rpc=Watch
    field: after_version: only the watch of one lease can resume; without lease_id it must be 0
    ");
}

#[tokio::test]
async fn a_list_by_labels_that_no_lease_can_have_is_refused() {
    let server = Server::start().await;
    let labels = BTreeMap::from([("a\0".to_owned(), "b\0".to_owned())]);
    let request = v1::ListRequest { labels, id_prefix: "x".to_owned(), ..Default::default() };
    let status = server.leases().await.list(request).await.unwrap_err();
    assert_snapshot!(told(&status), @r#"
    InvalidArgument: "a\0" is not a label key: at most 63 of A-Z a-z 0-9 _ . - are, with a letter or digit at both ends, after an optional domain and a slash; and 2 more faults
    error: INVALID_REQUEST (tms) rpc=List
    field: labels["a\0"]: "a\0" is not a label key: at most 63 of A-Z a-z 0-9 _ . - are, with a letter or digit at both ends, after an optional domain and a slash
    field: labels["a\0"]: "b\0" is not a label value: at most 63 of A-Z a-z 0-9 _ . - are, with a letter or digit at both ends, or nothing
    field: id_prefix: "x" does not begin a lease id, which has 32 hexadecimal digits
    "#);
    let labels = (0..20_000).map(|number| (format!("l{number}"), String::new())).collect();
    let request = v1::ListRequest { labels, states: vec![1; 100_000], ..Default::default() };
    let status = server.leases().await.list(request).await.unwrap_err();
    assert_eq!(status.message(), "asked for 20000 labels, and a lease has at most 32");
}

#[tokio::test]
async fn overlong_names_are_refused_in_answers_that_fit() {
    let server = Server::start().await;
    let mut client = server.leases().await;
    let long = "\0用".repeat(100_000);
    let release = v1::ReleaseRequest { lease_id: long.clone() };
    let by_owner = v1::ListRequest { owner: long.clone(), ..Default::default() };
    let by_token = v1::ListRequest { page_token: long.clone(), ..Default::default() };
    let by_prefix = v1::ListRequest { id_prefix: long, ..Default::default() };
    for (status, code) in [
        (client.release(release).await.unwrap_err(), Code::InvalidArgument),
        (client.list(by_owner).await.unwrap_err(), Code::PermissionDenied),
        (client.list(by_token).await.unwrap_err(), Code::InvalidArgument),
        (client.list(by_prefix).await.unwrap_err(), Code::InvalidArgument),
    ] {
        assert_eq!(status.code(), code);
        assert!(status.details().len() + 3 * status.message().len() < 12_000, "{}", status.message());
    }
}

#[tokio::test]
async fn a_watch_cannot_begin_after_a_version_that_is_still_to_come() {
    let server = Server::start().await;
    let lease = server.acquire(spec(&["a"])).await;
    let request = v1::WatchRequest { lease_id: named(&lease), after_version: 2 };
    let status = server.leases().await.watch(request).await.unwrap_err();
    assert_snapshot!(told_of(&status, &lease), @r"
    InvalidArgument: lease <lease> is at version 1 only
    error: INVALID_REQUEST (tms) rpc=Watch
    field: after_version: lease <lease> is at version 1 only
    ");
}

#[tokio::test]
async fn a_lease_whose_deployment_kubernetes_would_not_keep_is_refused() {
    let server = Server::start().await;
    // Each of these bytes takes six in JSON.
    let value = |name: usize| (format!("V{name}"), "\u{1}".repeat(32 * 1024 - 8));
    let bespoke = v1::BespokeTriton { environment: (0..8).map(value).collect(), ..Default::default() };
    let status = refused(&server, v1::LeaseSpec { bespoke: Some(bespoke), ..spec(&["a"]) }).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("Kubernetes keeps at most 1000000"), "{}", status.message());
}
