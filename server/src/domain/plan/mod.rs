//! The Kubernetes objects that a lease means: a pure function of the lease, the settings and what the cluster serves.

mod autoscaler;
mod containers;
mod covers;
mod deployment;
mod disruption;
mod labels;
mod metrics;
mod monitor;
mod questions;
mod rules;
mod scaled_object;
mod service;
mod storage;
mod yaml;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

pub use self::containers::{AGENT, TRITON};
pub use self::covers::covers;
pub use self::deployment::render;
pub use self::metrics::{Source as MetricSource, metric_of, series, source as metric_source};
pub use self::monitor::job;
pub use self::questions::{Questions, monitor_labels, rule_labels};
pub use self::scaled_object::TRIGGERS_ANNOTATION;
pub use self::yaml::to_yaml;
use super::bounds::{GpuSource, Keda, Provider};
use super::capabilities::Capabilities;
use super::lease::{Lease, LeaseId};
use super::repositories::Repositories;
use super::scaling::{Autoscaling, Scaling};

/// Label that carries the lease id.
pub const LEASE_LABEL: &str = "tms.internal/lease-id";
/// Label that carries the identity of the installation that owns an object.
pub const INSTALLATION_LABEL: &str = "tms.internal/installation";
/// Annotation that carries the generation of the lease for which an object was applied.
pub const GENERATION_ANNOTATION: &str = "tms.internal/generation";

/// Port of Triton's HTTP interface, in its pods and its Service.
pub const TRITON_HTTP: u16 = 8000;
/// Port of Triton's gRPC interface, in its pods and its Service.
pub const TRITON_GRPC: u16 = 8001;
/// Port of Triton's metrics, in its pods.
pub const TRITON_METRICS: u16 = 8002;
/// Port of the agent, in the pods of a lease.
pub const AGENT_PORT: u16 = 8010;

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
    /// Places that models come from.
    pub repositories: Repositories,
    /// Where the autoscaler gets its numbers.
    pub provider: Provider,
    /// How KEDA looks, where it is the provider.
    pub keda: Keda,
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
    /// v1: the Service without an address of its own, for clients that choose replicas by themselves
    HeadlessService,
    /// autoscaling/v2
    HorizontalPodAutoscaler,
    /// keda.sh/v1alpha1: what KEDA makes a HorizontalPodAutoscaler of, by the same name
    ScaledObject,
    /// monitoring.coreos.com/v1
    PodMonitor,
    /// monitoring.coreos.com/v1
    PrometheusRule,
    /// policy/v1
    PodDisruptionBudget,
}

/// Returns the objects that `lease` means on a cluster that serves `capabilities`. Its Deployment is the stored one.
pub fn plan(lease: &Lease, settings: &Settings, capabilities: &Capabilities) -> Plan {
    let autoscaling = match &lease.spec.scaling {
        Scaling::Fixed { .. } => None,
        Scaling::Auto(autoscaling) => Some(autoscaling),
    };
    let autoscaler = autoscaling.and_then(|wanted| autoscaler_of(lease, wanted, settings, capabilities));
    let monitor = capabilities.pod_monitor.then(|| monitor::monitor(lease, settings));
    let rules = autoscaling
        .filter(|_| capabilities.prometheus_rule)
        .and_then(|wanted| rules::rules(lease, wanted, settings));
    let dependents = [
        Some(service::service(lease, settings)),
        Some(service::headless(lease, settings)),
        autoscaler,
        monitor,
        rules,
        Some(disruption::budget(lease, settings)),
    ];
    Plan { deployment: deployment::stamp(lease), dependents: dependents.into_iter().flatten().collect() }
}

fn autoscaler_of(
    lease: &Lease,
    wanted: &Autoscaling,
    settings: &Settings,
    capabilities: &Capabilities,
) -> Option<Object> {
    match settings.provider {
        Provider::Adapter | Provider::Builtin => {
            Some(autoscaler::autoscaler(lease, wanted, settings, capabilities))
        }
        Provider::Keda => capabilities
            .scaled_object
            .then(|| scaled_object::scaled_object(lease, wanted, &settings.keda, settings, capabilities)),
    }
}

