//! What becomes of proposals, case by case.

use super::*;
use crate::domain::autoscaler::decision::{Condition, ConditionKind, Decision, decide};
use crate::domain::autoscaler::history::History;
use crate::domain::autoscaler::metric::ExternalTarget;

const PODS: PolicyKind = PolicyKind::Pods;
const PERCENT: PolicyKind = PolicyKind::Percent;

/// Decides at a second with a controller that was there before.
fn at(seconds: i64, autoscaler: &Autoscaler, situation: &Situation, history: &mut History) -> Decision {
    decide(autoscaler, situation, history, &Options::default(), second(seconds))
}

/// What one sync decides when there was none before.
fn first(autoscaler: &Autoscaler, situation: &Situation) -> Decision {
    at(0, autoscaler, situation, &mut History::default())
}

fn reason(decision: &Decision, kind: ConditionKind) -> Option<&'static str> {
    decision.conditions.iter().find(|set| set.kind == kind).map(|set| set.reason)
}

fn sentences(decision: &Decision) -> Vec<String> {
    decision.effects.iter().map(ToString::to_string).collect()
}

#[test]
fn policies_bound_each_change() {
    let (max, min, disabled) = (SelectPolicy::Max, SelectPolicy::Min, SelectPolicy::Disabled);
    type Policies = &'static [(PolicyKind, u32, u32)];
    let cases: [(SelectPolicy, Policies, i32, i32, i32, &str); 14] = [
        (max, &[(PODS, 4, 60)], 3, 20, 7, "four pods"),
        (max, &[(PERCENT, 100, 60)], 3, 20, 6, "doubled"),
        (max, &[(PERCENT, 10, 60)], 3, 20, 4, "a tenth is rounded up"),
        (max, &[(PODS, 4, 60), (PERCENT, 200, 60)], 3, 20, 9, "the largest of two"),
        (min, &[(PODS, 4, 60), (PERCENT, 200, 60)], 3, 20, 7, "the smallest of two"),
        (disabled, &[(PODS, 4, 60)], 3, 20, 3, "no change"),
        (max, &[(PODS, 40, 60)], 3, 20, 20, "as asked"),
        (max, &[(PODS, 2, 60)], 20, 5, 18, "two pods fewer"),
        (max, &[(PERCENT, 10, 60)], 25, 5, 22, "a tenth fewer, and 22.5 is 22"),
        (max, &[(PODS, 2, 60), (PERCENT, 50, 60)], 20, 5, 10, "the largest change of two"),
        (min, &[(PODS, 2, 60), (PERCENT, 50, 60)], 20, 5, 18, "the smallest change of two"),
        (disabled, &[(PODS, 2, 60)], 20, 5, 20, "no change"),
        (max, &[(PERCENT, 100, 60)], 20, 5, 5, "as asked"),
        (max, &[(PERCENT, 100, 15)], 20, 20, 20, "nothing asked"),
    ];
    for (select, policies, current, wanted, expected, why) in cases {
        let rules = rules(0, select, policies);
        let decision = first(&autoscaler(rules.clone(), rules), &asking(current, wanted));
        assert_eq!(decision.replicas, expected, "{why}");
        let is_limited = expected != wanted;
        let limited = match (is_limited, wanted > current) {
            (false, _) => "DesiredWithinRange",
            (true, true) => "ScaleUpLimit",
            (true, false) => "ScaleDownLimit",
        };
        assert_eq!(reason(&decision, ConditionKind::ScalingLimited), Some(limited), "{why}");
        assert_eq!(
            decision.effects.iter().any(|effect| effect.to_string().contains("allowed")),
            is_limited,
            "{why}"
        );
    }
}

#[test]
fn a_period_counts_what_happened_in_it() {
    let autoscaler = autoscaler(rules(0, SelectPolicy::Max, &[(PODS, 2, 60)]), free());
    let mut history = History::default();
    for (seconds, current, expected, why) in [
        (0, 1, 3, "two at once"),
        (15, 3, 3, "no more in this minute"),
        (45, 3, 3, "nor now"),
        (59, 3, 3, "nor in its last second"),
        (60, 3, 5, "a minute later"),
        (119, 5, 5, "not yet"),
        (120, 5, 7, "and again"),
    ] {
        assert_eq!(at(seconds, &autoscaler, &asking(current, 50), &mut history).replicas, expected, "{why}");
    }
    let held = at(130, &autoscaler, &asking(7, 50), &mut history);
    assert_eq!(
        sentences(&held),
        [
            "50 asked, 7 allowed: the policy of 2 pods in 60 s counts from 5 (2 came and 0 went since), and allows more at \
         1970-01-02T00:03:00Z."
        ]
    );
}

