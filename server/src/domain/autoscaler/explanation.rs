//! Why a lease has the replicas that it has: what is known of its autoscaler, put through the controller's own algorithm.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::Options;
use super::decision::{Autoscaler, Decision, Situation, decide};
use super::effect::{Effect, Limit};
pub use super::hold::{Hold, HoldKind};
use super::metric::{ExternalTarget, Metric, Pod, Resource, Samples, Scale, Source};
use super::plain;
use super::proposal::{Groups, Usage, propose};
use super::record::{Note, NoteSource, Record, Reported, Stated, age};
use crate::domain::lease::Replicas;
use crate::domain::scaling::{Autoscaling, MetricName};

/// Most notes of an explanation: the last ones.
const MOST_NOTES: usize = 30;
/// Two notes of one change may be this far apart.
const SAME: SignedDuration = SignedDuration::from_secs(10);

/// What is known of the autoscaler of a lease.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The moment.
    pub at: Timestamp,
    /// What was seen of the autoscaler; `None` where there is none.
    pub record: Option<Record>,
    /// Replicas of the Deployment.
    pub replicas: Replicas,
    /// Its pods; an error is why they are not known.
    pub pods: Result<Vec<Pod>, String>,
    /// What keeps pods from becoming ready, each once.
    pub troubles: Vec<String>,
    /// What was read of each metric; an error is why nothing was.
    pub samples: BTreeMap<MetricName, Result<Samples, String>>,
    /// What was read of each metric that the autoscaler reads as one number for all pods.
    pub totals: BTreeMap<MetricName, Total>,
    /// What the cluster's events tell, oldest first; an error is why they are not known.
    pub events: Result<Vec<Note>, String>,
}

/// One number for all pods, which an autoscaler divides by their number.
#[derive(Clone, Debug)]
pub struct Total {
    /// Its name in external.metrics.k8s.io.
    pub name: String,
    /// The number in thousandths; an error is why it is not known.
    pub milli: Result<i64, String>,
}

/// Why a lease has the replicas that it has.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// One sentence.
    pub summary: String,
    /// Replicas that the metrics propose together.
    pub proposed: Option<i32>,
    /// Each metric.
    pub metrics: Vec<Finding>,
    /// What holds or clips the replicas.
    pub holds: Vec<Hold>,
    /// What the autoscaler did last, oldest first.
    pub notes: Vec<Note>,
    /// What could not be found out, and why.
    pub unknowns: Vec<String>,
    /// What the autoscaler would do if it looked now, where that can be computed.
    pub decision: Option<Decision>,
}

/// What one metric says.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Its name.
    pub name: MetricName,
    /// Threshold, in its unit.
    pub target: i64,
    /// Value, in its unit.
    pub value: Option<f64>,
    /// The value by the threshold.
    pub ratio: Option<f64>,
    /// Replicas that it proposes.
    pub proposal: Option<i32>,
    /// Age of its oldest value.
    pub age: Option<SignedDuration>,
    /// Whether its proposal counts.
    pub wins: bool,
    /// Why it cannot be used.
    pub error: Option<String>,
    /// How each pod counts.
    pub groups: Groups,
    /// The value that the autoscaler wrote last.
    pub reported: Option<f64>,
}

