//! Explanations as messages.

use std::collections::BTreeSet;

use tms_proto::v1;

use super::answer::{duration, timestamp};
use crate::domain::autoscaler::explanation::{Evidence, Explanation, Finding, Hold};
use crate::domain::autoscaler::plain;
use crate::domain::autoscaler::record::{Note, NoteSource, Stated};
use crate::domain::plan::{MetricSource, metric_source};
use crate::domain::scaling::MetricName;

/// Fills in why a lease has the replicas that it has.
pub fn explanation(explanation: Explanation, evidence: &Evidence, answer: &mut v1::ExplainResponse) {
    answer.summary = explanation.summary;
    answer.proposed = explanation.proposed.map(count);
    answer.metrics = explanation.metrics.into_iter().map(|found| finding(found, evidence)).collect();
    answer.holds = explanation.holds.into_iter().map(hold).collect();
    answer.decisions = explanation.notes.into_iter().map(note).collect();
    answer.unknowns = explanation.unknowns;
    answer.at = Some(timestamp(evidence.at));
    if let Some(replicas) = &mut answer.replicas {
        let seen = evidence.replicas;
        (replicas.desired, replicas.current, replicas.ready) = (seen.desired, seen.current, seen.ready);
    }
    if let Some(record) = &evidence.record {
        answer.conditions = record.status.conditions.iter().map(condition).collect();
        answer.last_scaled_at = record.status.last_scaled_at.map(timestamp);
        answer.observed_since = Some(timestamp(record.since));
    }
}

fn finding(finding: Finding, evidence: &Evidence) -> v1::MetricExplanation {
    let names = |pods: BTreeSet<String>| pods.into_iter().collect();
    v1::MetricExplanation {
        name: finding.name.key().to_owned(),
        target: finding.target,
        value: finding.value,
        ratio: finding.ratio,
        proposal: finding.proposal.map(count),
        age: finding.age.map(duration),
        wins: finding.wins,
        error: finding.error.unwrap_or_default(),
        source: source(finding.name, evidence),
        counted_pods: names(finding.groups.counted),
        missing_pods: names(finding.groups.missing),
        unready_pods: names(finding.groups.unready),
        ignored_pods: names(finding.groups.ignored),
        reported_value: finding.reported,
    }
}

fn source(name: MetricName, evidence: &Evidence) -> String {
    match (metric_source(name), evidence.totals.get(&name)) {
        (MetricSource::Container(resource), _) => format!("metrics.k8s.io/{resource}"),
        (MetricSource::Recorded(_), Some(total)) => format!("external.metrics.k8s.io/{}", total.name),
        (MetricSource::Recorded(series), None) => format!("custom.metrics.k8s.io/{series}"),
    }
}

fn hold(hold: Hold) -> v1::Hold {
    v1::Hold {
        kind: hold.kind.name().to_owned(),
        message: hold.message,
        computed: hold.is_computed,
        metric: hold.metric.unwrap_or_default(),
        until: hold.until.map(timestamp),
    }
}

fn condition(stated: &Stated) -> v1::AutoscalerCondition {
    v1::AutoscalerCondition {
        r#type: stated.kind.clone(),
        status: stated.holds,
        reason: stated.reason.clone(),
        meaning: plain::meaning(stated).to_owned(),
        message: stated.message.clone(),
        since: stated.since.map(timestamp),
    }
}

fn note(note: Note) -> v1::ScalingDecision {
    let source = match note.source {
        NoteSource::Status => "status",
        NoteSource::Event => "event",
    };
    v1::ScalingDecision {
        at: Some(timestamp(note.at)),
        from: note.from.map(count),
        to: note.to.map(count),
        reason: note.reason,
        message: note.message,
        source: source.to_owned(),
        count: note.count,
    }
}

/// Replicas, of which there are never fewer than none.
pub(super) fn count(replicas: i32) -> u32 {
    u32::try_from(replicas).unwrap_or(0)
}
