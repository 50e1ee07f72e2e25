//! What an autoscaler looks at: its metrics with what was read of them, and the pods.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

/// A metric with its target and what was read of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Its name, as people know it.
    pub name: String,
    /// Where it comes from.
    pub source: Source,
}

/// Where a metric comes from, its target, and the answer of that source; an error is why there is none.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A resource of the pods, from metrics.k8s.io.
    Resource {
        /// Which one.
        resource: Resource,
        /// Target: percent of what the pods request, at least 1.
        percent: i32,
        /// The amount used, by name of the pod.
        samples: Result<Samples, String>,
    },
    /// A figure of each pod, from custom.metrics.k8s.io.
    Pods {
        /// Target: the mean over the pods, in thousandths, at least 1.
        average_milli: i64,
        /// The figures, by name of the pod.
        samples: Result<Samples, String>,
    },
    /// Figures from elsewhere, from external.metrics.k8s.io.
    External {
        /// Target.
        target: ExternalTarget,
        /// The figures in thousandths; their sum counts.
        values: Result<Vec<i64>, String>,
    },
}

/// Samples by name of the pod.
pub type Samples = BTreeMap<String, Sample>;

/// A resource of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// CPU time; samples of pods that start are not trusted.
    Cpu,
    /// Memory.
    Memory,
}

/// Target of an external metric, in thousandths, at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExternalTarget {
    /// For the sum itself.
    Value(i64),
    /// For the sum divided by the number of replicas.
    Average(i64),
}

/// One figure of one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The value in thousandths.
    pub milli: i64,
    /// When it was taken.
    pub at: Timestamp,
    /// The time that it covers.
    pub window: SignedDuration,
}

/// What is to be scaled.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    /// Replicas that are wanted now.
    pub wanted: i32,
    /// Replicas that exist, as its status says.
    pub existing: i32,
    /// The pods that its selector finds.
    pub pods: Vec<Pod>,
}

/// A pod, as far as the autoscaler looks at it.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its phase.
    pub phase: Phase,
    /// Whether it is being deleted.
    pub is_deleting: bool,
    /// When the kubelet took it.
    pub started_at: Option<Timestamp>,
    /// Its condition Ready.
    pub ready: Option<Ready>,
    /// What it, or the container that counts, requests.
    pub requests: Requests,
}

/// What a pod requests, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// CPU time.
    pub cpu_milli: Option<i64>,
    /// Memory.
    pub memory_milli: Option<i64>,
}

impl Requests {
    /// Returns the request for a resource.
    pub fn of(self, resource: Resource) -> Option<i64> {
        match resource {
            Resource::Cpu => self.cpu_milli,
            Resource::Memory => self.memory_milli,
        }
    }

    /// Returns the same amount of both.
    pub fn both(milli: i64) -> Self {
        Self { cpu_milli: Some(milli), memory_milli: Some(milli) }
    }
}

/// Phase of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not scheduled, or its containers do not run yet.
    Pending,
    /// It runs.
    Running,
    /// All of its containers ended well.
    Succeeded,
    /// A container ended badly, and none runs.
    Failed,
    /// Its node does not answer.
    Unknown,
}

/// The condition Ready of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Whether it is; `None` where that is unknown.
    pub is_ready: Option<bool>,
    /// Since when.
    pub since: Timestamp,
}
