//! The Kubernetes objects that a lease means: a pure function of the lease, the settings and what the cluster serves.

use std::collections::BTreeMap;

use serde_json::Value;

use super::bounds::{GpuSource, Provider};

/// Label that carries the lease id.
pub const LEASE_LABEL: &str = "tms.internal/lease-id";
/// Label that carries the identity of the installation that owns an object.
pub const INSTALLATION_LABEL: &str = "tms.internal/installation";
/// Annotation that carries the generation of the lease for which an object was applied.
pub const GENERATION_ANNOTATION: &str = "tms.internal/generation";

/// The administrator's settings that plans depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Identity of the installation.
    pub installation: String,
    /// Image of the agent: the server's own.
    pub server_image: String,
    /// Names of image pull Secrets.
    pub pull_secrets: Vec<String>,
    /// `app.kubernetes.io/part-of`, where set.
    pub part_of: Option<String>,
    /// Labels put on every object and pod.
    pub custom_labels: BTreeMap<String, String>,
    /// Annotations put on every object and pod.
    pub custom_annotations: BTreeMap<String, String>,
    /// Labels put on PodMonitors.
    pub pod_monitor_labels: BTreeMap<String, String>,
    /// Labels put on PrometheusRules.
    pub rule_labels: BTreeMap<String, String>,
    /// Where the autoscaler gets its numbers.
    pub provider: Provider,
    /// Where GPU figures come from.
    pub gpu_source: GpuSource,
    /// Seconds between scrapes, and between evaluations of the rules.
    pub scrape_interval_seconds: u32,
    /// Seconds after which a scrape is given up.
    pub scrape_timeout_seconds: u32,
    /// Seconds over which the rules average; at least four scrapes.
    pub window_seconds: u32,
    /// Seconds that a replica may take to become ready; bounds the Deployment's progress and the agent's start.
    pub load_timeout_seconds: u32,
    /// Seconds between the removal of a pod from its Service and the signal to Triton.
    pub pre_stop_seconds: u32,
    /// Seconds that Triton gives requests in flight after the signal.
    pub exit_timeout_seconds: u32,
}

/// The objects of a lease, in the order in which they are applied: the Deployment first.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The Deployment, without `spec.replicas` where an autoscaler owns it.
    pub deployment: Object,
    /// Everything else; each is owned by the Deployment once its UID is known.
    pub dependents: Vec<Object>,
}

/// One object.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// The whole object as it is applied.
    pub body: Value,
}

/// A kind of object that TMS emits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// apps/v1
    Deployment,
    /// v1
    Service,
    /// autoscaling/v2
    HorizontalPodAutoscaler,
    /// monitoring.coreos.com/v1
    PodMonitor,
    /// monitoring.coreos.com/v1
    PrometheusRule,
    /// policy/v1
    PodDisruptionBudget,
}

impl Kind {
    /// Every kind, in the order in which they are applied.
    pub const ALL: [Self; 6] = [
        Self::Deployment,
        Self::Service,
        Self::HorizontalPodAutoscaler,
        Self::PodMonitor,
        Self::PrometheusRule,
        Self::PodDisruptionBudget,
    ];

    /// API group, empty for the core group.
    pub fn group(self) -> &'static str {
        match self {
            Self::Deployment => "apps",
            Self::Service => "",
            Self::HorizontalPodAutoscaler => "autoscaling",
            Self::PodMonitor | Self::PrometheusRule => "monitoring.coreos.com",
            Self::PodDisruptionBudget => "policy",
        }
    }

    /// API version.
    pub fn version(self) -> &'static str {
        match self {
            Self::HorizontalPodAutoscaler => "v2",
            Self::Deployment
            | Self::Service
            | Self::PodMonitor
            | Self::PrometheusRule
            | Self::PodDisruptionBudget => "v1",
        }
    }

    /// Name of the kind.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::Service => "Service",
            Self::HorizontalPodAutoscaler => "HorizontalPodAutoscaler",
            Self::PodMonitor => "PodMonitor",
            Self::PrometheusRule => "PrometheusRule",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
        }
    }

    /// Plural name of the resource, as in the path of the API.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Deployment => "deployments",
            Self::Service => "services",
            Self::HorizontalPodAutoscaler => "horizontalpodautoscalers",
            Self::PodMonitor => "podmonitors",
            Self::PrometheusRule => "prometheusrules",
            Self::PodDisruptionBudget => "poddisruptionbudgets",
        }
    }
}
