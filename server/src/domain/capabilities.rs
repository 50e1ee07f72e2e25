//! What the cluster was found to serve.

/// What the cluster was found to serve, as far as plans depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Major and minor version of Kubernetes, where it is known.
    pub kubernetes: Option<(u32, u32)>,
    /// `monitoring.coreos.com/v1` PodMonitor.
    pub pod_monitor: bool,
    /// `monitoring.coreos.com/v1` PrometheusRule.
    pub prometheus_rule: bool,
    /// `keda.sh/v1alpha1` ScaledObject.
    pub scaled_object: bool,
    /// `custom.metrics.k8s.io`.
    pub custom_metrics: bool,
    /// `metrics.k8s.io`.
    pub resource_metrics: bool,
    /// Namespace and name of the Service that serves `custom.metrics.k8s.io`, where this server would serve it and knows.
    pub custom_metrics_service: Option<String>,
}

impl Capabilities {
    /// Returns what manifests may rely on when the cluster that will receive them is not known: Kubernetes 1.33 with
    /// Prometheus Operator, and with KEDA where that is the provider.
    pub fn assumed() -> Self {
        Self {
            kubernetes: Some((1, 33)),
            pod_monitor: true,
            prometheus_rule: true,
            scaled_object: true,
            custom_metrics: true,
            resource_metrics: true,
            custom_metrics_service: None,
        }
    }

    /// Returns the capabilities of a cluster that was not asked yet.
    pub fn unknown() -> Self {
        Self {
            kubernetes: None,
            pod_monitor: false,
            prometheus_rule: false,
            scaled_object: false,
            custom_metrics: false,
            resource_metrics: false,
            custom_metrics_service: None,
        }
    }

    /// Whether a HorizontalPodAutoscaler may set its tolerance (HPAConfigurableTolerance is on since 1.35).
    pub fn autoscaler_tolerance(&self) -> bool {
        self.kubernetes.is_some_and(|version| version >= (1, 35))
    }
}
