//! The gRPC listener: its limits, its TLS and its end.

use std::net::SocketAddr;
use std::time::Duration;

use tms_proto::v1::lease_service_server::LeaseServiceServer;
use tms_proto::v1::server_service_server::ServerServiceServer;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;

use super::{ServeError, tls};
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
    /// Until it has ended.
    task: Option<JoinHandle<()>>,
}

/// Begins to answer on the address until `services.stop` is cancelled.
pub async fn answer(listen: &Listen, services: Services) -> Result<Answering, ServeError> {
    let stop = services.stop.clone();
    let (routes, health) = grpc::routes(services).await;
    let mut server = Server::builder()
        .timeout(CALL_TIMEOUT)
        .concurrency_limit_per_connection(CALLS_AT_ONCE)
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .layer(LogRequests);
    if let Some(files) = &listen.tls {
        server = server.tls_config(tls::config(files)?).map_err(|error| tls::unfit(files, &error))?;
    }
    let router = server.add_routes(routes);

    let refused = |source| ServeError::Listen { address: listen.address, source };
    let listener = TcpListener::bind(listen.address).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    health.set_serving::<LeaseServiceServer<grpc::Leases>>().await;
    health.set_serving::<ServerServiceServer<grpc::About>>().await;

    let task = tokio::spawn(async move {
        let until_stop = stop.clone().cancelled_owned();
        let serving = router.serve_with_incoming_shutdown(incoming, until_stop);
        let drained = async {
            stop.cancelled().await;
            // The empty name stands for the whole server.
            for service in ["", LEASES, ABOUT] {
                health.set_service_status(service, ServingStatus::NotServing).await;
            }
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            outcome = serving => {
                if let Err(error) = outcome {
                    tracing::error!(error = grpc::chain(&error), "the listener failed");
                }
            }
            () = drained => tracing::warn!("connections were cut: they did not end in time"),
        }
    });
    Ok(Answering { address, task: Some(task) })
}

const LEASES: &str = tms_proto::v1::lease_service_server::SERVICE_NAME;
const ABOUT: &str = tms_proto::v1::server_service_server::SERVICE_NAME;

impl Answering {
    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
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
