//! A whole server, wired as the binary wires it, on SQLite and a folder of manifests.

use std::net::Ipv4Addr;
use std::num::NonZeroU16;
use std::path::Path;

use futures::StreamExt as _;
use insta::assert_snapshot;
use tempfile::TempDir;
use tms_proto::v1;
use tms_proto::v1::lease_service_client::LeaseServiceClient;
use tms_server::clock::{Clock, system_now};
use tms_server::config::{ClusterKind, Config, Listen, Tls};
use tms_server::serve::{self, ServeError};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use crate::harness::{Authority, Server, acquire, configuration, spec, within};

fn in_folder(folder: &Path) -> Config {
    in_folder_with(folder, "")
}

/// The configuration of a server in a folder, with more lines of values.yaml.
fn in_folder_with(folder: &Path, more: &str) -> Config {
    configuration(&format!(
        "{more}server:\n  apiService: {{ port: 0 }}\n  database: {{ url: \"sqlite://{0}/tms.db\" }}\n  cluster: {{ \
         manifests: {{ directory: \"{0}/manifests\" }} }}\n",
        folder.display()
    ))
}

async fn reflected(server: &Server, request: MessageRequest) -> ServerReflectionResponse {
    let mut client = ServerReflectionClient::new(server.channel().await);
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let mut answers = client.server_reflection_info(futures::stream::iter([request])).await.unwrap();
    within(answers.get_mut().next()).await.unwrap().unwrap()
}