#[test]
fn a_window_holds_the_calmest_recommendation() {
    let up = rules(60, SelectPolicy::Max, &[(PODS, 1000, 15)]);
    let down = rules(300, SelectPolicy::Max, &[(PODS, 1000, 15)]);
    let autoscaler = autoscaler(up, down);
    let mut history = History::default();
    let (up, down) = (Some("ScaleUpStabilized"), Some("ScaleDownStabilized"));
    let (free, done) = (Some("ReadyForNewScale"), Some("SucceededRescale"));
    for (seconds, current, wanted, expected, able, why) in [
        (0, 3, 9, 3, up, "it begins with the replicas there are"),
        (30, 3, 9, 3, up, "which count for a minute"),
        (60, 3, 9, 9, done, "and no more"),
        (75, 9, 6, 9, down, "nine were recommended"),
        (90, 9, 12, 9, up, "six were recommended"),
        (374, 9, 6, 9, down, "twelve were recommended 284 seconds ago"),
        (390, 9, 6, 6, done, "which counts for 300"),
        (391, 6, 6, 6, free, "and so it stays"),
    ] {
        let decision = at(seconds, &autoscaler, &asking(current, wanted), &mut history);
        assert_eq!(decision.replicas, expected, "{seconds}: {why}");
        assert_eq!(reason(&decision, ConditionKind::AbleToScale), able, "{seconds}: {why}");
    }
}

#[test]
fn without_a_behavior_it_doubles_at_most_and_shrinks_after_five_minutes() {
    let autoscaler = Autoscaler { minimum: 2, maximum: 15, behavior: None };
    let mut history = History::default();
    for (seconds, current, wanted, expected, limited, why) in [
        (0, 2, 30, 4, "ScaleUpLimit", "four at once"),
        (15, 4, 30, 8, "ScaleUpLimit", "then twice as many"),
        (30, 8, 30, 15, "TooManyReplicas", "and never more than the maximum"),
        (45, 15, 1, 15, "TooManyReplicas", "thirty were recommended"),
        (330, 15, 1, 15, "TooManyReplicas", "five minutes ago still counts"),
        (331, 15, 1, 2, "TooFewReplicas", "and then it goes to the minimum at once"),
    ] {
        let decision = at(seconds, &autoscaler, &asking(current, wanted), &mut history);
        assert_eq!(decision.replicas, expected, "{why}");
        assert_eq!(reason(&decision, ConditionKind::ScalingLimited), Some(limited), "{why}");
    }
}

#[test]
fn replicas_outside_of_the_bounds_are_brought_back_without_a_metric() {
    let autoscaler = Autoscaler { minimum: 3, maximum: 5, ..autoscaler(free(), free()) };
    for (current, expected, sentence) in [
        (6, 5, "There are 6 replicas, above the maximum of 5."),
        (50, 5, "There are 50 replicas, above the maximum of 5."),
        (2, 3, "There are 2 replicas, below the minimum of 3."),
        (1, 3, "There are 1 replicas, below the minimum of 3."),
        (0, 0, "There are no replicas, so that the autoscaler is disabled."),
    ] {
        let decision = first(&autoscaler, &asking(current, 4));
        assert_eq!((decision.replicas, decision.proposals.len()), (expected, 0), "{sentence}");
        assert_eq!(sentences(&decision), [sentence]);
    }
}

