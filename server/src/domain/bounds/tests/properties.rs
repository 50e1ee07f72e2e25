use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::domain::lease::{Model, Toleration, Triton};
use crate::domain::quantity::Quantity;

/// A word that is valid in some place, or any text.
fn word() -> impl Strategy<Value = String> {
    let known = [
        "",
        "0",
        "a",
        "4",
        "500m",
        "16Gi",
        "1Ti",
        "1e3",
        "Equal",
        "Exists",
        "NoExecute",
        "Max",
        "Disabled",
        "Pods",
        "Percent",
        "b.c/d",
        "nvidia.com/gpu",
        "nvidia.com/mig-1g.5gb",
        "nvidia.com/gpu.shared",
        "https://b/vllm",
        "pvc://disk/a",
        "https://u:p@h",
        "{}",
        r#"{"podAffinity":{"x":1}}"#,
        r#"{"nodeAffinity":{}}"#,
    ];
    prop_oneof![4 => proptest::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => any::<String>()]
}

fn words() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(word(), word(), 0..3)
}

fn quantity() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just(String::new()),
        3 => (1_u32..2000, prop::sample::select(vec!["", "m", "k", "Mi", "Gi"])).prop_map(|(n, unit)| format!("{n}{unit}")),
        1 => word(),
    ]
}

fn number() -> impl Strategy<Value = u32> {
    prop_oneof![9 => 0_u32..12, 1 => any::<u32>()]
}

prop_compose! {
    fn tolerations()(asked in vec((word(), word(), word(), word(), option::of(any::<i64>())), 0..2)) -> Vec<Toleration> {
        asked
            .into_iter()
            .map(|(key, operator, value, effect, toleration_seconds)| Toleration { key, operator, value, effect, toleration_seconds })
            .collect()
    }
}

prop_compose! {
    fn triton()(
        image in prop_oneof![3 => Just(String::new()), 1 => word()],
        gpus in option::of(number()),
        gpu_resource in prop_oneof![3 => Just(String::new()), 1 => word()],
        (cpu, memory, shared_memory) in (quantity(), quantity(), quantity()),
        environment in words(),
        node_selector in words(),
        tolerations in tolerations(),
        affinity_json in prop_oneof![3 => Just(String::new()), 1 => word()],
    ) -> TritonRequest {
        TritonRequest { image, gpus, gpu_resource, cpu, memory, shared_memory, environment, node_selector, tolerations, affinity_json }
    }
}

prop_compose! {
    fn rules()(
        stabilization_window_seconds in option::of(0_u32..4000),
        select_policy in prop_oneof![3 => Just(String::new()), 1 => word()],
        policies in vec((prop_oneof![Just("Pods".to_owned()), Just("Percent".to_owned()), word()], number(), 0_u32..2000), 0..3),
    ) -> ScalingRulesRequest {
        ScalingRulesRequest { stabilization_window_seconds, select_policy, policies }
    }
}

fn metric_request() -> impl Strategy<Value = MetricRequest> {
    let threshold = prop_oneof![8 => 45_i64..105, 2 => 9_000_i64..20_000, 1 => any::<i64>()];
    (option::of(any::<bool>()), option::of(threshold))
        .prop_map(|(enable, threshold)| MetricRequest { enable, threshold })
}

prop_compose! {
    fn autoscaling()(
        minimum in option::of(0_u32..4),
        maximum in option::of(number()),
        metrics in btree_map(
            prop_oneof![9 => prop::sample::select(MetricName::ALL.to_vec()).prop_map(|name| name.key().to_owned()), 1 => word()],
            metric_request(),
            0..4,
        ),
        scale_up in option::of(rules()),
        scale_down in option::of(rules()),
    ) -> AutoscalingRequest {
        let behavior = BehaviorRequest { scale_up, scale_down };
        AutoscalingRequest { minimum, maximum, metrics, behavior, triggers: Vec::new() }
    }
}

