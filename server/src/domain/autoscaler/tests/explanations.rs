//! Explanations of situations whose reason is known beforehand.

use std::collections::BTreeMap;

use super::*;
use crate::domain::autoscaler::explanation::{Evidence, Explanation, HoldKind, explain};
use crate::domain::autoscaler::record::{Note, NoteSource, Record, Reported, Stated, Status};
use crate::domain::lease::Replicas;
use crate::domain::scaling::{Autoscaling, MetricName};

const QUEUE: MetricName = MetricName::QueueTime;
const GPU: MetricName = MetricName::GpuUtilization;

/// From 1 to 4 by queue time above 10 ms and a GPU above 80 %; two pods a minute up, one down, five minutes after the last need.
fn granted() -> Autoscaling {
    let rules = |window, value| ScalingRules {
        stabilization_window_seconds: window,
        select_policy: SelectPolicy::Max,
        policies: vec![ScalingPolicy { kind: PolicyKind::Pods, value, period_seconds: 60 }],
        tolerance_milli: None,
    };
    Autoscaling {
        minimum: 1,
        maximum: 4,
        metrics: BTreeMap::from([(QUEUE, 10_000), (GPU, 80)]),
        behavior: Behavior { scale_up: rules(0, 2), scale_down: rules(300, 1) },
        triggers: Vec::new(),
    }
}

fn stated(kind: &str, holds: bool, reason: &str) -> Stated {
    let message = "the words of the controller".to_owned();
    Stated { kind: kind.to_owned(), holds, reason: reason.to_owned(), message, since: Some(second(-60)) }
}

/// A status in which queue time has this value, in microseconds, and the GPUs are as busy as they should be.
fn status(replicas: i32, queue_us: i64) -> Status {
    let reported =
        |value: i64, target: i64| Reported { value_milli: Some(value * 1000), target_milli: target * 1000 };
    Status {
        current: replicas,
        desired: replicas,
        last_scaled_at: None,
        metrics: BTreeMap::from([(QUEUE, reported(queue_us, 10_000)), (GPU, reported(80, 80))]),
        conditions: vec![
            stated("AbleToScale", true, "ReadyForNewScale"),
            stated("ScalingActive", true, "ValidMetricFound"),
            stated("ScalingLimited", false, "DesiredWithinRange"),
        ],
    }
}

/// So many ready replicas whose requests wait as long as said, and whose GPUs are as busy as they should be, looked at now.
fn evidence(replicas: i32, queue_us: i64) -> Evidence {
    let samples = |value: i64| -> Samples {
        let sample = |number| {
            let sample =
                Sample { milli: value * 1000, at: second(-20), window: SignedDuration::from_secs(60) };
            (name(number), sample)
        };
        (1..=usize::try_from(replicas).unwrap()).map(sample).collect()
    };
    let count = u32::try_from(replicas).unwrap();
    Evidence {
        at: second(0),
        record: Some(Record::begin(status(replicas, queue_us), second(-1))),
        replicas: Replicas { desired: count, current: count, ready: count },
        pods: Ok((1..=usize::try_from(replicas).unwrap()).map(|number| pod(&name(number))).collect()),
        troubles: Vec::new(),
        samples: BTreeMap::from([(QUEUE, Ok(samples(queue_us))), (GPU, Ok(samples(80)))]),
        totals: BTreeMap::new(),
        events: Ok(Vec::new()),
    }
}

fn explained(evidence: &Evidence) -> Explanation {
    explain(&granted(), evidence, &Options::default())
}

fn kinds(explanation: &Explanation) -> Vec<(HoldKind, bool)> {
    explanation.holds.iter().map(|hold| (hold.kind, hold.is_computed)).collect()
}

#[test]
fn a_value_near_its_target_holds_the_replicas_by_tolerance() {
    let explanation = explained(&evidence(2, 10_500));
    assert_eq!(
        explanation.summary,
        "2 replicas, as gpuUtilization proposes 2; gpuUtilization is 1.000 of its target; from 0.900 to 1.100 nothing \
         changes."
    );
    assert_eq!(kinds(&explanation), [(HoldKind::Tolerance, true), (HoldKind::Tolerance, true)]);
    let queue = explanation.metrics.iter().find(|metric| metric.name == QUEUE).unwrap();
    assert_eq!((queue.value, queue.proposal, queue.wins), (Some(10_500.0), Some(2), false));
    assert_eq!(queue.age, Some(SignedDuration::from_secs(20)));
    assert_eq!(queue.reported, Some(10_500.0));
}

