//! Wires what serves custom.metrics.k8s.io: the listener, the values, and the samples where no Prometheus has them.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::ServeError;
use crate::clock::Clock;
use crate::cluster::Gauge;
use crate::cluster::kubernetes::samples::Pace;
use crate::cluster::kubernetes::{Kubernetes, namespace_of};
use crate::config::{ClusterKind, Config, CustomMetrics};
use crate::custom_metrics::{self, Prometheus};
use crate::metrics::Metrics;

/// What the metrics are of.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// The cluster.
    pub kubernetes: &'a Arc<Kubernetes>,
    /// The namespace of the leases.
    pub namespace: &'a str,
    /// Where answers are counted.
    pub metrics: &'a Arc<Metrics>,
}

/// Begins to serve the metrics of leases.
pub(super) async fn start(
    config: &Config,
    served: &CustomMetrics,
    Place { kubernetes, namespace, metrics }: Place<'_>,
    clock: &Clock,
    stop: &CancellationToken,
    parts: &mut JoinSet<&'static str>,
) -> Result<(), ServeError> {
    let refused = |source| ServeError::ListenCustomMetrics { address: served.address, source };
    let listener = TcpListener::bind(served.address).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    tracing::info!(%address, source = if served.prometheus_url.is_some() { "prometheus" } else { "triton" }, "serves custom.metrics.k8s.io");
    let values: Arc<dyn Gauge> = match &served.prometheus_url {
        Some(url) => Arc::new(Prometheus::new(url, namespace.to_owned()).map_err(ServeError::Prometheus)?),
        None => take_samples(served, kubernetes, clock, stop, parts),
    };
    let kubeconfig = match &config.cluster.kind {
        ClusterKind::Kubernetes { kubeconfig } => kubeconfig.as_deref(),
        ClusterKind::Manifests { .. } => None,
    };
    let options = custom_metrics::Options {
        namespace: namespace.to_owned(),
        window: served.window,
        pods: Arc::clone(kubernetes) as _,
        values,
        aggregation: kubernetes.aggregation(namespace_of(kubeconfig).await?, served.service_name.clone()),
        metrics: Arc::clone(metrics),
    };
    let until_stop = stop.clone();
    parts.spawn(async move {
        until_stop.run_until_cancelled(custom_metrics::serve(listener, options)).await;
        "custom metrics"
    });
    Ok(())
}

fn take_samples(
    served: &CustomMetrics,
    kubernetes: &Kubernetes,
    clock: &Clock,
    stop: &CancellationToken,
    parts: &mut JoinSet<&'static str>,
) -> Arc<dyn Gauge> {
    let pace =
        Pace { interval: served.scrape_interval, timeout: served.scrape_timeout, window: served.window };
    let samples = Arc::new(kubernetes.samples(pace, clock.clone()));
    let (taken, until_stop) = (Arc::clone(&samples), stop.clone());
    parts.spawn(async move {
        until_stop.run_until_cancelled(taken.take()).await;
        "samples of Tritons"
    });
    samples
}