impl Plan {
    /// Whether an object of this kind, seen in the cluster, belongs to the lease. With a ScaledObject that is the autoscaler that
    /// KEDA makes of it, or takes over.
    pub fn admits(&self, kind: Kind) -> bool {
        let is_planned = |kind: Kind| self.objects().any(|object| object.kind == kind);
        is_planned(kind) || (kind == Kind::HorizontalPodAutoscaler && is_planned(Kind::ScaledObject))
    }

    /// Returns every object, in the order in which they are applied.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        std::iter::once(&self.deployment).chain(&self.dependents)
    }
}

impl Object {
    /// Makes the object go with the Deployment of this name and UID, which in a foreground deletion waits for it.
    pub fn owned_by(&mut self, deployment: &str, uid: &str) {
        self.body["metadata"]["ownerReferences"] = json!([{
            "apiVersion": Kind::Deployment.api_version(),
            "kind": Kind::Deployment.as_str(),
            "name": deployment,
            "uid": uid,
            "controller": true,
            "blockOwnerDeletion": true,
        }]);
    }

    fn new(kind: Kind, object: &impl Serialize) -> Self {
        Self { kind, body: serde_json::to_value(object).expect("an object of Kubernetes is JSON") }
    }
}

impl Kind {
    /// Every kind, in the order in which they are applied.
    pub const ALL: [Self; 8] = [
        Self::Deployment,
        Self::Service,
        Self::HeadlessService,
        Self::HorizontalPodAutoscaler,
        Self::ScaledObject,
        Self::PodMonitor,
        Self::PrometheusRule,
        Self::PodDisruptionBudget,
    ];

    /// Name of the object of this kind of a lease.
    pub fn object_name(self, id: LeaseId) -> String {
        format!("{}{}", id.object_name(), self.suffix())
    }

    /// What the name of an object has after that of its lease, so that no two objects share kind and name.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::HeadlessService => "-headless",
            Self::Deployment
            | Self::Service
            | Self::HorizontalPodAutoscaler
            | Self::ScaledObject
            | Self::PodMonitor
            | Self::PrometheusRule
            | Self::PodDisruptionBudget => "",
        }
    }

    /// Whether the API serves both as one resource, so that one watch sees both.
    pub fn shares_resource(self, other: Self) -> bool {
        (self.group(), self.plural()) == (other.group(), other.plural())
    }

    /// API group, empty for the core group.
    pub fn group(self) -> &'static str {
        match self {
            Self::Deployment => "apps",
            Self::Service | Self::HeadlessService => "",
            Self::HorizontalPodAutoscaler => "autoscaling",
            Self::ScaledObject => "keda.sh",
            Self::PodMonitor | Self::PrometheusRule => "monitoring.coreos.com",
            Self::PodDisruptionBudget => "policy",
        }
    }

    /// API version.
    pub fn version(self) -> &'static str {
        match self {
            Self::HorizontalPodAutoscaler => "v2",
            Self::ScaledObject => "v1alpha1",
            Self::Deployment
            | Self::Service
            | Self::HeadlessService
            | Self::PodMonitor
            | Self::PrometheusRule
            | Self::PodDisruptionBudget => "v1",
        }
    }

    /// Group and version as an object names them.
    pub fn api_version(self) -> String {
        match self.group() {
            "" => self.version().to_owned(),
            group => format!("{group}/{}", self.version()),
        }
    }

    /// Name of the kind.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::Service | Self::HeadlessService => "Service",
            Self::HorizontalPodAutoscaler => "HorizontalPodAutoscaler",
            Self::ScaledObject => "ScaledObject",
            Self::PodMonitor => "PodMonitor",
            Self::PrometheusRule => "PrometheusRule",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
        }
    }

    /// Plural name of the resource, as in the path of the API.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Deployment => "deployments",
            Self::Service | Self::HeadlessService => "services",
            Self::HorizontalPodAutoscaler => "horizontalpodautoscalers",
            Self::ScaledObject => "scaledobjects",
            Self::PodMonitor => "podmonitors",
            Self::PrometheusRule => "prometheusrules",
            Self::PodDisruptionBudget => "poddisruptionbudgets",
        }
    }
}

/// Kubernetes counts in signed integers.
fn int(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// An empty list is left out, as the API leaves it out.
fn non_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    Some(list).filter(|list| !list.is_empty())
}
