//! The listener on which Prometheus reads the figures of the server, and what has to be looked at for them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::ServeError;
use super::tls::Certificates;
use crate::chain::chain;
use crate::clock::{Clock, stopwatch};
use crate::cluster::kubernetes::Kubernetes;
use crate::metrics::{self, Metrics};
use crate::store::{Sizes, Store};

/// Time between two looks at what does not tell of itself when it changes.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// What is looked at.
pub(super) struct Sources {
    /// The leases.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// Their autoscalers, where objects are observed.
    pub kubernetes: Option<Arc<Kubernetes>>,
    /// The server's own certificate; nothing without TLS.
    pub certificates: Option<Arc<Certificates>>,
}

/// Begins to serve the figures, and returns where.
pub(super) async fn serve(
    address: SocketAddr,
    metrics: Arc<Metrics>,
    sources: Sources,
    stop: &CancellationToken,
    parts: &mut JoinSet<&'static str>,
) -> Result<SocketAddr, ServeError> {
    let refused = |source| ServeError::ListenMetrics { address, source };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    tracing::info!(%address, "serves its figures");
    let counted = Arc::clone(&metrics);
    sources.store.time_commits(move |took, is_done| counted.count_database("commit", is_done, took));
    let until_stop = stop.clone();
    parts.spawn(async move {
        // Whoever reads them at the end of the server reads them elsewhere later: nothing waits for that.
        let serving = axum::serve(listener, metrics::router(Arc::clone(&metrics))).into_future();
        let both = async {
            tokio::select! {
                outcome = serving => outcome,
                () = sources.look_for_ever(&metrics) => Ok(()),
            }
        };
        if let Some(Err(error)) = until_stop.run_until_cancelled(both).await {
            tracing::error!(error = chain(&error), "the figures are served no more");
        }
        "metrics"
    });
    Ok(address)
}

impl Sources {
    async fn look_for_ever(&self, metrics: &Metrics) {
        let mut sizes = Sizes::default();
        loop {
            self.look(metrics, &mut sizes).await;
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    async fn look(&self, metrics: &Metrics, sizes: &mut Sizes) {
        metrics.tell_certificate(self.certificates.as_ref().and_then(|it| it.expires_at()));
        if let Some(kubernetes) = &self.kubernetes {
            metrics.tell_troubled_autoscalers(kubernetes.troubled_autoscalers());
        }
        let begun = stopwatch();
        let census = self.store.census(sizes, self.clock.now()).await;
        metrics.count_database("census", census.is_ok(), begun.elapsed());
        if let Err(error) = &census {
            tracing::warn!(error = chain(error), "cannot count the leases");
        }
        metrics.tell_census(census.ok().as_ref());
    }
}