/// Explains the replicas of a lease that was granted `autoscaling`.
pub fn explain(autoscaling: &Autoscaling, evidence: &Evidence, options: &Options) -> Explanation {
    let autoscaler = Autoscaler::from(autoscaling);
    let situation = situation(autoscaling, evidence);
    // What other triggers propose is not known.
    let is_whole = autoscaling.triggers.is_empty();
    let known = situation.as_ref().zip(evidence.record.as_ref()).filter(|_| is_whole);
    let decision = known.map(|(situation, record)| {
        let mut history = record.history(options, evidence.at);
        decide(&autoscaler, situation, &mut history, options, evidence.at)
    });
    let winner = decision.as_ref().and_then(|decision| decision.winner);
    let mut metrics: Vec<_> = autoscaling
        .metrics
        .iter()
        .map(|(name, target)| finding(*name, *target, &autoscaler, situation.as_ref(), evidence, options))
        .collect();
    if let Some(winner) = winner.and_then(|winner| metrics.get_mut(winner)) {
        winner.wins = true;
    }
    let holds = holds(decision.as_ref(), evidence);
    Explanation {
        summary: plain::summary(decision.as_ref(), &metrics, &holds, evidence),
        proposed: decision.as_ref().and_then(|decision| decision.proposed),
        notes: notes(evidence),
        unknowns: of_triggers(autoscaling).into_iter().chain(unknowns(evidence)).collect(),
        metrics,
        holds,
        decision,
    }
}

fn of_triggers(autoscaling: &Autoscaling) -> Option<String> {
    let names: Vec<_> = autoscaling.triggers.iter().map(|trigger| trigger.kind.as_str()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "KEDA alone knows what the triggers of the lease ({}) propose, and the largest proposal wins: what the metrics \
             propose together is not told.",
            names.join(", ")
        )
    })
}

fn situation(autoscaling: &Autoscaling, evidence: &Evidence) -> Option<Situation> {
    let pods = evidence.pods.as_ref().ok()?.clone();
    let count = |replicas| i32::try_from(replicas).unwrap_or(i32::MAX);
    let Replicas { desired, current, .. } = evidence.replicas;
    let metric = |(name, target): (&MetricName, &i64)| {
        let unread = || Err("it was not read".to_owned());
        let samples = evidence.samples.get(name).cloned().unwrap_or_else(unread);
        let total = evidence.totals.get(name);
        let percent = || i32::try_from(*target).unwrap_or(i32::MAX);
        let source = match name {
            MetricName::CpuUtilization => {
                Source::Resource { resource: Resource::Cpu, percent: percent(), samples }
            }
            MetricName::MemoryUtilization => {
                Source::Resource { resource: Resource::Memory, percent: percent(), samples }
            }
            MetricName::GpuUtilization | MetricName::GpuMemoryUtilization | MetricName::QueueTime => {
                let average_milli = target.saturating_mul(1000);
                match total {
                    None => Source::Pods { average_milli, samples },
                    Some(total) => Source::External {
                        target: ExternalTarget::Average(average_milli),
                        values: total.milli.clone().map(|milli| vec![milli]),
                    },
                }
            }
        };
        Metric { name: name.key().to_owned(), source }
    };
    let mut stated = evidence.record.iter().flat_map(|record| &record.status.conditions);
    Some(Situation {
        scale: Scale { wanted: count(desired), existing: count(current), pods },
        metrics: autoscaling.metrics.iter().map(metric).collect(),
        was_scaled_to_zero: stated.any(|it| it.kind == "ScaledToZero" && it.holds),
    })
}

fn finding(
    name: MetricName,
    target: i64,
    autoscaler: &Autoscaler,
    situation: Option<&Situation>,
    evidence: &Evidence,
    options: &Options,
) -> Finding {
    let reported = evidence.record.as_ref().and_then(|record| record.status.metrics.get(&name)).copied();
    let reported = reported.unwrap_or_default();
    let in_units = |milli: i64| milli as f64 / 1000.0;
    let mut finding = Finding {
        name,
        target,
        value: None,
        ratio: None,
        proposal: None,
        age: None,
        wins: false,
        error: None,
        groups: Groups::default(),
        reported: reported.value_milli.map(in_units),
    };
    let metric = situation.and_then(|it| it.metrics.iter().find(|metric| metric.name == name.key()));
    let proposal = situation.zip(metric).map(|(situation, metric)| {
        propose(metric, &situation.scale, autoscaler.tolerances(options), options, evidence.at)
    });
    let has_samples = matches!(evidence.samples.get(&name), Some(Ok(_)))
        || evidence.totals.get(&name).is_some_and(|total| total.milli.is_ok());
    match proposal {
        Some(Ok(proposal)) => {
            finding.value = Some(match proposal.usage {
                Usage::Percent { percent, .. } => f64::from(percent),
                Usage::Average(milli) | Usage::Total(milli) => in_units(milli),
            });
            finding.ratio = Some(proposal.ratio);
            finding.proposal = Some(proposal.replicas);
            finding.groups = proposal.groups;
            let oldest = evidence.samples.get(&name).and_then(oldest);
            finding.age = oldest.map(|at| age(at, evidence.at));
        }
        Some(Err(invalid)) if has_samples || reported.value_milli.is_none() => {
            finding.error = Some(invalid.to_string());
        }
        // TMS may not read what the autoscaler reads.
        Some(Err(_)) | None => finding.fall_back(&reported, evidence),
    }
    finding
}