#[test]
fn the_largest_proposal_wins_and_one_that_is_missing_holds_what_there_is() {
    let calm = || pods_metric(1000, &[Some(250); 4]);
    let hot = || pods_metric(1000, &[Some(2000); 4]);
    let level = || pods_metric(1000, &[Some(1000); 4]);
    let broken = || pods_metric(1000, &[]);
    let valid = "ValidMetricFound";
    let cases: [(Vec<Metric>, i32, Option<usize>, &str); 8] = [
        (vec![calm(), hot()], 8, Some(1), valid),
        (vec![hot(), calm()], 8, Some(0), valid),
        (vec![calm(), calm()], 1, Some(0), valid),
        (vec![calm(), level()], 4, Some(1), valid),
        (vec![broken(), hot()], 8, Some(1), valid),
        (vec![broken(), level()], 4, Some(1), valid),
        (vec![calm(), broken()], 4, None, "FailedGetPodsMetric"),
        (vec![broken(), broken()], 4, None, "FailedGetPodsMetric"),
    ];
    for (metrics, expected, winner, active) in cases {
        let situation = Situation { metrics, ..asking(4, 4) };
        let decision = first(&autoscaler(free(), free()), &situation);
        assert_eq!((decision.replicas, decision.winner), (expected, winner));
        assert_eq!(reason(&decision, ConditionKind::ScalingActive), Some(active));
    }
    let situation = Situation { metrics: vec![calm(), broken()], ..asking(4, 4) };
    assert_eq!(
        sentences(&first(&autoscaler(free(), free()), &situation)),
        [
            "queueTime cannot be used: the metrics API returned no value.",
            "1 of 2 metrics cannot be used, so that 4 stay, though the others propose 1.",
        ]
    );
}

#[test]
fn only_what_the_autoscaler_put_to_zero_is_woken() {
    let external = |value| {
        let source = Source::External { target: ExternalTarget::Average(1000), values: Ok(vec![value]) };
        Metric { name: "backlog".to_owned(), source }
    };
    let with_gate = Options { has_scale_to_zero: true, ..Options::default() };
    let cases = [
        (with_gate, 0, 3, 0, false, 0, "the last work is done"),
        (with_gate, 0, 0, 2500, true, 3, "work comes"),
        (with_gate, 0, 0, 0, true, 0, "there is no work"),
        (with_gate, 0, 0, 2500, false, 0, "a person put it to zero"),
        (with_gate, 2, 0, 0, true, 2, "the minimum was raised"),
        (Options::default(), 0, 0, 2500, true, 0, "the gate is off"),
    ];
    for (options, minimum, current, value, was_own, expected, why) in cases {
        let autoscaler = Autoscaler { minimum, ..autoscaler(free(), free()) };
        let situation =
            Situation { scale: scale(current), metrics: vec![external(value)], was_scaled_to_zero: was_own };
        let decision = decide(&autoscaler, &situation, &mut History::default(), &options, second(0));
        assert_eq!(decision.replicas, expected, "{why}");
        let zero = decision.conditions.iter().find(|set| set.kind == ConditionKind::ScaledToZero).copied();
        let set = |status, reason| Some(Condition { kind: ConditionKind::ScaledToZero, status, reason });
        let expected = match (decision.replicas, current) {
            (replicas, current) if replicas == current => None,
            (0, _) => set(true, "ScaledToZero"),
            _ => set(false, "NotScaledToZero"),
        };
        assert_eq!(zero, expected, "{why}");
    }
}

#[test]
fn each_thing_that_holds_a_decision_has_its_sentence() {
    let mut scale = scale(3);
    scale.pods[2].phase = Phase::Pending;
    let missing = pods_metric(10, &[Some(90), None, None]);
    let tolerance = pods_metric(10, &[Some(10), Some(10), Some(10)]);
    let uncertain = pods_metric(10, &[Some(15), None, None]);
    let situation =
        Situation { scale, metrics: vec![missing, tolerance, uncertain], was_scaled_to_zero: false };
    let autoscaler = Autoscaler { maximum: 5, ..autoscaler(free(), free()) };
    assert_eq!(
        sentences(&first(&autoscaler, &situation)),
        [
            "1 pod (pod-1) has no queueTime yet: counted as idle, so that not too many are added.",
            "For queueTime, 1 pod (pod-2) is not ready: counted as idle.",
            "For queueTime, 1 pod (pod-2) is not ready: left out.",
            "queueTime is 1.000 of its target; from 0.900 to 1.100 nothing changes.",
            "1 pod (pod-1) has no queueTime yet: counted as idle, so that not too many are added.",
            "For queueTime, 1 pod (pod-2) is not ready: counted as idle.",
            "queueTime is 1.500 of its target, but with what is supposed of the other pods 0.500: too uncertain for a change.",
            "9 asked, 5 allowed: that is the maximum.",
        ]
    );
}
