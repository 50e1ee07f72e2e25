//! What was found out about the chain by which leases scale, and why some of it was not.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::selector::Selector;
use crate::domain::autoscaler::explanation;
use crate::domain::scaling::MetricName;

/// Something that was found out, or why not.
pub type Found<T> = Result<T, Missing>;

/// Why something was not found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The configuration does not let the server look outside the namespace of the leases.
    NoRights,
    /// The configuration names no Prometheus to ask.
    NoAddress,
    /// Who was asked refused, in these words.
    Refused(String),
    /// Nobody answered, for this reason.
    Away(String),
}

/// What was found out.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// Kinds of monitoring.coreos.com/v1 that the cluster serves.
    pub monitoring_kinds: Found<BTreeSet<String>>,
    /// Kinds of keda.sh/v1alpha1 that the cluster serves.
    pub keda_kinds: Found<BTreeSet<String>>,
    /// Every Prometheus object.
    pub prometheuses: Found<Vec<Prometheus>>,
    /// Labels of the namespace of the leases.
    pub namespace_labels: Found<BTreeMap<String, String>>,
    /// Whether Prometheus answers a question.
    pub prometheus_api: Found<()>,
    /// custom.metrics.k8s.io.
    pub custom_metrics: Found<Api>,
    /// metrics.k8s.io.
    pub resource_metrics: Found<Api>,
    /// external.metrics.k8s.io.
    pub external_metrics: Found<Api>,
    /// What concerns the lease, if it is about one.
    pub lease: Option<LeaseEvidence>,
}

/// A Prometheus object. An absent selector of objects selects none; an absent selector of namespaces selects its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Prometheus {
    /// Its namespace.
    #[serde(skip)]
    pub namespace: String,
    /// Its name.
    #[serde(skip)]
    pub name: String,
    /// Which PodMonitors it takes.
    pub pod_monitor_selector: Option<Selector>,
    /// From which namespaces.
    pub pod_monitor_namespace_selector: Option<Selector>,
    /// Which PrometheusRules it takes.
    pub rule_selector: Option<Selector>,
    /// From which namespaces.
    pub rule_namespace_selector: Option<Selector>,
}

/// An API that another server serves behind that of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// Whether it answers.
    pub state: ApiState,
    /// Who serves it, as NAMESPACE/NAME of a Service, where that is known.
    pub service: Option<String>,
    /// Why it is not available, as its APIService says.
    pub complaint: Option<String>,
}

/// Whether an API answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiState {
    /// It answers.
    Served,
    /// Nobody is registered for it.
    Absent,
    /// Somebody is, and does not answer.
    Silent(String),
}

/// What was found out about one lease.
#[derive(Clone, Debug)]
pub struct LeaseEvidence {
    /// Its autoscaler, pods, and the values of its metrics.
    pub seen: explanation::Evidence,
    /// Pods that no node can take, with what the scheduler says.
    pub unschedulable: Found<BTreeMap<String, String>>,
    /// Pods that Prometheus scrapes, and whether the last scrape went well.
    pub up: Found<BTreeMap<String, bool>>,
    /// Why scrapes go wrong, in the words of Prometheus.
    pub scrape_errors: Vec<String>,
    /// The rules of the lease that Prometheus has loaded: the record of each, and what is wrong with it.
    pub rules: Found<BTreeMap<String, Option<String>>>,
    /// For each recorded metric the series of each pod.
    pub series: BTreeMap<MetricName, Series>,
}

/// How many series pods have.
#[derive(Clone, Debug)]
pub struct Series {
    /// Of what the rule reads.
    pub raw: Found<BTreeMap<String, u64>>,
    /// Of what it records.
    pub recorded: Found<BTreeMap<String, u64>>,
}

/// What the server is configured to rely on.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// Whether leases may scale at all.
    pub is_enabled: bool,
    /// Namespace of the leases.
    pub namespace: String,
    /// Whether TMS itself, where it serves the metrics, reads them from Prometheus.
    pub serves_from_prometheus: bool,
    /// Service through which TMS serves custom.metrics.k8s.io, as NAMESPACE/NAME, where it should.
    pub own_service: Option<String>,
    /// Metrics by which leases may scale.
    pub metrics: BTreeSet<MetricName>,
    /// Whether the objects of leases are observed.
    pub is_observed: bool,
}
