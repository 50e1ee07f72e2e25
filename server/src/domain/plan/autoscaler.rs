//! The HorizontalPodAutoscaler: the metrics, bounds and pace that were granted, in Kubernetes' terms.

use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricSource, CrossVersionObjectReference, HPAScalingPolicy, HPAScalingRules,
    HorizontalPodAutoscaler, HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerSpec, MetricIdentifier,
    MetricSpec, MetricTarget, PodsMetricSource,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;

use super::labels::{self, Map};
use super::metrics::{Source, source};
use super::{Kind, Object, Settings, containers, int};
use crate::domain::capabilities::Capabilities;
use crate::domain::lease::Lease;
use crate::domain::quantity::Quantity;
use crate::domain::scaling::{
    Autoscaling, Behavior, MetricName, PolicyKind, ScalingPolicy, ScalingRules, SelectPolicy,
};

/// Returns the HorizontalPodAutoscaler of a lease that asked for `autoscaling`.
pub(super) fn autoscaler(
    lease: &Lease,
    autoscaling: &Autoscaling,
    settings: &Settings,
    capabilities: &Capabilities,
) -> Object {
    let autoscaler = HorizontalPodAutoscaler {
        metadata: labels::metadata(lease, settings, &Map::new()),
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some("apps/v1".to_owned()),
                kind: Kind::Deployment.as_str().to_owned(),
                name: lease.id.object_name(),
            },
            // Only KEDA lets a lease sleep.
            min_replicas: Some(int(autoscaling.minimum.max(1))),
            max_replicas: int(autoscaling.maximum),
            metrics: Some(
                autoscaling.metrics.iter().map(|(metric, threshold)| spec(*metric, *threshold)).collect(),
            ),
            behavior: Some(behavior(&autoscaling.behavior, capabilities)),
        }),
        status: None,
    };
    Object::new(Kind::HorizontalPodAutoscaler, &autoscaler)
}

fn spec(metric: MetricName, threshold: i64) -> MetricSpec {
    match source(metric) {
        Source::Container(resource) => MetricSpec {
            type_: "ContainerResource".to_owned(),
            container_resource: Some(ContainerResourceMetricSource {
                container: containers::TRITON.to_owned(),
                name: resource.to_owned(),
                target: MetricTarget {
                    type_: "Utilization".to_owned(),
                    average_utilization: Some(i32::try_from(threshold).unwrap_or(i32::MAX)),
                    ..MetricTarget::default()
                },
            }),
            ..MetricSpec::default()
        },
        Source::Recorded(series) => MetricSpec {
            type_: "Pods".to_owned(),
            pods: Some(PodsMetricSource {
                metric: MetricIdentifier { name: series.to_owned(), selector: None },
                target: MetricTarget {
                    type_: "AverageValue".to_owned(),
                    average_value: Some(thousandths(threshold.saturating_mul(1000))),
                    ..MetricTarget::default()
                },
            }),
            ..MetricSpec::default()
        },
    }
}

/// Returns the pace in Kubernetes' terms.
pub(super) fn behavior(behavior: &Behavior, capabilities: &Capabilities) -> HorizontalPodAutoscalerBehavior {
    HorizontalPodAutoscalerBehavior {
        scale_up: Some(rules(&behavior.scale_up, capabilities)),
        scale_down: Some(rules(&behavior.scale_down, capabilities)),
    }
}

fn rules(rules: &ScalingRules, capabilities: &Capabilities) -> HPAScalingRules {
    let select_policy = match rules.select_policy {
        SelectPolicy::Max => "Max",
        SelectPolicy::Min => "Min",
        SelectPolicy::Disabled => "Disabled",
    };
    // An older cluster would drop the field in silence, and the next comparison would find it missing.
    let tolerance = rules.tolerance_milli.filter(|_| capabilities.autoscaler_tolerance());
    HPAScalingRules {
        stabilization_window_seconds: Some(int(rules.stabilization_window_seconds)),
        select_policy: Some(select_policy.to_owned()),
        policies: Some(rules.policies.iter().map(policy).collect()),
        tolerance: tolerance.map(|milli| thousandths(milli.into())),
    }
}

fn policy(policy: &ScalingPolicy) -> HPAScalingPolicy {
    let kind = match policy.kind {
        PolicyKind::Pods => "Pods",
        PolicyKind::Percent => "Percent",
    };
    HPAScalingPolicy {
        type_: kind.to_owned(),
        value: int(policy.value),
        period_seconds: int(policy.period_seconds),
    }
}

/// Kubernetes counts in thousandths here, so every threshold and tolerance fits in them.
fn thousandths(milli: i64) -> Amount {
    Amount(Quantity::from_milli(milli).to_string())
}