prop_compose! {
    fn wild_requests()(
        models in vec((prop_oneof![3 => "[a-z]{1,4}", 1 => word()], prop_oneof![3 => Just("https://b/m".to_owned()), 1 => Just("pvc://disk/m".to_owned()), 1 => word()]), 0..4),
        triton in prop_oneof![1 => Just(TritonRequest::default()), 1 => triton()],
        replicas in option::weighted(0.3, number()),
        autoscaling in option::of(autoscaling()),
        lifetime in option::of(prop_oneof![9 => 0_i64..100_000, 1 => any::<i64>()].prop_map(SignedDuration::from_secs)),
        labels in words(),
        idle_window in option::of(option::of((0_i64..100_000).prop_map(SignedDuration::from_secs))),
    ) -> Request {
        let automatic_renewal = idle_window.map(|idle_window| AutomaticRenewalRequest { idle_window });
        Request { models, triton, replicas, autoscaling, lifetime, labels, automatic_renewal }
    }
}

prop_compose! {
    /// Requests of which many are granted.
    fn tame_requests()(
        gpus in option::of(0_u32..3),
        gpu_resource in prop::sample::select(vec!["", "nvidia.com/gpu", "nvidia.com/mig-1g.5gb", "nvidia.com/gpu.shared"]),
        (cpu, memory) in (1_u32..70_000, 1_u32..600),
        replicas in option::weighted(0.2, 1_u32..12),
        maximum in option::of(1_u32..12),
        metrics in btree_map(
            prop::sample::select(MetricName::ALL.to_vec()).prop_map(|name| name.key().to_owned()),
            (option::of(any::<bool>()), option::of(50_i64..100)),
            0..3,
        ),
        scale_up in option::of((option::of(0_u32..3600), vec((1_u32..9, 1_u32..1800), 0..3))),
    ) -> Request {
        let metrics = metrics.into_iter().map(|(key, (enable, threshold))| (key, MetricRequest { enable, threshold }));
        let scale_up = scale_up.map(|(stabilization_window_seconds, policies)| ScalingRulesRequest {
            stabilization_window_seconds,
            select_policy: String::new(),
            policies: policies.into_iter().map(|(value, period)| ("Pods".to_owned(), value, period)).collect(),
        });
        let autoscaling = AutoscalingRequest {
            minimum: None,
            maximum,
            metrics: metrics.collect(),
            triggers: Vec::new(),
            behavior: BehaviorRequest { scale_up, scale_down: None },
        };
        let triton = TritonRequest {
            gpus,
            gpu_resource: gpu_resource.to_owned(),
            cpu: format!("{cpu}m"),
            memory: format!("{memory}Gi"),
            ..TritonRequest::default()
        };
        let autoscaling = replicas.is_none().then_some(autoscaling);
        Request { triton, replicas, autoscaling, ..request() }
    }
}

fn requests() -> impl Strategy<Value = Request> {
    prop_oneof![wild_requests(), tame_requests()]
}

fn percent_bounds() -> impl Strategy<Value = MetricBounds> {
    (any::<bool>(), any::<bool>(), 1_i64..60, 60_i64..80, 80_i64..=100).prop_map(
        |(allowed, enabled, minimum, default, maximum)| MetricBounds {
            allowed,
            enabled,
            default,
            minimum,
            maximum: Some(maximum),
        },
    )
}

prop_compose! {
    fn any_bounds()(
        enabled in prop::bool::weighted(0.9),
        gpu_source in prop::sample::select(vec![GpuSource::Triton, GpuSource::Dcgm]),
        mut replicas in prop::array::uniform4(1_u32..12),
        default_maximum in 1_u32..12,
        percents in prop::array::uniform4(percent_bounds()),
        queue in percent_bounds(),
        has_no_upper_bound in any::<bool>(),
        gpus in 0_u32..3,
    ) -> Bounds {
        replicas.sort_unstable();
        let [lower, default_minimum, upper, maximum] = replicas;
        let mut bounds = bounds();
        bounds.resources.default.gpus = gpus;
        let autoscaling = &mut bounds.autoscaling;
        (autoscaling.enabled, autoscaling.gpu_source) = (enabled, gpu_source);
        (autoscaling.minimum_lower_bound, autoscaling.default_minimum, autoscaling.minimum_upper_bound) =
            (lower, default_minimum, upper);
        autoscaling.maximum = maximum;
        autoscaling.default_maximum = default_maximum.clamp(default_minimum, maximum);
        autoscaling.metrics = MetricName::ALL.into_iter().zip(percents).collect();
        let maximum = queue.maximum.filter(|_| !has_no_upper_bound);
        autoscaling.metrics.insert(MetricName::QueueTime, MetricBounds { maximum, ..queue });
        bounds
    }
}

