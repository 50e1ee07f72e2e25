//! The administrator's bounds, and what a request becomes within them: either what is granted, with every default filled
//! in, or every fault at once. Nothing here looks at what else exists; that is admission's part.

mod autoscaling;
mod behavior;
mod findings;
mod grant;
pub(crate) mod image;
mod models;
pub(crate) mod names;
mod placement;
mod request;
#[cfg(test)]
mod tests;
mod triggers;
mod triton;

use std::collections::BTreeMap;

use jiff::SignedDuration;

pub use self::grant::{grant, grant_scaling, grant_update};
pub use self::request::{
    AutomaticRenewalRequest, AutoscalingRequest, BehaviorRequest, MetricRequest, RenewalRequest, Request,
    ScalingRulesRequest, TriggerRequest, TritonRequest, UpdateRequest,
};
pub use self::triggers::{Allowed, TriggerBounds};
use super::lease::LifetimeBounds;
use super::repositories::Repositories;
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
    /// Places that models come from.
    pub repositories: Repositories,
    /// Triton image of a lease that names none.
    pub default_image: String,
    /// Renewal by use; `None` where nothing of a lease's use can be seen.
    pub automatic_renewal: Option<RenewalBounds>,
}

/// Bounds on how use renews a lease. Its ceiling is the longest lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenewalBounds {
    /// Idle window of a lease that names none.
    pub default_idle_window: SignedDuration,
    /// Time between two looks at all leases that asked for it.
    pub look_interval: SignedDuration,
}

impl RenewalBounds {
    /// Looks that fit into the shortest idle window: one may find nothing because the server has just started, and one may
    /// fail.
    const LOOKS: i32 = 3;

    /// Shortest idle window.
    pub fn minimum_idle_window(&self) -> SignedDuration {
        self.look_interval.saturating_mul(Self::LOOKS)
    }
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
    /// Triggers that leases may ask for; none but with [`Provider::Keda`].
    pub triggers: Vec<TriggerBounds>,
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

/// How KEDA looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keda {
    /// Prometheus that has the recorded series; given wherever KEDA is the provider and a lease may scale by one.
    pub prometheus_url: Option<String>,
    /// Seconds between two looks at triggers, while a lease may sleep; at least 1.
    pub polling_interval_seconds: u32,
    /// Seconds without activity after which a lease falls asleep.
    pub cooldown_seconds: u32,
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
