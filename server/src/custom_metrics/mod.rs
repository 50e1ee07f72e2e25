//! Serves custom.metrics.k8s.io for the pods of leases that scale by themselves, behind the Kubernetes API server: `api` and
//! `answer` are the API, `upkeep` keeps certificate and registration, `caller` says who is let in. The values come from
//! samples that the cluster has taken, or from `prometheus`.

mod answer;
mod api;
mod caller;
mod certificate;
mod prometheus;
mod selector;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Extension;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use self::api::Desk;
use self::caller::Peer;
pub use self::prometheus::Prometheus;
use self::upkeep::Trust;
use crate::cluster::kubernetes::aggregation::Aggregation;
use crate::cluster::{Gauge, Show};
use crate::metrics::Metrics;

/// Most connections at a time: API servers keep few, and others are sent away after the handshake.
const CONNECTIONS: usize = 256;
/// Time for a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time in which a client must have sent the head of its next request; a kept connection ends with it.
const HEADER_TIMEOUT: Duration = Duration::from_secs(120);
/// Pause after a connection could not be taken, for want of files.
const PAUSE: Duration = Duration::from_millis(100);

/// What is served, and by which parts.
pub struct Options {
    /// Namespace of the leases.
    pub namespace: String,
    /// Time over which values are averaged.
    pub window: Duration,
    /// Shows the pods.
    pub pods: Arc<dyn Show>,
    /// Tells their values.
    pub values: Arc<dyn Gauge>,
    /// Certificate and registration.
    pub aggregation: Aggregation,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// Serves for ever. Connections are closed until the certificate is there and it is known by what the Kubernetes API server
/// is recognised.
pub async fn serve(listener: TcpListener, options: Options) {
    let Options { namespace, window, pods, values, aggregation, metrics } = options;
    let desk = Desk { namespace, window_seconds: window.as_secs(), pods, values, metrics };
    let router = api::router(Arc::new(desk));
    let (trust, trusted) = watch::channel(None);
    tokio::join!(upkeep::keep(&aggregation, &trust), listen(listener, router, trusted));
}

async fn listen(listener: TcpListener, router: Router, trusted: watch::Receiver<Option<Trust>>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("nobody closes it");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(error = %error, "cannot take a connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(trust) = trusted.borrow().clone() else { continue };
        let router = router.clone();
        tokio::spawn(async move {
            if let Err(error) = attend(stream, router, trust).await {
                tracing::debug!(error, "a connection to custom.metrics.k8s.io ended early");
            }
            drop(place);
        });
    }
}

async fn attend(stream: TcpStream, router: Router, trust: Trust) -> Result<(), String> {
    let handshake = timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(trust.tls).accept(stream));
    let stream = handshake.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let certificates = stream.get_ref().1.peer_certificates();
    let peer = Peer::of(certificates.and_then(|chain| chain.first()), &trust.front_proxy);
    let service = TowerToHyperService::new(router.layer(Extension(peer)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    connection.await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
