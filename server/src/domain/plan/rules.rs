//! The PrometheusRule: the metrics that no exporter offers in the form an autoscaler needs, one series per pod. An idle pod
//! yields 0, a pod of which nothing is known yields no series, and nothing is ever divided by zero.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

use super::metrics::{Source, source};
use super::{Kind, Object, Settings, containers, labels, monitor};
use crate::domain::bounds::GpuSource;
use crate::domain::lease::Lease;
use crate::domain::scaling::{Autoscaling, MetricName};

/// The group of the rules that an autoscaler reads, within the names of a lease.
const AUTOSCALING: &str = "autoscaling";
/// The series of a threshold, by lease and metric.
const TARGET: &str = "tms_autoscaling_target";

/// Returns the PrometheusRule, where a metric of the lease has to be recorded at all.
pub(super) fn rules(lease: &Lease, autoscaling: &Autoscaling, settings: &Settings) -> Option<Object> {
    let rules: Vec<Rule> =
        autoscaling.metrics.keys().filter_map(|metric| rule(*metric, lease, settings)).collect();
    if rules.is_empty() {
        return None;
    }
    let rule = PrometheusRule {
        api_version: Kind::PrometheusRule.api_version(),
        kind: Kind::PrometheusRule.as_str(),
        metadata: labels::metadata(lease, settings, &settings.rule_labels),
        spec: PrometheusRuleSpec {
            groups: [(AUTOSCALING, rules), ("targets", targets(lease, autoscaling))].map(|(name, rules)| {
                Group {
                    name: group(lease, name),
                    interval: format!("{}s", settings.scrape_interval_seconds),
                    rules,
                }
            }),
        },
    };
    Some(Object::new(Kind::PrometheusRule, &rule))
}

/// Returns the name of the group of the rules that an autoscaler reads, which no other group has.
pub(super) fn autoscaling_group(lease: &Lease) -> String {
    group(lease, AUTOSCALING)
}

fn group(lease: &Lease, name: &str) -> String {
    format!("{}-{name}", lease.id.object_name())
}

/// Returns what the rule of a metric reads, as a vector with one element for each pod that has it; `None` where none is read.
pub(super) fn raw(metric: MetricName, lease: &Lease, settings: &Settings) -> Option<String> {
    let (triton, exported) = (selection(lease), exported_selection(lease));
    let series = match (metric, settings.gpu_source) {
        (MetricName::CpuUtilization | MetricName::MemoryUtilization, _) => return None,
        (MetricName::QueueTime, _) => format!("nv_inference_pending_request_count{triton}"),
        (MetricName::GpuUtilization, GpuSource::Triton) => format!("nv_gpu_utilization{triton}"),
        (MetricName::GpuMemoryUtilization, GpuSource::Triton) => format!("nv_gpu_memory_total_bytes{triton}"),
        (MetricName::GpuUtilization, GpuSource::Dcgm) if is_part_of_gpu(lease) => {
            format!("DCGM_FI_PROF_GR_ENGINE_ACTIVE{exported}")
        }
        (MetricName::GpuUtilization, GpuSource::Dcgm) => format!("DCGM_FI_DEV_GPU_UTIL{exported}"),
        (MetricName::GpuMemoryUtilization, GpuSource::Dcgm) => format!("DCGM_FI_DEV_FB_USED{exported}"),
    };
    Some(match (metric, settings.gpu_source) {
        (MetricName::GpuUtilization | MetricName::GpuMemoryUtilization, GpuSource::Dcgm) => {
            format!(r#"count by (pod) (label_replace({series}, "pod", "$1", "exported_pod", "(.+)"))"#)
        }
        _ => format!("count by (pod) ({series})"),
    })
}

fn is_part_of_gpu(lease: &Lease) -> bool {
    lease.spec.triton.gpu_resource.contains("/mig-")
}

/// The values that are to be held, so that people see them beside what is recorded.
fn targets(lease: &Lease, autoscaling: &Autoscaling) -> Vec<Rule> {
    let recorded =
        autoscaling.metrics.iter().filter(|(metric, _)| matches!(source(**metric), Source::Recorded(_)));
    let target = |(metric, threshold): (&MetricName, &i64)| Rule {
        record: TARGET,
        expr: format!("vector({threshold})"),
        labels: BTreeMap::from([("metric", metric.key().to_owned()), ("tms_lease_id", lease.id.to_string())]),
    };
    recorded.map(target).collect()
}

fn rule(metric: MetricName, lease: &Lease, settings: &Settings) -> Option<Rule> {
    let Source::Recorded(record) = source(metric) else {
        return None;
    };
    let expr = match (metric, settings.gpu_source) {
        (MetricName::CpuUtilization | MetricName::MemoryUtilization, _) => return None,
        (MetricName::QueueTime, _) => queue_time(lease, settings),
        (MetricName::GpuUtilization, GpuSource::Triton) => gpu_utilization(lease, settings),
        (MetricName::GpuUtilization, GpuSource::Dcgm) => dcgm_utilization(lease, settings),
        (MetricName::GpuMemoryUtilization, GpuSource::Triton) => gpu_memory(lease, settings),
        (MetricName::GpuMemoryUtilization, GpuSource::Dcgm) => dcgm_memory(lease, settings),
    };
    let labels = BTreeMap::from([("tms_lease_id", lease.id.to_string())]);
    Some(Rule { record, expr, labels })
}

/// Mean queue time of the requests that completed in the window, microseconds. 0 where none completed and none waits;
/// nothing where none completed and some wait, since that pod is not idle. `rate` comes before `sum`, since it is each
/// counter that begins anew when its container does.
fn queue_time(lease: &Lease, settings: &Settings) -> String {
    let (of, window) = (selection(lease), settings.window_seconds);
    format!(
        "\
(
    sum by (namespace, pod) (rate(nv_inference_queue_duration_us{of}[{window}s]))
  /
    (sum by (namespace, pod) (rate(nv_inference_request_success{of}[{window}s])) > 0)
)
or
(sum by (namespace, pod) (nv_inference_pending_request_count{of}) == 0)"
    )
}

