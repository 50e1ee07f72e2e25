//! What a lease may be asked for, as it came: parsed into types, with no rule applied yet.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use crate::domain::lease::Toleration;

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
    /// Renewal by use.
    pub automatic_renewal: Option<AutomaticRenewalRequest>,
}

/// A request for a change of a lease. What is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpdateRequest {
    /// Autoscaling.
    pub autoscaling: Option<AutoscalingRequest>,
    /// Fixed replicas.
    pub replicas: Option<u32>,
    /// All labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Renewal by use.
    pub renewal: Option<RenewalRequest>,
}

/// What is to become of renewal by use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewalRequest {
    /// Use renews the lease from now on.
    On(AutomaticRenewalRequest),
    /// Use renews it no more.
    Off,
}

/// Wishes for renewal by use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AutomaticRenewalRequest {
    /// How long the lease lives on after it was used.
    pub idle_window: Option<SignedDuration>,
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
    /// Signals from outside the pods.
    pub triggers: Vec<TriggerRequest>,
}

/// A wish for a signal from outside the pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TriggerRequest {
    /// Its kind.
    pub kind: String,
    /// What the lease sets of it.
    pub metadata: BTreeMap<String, String>,
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
