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
    assert_snapshot!(told(&status), @"");
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
    assert_snapshot!(told(&status), @"");
    let listed = server.leases().await.list(v1::ListRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.leases, []);
}

#[tokio::test]
async fn autoscaling_that_the_administrator_did_not_enable_is_a_failed_precondition() {
    let server = Server::start_with(Wishes { values: Some("{}"), ..Wishes::default() }).await;
    let autoscaling = Some(v1::Autoscaling::default());
    let status = refused(&server, v1::LeaseSpec { autoscaling, ..spec(&["a"]) }).await;
    assert_snapshot!(told(&status), @"");
}

#[tokio::test]
async fn an_overlong_wish_is_refused_in_an_answer_that_fits() {
    let server = Server::start().await;
    let models: Vec<_> = (0..64).map(|number| format!("/{number}{}", "x".repeat(4_000))).collect();
    let models: Vec<_> = models.iter().map(String::as_str).collect();
    let status = refused(&server, spec(&models)).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(told(&status).len() < 8_000);
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
    assert_snapshot!(told(&status), @"");
    let status = server.leases().await.status(v1::StatusRequest::default()).await.unwrap_err();
    assert_snapshot!(told(&status), @"");
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
    assert_snapshot!(text.replace(&format!("{prefix:?}"), "<prefix>"), @"");
}

#[tokio::test]
async fn an_ended_lease_cannot_be_renewed_or_updated() {
    let server = Server::start().await;
    let lease = server.acquire(spec(&["a"])).await;
    let mut client = server.leases().await;
    client.release(v1::ReleaseRequest { lease_id: named(&lease) }).await.unwrap();
    let renewal = v1::RenewRequest { lease_id: named(&lease), lifetime: None };
    assert_snapshot!(told_of(&client.renew(renewal).await.unwrap_err(), &lease), @"");
    let update = v1::UpdateRequest { lease_id: named(&lease), replicas: Some(2), ..Default::default() };
    assert_snapshot!(told_of(&client.update(update).await.unwrap_err(), &lease), @"");
}

#[tokio::test]
async fn a_lease_past_its_end_cannot_be_renewed_before_anybody_noticed() {
    let server = Server::start().await;
    let lease = server.acquire(v1::LeaseSpec { lifetime: lifetime(60), ..spec(&["a"]) }).await;
    server.clock.advance(jiff::SignedDuration::from_secs(60));
    let renewal = v1::RenewRequest { lease_id: named(&lease), lifetime: None };
    let status = server.leases().await.renew(renewal).await.unwrap_err();
    assert_snapshot!(told_of(&status, &lease), @"");
}

#[tokio::test]
async fn a_renewal_for_less_than_the_shortest_lifetime_is_refused() {
    let server = Server::start().await;
    let lease = server.acquire(spec(&["a"])).await;
    let renewal = v1::RenewRequest { lease_id: named(&lease), lifetime: lifetime(1) };
    let status = server.leases().await.renew(renewal).await.unwrap_err();
    assert_snapshot!(told(&status), @"");
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
    assert_snapshot!(told_of(&status, &lease), @"");
}

#[tokio::test]
async fn a_request_id_with_another_spec_is_refused() {
    let server = Server::start().await;
    let request =
        |name| v1::AcquireRequest { spec: Some(spec(&[name])), request_id: "r-1".to_owned(), no_wait: true };
    let mut client = server.leases().await;
    let first = client.acquire(request("a")).await.unwrap().into_inner().message().await.unwrap().unwrap();
    let status = client.acquire(request("b")).await.unwrap_err();
    assert_snapshot!(told_of(&status, &first.lease.unwrap()), @"");
}

#[tokio::test]
async fn one_lease_too_many_is_refused_as_exhausted() {
    let server = Server::start_with(Wishes { maximum_per_owner: 1, ..Wishes::default() }).await;
    server.acquire(spec(&["a"])).await;
    assert_snapshot!(told(&refused(&server, spec(&["b"])).await), @"");
}

#[tokio::test]
async fn leases_of_another_owner_are_not_listed() {
    let server = Server::start().await;
    let request = v1::ListRequest { owner: "someone-else".to_owned(), ..Default::default() };
    let status = server.leases().await.list(request).await.unwrap_err();
    assert_snapshot!(told(&status), @"");
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
    assert_snapshot!(told(&status), @"");
}

#[tokio::test]
async fn a_watch_of_all_leases_cannot_resume() {
    let server = Server::start().await;
    let request = v1::WatchRequest { lease_id: String::new(), after_version: 3 };
    let status = server.leases().await.watch(request).await.unwrap_err();
    assert_snapshot!(told(&status), @"");
}