/// Mean over time, since the gauge is noisy, then over the GPUs of the pod.
fn gpu_utilization(lease: &Lease, settings: &Settings) -> String {
    let (of, window) = (selection(lease), settings.window_seconds);
    format!("100 * avg by (namespace, pod) (avg_over_time(nv_gpu_utilization{of}[{window}s]))")
}

/// Used by total of each GPU, then their mean. A GPU that reports no memory at all is left out.
fn gpu_memory(lease: &Lease, settings: &Settings) -> String {
    let (of, window) = (selection(lease), settings.window_seconds);
    format!(
        "\
100 * avg by (namespace, pod) (
    avg_over_time(nv_gpu_memory_used_bytes{of}[{window}s])
  /
    (avg_over_time(nv_gpu_memory_total_bytes{of}[{window}s]) > 0)
)"
    )
}

/// DCGM does not measure the utilization of a part of a GPU (MIG), but how busy its engine is, from 0 to 1.
fn dcgm_utilization(lease: &Lease, settings: &Settings) -> String {
    let (of, window) = (exported_selection(lease), settings.window_seconds);
    let percent = if is_part_of_gpu(lease) {
        format!("100 * avg_over_time(DCGM_FI_PROF_GR_ENGINE_ACTIVE{of}[{window}s])")
    } else {
        format!("avg_over_time(DCGM_FI_DEV_GPU_UTIL{of}[{window}s])")
    };
    attributed(lease, &percent)
}

fn dcgm_memory(lease: &Lease, settings: &Settings) -> String {
    let (of, window) = (exported_selection(lease), settings.window_seconds);
    let used = format!("avg_over_time(DCGM_FI_DEV_FB_USED{of}[{window}s])");
    let free = format!("avg_over_time(DCGM_FI_DEV_FB_FREE{of}[{window}s])");
    attributed(lease, &format!("100 * {used}\n        / ({used} + {free} > 0)"))
}

/// The labels `namespace` and `pod` name DCGM-exporter's own pod, and the pod that uses the GPU is in `exported_…`. The
/// mean comes first, since a restarted exporter would leave two series that differ in nothing else. Only pods that the
/// lease's PodMonitor scrapes count, so that no other pod of a similar name does.
fn attributed(lease: &Lease, per_gpu: &str) -> String {
    let job = monitor::job(lease);
    format!(
        r#"avg by (namespace, pod) (
  label_replace(
    label_replace(
      avg by (exported_namespace, exported_pod) (
        {per_gpu}
      ),
      "namespace", "$1", "exported_namespace", "(.+)"
    ),
    "pod", "$1", "exported_pod", "(.+)"
  )
)
and on (namespace, pod) up{{job="{job}"}}"#
    )
}

fn selection(lease: &Lease) -> String {
    format!(r#"{{job="{}",container="{}"}}"#, monitor::job(lease), containers::TRITON)
}

fn exported_selection(lease: &Lease) -> String {
    format!(r#"{{exported_namespace="{}",exported_pod=~"{}-.+"}}"#, lease.namespace, lease.id.object_name())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PrometheusRule {
    api_version: String,
    kind: &'static str,
    metadata: ObjectMeta,
    spec: PrometheusRuleSpec,
}

#[derive(Serialize)]
struct PrometheusRuleSpec {
    groups: [Group; 2],
}

#[derive(Serialize)]
struct Group {
    name: String,
    interval: String,
    rules: Vec<Rule>,
}

#[derive(Serialize)]
struct Rule {
    record: &'static str,
    expr: String,
    labels: BTreeMap<&'static str, String>,
}