#[tokio::test]
async fn reflection_lists_every_service_and_knows_the_details_of_errors() {
    let server = Server::start().await;
    let answer = reflected(&server, MessageRequest::ListServices(String::new())).await;
    let Some(MessageResponse::ListServicesResponse(services)) = answer.message_response else {
        panic!("{answer:?}")
    };
    let names: Vec<_> = services.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["tms.v1.LeaseService", "tms.v1.ServerService", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let symbol = MessageRequest::FileContainingSymbol("google.rpc.BadRequest".to_owned());
    let answer = reflected(&server, symbol).await;
    assert!(
        matches!(answer.message_response, Some(MessageResponse::FileDescriptorResponse(_))),
        "{answer:?}"
    );
}

#[tokio::test]
async fn health_says_that_the_services_answer() {
    let server = Server::start().await;
    for service in ["", "tms.v1.LeaseService", "tms.v1.ServerService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let health = HealthClient::new(server.channel().await).check(request).await.unwrap();
        assert_eq!(health.into_inner().status().as_str_name(), "SERVING", "{service:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_written_as_manifests_and_kept_over_a_restart() {
    let folder = TempDir::new().unwrap();
    let config = in_folder(folder.path());
    let clock = Clock::manual(system_now());
    let running = serve::start(&config, clock.clone()).await.unwrap();
    let mut client = LeaseServiceClient::connect(format!("http://{}", running.address())).await.unwrap();
    let request = v1::AcquireRequest { spec: Some(spec(&["a"])), ..Default::default() };
    let mut stream = client.acquire(request).await.unwrap().into_inner();
    let mut last = None;
    while let Some(message) = within(stream.message()).await.unwrap() {
        last = message.lease;
    }
    let lease = last.unwrap();
    assert_eq!(lease.state(), v1::LeaseState::Written);
    assert!(folder.path().join("manifests").read_dir().unwrap().next().is_some());
    drop(client);
    within(running.stop()).await;

    let running = serve::start(&config, clock).await.unwrap();
    let mut client = LeaseServiceClient::connect(format!("http://{}", running.address())).await.unwrap();
    let status = client.status(v1::StatusRequest { lease_id: lease.id.clone() }).await.unwrap().into_inner();
    assert_eq!(status.lease, Some(lease));
    within(running.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_does_not_leave_the_objects_of_open_leases_behind() {
    let folder = TempDir::new().unwrap();
    let clock = Clock::manual(system_now());
    let before = in_folder_with(folder.path(), "kubernetes: { namespace: one }\n");
    let elsewhere = in_folder_with(folder.path(), "kubernetes: { namespace: two }\n");
    let mut otherwise = before.clone();
    otherwise.cluster.kind = ClusterKind::Kubernetes { kubeconfig: None };

    let running = serve::start(&before, clock.clone()).await.unwrap();
    let mut client = LeaseServiceClient::connect(format!("http://{}", running.address())).await.unwrap();
    let lease = acquire(&mut client, spec(&["a"])).await;
    drop(client);
    within(running.stop()).await;

    assert_snapshot!(serve::start(&elsewhere, clock.clone()).await.err().unwrap(), @r#"kubernetes.namespace is "two", but leases of this database that are not closed have their objects in "one": set kubernetes.namespace back to "one", at least until those leases are released and closed"#);
    assert_snapshot!(serve::start(&otherwise, clock.clone()).await.err().unwrap(), @r#"server.cluster.kind is "kubernetes", but leases of this database that are not closed have their objects in "manifests": set server.cluster.kind back to "manifests", at least until those leases are released and closed"#);

    let running = serve::start(&before, clock.clone()).await.unwrap();
    let mut client = LeaseServiceClient::connect(format!("http://{}", running.address())).await.unwrap();
    let watch = v1::WatchRequest { lease_id: lease.id.clone(), after_version: 0 };
    let mut watch = client.watch(watch).await.unwrap().into_inner();
    client.release(v1::ReleaseRequest { lease_id: lease.id }).await.unwrap();
    // The watch of a lease ends when the lease is closed.
    while within(watch.message()).await.unwrap().is_some() {}
    drop((client, watch));
    within(running.stop()).await;
    within(serve::start(&elsewhere, clock).await.unwrap().stop()).await;
}

#[tokio::test]
async fn the_address_file_holds_the_address_for_as_long_as_the_server_is_asked_to_run() {
    let folder = TempDir::new().unwrap();
    let (config, file) = (in_folder(folder.path()), folder.path().join("address"));
    let stop = CancellationToken::new();
    let serving = serve::serve(&config, Clock::system(), Some(&file), stop.clone());
    let asking = async {
        while !file.exists() {
            tokio::task::yield_now().await;
        }
        let address = std::fs::read_to_string(&file).unwrap();
        let leases = LeaseServiceClient::connect(format!("http://{}", address.trim())).await;
        leases.unwrap().list(v1::ListRequest::default()).await.unwrap();
        stop.cancel();
    };
    let (served, ()) = within(async { tokio::join!(serving, asking) }).await;
    served.unwrap();
}

#[tokio::test]
async fn who_speaks_no_tls_learns_of_health_and_of_nothing_else() {
    let authority = Authority::new();
    let folder = TempDir::new().unwrap();
    let free = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap().local_addr().unwrap();
    let mut config = in_folder(folder.path());
    config.listen = Listen { address: (Ipv4Addr::LOCALHOST, 0).into(), tls: Some(authority.server()) };
    config.health_port = NonZeroU16::new(free.port());
    let running = serve::start(&config, Clock::system()).await.unwrap();
    let channel = Endpoint::from_shared(format!("http://127.0.0.1:{}", free.port())).unwrap();
    let channel = channel.connect().await.unwrap();
    let health = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(health.into_inner().status(), ServingStatus::Serving);
    let refused = LeaseServiceClient::new(channel).list(v1::ListRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    within(running.stop()).await;
}

#[tokio::test]
async fn a_bad_file_of_tls_is_named() {
    let authority = Authority::new();
    let good = authority.server();
    let empty = authority.write("empty.pem", "");
    let (_, other_key) = authority.issue("other", &[]);
    let other_key = authority.write("other.key", &other_key);
    let broken = [
        ("certificateFile", Tls { certificate_file: "/none.pem".into(), ..good.clone() }),
        ("certificateFile", Tls { certificate_file: empty.clone(), ..good.clone() }),
        ("keyFile", Tls { key_file: empty.clone(), ..good.clone() }),
        ("keyFile", Tls { key_file: other_key, ..good.clone() }),
        ("clientCaFile", Tls { client_ca_file: Some(empty), ..good }),
    ];
    for (wanted, tls) in broken {
        let folder = TempDir::new().unwrap();
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        let mut config = in_folder(folder.path());
        config.listen = Listen { address, tls: Some(tls) };
        match serve::start(&config, Clock::system()).await.err() {
            Some(ServeError::Tls { key, .. }) => assert_eq!(key, wanted),
            Some(other) => panic!("{wanted}: {other:?}"),
            None => panic!("{wanted}: the server started"),
        }
    }
}