impl Finding {
    /// Takes what the autoscaler itself wrote.
    fn fall_back(&mut self, reported: &Reported, evidence: &Evidence) {
        self.value = self.reported;
        self.ratio = reported.ratio();
        let changed_at = evidence.record.as_ref().and_then(|record| record.changed_at(self.name));
        self.age = changed_at.filter(|_| self.value.is_some()).map(|at| age(at, evidence.at));
    }
}

fn oldest(samples: &Result<Samples, String>) -> Option<Timestamp> {
    samples.as_ref().ok()?.values().map(|sample| sample.at).min()
}

/// What holds or clips: computed with its numbers where that can be done, and whatever else the cluster says.
fn holds(decision: Option<&Decision>, evidence: &Evidence) -> Vec<Hold> {
    let stated =
        evidence.record.as_ref().map(|record| record.status.conditions.as_slice()).unwrap_or_default();
    let is_watched = evidence.record.as_ref().is_some_and(Record::has_recommendations);
    let effects = decision.map(|decision| decision.effects.as_slice()).unwrap_or_default();
    // Where nothing is known of earlier recommendations, the algorithm takes the replicas for one: only the controller can
    // say then that one holds.
    let is_known = |effect: &&Effect| is_watched || !matches!(effect, Effect::Stabilized { .. });
    let mut holds: Vec<_> = effects.iter().filter(is_known).map(computed).collect();
    for condition in stated {
        if let Some(hold) = said(condition).filter(|said| holds.iter().all(|hold| hold.kind != said.kind)) {
            holds.push(hold);
        }
    }
    let Replicas { desired, ready, .. } = evidence.replicas;
    if ready < desired {
        let why =
            if evidence.troubles.is_empty() { "they start".to_owned() } else { evidence.troubles.join("; ") };
        let message =
            format!("Of {desired} replicas that are wanted {} are not ready: {why}.", desired - ready);
        holds.push(Hold { kind: HoldKind::Pods, message, is_computed: false, metric: None, until: None });
    }
    holds
}

fn computed(effect: &Effect) -> Hold {
    let (kind, metric, until) = match effect {
        Effect::Disabled => (HoldKind::Disabled, None, None),
        Effect::AboveMaximum { .. } => (HoldKind::Maximum, None, None),
        Effect::BelowMinimum { .. } => (HoldKind::Minimum, None, None),
        Effect::Invalid { metric, .. } => (HoldKind::Invalid, Some(metric), None),
        Effect::Blocked { .. } => (HoldKind::Blocked, None, None),
        Effect::Missing { metric, .. } => (HoldKind::Missing, Some(metric), None),
        Effect::Unready { metric, .. } => (HoldKind::Unready, Some(metric), None),
        Effect::WithinTolerance { metric, .. } => (HoldKind::Tolerance, Some(metric), None),
        Effect::Uncertain { metric, .. } => (HoldKind::Uncertain, Some(metric), None),
        Effect::Stabilized { until, .. } => (HoldKind::Stabilization, None, *until),
        Effect::Limited { by, .. } => match by {
            Limit::Maximum => (HoldKind::Maximum, None, None),
            Limit::Minimum => (HoldKind::Minimum, None, None),
            Limit::DefaultRate => (HoldKind::Rate, None, None),
            Limit::Disabled => (HoldKind::Disabled, None, None),
            Limit::Policy { until, .. } => (HoldKind::Policy, None, *until),
        },
    };
    Hold { kind, message: effect.to_string(), is_computed: true, metric: metric.cloned(), until }
}

