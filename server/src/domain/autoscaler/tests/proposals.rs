//! What one metric proposes, case by case.

use super::*;
use crate::domain::autoscaler::metric::ExternalTarget;
use crate::domain::autoscaler::proposal::{MissingAs, Outcome, Usage};

const NONE: Option<i64> = None;

type Values = &'static [Option<i64>];

#[test]
fn a_metric_of_pods_proposes_what_the_controller_does() {
    let cases: [(i32, i64, Values, i32, &str); 20] = [
        (2, 10_000, &[Some(40_000), Some(50_000)], 9, "4.5 of the target"),
        (3, 10_000, &[Some(40_000), Some(50_000), NONE], 9, "a missing one is idle on the way up"),
        (5, 10_000, &[Some(45_000), NONE, NONE, NONE, NONE], 5, "no runaway while models load"),
        (1, 10_000, &[Some(45_000)], 5, "one replica"),
        (3, 10_000, &[Some(12_000), Some(9_000), Some(8_000)], 3, "0.967 is within tolerance"),
        (3, 10_000, &[Some(13_000), Some(12_000), Some(11_000)], 4, "1.2"),
        (4, 10_000, &[Some(2_000); 4], 1, "0.2"),
        (
            4,
            10_000,
            &[Some(2_000), Some(2_000), Some(2_000), NONE],
            2,
            "a missing one is at the target on the way down",
        ),
        (4, 10_000, &[Some(0); 4], 0, "idle"),
        (4, 10_000, &[Some(0), NONE, NONE, NONE], 3, "why idle must be an explicit 0"),
        (3, 90, &[Some(100); 3], 4, "1.111"),
        (3, 90, &[Some(99); 3], 3, "exactly 1.1 is within"),
        (3, 91, &[Some(100); 3], 3, "a threshold of 91 percent is never exceeded by enough"),
        (3, 95, &[Some(100); 3], 3, "nor is one of 95"),
        (3, 100, &[Some(100); 3], 3, "nor is one of 100"),
        (3, 60, &[Some(66); 3], 3, "66 of 60 is the edge"),
        (3, 60, &[Some(67); 3], 4, "67 is beyond"),
        (3, 10, &[Some(10), Some(10), NONE], 3, "at the target, a missing one changes nothing"),
        (2, 10_000, &[Some(11_500), NONE], 2, "it would be idle, and the change turn into its opposite"),
        (
            10,
            100,
            &[Some(50), Some(50), NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE],
            10,
            "0.9 with what is supposed",
        ),
    ];
    for (current, target, values, expected, why) in cases {
        let proposal = proposed(&pods_metric(target, values), &scale(current));
        assert_eq!(proposal.map(|proposal| proposal.replicas), Ok(expected), "{why}");
    }
}

#[test]
fn a_tolerance_of_its_own_makes_a_high_threshold_work() {
    let metric = pods_metric(95, &[Some(100); 3]);
    let proposal = |tolerances| propose(&metric, &scale(3), tolerances, &Options::default(), second(0));
    for (up, expected) in [(0.02, 4), (0.05, 4), (0.053, 3), (0.1, 3), (0.0, 4)] {
        let proposal = proposal(Tolerances { up, down: 0.1 }).unwrap();
        assert_eq!(proposal.replicas, expected, "{up}");
    }
}

#[test]
fn a_utilization_is_whole_percent_of_what_the_pods_request() {
    let cases: [(i32, i32, Values, i32, i32, &str); 8] = [
        (1, 90, &[Some(10)], 1, 1, "1 percent proposes 1"),
        (1, 90, &[Some(9)], 0, 0, "below one percent is 0"),
        (2, 81, &[Some(899), Some(900)], 2, 89, "89.95 is 89, which is within tolerance as 90 is not"),
        (2, 50, &[Some(900), Some(900)], 4, 90, "1.8"),
        (3, 80, &[Some(200), Some(200), NONE], 2, 20, "a missing one uses all that it requests"),
        (3, 400, &[Some(300), Some(300), NONE], 2, 30, "or the target, where that is more"),
        (3, 50, &[Some(900), Some(900), NONE], 4, 90, "a missing one is idle on the way up"),
        (4, 80, &[Some(800), Some(800), Some(800), Some(800)], 4, 80, "at the target"),
    ];
    for (current, target, values, expected, usage, why) in cases {
        let proposal = proposed(&cpu_metric(target, values), &scale(current)).unwrap();
        assert_eq!(proposal.replicas, expected, "{why}");
        assert!(matches!(proposal.usage, Usage::Percent { percent, .. } if percent == usage), "{why}");
    }
}

#[test]
fn pods_count_by_what_they_are() {
    let hot = pods_metric(10, &[Some(20), Some(20), Some(20)]);
    type Change = fn(&mut Pod);
    let cases: [(Change, i32, &str); 6] = [
        (|_| {}, 6, "all three count"),
        (|pod| pod.is_deleting = true, 4, "one that is being deleted is left out"),
        (|pod| pod.phase = Phase::Failed, 4, "a failed one is left out"),
        (|pod| pod.phase = Phase::Pending, 4, "a pending one is idle"),
        (|pod| pod.ready = None, 6, "readiness does not matter here"),
        (|pod| pod.phase = Phase::Succeeded, 6, "nor does any other phase"),
    ];
    for (change, expected, why) in cases {
        let mut scale = scale(3);
        change(&mut scale.pods[2]);
        assert_eq!(proposed(&hot, &scale).map(|proposal| proposal.replicas), Ok(expected), "{why}");
    }
}

