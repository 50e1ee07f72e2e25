//! Who calls: client certificates, and what one caller sees of another.

use tms_proto::v1;
use tms_proto::v1::lease_service_client::LeaseServiceClient;
use tms_proto::v1::server_service_client::ServerServiceClient;
use tms_server::config::Tls;
use tms_server::domain::lease::{ModelState, Phase};
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::harness::{Authority, Server, Wishes, acquire, spec, told, within};

async fn channel(server: &Server, authority: &Authority, identity: Option<&str>) -> Option<Channel> {
    let tls = ClientTlsConfig::new()
        .domain_name("localhost")
        .ca_certificate(Certificate::from_pem(authority.certificate()));
    let tls = match identity {
        None => tls,
        Some(name) => {
            let (certificate, key) = authority.issue(name, &[]);
            tls.identity(Identity::from_pem(certificate, key))
        }
    };
    let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{}", server.port())).unwrap();
    endpoint.tls_config(tls).unwrap().connect().await.ok()
}

async fn server(authority: &Authority) -> Server {
    Server::start_with(Wishes { tls: Some(authority.server()), ..Wishes::default() }).await
}

#[tokio::test]
async fn a_caller_sees_and_touches_only_its_own_leases() {
    let authority = Authority::new();
    let server = server(&authority).await;
    let mut alice = LeaseServiceClient::new(channel(&server, &authority, Some("alice")).await.unwrap());
    let mut bob = LeaseServiceClient::new(channel(&server, &authority, Some("bob")).await.unwrap());
    let lease = acquire(&mut alice, spec(&["a"])).await;
    assert_eq!(lease.owner, "alice");

    let lease_id = lease.id.clone();
    let refusals = [
        bob.status(v1::StatusRequest { lease_id: lease_id.clone() }).await.err(),
        bob.release(v1::ReleaseRequest { lease_id: lease_id.clone() }).await.err(),
        bob.renew(v1::RenewRequest { lease_id: lease_id.clone(), lifetime: None }).await.err(),
        bob.update(v1::UpdateRequest { lease_id: lease_id.clone(), ..Default::default() }).await.err(),
        bob.watch(v1::WatchRequest { lease_id, after_version: 0 }).await.err(),
    ];
    for refusal in refusals {
        assert_eq!(refusal.unwrap().code(), Code::NotFound);
    }
    assert_eq!(bob.list(v1::ListRequest::default()).await.unwrap().into_inner().leases, []);
    assert_eq!(alice.list(v1::ListRequest::default()).await.unwrap().into_inner().leases, [lease]);
}

#[tokio::test]
async fn a_watch_of_all_leases_tells_nothing_of_others() {
    let authority = Authority::new();
    let server = server(&authority).await;
    let mut alice = LeaseServiceClient::new(channel(&server, &authority, Some("alice")).await.unwrap());
    let mut bob = LeaseServiceClient::new(channel(&server, &authority, Some("bob")).await.unwrap());
    let mut watch = bob.watch(v1::WatchRequest::default()).await.unwrap().into_inner();
    assert!(within(watch.message()).await.unwrap().unwrap().started);
    let hers = acquire(&mut alice, spec(&["a"])).await;
    server.report(&hers, Phase::Ready, ModelState::Ready).await;
    let his = acquire(&mut bob, spec(&["b"])).await;
    let first = within(watch.message()).await.unwrap().unwrap();
    assert_eq!(first.lease, Some(his));
}

#[tokio::test]
async fn the_same_request_id_of_two_callers_means_two_leases() {
    let authority = Authority::new();
    let server = server(&authority).await;
    let mut ids = std::collections::BTreeSet::new();
    for name in ["alice", "bob"] {
        let mut client = LeaseServiceClient::new(channel(&server, &authority, Some(name)).await.unwrap());
        let request =
            v1::AcquireRequest { spec: Some(spec(&["a"])), request_id: "r-1".to_owned(), no_wait: true };
        let mut stream = client.acquire(request).await.unwrap().into_inner();
        ids.insert(stream.message().await.unwrap().unwrap().lease.unwrap().id);
    }
    assert_eq!(ids.len(), 2);
}

#[tokio::test]
async fn a_caller_without_a_certificate_is_not_let_in() {
    let authority = Authority::new();
    let server = server(&authority).await;
    // With TLS 1.3 the client learns of it from its first call.
    if let Some(channel) = channel(&server, &authority, None).await {
        ServerServiceClient::new(channel).version(v1::VersionRequest {}).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_certificate_of_a_reserved_name_is_refused() {
    let authority = Authority::new();
    let server = server(&authority).await;
    let channel = channel(&server, &authority, Some("tms")).await.unwrap();
    let status = ServerServiceClient::new(channel).version(v1::VersionRequest {}).await.unwrap_err();
    insta::assert_snapshot!(told(&status), @r#"
    Unauthenticated: the common name "tms" of the client certificate is reserved
    error: CALLER_UNKNOWN (tms) rpc=Version
    "#);
}

#[tokio::test]
async fn without_client_certificates_every_caller_is_anonymous() {
    let authority = Authority::new();
    let tls = Tls { client_ca_file: None, ..authority.server() };
    let server = Server::start_with(Wishes { tls: Some(tls), ..Wishes::default() }).await;
    let channel = channel(&server, &authority, None).await.unwrap();
    let version = ServerServiceClient::new(channel).version(v1::VersionRequest {}).await.unwrap();
    assert_eq!(version.into_inner().caller, "anonymous");
}
