//! Reads what a HorizontalPodAutoscaler says of itself.

use std::collections::BTreeMap;

use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, MetricSpec, MetricStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use kube::api::DynamicObject;

use crate::domain::autoscaler::record::{Reported, Stated, Status};
use crate::domain::plan::{MetricSource, TRIGGERS_ANNOTATION, metric_of, metric_source};
use crate::domain::quantity::Quantity;
use crate::domain::scaling::MetricName;

const NANOS_OF_A_MILLI: i128 = 1_000_000;

/// Returns what an autoscaler says of itself; `None` where it has not looked yet.
pub(super) fn read(object: &DynamicObject) -> Option<Status> {
    let autoscaler: HorizontalPodAutoscaler = object.clone().try_parse().ok()?;
    let status = autoscaler.status?;
    // The API server fills in a status of zeros before the controller has looked.
    let conditions = status.conditions.unwrap_or_default();
    if conditions.is_empty() {
        return None;
    }
    let triggers = triggers(object);
    let specs = autoscaler.spec.iter().flat_map(|spec| spec.metrics.iter().flatten());
    let mut metrics: BTreeMap<_, _> = specs.filter_map(|spec| target(spec, &triggers)).collect();
    let values = status.current_metrics.iter().flatten();
    for (name, milli) in values.filter_map(|status| value(status, &triggers)) {
        metrics.entry(name).or_default().value_milli = Some(milli);
    }
    let stated = conditions.into_iter().map(|condition| Stated {
        kind: condition.type_,
        holds: condition.status == "True",
        reason: condition.reason.unwrap_or_default(),
        message: condition.message.unwrap_or_default(),
        since: condition.last_transition_time.map(|time| time.0),
    });
    let conditions: Vec<_> = stated.collect();
    let current = status.current_replicas.unwrap_or(0);
    // Before its metrics could be used for the first time it has wanted nothing, which does not mean none.
    let has_decided =
        status.desired_replicas != 0 || conditions.iter().any(|it| it.kind == "ScalingActive" && it.holds);
    Some(Status {
        current,
        desired: if has_decided { status.desired_replicas } else { current },
        last_scaled_at: status.last_scale_time.map(|time| time.0),
        metrics,
        conditions,
    })
}

/// Returns an amount in thousandths, rounded down.
pub(super) fn milli(amount: &Amount) -> Option<i64> {
    let nanos = Quantity::parse(&amount.0).ok()?.nanos();
    i64::try_from(nanos.div_euclid(NANOS_OF_A_MILLI)).ok()
}

/// Returns the names of the triggers that KEDA made an autoscaler of, in their order.
fn triggers(object: &DynamicObject) -> Vec<&str> {
    let named = object.metadata.annotations.as_ref().and_then(|all| all.get(TRIGGERS_ANNOTATION));
    named.map(|names| names.split(',').collect()).unwrap_or_default()
}

/// Returns the metric that KEDA calls `s2-prometheus` where it is that of the third trigger.
fn of_trigger(name: &str, triggers: &[&str]) -> Option<MetricName> {
    let (place, _) = name.strip_prefix('s')?.split_once('-')?;
    MetricName::from_key(triggers.get(place.parse::<usize>().ok()?)?)
}

fn target(spec: &MetricSpec, triggers: &[&str]) -> Option<(MetricName, Reported)> {
    let (name, target_milli) = match (&spec.container_resource, &spec.pods, &spec.external) {
        (Some(resource), ..) => {
            (of_resource(&resource.name)?, i64::from(resource.target.average_utilization?) * 1000)
        }
        (None, Some(pods), _) => (metric_of(&pods.metric.name)?, milli(pods.target.average_value.as_ref()?)?),
        (None, None, Some(external)) => {
            let name = of_trigger(&external.metric.name, triggers)?;
            (name, milli(external.target.average_value.as_ref()?)?)
        }
        (None, None, None) => return None,
    };
    Some((name, Reported { value_milli: None, target_milli }))
}

fn value(status: &MetricStatus, triggers: &[&str]) -> Option<(MetricName, i64)> {
    match (&status.container_resource, &status.pods, &status.external) {
        (Some(resource), ..) => {
            Some((of_resource(&resource.name)?, i64::from(resource.current.average_utilization?) * 1000))
        }
        (None, Some(pods), _) => {
            Some((metric_of(&pods.metric.name)?, milli(pods.current.average_value.as_ref()?)?))
        }
        (None, None, Some(external)) => {
            let name = of_trigger(&external.metric.name, triggers)?;
            Some((name, milli(external.current.average_value.as_ref()?)?))
        }
        (None, None, None) => None,
    }
}

fn of_resource(resource: &str) -> Option<MetricName> {
    MetricName::ALL.into_iter().find(|name| match metric_source(*name) {
        MetricSource::Container(used) => used == resource,
        MetricSource::Recorded(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_status_of_an_autoscaler_is_read_with_the_targets_of_its_metrics() {
        let object: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": { "name": "a" },
            "spec": {
                "scaleTargetRef": { "kind": "Deployment", "name": "a" }, "maxReplicas": 4,
                "metrics": [
                    { "type": "Pods", "pods": {
                        "metric": { "name": "tms_avg_request_queue_duration" },
                        "target": { "type": "AverageValue", "averageValue": "10k" } } },
                    { "type": "ContainerResource", "containerResource": {
                        "name": "cpu", "container": "triton",
                        "target": { "type": "Utilization", "averageUtilization": 80 } } },
                    { "type": "Pods", "pods": {
                        "metric": { "name": "of_another" },
                        "target": { "type": "AverageValue", "averageValue": "1" } } },
                ],
            },
            "status": {
                "currentReplicas": 2, "desiredReplicas": 4, "lastScaleTime": "2026-11-22T12:00:00Z",
                "currentMetrics": [
                    { "type": "Pods", "pods": {
                        "metric": { "name": "tms_avg_request_queue_duration" },
                        "current": { "averageValue": "12345678m" } } },
                    { "type": "" },
                ],
                "conditions": [{
                    "type": "AbleToScale", "status": "True", "reason": "SucceededRescale",
                    "message": "the HPA controller was able to update the target scale to 4",
                    "lastTransitionTime": "2026-11-22T11:00:00Z",
                }],
            },
        }))
        .expect("it is an object");
        let status = read(&object).expect("it has a status");
        let at = |text: &str| Some(text.parse::<Timestamp>().expect("a moment"));
        assert_eq!((status.current, status.desired), (2, 4));
        assert_eq!(status.last_scaled_at, at("2026-11-22T12:00:00Z"));
        let reported = |value_milli, target_milli| Reported { value_milli, target_milli };
        let expected = [
            (MetricName::CpuUtilization, reported(None, 80_000)),
            (MetricName::QueueTime, reported(Some(12_345_678), 10_000_000)),
        ];
        assert_eq!(status.metrics, BTreeMap::from(expected));
        assert_eq!(status.conditions[0].since, at("2026-11-22T11:00:00Z"));

        let mut undecided = object.clone();
        undecided.data["status"]["desiredReplicas"] = json!(0);
        assert_eq!(read(&undecided).expect("it has a status").desired, 2);

        let mut fresh = object;
        fresh.data["status"] = json!({ "currentMetrics": null, "desiredReplicas": 0 });
        assert_eq!(read(&fresh), None, "the controller has not looked yet");
    }
}