#[test]
fn the_cpu_of_a_pod_that_starts_is_not_trusted() {
    let ready = |is_ready, since| Some(Ready { is_ready, since: second(since) });
    // Samples are of second 0 and cover 30 seconds; the pods start at `started`, and it is `now`.
    let cases = [
        (0, 299, None, true, "no condition"),
        (-100, 0, ready(Some(false), -90), true, "not ready within five minutes of its start"),
        (-100, 0, ready(Some(true), -20), true, "the sample begins before it was ready"),
        (-100, 0, ready(Some(true), -30), false, "the sample begins when it was ready"),
        (-100, 0, ready(None, -90), false, "of one whose readiness is unknown, only the sample's age counts"),
        (-400, 0, ready(Some(false), -380), true, "never ready"),
        (-400, 0, ready(Some(false), -370), false, "it was ready once: half a minute is the limit"),
        (-400, 0, ready(Some(true), -1), false, "old enough, and ready"),
        (-300, 0, ready(Some(true), -1), false, "five minutes are the limit"),
        (-299, 0, ready(Some(true), -1), true, "just within them"),
    ];
    for (started, now, ready, is_unready, why) in cases {
        let mut scale = scale(2);
        scale.pods[1].started_at = Some(second(started));
        scale.pods[1].ready = ready;
        let metric = cpu_metric(50, &[Some(900), Some(900)]);
        let proposal = propose(&metric, &scale, TOLERANCES, &Options::default(), second(now)).unwrap();
        assert_eq!(proposal.groups.unready.contains("pod-1"), is_unready, "{why}");
        assert_eq!(proposal.replicas, if is_unready { 2 } else { 4 }, "{why}");
    }
}

#[test]
fn a_proposal_says_how_it_came_about() {
    let mut scale = scale(4);
    scale.pods[3].phase = Phase::Pending;
    let proposal = proposed(&pods_metric(10_000, &[Some(60_000), Some(60_000), NONE, NONE]), &scale).unwrap();
    let supposition = proposal.supposition.unwrap();
    assert_eq!((proposal.replicas, proposal.ratio, proposal.outcome), (12, 6.0, Outcome::Ratio));
    assert_eq!(proposal.usage, Usage::Average(60_000_000));
    assert_eq!((supposition.missing, supposition.unready_are_idle), (MissingAs::Idle, true));
    assert_eq!((supposition.ratio, supposition.pods), (3.0, 4));
    assert_eq!(proposal.groups.counted.len(), 2);
    assert!(proposal.groups.missing.contains("pod-2") && proposal.groups.unready.contains("pod-3"));
}

#[test]
fn a_metric_that_cannot_be_used_says_why() {
    let refused = |source| Metric { name: "queueTime".to_owned(), source };
    let unavailable = Source::Pods { average_milli: 1, samples: Err("no such metric".to_owned()) };
    let none = Scale { pods: Vec::new(), ..scale(1) };
    let mut pending = scale(1);
    pending.pods[0].phase = Phase::Pending;
    let mut requests_nothing = scale(1);
    requests_nothing.pods[0].requests = Requests::default();
    let mut requests_zero = scale(1);
    requests_zero.pods[0].requests = Requests::both(0);
    let one = [Some(10)];
    let cases = [
        (refused(unavailable), scale(1), "no such metric"),
        (pods_metric(10, &[]), scale(1), "the metrics API returned no value"),
        (pods_metric(10, &one), none, "the selector of the target finds no pod"),
        (
            pods_metric(10, &one),
            pending,
            "none of the pods that count has a value: 1 unready, 0 missing, 0 ignored",
        ),
        (
            cpu_metric(10, &one),
            requests_nothing,
            "pod pod-0 does not request the resource, so that there is no percentage of it",
        ),
        (cpu_metric(10, &one), requests_zero, "the pods that have a value request nothing"),
    ];
    for (metric, scale, expected) in cases {
        assert_eq!(proposed(&metric, &scale).unwrap_err().to_string(), expected);
    }
}

#[test]
fn a_metric_from_outside_counts_its_sum() {
    use ExternalTarget::{Average, Value};
    let cases: [(i32, ExternalTarget, &[i64], i32, &str); 14] = [
        (0, Value(10_000), &[0], 0, "nothing to do"),
        (0, Value(10_000), &[1], 1, "from zero, whatever is there wakes it"),
        (0, Value(10_000), &[10_500], 2, "and no tolerance holds"),
        (2, Value(10_000), &[10_000, 1_000], 2, "1.1 is within"),
        (2, Value(10_000), &[20_000, 1_000], 5, "2.1 times two ready pods"),
        (2, Value(10_000), &[4_000], 1, "0.4 times two ready pods"),
        (2, Value(10_000), &[i64::MAX, 5], i32::MAX, "more than fits"),
        (2, Average(10_000), &[20_000], 2, "at the target"),
        (2, Average(10_000), &[22_000], 2, "1.1 is within"),
        (2, Average(10_000), &[22_500], 3, "beyond"),
        (2, Average(10_000), &[0], 0, "nothing to do"),
        (0, Average(10_000), &[15_000], 2, "from zero"),
        (2, Average(10_000), &[i64::MAX, i64::MAX], i32::MAX, "more than fits"),
        (4, Average(10_000), &[5_000, 6_000], 2, "down"),
    ];
    for (current, target, values, expected, why) in cases {
        let source = Source::External { target, values: Ok(values.to_vec()) };
        let metric = Metric { name: "backlog".to_owned(), source };
        let proposal = proposed(&metric, &scale(current)).unwrap();
        assert_eq!(proposal.replicas, expected, "{why}");
    }
}
