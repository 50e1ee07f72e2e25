//! The gRPC listener: its limits, its TLS and its end.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tms_proto::v1::lease_service_server::LeaseServiceServer;
use tms_proto::v1::server_service_server::ServerServiceServer;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;

use super::ServeError;
use super::tls::{self, Certificates};
use crate::chain::chain;
use crate::config::Listen;
use crate::grpc::{self, LogRequests, Services};

/// Time within which a call must have its answer, or its stream begun.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Calls of one connection that are worked on at once; others wait for their turn.
const CALLS_AT_ONCE: usize = 128;
/// Streams of one connection.
const STREAMS: u32 = 1024;
/// Time after which a silent connection is asked for a sign of life, and then closed.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that connections get to end.
const GRACE: Duration = Duration::from_secs(10);

/// A listener that answers.
pub struct Answering {
    address: SocketAddr,
    /// What it shows; nothing without TLS.
    certificates: Option<Arc<Certificates>>,
    /// Until it has ended.
    task: Option<JoinHandle<()>>,
}

/// Begins to answer on the address, and health alone on its own port, until `services.stop` is cancelled.
pub async fn answer(
    listen: &Listen,
    health_port: Option<NonZeroU16>,
    services: Services,
) -> Result<Answering, ServeError> {
    let stop = services.stop.clone();
    let requests = LogRequests::counted(Arc::clone(&services.metrics));
    let answers = grpc::answers(services).await;
    let certificates =
        listen.tls.as_ref().map(|files| Certificates::open(files, tls::LOOK_INTERVAL)).transpose()?;
    let certificates = certificates.map(Arc::new);
    let shown = certificates.clone();
    let (address, incoming) = bind(listen.address, None).await?;
    let health = match health_port {
        None => None,
        Some(port) => Some(
            bind(
                SocketAddr::new(every_address(listen.address), port.get()),
                Some("server.apiService.healthPort"),
            )
            .await?
            .1,
        ),
    };
    let reporter = answers.reporter;
    reporter.set_serving::<LeaseServiceServer<grpc::Leases>>().await;
    reporter.set_serving::<ServerServiceServer<grpc::About>>().await;

    let router = builder().layer(requests).add_routes(answers.all);
    let probed = builder().add_routes(answers.health);
    let task = tokio::spawn(async move {
        let until_stop = stop.clone();
        let until_end = stop.clone().cancelled_owned();
        let serving: BoxFuture<'_, Result<(), transport::Error>> = match certificates {
            Some(certificates) => {
                let secured = tls::secured(incoming, certificates);
                Box::pin(router.serve_with_incoming_shutdown(secured, until_end))
            }
            None => Box::pin(router.serve_with_incoming_shutdown(incoming, until_end)),
        };
        let answering_probes = async {
            match health {
                Some(incoming) => {
                    probed.serve_with_incoming_shutdown(incoming, until_stop.cancelled_owned()).await
                }
                None => Ok(()),
            }
        };
        let drained = async {
            stop.cancelled().await;
            // The empty name stands for the whole server.
            for service in ["", LEASES, ABOUT] {
                reporter.set_service_status(service, ServingStatus::NotServing).await;
            }
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            outcome = futures::future::try_join(serving, answering_probes) => {
                if let Err(error) = outcome {
                    tracing::error!(error = chain(&error), "the listener failed");
                }
            }
            () = drained => tracing::warn!("connections were cut: they did not end in time"),
        }
    });
    Ok(Answering { address, certificates: shown, task: Some(task) })
}

fn builder() -> Server {
    Server::builder()
        .timeout(CALL_TIMEOUT)
        .concurrency_limit_per_connection(CALLS_AT_ONCE)
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}

/// Listens on an address, which one key or another of the configuration names.
async fn bind(
    address: SocketAddr,
    key: Option<&'static str>,
) -> Result<(SocketAddr, TcpIncoming), ServeError> {
    let refused = |source| ServeError::Listen { address, key, source };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((address, TcpIncoming::from(listener).with_nodelay(Some(true))))
}

/// Returns what stands for every address of the family of this one.
fn every_address(address: SocketAddr) -> IpAddr {
    match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

const LEASES: &str = tms_proto::v1::lease_service_server::SERVICE_NAME;
const ABOUT: &str = tms_proto::v1::server_service_server::SERVICE_NAME;

impl Answering {
    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it shows; nothing without TLS.
    pub(super) fn certificates(&self) -> Option<Arc<Certificates>> {
        self.certificates.clone()
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self) {
        if let Some(task) = &mut self.task {
            // A panic has been reported where it happened.
            let _ = task.await;
            self.task = None;
        }
    }
}

/// Returns the key that has to change where an address cannot be listened on.
pub(super) fn listen_key(key: Option<&'static str>, error: &io::Error) -> &'static str {
    key.unwrap_or(match error.kind() {
        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => "server.apiService.port",
        _ => "server.apiService.address",
    })
}

/// Writes the address in one step, so that whoever waits for the file reads all of it.
pub fn write_address(path: &Path, address: SocketAddr) -> io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".tmp");
    std::fs::write(&unfinished, format!("{address}\n"))?;
    std::fs::rename(&unfinished, path)
}
