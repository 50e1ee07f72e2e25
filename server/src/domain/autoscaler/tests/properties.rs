//! What holds for every autoscaler and load.

use proptest::prelude::*;

use super::*;
use crate::domain::autoscaler::decision::decide;
use crate::domain::autoscaler::history::History;
use crate::domain::autoscaler::metric::ExternalTarget;

fn any_rules() -> impl Strategy<Value = ScalingRules> {
    let select = prop::sample::select(vec![SelectPolicy::Max, SelectPolicy::Min, SelectPolicy::Disabled]);
    let kind = prop::sample::select(vec![PolicyKind::Pods, PolicyKind::Percent]);
    let policies = prop::collection::vec((kind, 1_u32..200, 1_u32..300), 1..4);
    (0_u32..400, select, policies).prop_map(|(window, select, policies)| rules(window, select, &policies))
}

fn any_autoscaler() -> impl Strategy<Value = Autoscaler> {
    let behavior = prop::option::of((any_rules(), any_rules()));
    (1_i32..5, 0_i32..30, behavior).prop_map(|(minimum, more, behavior)| Autoscaler {
        minimum,
        maximum: minimum + more,
        behavior: behavior.map(|(scale_up, scale_down)| Behavior { scale_up, scale_down }),
    })
}

/// Plays loads in percent of one replica, one every 15 seconds, and returns the replicas.
fn play(autoscaler: &Autoscaler, loads: &[i64]) -> Vec<i32> {
    let (mut history, mut current) = (History::default(), autoscaler.minimum);
    let mut sync = |(step, load): (usize, &i64)| {
        let share = load / i64::from(current);
        let values: Vec<_> = (0..current).map(|_| Some(share)).collect();
        let situation = Situation {
            scale: scale(current),
            metrics: vec![pods_metric(80, &values)],
            was_scaled_to_zero: false,
        };
        let now = second(15 * step as i64);
        current = decide(autoscaler, &situation, &mut history, &Options::default(), now).replicas;
        current
    };
    loads.iter().enumerate().map(&mut sync).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn replicas_stay_within_the_bounds(autoscaler in any_autoscaler(), loads in prop::collection::vec(0_i64..5000, 1..40)) {
        for replicas in play(&autoscaler, &loads) {
            prop_assert!((autoscaler.minimum..=autoscaler.maximum).contains(&replicas));
        }
    }

    #[test]
    fn a_replay_decides_the_same(autoscaler in any_autoscaler(), loads in prop::collection::vec(0_i64..5000, 1..40)) {
        prop_assert_eq!(play(&autoscaler, &loads), play(&autoscaler, &loads));
    }

    #[test]
    fn more_load_never_proposes_less(current in 1_i32..20, one in 0_i64..100_000, other in 0_i64..100_000) {
        let (less, more) = (one.min(other), one.max(other));
        let of_pods = |load| {
            let values: Vec<_> = (0..current).map(|_| Some(load)).collect();
            proposed(&pods_metric(1000, &values), &scale(current)).unwrap().replicas
        };
        prop_assert!(of_pods(less) <= of_pods(more));
        let of_sum = |target, load: i64| {
            let metric = Metric { name: "backlog".to_owned(), source: Source::External { target, values: Ok(vec![load]) } };
            proposed(&metric, &scale(current)).unwrap().replicas
        };
        for target in [ExternalTarget::Value(1000), ExternalTarget::Average(1000)] {
            prop_assert!(of_sum(target, less) <= of_sum(target, more));
        }
    }

    #[test]
    fn what_is_remembered_does_not_grow(autoscaler in any_autoscaler(), loads in prop::collection::vec(0_i64..5000, 200)) {
        let (mut history, mut current) = (History::default(), autoscaler.minimum);
        for (step, load) in loads.into_iter().enumerate() {
            let values: Vec<_> = (0..current).map(|_| Some(load / i64::from(current))).collect();
            let metrics = vec![pods_metric(80, &values)];
            let situation = Situation { scale: scale(current), metrics, was_scaled_to_zero: false };
            let now = second(15 * step as i64);
            current = decide(&autoscaler, &situation, &mut history, &Options::default(), now).replicas;
        }
        // The longest window is 400 seconds: no more than 27 syncs fit, one that ended, and the first.
        prop_assert!(history.recommendations().len() <= 30);
    }
}
