//! What the configuration expects of the cluster and the cluster does not have (rules A15 and A16).

use super::finding::{Finding, Origin, Source};
use super::{Cluster, ClusterKind, Config};
use crate::domain::bounds::{AutoscalingBounds, Provider};
use crate::domain::capabilities::Capabilities;
use crate::domain::scaling::MetricName;

/// Returns what the configuration expects in vain of a cluster that serves this.
pub fn check_capabilities(config: &Config, capabilities: &Capabilities) -> Vec<Finding> {
    let autoscaling = &config.bounds.autoscaling;
    if !autoscaling.enabled {
        return Vec::new();
    }
    let mut warnings = missing_apis(config, capabilities);
    warnings.extend(vain_tolerance(&config.cluster, autoscaling, capabilities));
    warnings
}

fn missing_apis(config: &Config, capabilities: &Capabilities) -> Vec<Finding> {
    let autoscaling = &config.bounds.autoscaling;
    let is_used = |name: MetricName| {
        autoscaling.metrics.get(&name).is_some_and(|metric| metric.allowed || metric.enabled)
    };
    let from_triton = [MetricName::GpuUtilization, MetricName::GpuMemoryUtilization, MetricName::QueueTime]
        .into_iter()
        .any(is_used);
    let asks_tritons = config.custom_metrics.as_ref().is_some_and(|served| served.prometheus_url.is_none());
    let from_prometheus = from_triton && !asks_tritons;
    let from_kubelet = [MetricName::CpuUtilization, MetricName::MemoryUtilization].into_iter().any(is_used);
    let (needs_adapter, needs_keda) = match autoscaling.provider {
        Provider::Adapter => (from_prometheus, false),
        Provider::Builtin => (false, false),
        Provider::Keda => (false, true),
    };
    let expected = [
        (
            from_prometheus,
            capabilities.pod_monitor,
            "PodMonitor of monitoring.coreos.com/v1",
            "Prometheus Operator",
        ),
        (
            from_prometheus,
            capabilities.prometheus_rule,
            "PrometheusRule of monitoring.coreos.com/v1",
            "Prometheus Operator",
        ),
        (
            needs_adapter,
            capabilities.custom_metrics,
            "custom.metrics.k8s.io",
            "a custom-metrics adapter, such as prometheus-adapter",
        ),
        (from_kubelet, capabilities.resource_metrics, "metrics.k8s.io", "metrics-server"),
        (needs_keda, capabilities.scaled_object, "ScaledObject of keda.sh/v1alpha1", "KEDA"),
    ];
    expected
        .into_iter()
        .filter(|(is_needed, is_served, ..)| *is_needed && !*is_served)
        .map(|(_, _, api, remedy)| {
            let problem =
                format!("is on, but the cluster does not serve {api}, without which leases do not scale");
            finding("server.autoscaling.enable", problem, "A16", &format!("install {remedy}"))
        })
        .collect()
}

fn vain_tolerance(
    cluster: &Cluster,
    autoscaling: &AutoscalingBounds,
    capabilities: &Capabilities,
) -> Option<Finding> {
    let behavior = &autoscaling.behavior;
    let is_set =
        [&behavior.scale_up, &behavior.scale_down].iter().any(|rules| rules.tolerance_milli.is_some());
    if !is_set || capabilities.autoscaler_tolerance() {
        return None;
    }
    let found = match (&cluster.kind, capabilities.kubernetes) {
        (ClusterKind::Manifests { .. }, _) => "manifests are written for any cluster".to_owned(),
        (ClusterKind::Kubernetes { .. }, Some((major, minor))) => {
            format!("the cluster is Kubernetes {major}.{minor}")
        }
        (ClusterKind::Kubernetes { .. }, None) => "the version of the cluster is not known".to_owned(),
    };
    let problem = format!("a tolerance needs Kubernetes 1.35 and is left out: {found}");
    Some(finding("server.autoscaling.behavior", problem, "A15", "remove it, or upgrade the cluster"))
}

fn finding(key: &str, problem: String, rule: &'static str, hint: &str) -> Finding {
    Finding {
        origin: Origin::whole(Source::Cluster),
        key: key.to_owned(),
        value: None,
        problem,
        rule: Some(rule),
        hint: Some(hint.to_owned()),
    }
}
