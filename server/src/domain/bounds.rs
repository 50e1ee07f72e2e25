//! The administrator's bounds, and what a request becomes within them.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::lease::{LifetimeBounds, Toleration};
use super::scaling::{Behavior, MetricName};

/// What leases may ask for, as the administrator decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Autoscaling and replicas.
    pub autoscaling: AutoscalingBounds,
    /// Lifetimes.
    pub lifetime: LifetimeBounds,
    /// Resources of a replica.
    pub resources: ResourceBounds,
    /// Triton image of a lease that names none.
    pub default_image: String,
}

/// Bounds on autoscaling; its fields satisfy the administrator's rules A1 to A15.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoscalingBounds {
    /// Whether leases may ask for autoscaling.
    pub enabled: bool,
    /// Where the autoscaler gets its numbers.
    pub provider: Provider,
    /// Where GPU figures come from.
    pub gpu_source: GpuSource,
    /// Fewest replicas of a lease that does not say.
    pub default_minimum: u32,
    /// Most replicas of a lease that does not say.
    pub default_maximum: u32,
    /// Smallest minimum.
    pub minimum_lower_bound: u32,
    /// Largest minimum.
    pub minimum_upper_bound: u32,
    /// Largest maximum, and largest fixed number of replicas.
    pub maximum: u32,
    /// Every metric.
    pub metrics: BTreeMap<MetricName, MetricBounds>,
    /// Pace of a lease that does not say.
    pub behavior: Behavior,
}

/// Where the autoscaler gets its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// Prometheus Operator and a custom-metrics adapter.
    Adapter,
    /// TMS itself.
    Builtin,
    /// KEDA.
    Keda,
}

/// Where GPU figures come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuSource {
    /// Triton's own gauges.
    Triton,
    /// DCGM-exporter.
    Dcgm,
}

/// Bounds on one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricBounds {
    /// Whether a lease may change it.
    pub allowed: bool,
    /// Whether it scales a lease that does not name it.
    pub enabled: bool,
    /// Threshold of a lease that gives none.
    pub default: i64,
    /// Smallest threshold.
    pub minimum: i64,
    /// Largest threshold; `None` is no upper bound.
    pub maximum: Option<i64>,
}

/// Bounds on the resources of a replica. Quantities are valid and canonical.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceBounds {
    /// Of a lease that does not say.
    pub default: Resources,
    /// Most that a lease may ask for; its `shared_memory` bounds nothing beyond the memory.
    pub maximum: Resources,
    /// Extended resource that stands for a GPU where a lease does not name one.
    pub gpu_resource: String,
}

/// Resources of a replica, as canonical Kubernetes quantities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources {
    /// GPUs.
    pub gpus: u32,
    /// CPU.
    pub cpu: String,
    /// Main memory.
    pub memory: String,
    /// Size of /dev/shm.
    pub shared_memory: String,
}

/// A request as it came, before any rule was applied. Absent parts are `None` or empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// Name and uri of each model.
    pub models: Vec<(String, String)>,
    /// Wishes for the Triton.
    pub triton: TritonRequest,
    /// Fixed replicas.
    pub replicas: Option<u32>,
    /// Autoscaling.
    pub autoscaling: Option<AutoscalingRequest>,
    /// Lifetime.
    pub lifetime: Option<SignedDuration>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// Wishes for the Triton of a lease; empty strings are absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TritonRequest {
    /// Container image.
    pub image: String,
    /// GPUs of a replica.
    pub gpus: Option<u32>,
    /// Extended resource that stands for a GPU.
    pub gpu_resource: String,
    /// CPU.
    pub cpu: String,
    /// Main memory.
    pub memory: String,
    /// Size of /dev/shm.
    pub shared_memory: String,
    /// Environment of the container.
    pub environment: BTreeMap<String, String>,
    /// Labels that a node must carry.
    pub node_selector: BTreeMap<String, String>,
    /// Taints tolerated.
    pub tolerations: Vec<Toleration>,
    /// Kubernetes Affinity as JSON text.
    pub affinity_json: String,
}

/// Wishes for autoscaling.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AutoscalingRequest {
    /// Fewest replicas.
    pub minimum: Option<u32>,
    /// Most replicas.
    pub maximum: Option<u32>,
    /// Metrics by the key that was given, known or not.
    pub metrics: BTreeMap<String, MetricRequest>,
    /// Pace.
    pub behavior: BehaviorRequest,
}

/// What is asked of one metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricRequest {
    /// Whether it scales the lease.
    pub enable: Option<bool>,
    /// Its threshold.
    pub threshold: Option<i64>,
}

/// Wishes for the pace of scaling; `None` takes the administrator's rules for that direction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BehaviorRequest {
    /// Adding replicas.
    pub scale_up: Option<ScalingRulesRequest>,
    /// Removing replicas.
    pub scale_down: Option<ScalingRulesRequest>,
}

/// Wishes for the pace in one direction; what is absent takes the administrator's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScalingRulesRequest {
    /// Seconds.
    pub stabilization_window_seconds: Option<u32>,
    /// `Max`, `Min`, `Disabled` or empty.
    pub select_policy: String,
    /// Type (`Pods` or `Percent`), value and period of each policy.
    pub policies: Vec<(String, u32, u32)>,
}

/// One fault of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field in the notation of the gRPC interface, such as `spec.autoscaling.max_replicas`.
    pub field: String,
    /// A sentence: what was asked, what is allowed, what to do. Lower case, no full stop.
    pub message: String,
    /// The key of values.yaml that decides it, where one does.
    pub key: Option<String>,
    /// Whether the server must be configured otherwise first (FAILED_PRECONDITION), rather than the request changed.
    pub is_precondition: bool,
}

/// A request within the bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted<T> {
    /// What is granted.
    pub granted: T,
    /// Things worth knowing that are no faults.
    pub warnings: Vec<String>,
}
