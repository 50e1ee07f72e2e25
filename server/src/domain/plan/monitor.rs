//! The PodMonitor, by which Prometheus scrapes the Tritons of one lease under a job of their own.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::Serialize;

use super::containers::METRICS_PORT;
use super::{Kind, LEASE_LABEL, Object, Settings, labels};
use crate::domain::lease::Lease;

/// What is worth keeping of a Triton's metrics: what rules and diagnosis read.
const KEPT: &str = "nv_inference_(request_success|request_failure|queue_duration_us|compute_infer_duration_us|\
    pending_request_count|count|exec_count)|nv_gpu_.*|nv_model_load_duration_secs|nv_trt_llm_.*";

/// Returns the value of the label `job` on every series of the lease: Prometheus Operator's default, which is unique
/// because each lease has a PodMonitor of its own.
pub fn job(lease: &Lease) -> String {
    format!("{}/{}", lease.namespace, lease.id.object_name())
}

/// Returns the PodMonitor.
pub(super) fn monitor(lease: &Lease, settings: &Settings) -> Object {
    let monitor = PodMonitor {
        api_version: Kind::PodMonitor.api_version(),
        kind: Kind::PodMonitor.as_str(),
        metadata: labels::metadata(lease, settings, &settings.pod_monitor_labels),
        spec: PodMonitorSpec {
            selector: labels::selector(lease.id),
            pod_target_labels: [LEASE_LABEL],
            pod_metrics_endpoints: [Endpoint {
                port: METRICS_PORT,
                path: "/metrics",
                interval: format!("{}s", settings.scrape_interval_seconds),
                scrape_timeout: format!("{}s", settings.scrape_timeout_seconds),
                metric_relabelings: [Relabeling { action: "keep", source_labels: ["__name__"], regex: KEPT }],
            }],
        },
    };
    Object::new(Kind::PodMonitor, &monitor)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PodMonitor {
    api_version: String,
    kind: &'static str,
    metadata: ObjectMeta,
    spec: PodMonitorSpec,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PodMonitorSpec {
    selector: LabelSelector,
    pod_target_labels: [&'static str; 1],
    pod_metrics_endpoints: [Endpoint; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    port: &'static str,
    path: &'static str,
    interval: String,
    scrape_timeout: String,
    metric_relabelings: [Relabeling; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Relabeling {
    action: &'static str,
    source_labels: [&'static str; 1],
    regex: &'static str,
}