#[test]
fn the_largest_proposal_wins_and_the_maximum_clips_it() {
    let explanation = explained(&evidence(4, 100_000));
    assert_eq!(
        explanation.summary,
        "4 replicas, though queueTime proposes 40; 40 asked, 4 allowed: that is the maximum."
    );
    assert_eq!(explanation.proposed, Some(40));
    assert!(explanation.metrics.iter().all(|metric| metric.wins == (metric.name == QUEUE)));
}

#[test]
fn a_policy_is_told_with_what_it_counts_from() {
    let explanation = explained(&evidence(1, 100_000));
    assert!(
        explanation
            .summary
            .starts_with("1 replica now, 3 at the autoscaler's next look: queueTime proposes 10"),
        "{}",
        explanation.summary
    );
    let policy = explanation.holds.iter().find(|hold| hold.kind == HoldKind::Policy).unwrap();
    assert_eq!(policy.message, "10 asked, 3 allowed: the policy of 2 pods in 60 s counts from 1.");
}

#[test]
fn an_earlier_recommendation_holds_until_its_window_is_over() {
    let mut evidence = evidence(3, 2_000);
    // The GPUs are idle too: everything proposes fewer.
    let idle = evidence.samples[&QUEUE].clone();
    evidence.samples.insert(
        GPU,
        idle.map(|samples| {
            samples.into_iter().map(|(pod, sample)| (pod, Sample { milli: 10_000, ..sample })).collect()
        }),
    );
    let mut record = Record::begin(status(3, 11_500), second(-200));
    let mut calm = status(3, 2_000);
    calm.metrics.insert(GPU, Reported { value_milli: Some(10_000), target_milli: 80_000 });
    record.note(calm, second(-100));
    evidence.record = Some(record);
    let explanation = explained(&evidence);
    let held = explanation.holds.iter().find(|hold| hold.kind == HoldKind::Stabilization).unwrap();
    // 11,500 us on three replicas asked for four; that was so at the last sync before it was seen to change.
    assert!(held.is_computed && held.message.contains("4 were recommended"), "{}", held.message);
    assert_eq!(held.until, Some(second(-100 - 15 + 300)));
    assert!(
        explanation.summary.starts_with("3 replicas, though gpuUtilization proposes 1"),
        "{}",
        explanation.summary
    );
}

#[test]
fn what_happened_before_this_server_looked_is_left_to_the_controller_to_say() {
    let mut evidence = evidence(3, 1_000);
    let mut unmeasured = status(3, 1_000);
    unmeasured.metrics.clear();
    unmeasured.conditions[0] = stated("AbleToScale", true, "ScaleDownStabilized");
    // No value was seen, so that nothing is known of what was recommended.
    unmeasured.metrics.insert(QUEUE, Reported { value_milli: None, target_milli: 10_000_000 });
    evidence.record = Some(Record::begin(unmeasured, second(-1)));
    let explanation = explained(&evidence);
    let held: Vec<_> = explanation.holds.iter().filter(|hold| hold.kind == HoldKind::Stabilization).collect();
    assert_eq!(held.len(), 1);
    assert!(!held[0].is_computed, "{held:?}");
    assert!(held[0].message.contains("within the stabilization window"), "{}", held[0].message);
}

#[test]
fn a_metric_without_an_answer_blocks_removal_and_is_told_with_its_reason() {
    let mut evidence = evidence(3, 1_000);
    evidence
        .samples
        .insert(GPU, Err("the Kubernetes API refused custom.metrics.k8s.io: not found".to_owned()));
    let mut record = evidence.record.take().unwrap();
    let mut broken = status(3, 1_000);
    broken.metrics.insert(GPU, Reported { value_milli: None, target_milli: 80_000 });
    broken.conditions[1] = stated("ScalingActive", false, "FailedGetPodsMetric");
    record.note(broken, second(0));
    evidence.record = Some(record);
    let explanation = explained(&evidence);
    assert_eq!(
        explanation.summary,
        "3 replicas stay: 1 of 2 metrics cannot be used, so that 3 stay, though the others propose 1."
    );
    let gpu = explanation.metrics.iter().find(|metric| metric.name == GPU).unwrap();
    assert!(gpu.error.as_deref().unwrap().contains("not found") && gpu.proposal.is_none());
    let last = explanation.notes.last().unwrap();
    assert_eq!((last.reason.as_str(), last.source), ("FailedGetPodsMetric", NoteSource::Status));
}