fn assert_within(spec: &Spec, bounds: &Bounds) {
    let of = |text: &str| Quantity::parse(text).unwrap();
    let Triton { gpus, cpu, memory, shared_memory, .. } = &spec.triton;
    assert!(*gpus <= bounds.resources.maximum.gpus);
    assert!(of(cpu).is_positive() && of(cpu) <= of(&bounds.resources.maximum.cpu));
    assert!(of(memory).is_positive() && of(memory) <= of(&bounds.resources.maximum.memory));
    assert!(of(shared_memory).is_positive() && of(shared_memory) <= of(memory));
    for text in [cpu, memory, shared_memory] {
        assert_eq!(&of(text).to_string(), text, "canonical");
    }
    assert!((bounds.lifetime.minimum..=bounds.lifetime.maximum).contains(&spec.lifetime));
    if let Some(renewal) = spec.automatic_renewal {
        let shortest = bounds.automatic_renewal.unwrap().minimum_idle_window();
        assert!((shortest..=bounds.lifetime.maximum).contains(&renewal.idle_window));
    }
    assert!((1..=64).contains(&spec.models.len()));
    let needs_one_node = |model: &Model| model.uri.starts_with("pvc://disk/");
    assert!(spec.scaling.maximum() == 1 || !spec.models.iter().any(needs_one_node));
    assert!(
        spec.scaling.minimum() <= spec.scaling.maximum()
            && spec.scaling.maximum() <= bounds.autoscaling.maximum
    );
    assert!(spec.scaling.maximum() >= 1);
    if let Scaling::Auto(auto) = &spec.scaling {
        let limits = &bounds.autoscaling;
        assert!(limits.enabled);
        assert!((limits.minimum_lower_bound..=limits.minimum_upper_bound).contains(&auto.minimum));
        assert!(!auto.metrics.is_empty());
        for (name, threshold) in &auto.metrics {
            let metric = limits.metrics[name];
            assert!(metric.allowed || (metric.enabled && *threshold == metric.default));
            assert!(
                *threshold >= metric.minimum && metric.maximum.is_none_or(|maximum| *threshold <= maximum)
            );
            assert!(!name.needs_gpu() || *gpus > 0);
        }
        for (name, metric) in &limits.metrics {
            let is_fixed_on = metric.enabled && !metric.allowed && !name.needs_gpu();
            assert!(!is_fixed_on || auto.metrics.contains_key(name), "no lease switches {name:?} off");
        }
        for rules in [&auto.behavior.scale_up, &auto.behavior.scale_down] {
            assert!(rules.stabilization_window_seconds <= 3600 && !rules.policies.is_empty());
            assert!(
                rules
                    .policies
                    .iter()
                    .all(|policy| policy.value >= 1 && (1..=1800).contains(&policy.period_seconds))
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_granted_is_within_the_bounds_and_granted_again_unchanged(request in requests(), bounds in any_bounds()) {
        match grant(&request, &bounds) {
            Ok(accepted) => {
                assert_within(&accepted.granted, &bounds);
                let again = grant(&request_of(&accepted.granted), &bounds).map(|accepted| accepted.granted);
                prop_assert_eq!(again, Ok(accepted.granted));
            }
            Err(violations) => {
                prop_assert!(!violations.is_empty());
                for violation in violations {
                    prop_assert!(violation.field.starts_with("spec."), "{violation:?}");
                    let names_key = violation.key.is_none_or(|key| violation.message.ends_with(&format!("({key})")));
                    prop_assert!(names_key, "{}", violation.message);
                    prop_assert!(violation.message.len() < 1000, "{}", violation.message);
                }
            }
        }
    }
}
