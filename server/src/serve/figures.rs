//! The listener on which Prometheus reads the figures of the server.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::ServeError;
use crate::chain::chain;
use crate::metrics::{self, Metrics};

/// Begins to serve the figures, and returns where.
pub(super) async fn serve(
    address: SocketAddr,
    metrics: Arc<Metrics>,
    stop: &CancellationToken,
    parts: &mut JoinSet<&'static str>,
) -> Result<SocketAddr, ServeError> {
    let refused = |source| ServeError::ListenMetrics { address, source };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    tracing::info!(%address, "serves its figures");
    let until_stop = stop.clone();
    parts.spawn(async move {
        // Whoever reads them at the end of the server reads them elsewhere later: nothing waits for that.
        let serving = axum::serve(listener, metrics::router(metrics));
        if let Some(Err(error)) = until_stop.run_until_cancelled(serving.into_future()).await {
            tracing::error!(error = chain(&error), "the figures are served no more");
        }
        "metrics"
    });
    Ok(address)
}
