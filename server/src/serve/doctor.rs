//! Wires what finds out why leases do not scale, and has it say so in the log when the server starts.

use std::sync::Arc;
use std::time::Duration;

use super::ServeError;
use crate::cluster::Cluster;
use crate::cluster::doctor::Doctor;
use crate::cluster::kubernetes::namespace_of;
use crate::cluster::prometheus::Prometheus;
use crate::config::{ClusterKind, Config};
use crate::domain::doctor::evidence::Expectation;
use crate::domain::doctor::{Outcome, Verdict};
use crate::domain::plan::Settings;

/// What starts together with the server gets this long, this often, before the log calls it broken.
const PAUSE: Duration = Duration::from_secs(10);
const LOOKS: usize = 3;

/// Returns what finds out why leases of `namespace` do not scale.
pub(super) async fn doctor(
    config: &Config,
    cluster: Arc<dyn Cluster>,
    settings: &Settings,
    namespace: &str,
) -> Result<Arc<Doctor>, ServeError> {
    let own_service = match (&config.custom_metrics, &config.cluster.kind) {
        (Some(served), ClusterKind::Kubernetes { kubeconfig }) => {
            Some(format!("{}/{}", namespace_of(kubeconfig.as_deref()).await?, served.service_name))
        }
        (_, ClusterKind::Kubernetes { .. } | ClusterKind::Manifests { .. }) => None,
    };
    let prometheus = config.doctor.prometheus_url.as_deref().map(Prometheus::new).transpose();
    let metrics = &config.bounds.autoscaling.metrics;
    let used = metrics.iter().filter(|(_, metric)| metric.allowed || metric.enabled);
    Ok(Arc::new(Doctor {
        cluster,
        prometheus: prometheus.map_err(ServeError::Prometheus)?,
        settings: settings.clone(),
        expectation: Expectation {
            is_enabled: config.bounds.autoscaling.enabled,
            namespace: namespace.to_owned(),
            serves_from_prometheus: config
                .custom_metrics
                .as_ref()
                .is_some_and(|served| served.prometheus_url.is_some()),
            own_service,
            metrics: used.map(|(name, _)| *name).collect(),
            is_observed: true,
        },
        is_wide: config.doctor.has_cluster_rights,
    }))
}

/// Says in the log what is broken, and what could not be looked at. Nothing waits for it.
pub(super) async fn tell(doctor: &Doctor) {
    if !doctor.expectation.is_enabled {
        return;
    }
    let mut diagnosis = doctor.diagnose(None).await;
    for _ in 1..LOOKS {
        if diagnosis.verdict() != Verdict::Broken {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        diagnosis = doctor.diagnose(None).await;
    }
    for broken in diagnosis.with(Outcome::Broken) {
        tracing::warn!(
            hop = broken.hop.key(),
            expected = broken.expected,
            found = broken.found,
            remedy = broken.remedy,
            "leases do not scale: {} is broken",
            broken.hop.title()
        );
    }
    let unseen: Vec<_> = diagnosis.with(Outcome::Unknown).map(|finding| finding.hop.key()).collect();
    if diagnosis.verdict() != Verdict::Broken {
        tracing::info!(
            not_looked_at = unseen.join(","),
            "the chain by which leases scale: {}",
            diagnosis.summary()
        );
    }
}
