//! How many replicas a lease has, and what changes that number.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Replicas of a lease: fixed, or left to an autoscaler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scaling {
    /// This many, always.
    Fixed {
        /// Number of replicas, at least 1.
        replicas: u32,
    },
    /// As many as the metrics ask for.
    Auto(Autoscaling),
}

impl Scaling {
    /// The fewest replicas that the lease holds; it starts with this many.
    pub fn minimum(&self) -> u32 {
        match self {
            Self::Fixed { replicas } => *replicas,
            Self::Auto(autoscaling) => autoscaling.minimum,
        }
    }

    /// The most replicas that the lease holds.
    pub fn maximum(&self) -> u32 {
        match self {
            Self::Fixed { replicas } => *replicas,
            Self::Auto(autoscaling) => autoscaling.maximum,
        }
    }
}

/// Autoscaling as granted: within the bounds, every default filled in, at least one metric.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Autoscaling {
    /// Fewest replicas.
    pub minimum: u32,
    /// Most replicas.
    pub maximum: u32,
    /// Threshold of each metric that scales the lease: percent, or microseconds for [`MetricName::QueueTime`].
    pub metrics: BTreeMap<MetricName, i64>,
    /// Pace.
    pub behavior: Behavior,
    /// Signals from outside the pods that scale the lease too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<Trigger>,
}

/// A signal from outside the pods, by a trigger of KEDA: what the administrator fixed of it, and what the lease set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trigger {
    /// The administrator's name for it.
    pub kind: String,
    /// KEDA's name for such triggers, such as `rabbitmq`.
    #[serde(rename = "type")]
    pub trigger_type: String,
    /// Whether its value is divided by the replicas or not.
    pub metric_type: TriggerMetric,
    /// What lets KEDA in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<TriggerAuthentication>,
    /// What the administrator fixed.
    pub fixed: BTreeMap<String, String>,
    /// What the lease set; wins over what is fixed under the same key.
    pub metadata: BTreeMap<String, String>,
}

/// How the value of a trigger is compared with its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TriggerMetric {
    /// Its part for each replica.
    AverageValue,
    /// As it is.
    Value,
}

/// An object that holds what KEDA needs to read a trigger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggerAuthentication {
    /// Its kind.
    pub kind: AuthenticationKind,
    /// Its name.
    pub name: String,
}

/// Where an authentication of KEDA lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuthenticationKind {
    /// In the namespace of the leases.
    TriggerAuthentication,
    /// In the cluster.
    ClusterTriggerAuthentication,
}

/// A metric that may scale a lease, named as in values.yaml.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MetricName {
    /// CPU of the Triton container, percent of its request.
    CpuUtilization,
    /// Main memory of the Triton container, percent of its request.
    MemoryUtilization,
    /// GPU, percent of time busy.
    GpuUtilization,
    /// GPU memory in use, percent.
    GpuMemoryUtilization,
    /// Mean time of a request in Triton's queue, microseconds.
    QueueTime,
}

impl MetricName {
    /// Every metric, in the order of values.yaml.
    pub const ALL: [Self; 5] = [
        Self::CpuUtilization,
        Self::MemoryUtilization,
        Self::GpuUtilization,
        Self::GpuMemoryUtilization,
        Self::QueueTime,
    ];

    /// The key in values.yaml and in the gRPC interface.
    pub fn key(self) -> &'static str {
        match self {
            Self::CpuUtilization => "cpuUtilization",
            Self::MemoryUtilization => "memoryUtilization",
            Self::GpuUtilization => "gpuUtilization",
            Self::GpuMemoryUtilization => "gpuMemoryUtilization",
            Self::QueueTime => "queueTime",
        }
    }

    /// The metric with this key.
    pub fn from_key(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.key() == key)
    }

    /// Whether the value is a percentage.
    pub fn is_percent(self) -> bool {
        match self {
            Self::CpuUtilization
            | Self::MemoryUtilization
            | Self::GpuUtilization
            | Self::GpuMemoryUtilization => true,
            Self::QueueTime => false,
        }
    }

    /// Whether the metric needs a GPU.
    pub fn needs_gpu(self) -> bool {
        match self {
            Self::GpuUtilization | Self::GpuMemoryUtilization => true,
            Self::CpuUtilization | Self::MemoryUtilization | Self::QueueTime => false,
        }
    }
}

/// Pace of scaling in both directions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Behavior {
    /// Adding replicas.
    pub scale_up: ScalingRules,
    /// Removing replicas.
    pub scale_down: ScalingRules,
}

/// Pace of scaling in one direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScalingRules {
    /// Seconds of the past over which the calmest recommendation wins; 0 to 3600.
    pub stabilization_window_seconds: u32,
    /// Which policy decides where several apply.
    pub select_policy: SelectPolicy,
    /// What may change in a period; at least one.
    pub policies: Vec<ScalingPolicy>,
    /// Relative deviation from the threshold that changes nothing, in thousandths; emitted where the cluster knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance_milli: Option<u32>,
}

/// Which policy decides where several apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SelectPolicy {
    /// The largest change.
    Max,
    /// The smallest change.
    Min,
    /// No change in this direction.
    Disabled,
}

/// A bound on the change within a period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScalingPolicy {
    /// What `value` counts.
    #[serde(rename = "type")]
    pub kind: PolicyKind,
    /// Pods, or percent of the current replicas; at least 1.
    pub value: u32,
    /// Seconds, 1 to 1800.
    pub period_seconds: u32,
}

/// What a scaling policy counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyKind {
    /// Pods.
    Pods,
    /// Percent of the current replicas.
    Percent,
}
