//! The ScaledObject of KEDA, in place of the HorizontalPodAutoscaler that KEDA makes of it: the metrics, triggers, bounds and pace
//! that were granted, so that KEDA's autoscaler decides as ours would.

use std::collections::BTreeMap;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerBehavior;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

use super::labels::{self, Map};
use super::metrics::{Source, source};
use super::{Kind, Object, Settings, autoscaler, containers, int, monitor};
use crate::domain::bounds::Keda;
use crate::domain::capabilities::Capabilities;
use crate::domain::lease::Lease;
use crate::domain::scaling::{
    Autoscaling, MetricName, Trigger as Granted, TriggerAuthentication, TriggerMetric,
};

/// Annotation that names the triggers in their order. KEDA copies it to the autoscaler, whose metrics tell only their place.
pub const TRIGGERS_ANNOTATION: &str = "tms.internal/triggers";
/// Lets KEDA take over the autoscaler that another provider had; of use to its admission webhook alone.
const TRANSFER: &str = "scaledobject.keda.sh/transfer-hpa-ownership";
/// Makes KEDA hold the lease awake.
const FORCE: &str = "autoscaling.keda.sh/force-activation";
/// More than any value: never the reason to be awake.
const NEVER: i64 = i64::MAX / 1000;
/// Seconds without targets after which a Prometheus that has been there all the time is believed that there are none.
const SETTLED: &str = "5m";

/// Returns the ScaledObject of a lease that asked for `autoscaling`.
pub(super) fn scaled_object(
    lease: &Lease,
    autoscaling: &Autoscaling,
    keda: &Keda,
    settings: &Settings,
    capabilities: &Capabilities,
) -> Object {
    let is_waking = lease.waking_since.is_some() && autoscaling.minimum == 0;
    let metrics = autoscaling
        .metrics
        .iter()
        .map(|(name, threshold)| trigger(*name, *threshold, lease, autoscaling.minimum == 0, keda));
    let triggers: Vec<_> = metrics.chain(autoscaling.triggers.iter().map(of_lease)).collect();
    let names: Vec<_> = triggers.iter().map(|trigger| trigger.name.as_str()).collect();
    let mut metadata = labels::metadata(lease, settings, &Map::new());
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(TRANSFER.to_owned(), "true".to_owned());
    annotations.insert(TRIGGERS_ANNOTATION.to_owned(), names.join(","));
    if is_waking {
        annotations.insert(FORCE.to_owned(), "true".to_owned());
    }
    let object = ScaledObject {
        api_version: Kind::ScaledObject.api_version(),
        kind: Kind::ScaledObject.as_str(),
        metadata,
        spec: Spec {
            scale_target_ref: Target { name: lease.id.object_name() },
            polling_interval: int(keda.polling_interval_seconds),
            cooldown_period: int(keda.cooldown_seconds),
            // KEDA acts at once on a change of the spec, and on that of an annotation only when it looks next.
            min_replica_count: if is_waking { 1 } else { int(autoscaling.minimum) },
            max_replica_count: int(autoscaling.maximum),
            advanced: Advanced {
                horizontal_pod_autoscaler_config: AutoscalerConfig {
                    // The name of ours: there is never a second one, and each provider takes over what the other had.
                    name: Kind::HorizontalPodAutoscaler.object_name(lease.id),
                    behavior: autoscaler::behavior(&autoscaling.behavior, capabilities),
                },
            },
            triggers,
        },
    };
    Object::new(Kind::ScaledObject, &object)
}

fn trigger(metric: MetricName, threshold: i64, lease: &Lease, may_sleep: bool, keda: &Keda) -> Trigger {
    let name = metric.key().to_owned();
    match source(metric) {
        Source::Container(resource) => Trigger {
            trigger_type: resource.to_owned(),
            name,
            metric_type: "Utilization",
            metadata: texts([
                ("value", threshold.to_string()),
                ("containerName", containers::TRITON.to_owned()),
            ]),
            authentication_ref: None,
        },
        Source::Recorded(series) => {
            // Models hold their memory while nobody asks them.
            let activation = if metric == MetricName::GpuMemoryUtilization { NEVER } else { 0 };
            Trigger {
                trigger_type: "prometheus".to_owned(),
                name,
                metric_type: "AverageValue",
                metadata: texts([
                    ("serverAddress", keda.prometheus_url.clone().unwrap_or_default()),
                    ("query", query(series, threshold, lease, may_sleep)),
                    ("threshold", threshold.to_string()),
                    ("activationThreshold", activation.to_string()),
                    // Nothing is an error, and not 0: what is not known holds the replicas.
                    ("ignoreNullValues", "false".to_owned()),
                ]),
                authentication_ref: None,
            }
        }
    }
}

/// The sum over the pods, which an autoscaler divides by the replicas: with a value of each pod that is the mean, as it reads it
/// from custom.metrics.k8s.io, and rounds as that does. Pods that are scraped and have no value are put in as it would: at the
/// threshold on the way down and as nothing on the way up, and so that they turn no change around. No pod with a value is no
/// value. Where the lease may sleep, no pod at all is 0, once Prometheus has been there long enough to know.
fn query(series: &str, threshold: i64, lease: &Lease, may_sleep: bool) -> String {
    let of = format!(r#"{series}{{namespace="{}",tms_lease_id="{}"}}"#, lease.namespace, lease.id);
    let up = format!(r#"up{{job="{}"}}"#, monitor::job(lease));
    let missing = format!("(count({up} unless on (namespace, pod) {of}) or vector(0))");
    let sum = format!(
        "\
clamp_min(
  sum({of}),
  scalar(clamp_max(
    sum({of}) + {threshold} * {missing},
    {threshold} * scalar(count({of}) + {missing})
  ))
)"
    );
    if may_sleep {
        format!("{sum}\nor\nsum(0 * absent({up}) and on () (count(up offset {SETTLED}) > 0))")
    } else {
        sum
    }
}

fn of_lease(granted: &Granted) -> Trigger {
    let mut metadata = granted.fixed.clone();
    metadata.extend(granted.metadata.clone());
    Trigger {
        trigger_type: granted.trigger_type.clone(),
        name: granted.kind.clone(),
        metric_type: match granted.metric_type {
            TriggerMetric::AverageValue => "AverageValue",
            TriggerMetric::Value => "Value",
        },
        metadata,
        authentication_ref: granted.authentication.clone(),
    }
}

fn texts<const N: usize>(entries: [(&str, String); N]) -> BTreeMap<String, String> {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ScaledObject {
    api_version: String,
    kind: &'static str,
    metadata: ObjectMeta,
    spec: Spec,
}

/// Without `fallback`: a metric that is lost holds the replicas.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    scale_target_ref: Target,
    polling_interval: i32,
    cooldown_period: i32,
    min_replica_count: i32,
    max_replica_count: i32,
    advanced: Advanced,
    triggers: Vec<Trigger>,
}

#[derive(Serialize)]
struct Target {
    name: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Advanced {
    horizontal_pod_autoscaler_config: AutoscalerConfig,
}

#[derive(Serialize)]
struct AutoscalerConfig {
    name: String,
    behavior: HorizontalPodAutoscalerBehavior,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Trigger {
    #[serde(rename = "type")]
    trigger_type: String,
    name: String,
    metric_type: &'static str,
    metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authentication_ref: Option<TriggerAuthentication>,
}
