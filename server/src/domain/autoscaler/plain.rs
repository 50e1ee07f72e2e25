//! What an autoscaler says and decides, in plain words.

use super::decision::Decision;
use super::explanation::{Evidence, Finding, Hold, HoldKind};
use super::record::Stated;
use crate::domain::lease::Replicas;

/// Returns one sentence on why there are as many replicas as there are.
pub(super) fn summary(
    decision: Option<&Decision>,
    metrics: &[Finding],
    holds: &[Hold],
    evidence: &Evidence,
) -> String {
    let Some(decision) = decision else { return without_decision(evidence) };
    let current = replicas(decision.current);
    let wins = metrics.iter().find(|metric| metric.wins);
    let Some((proposed, winner)) = decision.proposed.zip(wins) else {
        let why = holds.iter().find(|hold| hold.kind != HoldKind::Invalid).or(holds.first());
        let why = why.map_or(String::new(), |hold| format!(": {}", begun(&hold.message)));
        return if decision.replicas == decision.current {
            let stay = if decision.current == 1 { "stays" } else { "stay" };
            ended(&format!("{current} {stay}{why}"))
        } else {
            ended(&format!("{current} now, {} at the autoscaler's next look{why}", decision.replicas))
        };
    };
    let says = format!("{} proposes {proposed}", winner.name.key());
    let held = holds.iter().find(|hold| is_decisive(hold.kind));
    match held {
        _ if decision.replicas != decision.current => {
            let clipped = if decision.replicas == proposed { String::new() } else { clause(held) };
            ended(&format!(
                "{current} now, {} at the autoscaler's next look: {says}{clipped}",
                decision.replicas
            ))
        }
        _ if proposed == decision.current => {
            let near = holds.iter().find(|hold| {
                hold.kind == HoldKind::Tolerance && hold.metric.as_deref() == Some(winner.name.key())
            });
            ended(&format!("{current}, as {says}{}", clause(near)))
        }
        held => ended(&format!("{current}, though {says}{}", clause(held))),
    }
}

fn without_decision(evidence: &Evidence) -> String {
    let Replicas { desired, ready, .. } = evidence.replicas;
    match &evidence.record {
        None => "There is no HorizontalPodAutoscaler yet: what applies the lease's objects says why (see the lease's message)."
            .to_owned(),
        Some(record) => format!(
            "The autoscaler wants {}; {ready} of {desired} are ready.",
            replicas(record.status.desired)
        ),
    }
}

/// Whether a hold explains a difference between what was proposed and what is.
fn is_decisive(kind: HoldKind) -> bool {
    match kind {
        HoldKind::Stabilization
        | HoldKind::Policy
        | HoldKind::Maximum
        | HoldKind::Minimum
        | HoldKind::Rate
        | HoldKind::Disabled
        | HoldKind::Blocked
        | HoldKind::Api => true,
        HoldKind::Invalid
        | HoldKind::Missing
        | HoldKind::Unready
        | HoldKind::Tolerance
        | HoldKind::Uncertain
        | HoldKind::Pods => false,
    }
}

fn clause(hold: Option<&Hold>) -> String {
    hold.map_or(String::new(), |hold| format!("; {}", hold.message))
}

fn replicas(count: i32) -> String {
    format!("{count} replica{}", if count == 1 { "" } else { "s" })
}

/// A sentence as the second half of another: a metric's name keeps its case, other words begin small.
fn begun(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map_or(String::new(), |first| first.to_lowercase().chain(letters).collect())
}

fn ended(sentence: &str) -> String {
    if sentence.ends_with('.') { sentence.to_owned() } else { format!("{sentence}.") }
}

/// Returns what a condition of an autoscaler means.
pub fn meaning(condition: &Stated) -> &'static str {
    match (condition.kind.as_str(), condition.reason.as_str(), condition.holds) {
        (_, "SucceededGetScale" | "ReadyForNewScale", _) => "It can read and change the replicas.",
        (_, "SucceededRescale", _) => "It has just changed the replicas.",
        (_, "ScaleDownStabilized", _) => {
            "It would remove replicas, but more were recommended within the stabilization window."
        }
        (_, "ScaleUpStabilized", _) => {
            "It would add replicas, but fewer were recommended within the stabilization window."
        }
        (_, "FailedGetScale", _) => "It cannot read the replicas of the Deployment.",
        (_, "FailedUpdateScale", _) => "It cannot change the replicas of the Deployment.",
        (_, "ValidMetricFound", _) => "It can use its metrics.",
        (_, "ScalingDisabled", _) => "There are no replicas, and it wakes none.",
        (_, "AmbiguousSelector", _) => {
            "Another autoscaler selects the same pods, so that neither scales: two Deployments have selectors that overlap."
        }
        (_, "FailedGetPodsMetric", _) => {
            "It gets no value from custom.metrics.k8s.io: the metric is not recorded, or nothing serves it."
        }
        (_, "FailedGetResourceMetric" | "FailedGetContainerResourceMetric", _) => {
            "It gets no value from metrics.k8s.io: metrics-server does not run, or has not seen the pods yet."
        }
        (_, "FailedGetExternalMetric", _) => "It gets no value from external.metrics.k8s.io.",
        (_, "InvalidSelector" | "InvalidMetricSourceType", _) => "It does not understand what it was told.",
        (_, "DesiredWithinRange", _) => "Nothing clips what it wants.",
        (_, "TooManyReplicas", _) => "It wants more replicas than the maximum of the lease.",
        (_, "TooFewReplicas", _) => "It wants fewer replicas than the minimum of the lease.",
        (_, "ScaleUpLimit", _) => "It wants more replicas than the pace of the lease lets it add at once.",
        (_, "ScaleDownLimit", _) => {
            "It wants to remove more replicas than the pace of the lease lets it at once."
        }
        (_, "ScaledToZero", _) => "It scaled to zero itself, and wakes the lease on demand.",
        (_, "NotScaledToZero", _) => "It has not scaled to zero.",
        ("ScalingLimited", _, true) => "Something clips what it wants.",
        ("ScalingActive", _, false) => "It cannot use its metrics.",
        ("AbleToScale", _, false) => "It cannot read or change the replicas.",
        _ => "",
    }
}
