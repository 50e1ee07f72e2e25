//! Autoscalers, pods and metrics that the tests of this module begin with.

mod decisions;
mod explanations;
mod properties;
mod proposals;

use jiff::{SignedDuration, Timestamp};

use super::Options;
use super::decision::{Autoscaler, Situation};
use super::metric::{Metric, Phase, Pod, Ready, Requests, Resource, Sample, Samples, Scale, Source};
use super::proposal::{Invalid, Proposal, Tolerances, propose};
use crate::domain::scaling::{Behavior, PolicyKind, ScalingPolicy, ScalingRules, SelectPolicy};

const TOLERANCES: Tolerances = Tolerances { up: 0.1, down: 0.1 };

/// So many seconds after a day on which pods had been running for long.
fn second(second: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(86_400 + second)
}

/// A pod that has been ready for a day.
fn pod(name: &str) -> Pod {
    let started_at = Timestamp::UNIX_EPOCH;
    Pod {
        name: name.to_owned(),
        phase: Phase::Running,
        is_deleting: false,
        started_at: Some(started_at),
        ready: Some(Ready { is_ready: Some(true), since: started_at }),
        requests: Requests::both(1000),
    }
}

fn name(number: usize) -> String {
    format!("pod-{number}")
}

/// So many replicas with a ready pod each.
fn scale(replicas: i32) -> Scale {
    let pods = (0..usize::try_from(replicas).unwrap_or(0)).map(|number| pod(&name(number))).collect();
    Scale { wanted: replicas, existing: replicas, pods }
}

/// A sample taken at the beginning.
fn sample(milli: i64) -> Sample {
    Sample { milli, at: second(0), window: SignedDuration::from_secs(30) }
}

/// Values of the first pods; `None` for one that has none.
fn samples(values: &[Option<i64>]) -> Samples {
    let values = values.iter().enumerate();
    values.filter_map(|(number, value)| Some((name(number), sample((*value)?)))).collect()
}

/// A metric of pods with a target, both in whole units.
fn pods_metric(target: i64, values: &[Option<i64>]) -> Metric {
    let values: Vec<_> = values.iter().map(|value| value.map(|value| value * 1000)).collect();
    let source = Source::Pods { average_milli: target * 1000, samples: Ok(samples(&values)) };
    Metric { name: "queueTime".to_owned(), source }
}

/// CPU with a target in percent, and what the pods use, in thousandths of a CPU where each requests one.
fn cpu_metric(percent: i32, values: &[Option<i64>]) -> Metric {
    let source = Source::Resource { resource: Resource::Cpu, percent, samples: Ok(samples(values)) };
    Metric { name: "cpuUtilization".to_owned(), source }
}

fn proposed(metric: &Metric, scale: &Scale) -> Result<Proposal, Invalid> {
    propose(metric, scale, TOLERANCES, &Options::default(), second(0))
}

/// Rules that hold nothing back.
fn free() -> ScalingRules {
    rules(0, SelectPolicy::Max, &[(PolicyKind::Pods, 1000, 15)])
}

fn rules(window: u32, select_policy: SelectPolicy, policies: &[(PolicyKind, u32, u32)]) -> ScalingRules {
    let policy = |(kind, value, period_seconds): &_| ScalingPolicy {
        kind: *kind,
        value: *value,
        period_seconds: *period_seconds,
    };
    ScalingRules {
        stabilization_window_seconds: window,
        select_policy,
        policies: policies.iter().map(policy).collect(),
        tolerance_milli: None,
    }
}

fn autoscaler(scale_up: ScalingRules, scale_down: ScalingRules) -> Autoscaler {
    Autoscaler { minimum: 1, maximum: 100, behavior: Some(Behavior { scale_up, scale_down }) }
}

/// Ready replicas, and a metric that asks for so many.
fn asking(current: i32, wanted: i32) -> Situation {
    let values: Vec<_> = (0..current).map(|_| Some(i64::from(wanted) * 1000)).collect();
    let metric = pods_metric(i64::from(current.max(1)) * 1000, &values);
    Situation { scale: scale(current), metrics: vec![metric], was_scaled_to_zero: false }
}