#[test]
fn a_value_that_tms_may_not_read_is_taken_from_the_autoscaler_and_said_so() {
    let mut evidence = evidence(2, 15_000);
    evidence.samples.insert(QUEUE, Err("forbidden".to_owned()));
    evidence.samples.insert(GPU, Err("forbidden".to_owned()));
    let explanation = explained(&evidence);
    let queue = explanation.metrics.iter().find(|metric| metric.name == QUEUE).unwrap();
    assert_eq!((queue.value, queue.ratio, queue.proposal), (Some(15_000.0), Some(1.5), None));
    assert_eq!(queue.error, None);
    assert_eq!(explanation.unknowns.len(), 2);
    assert!(explanation.unknowns[0].contains("forbidden"), "{:?}", explanation.unknowns);
}

#[test]
fn pods_that_are_missing_or_pending_are_named() {
    let mut evidence = evidence(2, 30_000);
    let mut pending = pod("pod-3");
    pending.phase = Phase::Pending;
    evidence.pods.as_mut().unwrap().extend([pending, pod("pod-4")]);
    evidence.replicas = Replicas { desired: 4, current: 4, ready: 2 };
    evidence.troubles = vec!["no node can take a replica".to_owned()];
    let explanation = explained(&evidence);
    let queue = explanation.metrics.iter().find(|metric| metric.name == QUEUE).unwrap();
    assert!(queue.groups.unready.contains("pod-3") && queue.groups.missing.contains("pod-4"));
    let pods = explanation.holds.last().unwrap();
    assert_eq!(pods.message, "Of 4 replicas that are wanted 2 are not ready: no node can take a replica.");
    assert_eq!(pods.kind, HoldKind::Pods);
}

#[test]
fn a_change_that_was_seen_and_told_by_an_event_is_one_decision() {
    let mut evidence = evidence(4, 10_000);
    let mut record = Record::begin(status(2, 20_000), second(-100));
    let scaled = Status { current: 2, desired: 4, last_scaled_at: Some(second(-90)), ..status(2, 20_000) };
    record.note(scaled, second(-89));
    evidence.record = Some(record);
    let told = |at, to, message: &str| Note {
        at,
        from: None,
        to,
        reason: "SuccessfulRescale".to_owned(),
        message: message.to_owned(),
        source: NoteSource::Event,
        count: 1,
    };
    let before = told(second(-900), Some(2), "New size: 2; reason: above target");
    evidence.events = Ok(vec![before, told(second(-88), Some(4), "New size: 4; reason: above target")]);
    let notes = explained(&evidence).notes;
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert_eq!((notes[1].from, notes[1].to), (Some(2), Some(4)));
    assert_eq!(
        notes[1].message,
        "New size: 4; reason: above target (gpuUtilization was 80 %, its target is 80 %; queueTime was 20000 us, its \
         target is 10000 us)"
    );
}

#[test]
fn an_autoscaler_that_has_not_looked_is_no_decision() {
    let mut evidence = evidence(1, 0);
    evidence.record = None;
    let explanation = explained(&evidence);
    assert!(explanation.summary.contains("no HorizontalPodAutoscaler yet"), "{}", explanation.summary);
    assert_eq!((explanation.proposed, explanation.decision), (None, None));
}

#[test]
fn a_record_stays_small_however_much_happens() {
    let mut record = Record::begin(status(1, 0), second(0));
    for step in 0..2_000 {
        let mut status = status(1 + step % 4, i64::from(step % 7) * 9_000);
        status.last_scaled_at = Some(second(step.into()));
        if step % 3 == 0 {
            status.conditions[1] = stated("ScalingActive", false, "FailedGetPodsMetric");
        }
        record.note(status, second(step.into()));
    }
    assert_eq!(record.notes.len(), 20);
    assert_eq!(record.notes.back().unwrap().at, second(1_999));
    let history = record.history(&Options::default(), second(2_000));
    assert!(history.recommendations().len() <= 64);
}
