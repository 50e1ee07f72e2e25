//! What Prometheus is asked to see whether it knows the series of a lease, and by which labels it finds what a lease emits.

use std::collections::BTreeMap;

use super::labels::Map;
use super::{Settings, labels, monitor, rules, series};
use crate::domain::lease::{Lease, LeaseId};
use crate::domain::scaling::{MetricName, Scaling};

/// Questions to Prometheus about one lease. Each answer is a vector whose elements have the label `pod`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Questions {
    /// For each pod that is scraped, whether the last scrape went well.
    pub up: String,
    /// Name of the group of rules.
    pub group: String,
    /// For each metric that is recorded, how many series of what its rule reads a pod has, and how many of what it records.
    pub series: BTreeMap<MetricName, SeriesQuestions>,
}

/// Questions about one metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesQuestions {
    /// What the rule reads.
    pub raw: String,
    /// What it records. Series of anybody's count: who reads them adds them up.
    pub recorded: String,
}

impl Questions {
    /// Returns the questions about a lease.
    pub fn about(lease: &Lease, settings: &Settings) -> Self {
        let metrics: Vec<_> = match &lease.spec.scaling {
            Scaling::Auto(autoscaling) => autoscaling.metrics.keys().copied().collect(),
            Scaling::Fixed { .. } => Vec::new(),
        };
        let (namespace, name) = (&lease.namespace, lease.id.object_name());
        let series = metrics.into_iter().filter_map(|metric| {
            let (recorded, raw) = series(metric).zip(rules::raw(metric, lease, settings))?;
            let recorded =
                format!(r#"count by (pod) ({recorded}{{namespace="{namespace}",pod=~"{name}-.+"}})"#);
            Some((metric, SeriesQuestions { raw, recorded }))
        });
        Self {
            up: format!(r#"min by (pod) (up{{job="{}"}})"#, monitor::job(lease)),
            group: rules::autoscaling_group(lease),
            series: series.collect(),
        }
    }
}

/// Returns the labels of the PodMonitor of a lease, or without one those that any has.
pub fn monitor_labels(lease: Option<&Lease>, settings: &Settings) -> BTreeMap<String, String> {
    of(lease, settings, &settings.pod_monitor_labels)
}

/// Returns the labels of the PrometheusRule of a lease, or without one those that any has.
pub fn rule_labels(lease: Option<&Lease>, settings: &Settings) -> BTreeMap<String, String> {
    of(lease, settings, &settings.rule_labels)
}

fn of(lease: Option<&Lease>, settings: &Settings, required: &Map) -> Map {
    match lease {
        Some(lease) => labels::of_dependent(lease.id, &lease.spec.labels, settings, required),
        None => {
            let any: LeaseId = "0".repeat(32).parse().expect("32 digits are a lease id");
            labels::of_dependent(any, &Map::new(), settings, required)
        }
    }
}