/// What a condition says of a hold, if it does.
fn said(condition: &Stated) -> Option<Hold> {
    let kind = match (condition.kind.as_str(), condition.holds, condition.reason.as_str()) {
        ("AbleToScale", true, "ScaleUpStabilized" | "ScaleDownStabilized") => HoldKind::Stabilization,
        ("AbleToScale", false, _) => HoldKind::Api,
        ("ScalingActive", false, "ScalingDisabled") => HoldKind::Disabled,
        ("ScalingActive", false, reason) if reason.ends_with("Metric") => HoldKind::Invalid,
        ("ScalingActive", false, _) => HoldKind::Api,
        ("ScalingLimited", true, "TooManyReplicas") => HoldKind::Maximum,
        ("ScalingLimited", true, "TooFewReplicas") => HoldKind::Minimum,
        ("ScalingLimited", true, "ScaleUpLimit" | "ScaleDownLimit") => HoldKind::Policy,
        _ => return None,
    };
    let meaning = plain::meaning(condition);
    let message = match condition.message.as_str() {
        "" => meaning.to_owned(),
        words => format!("{meaning} The autoscaler says: {words}."),
    };
    Some(Hold { kind, message, is_computed: false, metric: None, until: None })
}

/// What was seen and what events tell, each change once.
fn notes(evidence: &Evidence) -> Vec<Note> {
    let told = evidence.events.as_deref().unwrap_or_default();
    let mut notes: Vec<Note> = told.to_vec();
    for seen in evidence.record.iter().flat_map(|record| &record.notes) {
        let is_told = |note: &&mut Note| {
            let is_near = seen.at.duration_since(note.at).abs() <= SAME;
            note.source == NoteSource::Event && is_near && seen.to == note.to && seen.reason == note.reason
        };
        match notes.iter_mut().find(is_told) {
            // The event knows why, and what was seen knows from where.
            Some(note) => {
                note.from = note.from.or(seen.from);
                if seen.to.is_some() && !seen.message.is_empty() {
                    note.message = format!("{} ({})", note.message, seen.message);
                }
            }
            None => notes.push(seen.clone()),
        }
    }
    notes.sort_by_key(|note| note.at);
    notes.split_off(notes.len().saturating_sub(MOST_NOTES))
}

fn unknowns(evidence: &Evidence) -> Vec<String> {
    let pods = evidence.pods.as_ref().err().map(|why| format!("The pods are not known: {why}."));
    let events = evidence.events.as_ref().err().map(|why| format!("The events are not known: {why}."));
    let record = evidence.record.as_ref();
    let is_reported =
        |name: &MetricName| record.and_then(|record| record.status.metrics.get(name)?.value_milli).is_some();
    let samples = evidence.samples.iter().filter_map(|(name, samples)| {
        let why = samples.as_ref().err().filter(|_| is_reported(name))?;
        let name = name.key();
        Some(format!(
            "TMS cannot read {name} of each pod, and shows the autoscaler's own value without what it proposes: {why}."
        ))
    });
    let totals = evidence.totals.iter().filter_map(|(name, total)| {
        let why = total.milli.as_ref().err().filter(|_| is_reported(name))?;
        Some(format!(
            "TMS cannot read {} as KEDA tells it, and shows the autoscaler's own value without what it proposes: {why}.",
            name.key()
        ))
    });
    pods.into_iter().chain(samples).chain(totals).chain(events).collect()
}
