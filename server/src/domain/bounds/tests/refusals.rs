use super::*;
use crate::domain::lease::Toleration;
use crate::domain::scaling::TriggerMetric;

type Change = fn(&mut Request, &mut Bounds);

/// Each case changes the smallest request or the bounds and names field and key of the only fault, or "" where it is granted.
fn check(cases: &[(Change, &str)]) {
    for (line, (change, expected)) in cases.iter().enumerate() {
        let (mut request, mut bounds) = (request(), bounds());
        change(&mut request, &mut bounds);
        let found = grant(&request, &bounds).err().map(|violations| faults(&violations)).unwrap_or_default();
        assert_eq!(found, *expected, "case {line}: {request:?}");
    }
}

fn toleration(key: &str, operator: &str, value: &str, effect: &str, seconds: Option<i64>) -> Toleration {
    Toleration {
        key: key.to_owned(),
        operator: operator.to_owned(),
        value: value.to_owned(),
        effect: effect.to_owned(),
        toleration_seconds: seconds,
    }
}

fn rules(window: Option<u32>, select: &str, policies: &[(&str, u32, u32)]) -> Option<ScalingRulesRequest> {
    Some(ScalingRulesRequest {
        stabilization_window_seconds: window,
        select_policy: select.to_owned(),
        policies: policies.iter().map(|(kind, value, period)| (kind.to_string(), *value, *period)).collect(),
    })
}

#[test]
fn models_are_named_once_and_have_a_place() {
    check(&[
        (|_, _| {}, ""),
        (|r, _| r.models.clear(), "spec.models"),
        (|r, _| r.models[0].0 = "..".into(), "spec.models[0].name"),
        (|r, _| r.models[0].1 = "resnet".into(), "spec.models[0].uri"),
        (|r, _| r.models.push(("b".into(), "pvc://models/b".into())), ""),
        (|r, _| r.models.push(r.models[0].clone()), "spec.models[1].name"),
        (|r, _| r.models = (0..64).map(|i| (format!("m{i}"), "https://b/m".into())).collect(), ""),
        (|r, _| r.models = (0..65).map(|i| (format!("m{i}"), "https://b/m".into())).collect(), "spec.models"),
    ]);
}

#[test]
fn models_come_from_where_the_administrator_allows() {
    const URI: &str = "spec.models[0].uri";
    const ONE: &str = "spec.models[0].uri by server.modelRepositories.pvc[1].accessMode";
    let cases: [(Change, String); 9] = [
        (|r, _| r.models[0].1 = "s3://bucket/resnet".into(), URI.to_owned()),
        (|r, _| r.models[0].1 = "pvc://models/resnet".into(), String::new()),
        (
            |r, _| r.models[0].1 = "pvc://secrets/resnet".into(),
            format!("{URI} by server.modelRepositories.pvc"),
        ),
        (
            |r, _| r.models[0].1 = "http://h/resnet".into(),
            format!("{URI} by server.modelRepositories.allowHttp"),
        ),
        (
            |r, b| (b.repositories.allows_http, r.models[0].1) = (true, "http://h/resnet".into()),
            String::new(),
        ),
        (|r, _| r.models[0].1 = "pvc://disk/resnet".into(), String::new()),
        (|r, _| (r.replicas, r.models[0].1) = (Some(2), "pvc://disk/resnet".into()), ONE.to_owned()),
        (|r, _| (r.models[0].1, scaling(r).maximum) = ("pvc://disk/resnet".into(), Some(2)), ONE.to_owned()),
        (|r, _| (r.models[0].1, scaling(r).maximum) = ("pvc://disk/resnet".into(), Some(1)), String::new()),
    ];
    for (change, expected) in cases {
        check(&[(change, &expected)]);
    }
}

#[test]
fn a_place_that_is_not_allowed_says_which_are() {
    let mut request = request();
    request.models = ["pvc://secrets/a", "pvc://disk/b", "http://h/c", "file:///d"]
        .iter()
        .map(|uri| (uri.rsplit('/').next().unwrap().to_owned(), (*uri).to_owned()))
        .collect();
    request.replicas = Some(3);
    insta::assert_snapshot!(messages(&grant(&request, &bounds()).unwrap_err()), @r#"
    spec.models[0].uri: the uri names the PersistentVolumeClaim "secrets", allowed are models, disk (server.modelRepositories.pvc)
    spec.models[2].uri: the uri begins with http://, which anyone on the way can read and change: use https:// (server.modelRepositories.allowHttp)
    spec.models[3].uri: the uri begins with file://, which is never served, since replicas see no files but their own: put the model on a PersistentVolumeClaim (pvc://) or on a web server (https://)
    spec.models[1].uri: the uri names the PersistentVolumeClaim "disk", which pods of one node alone can mount (ReadWriteOnce): up to 3 replicas asked, 1 is allowed (server.modelRepositories.pvc[1].accessMode)
    "#);
    let mut bounds = bounds();
    bounds.repositories.claims.clear();
    request.models.truncate(1);
    insta::assert_snapshot!(messages(&grant(&request, &bounds).unwrap_err()), @r#"spec.models[0].uri: the uri names the PersistentVolumeClaim "secrets", none is allowed (server.modelRepositories.pvc)"#);
}

#[test]
fn resources_are_positive_and_within_the_maximum() {
    check(&[
        (|r, _| r.triton.gpus = Some(8), ""),
        (|r, _| r.triton.gpus = Some(0), ""),
        (|r, _| r.triton.gpus = Some(9), "spec.bespoke.gpus by server.resources.maximum.gpus"),
        (|r, _| r.triton.gpu_resource = "gpu".into(), "spec.bespoke.gpu_resource"),
        (|r, _| r.triton.cpu = "64000m".into(), ""),
        (|r, _| r.triton.cpu = "64001m".into(), "spec.bespoke.cpu by server.resources.maximum.cpu"),
        (|r, _| r.triton.cpu = "0".into(), "spec.bespoke.cpu"),
        (|r, _| r.triton.cpu = "-1".into(), "spec.bespoke.cpu"),
        (|r, _| r.triton.cpu = "many".into(), "spec.bespoke.cpu"),
        (|r, _| r.triton.cpu = "1u".into(), "spec.bespoke.cpu"),
        (|r, _| r.triton.memory = "512Gi".into(), ""),
        (|r, _| r.triton.memory = "513Gi".into(), "spec.bespoke.memory by server.resources.maximum.memory"),
        (|r, _| r.triton.memory = "400m".into(), "spec.bespoke.memory"),
        (|r, _| r.triton.memory = "16GB".into(), "spec.bespoke.memory"),
        (|r, _| r.triton.shared_memory = "16Gi".into(), ""),
        (|r, _| r.triton.shared_memory = "17Gi".into(), "spec.bespoke.shared_memory"),
        (|r, _| r.triton.shared_memory = "x".into(), "spec.bespoke.shared_memory"),
        // One fault is not followed by another that only a default would cause.
        (
            |r, _| (r.triton.memory, r.triton.shared_memory) = ("x".into(), "17Gi".into()),
            "spec.bespoke.memory",
        ),
        (|r, _| r.triton.image = "a b".into(), "spec.bespoke.image"),
    ]);
}

#[test]
fn an_environment_is_valid_small_and_leaves_gpus_alone() {
    check(&[
        (|r, _| r.triton.environment = map([("A", ""), ("b.c-d", "x")]), ""),
        (|r, _| r.triton.environment = map([("1A", "")]), "spec.bespoke.environment[\"1A\"]"),
        (|r, _| r.triton.environment = map([("TMS_X", "")]), "spec.bespoke.environment[\"TMS_X\"]"),
        (|r, _| r.triton.environment = map([("A", "\0")]), "spec.bespoke.environment[\"A\"]"),
        (
            |r, _| r.triton.environment = map([("A", &"x".repeat(32 * 1024 + 1))]),
            "spec.bespoke.environment[\"A\"]",
        ),
        (
            |r, _| {
                r.triton.gpus = Some(0);
                r.triton.environment = map([("NVIDIA_VISIBLE_DEVICES", "all")]);
            },
            "spec.bespoke.environment[\"NVIDIA_VISIBLE_DEVICES\"]",
        ),
        (
            |r, _| r.triton.environment = (0..129).map(|i| (format!("A{i}"), String::new())).collect(),
            "spec.bespoke.environment",
        ),
        (
            |r, _| r.triton.environment = (0..9).map(|i| (format!("A{i}"), "x".repeat(32 * 1024))).collect(),
            "spec.bespoke.environment",
        ),
    ]);
}

#[test]
fn placement_is_as_kubernetes_would_take_it() {
    check(&[
        (|r, _| r.triton.node_selector = map([("example.com/gpu", "a100")]), ""),
        (|r, _| r.triton.node_selector = map([("a/b/c", "x")]), "spec.bespoke.node_selector[\"a/b/c\"]"),
        (|r, _| r.triton.node_selector = map([("a", "x y")]), "spec.bespoke.node_selector[\"a\"]"),
        (|r, _| r.triton.tolerations = vec![toleration("a", "", "b", "", None)], ""),
        (|r, _| r.triton.tolerations = vec![toleration("", "Exists", "", "", None)], ""),
        (|r, _| r.triton.tolerations = vec![toleration("a", "Equal", "b", "NoExecute", Some(60))], ""),
        (
            |r, _| r.triton.tolerations = vec![toleration("", "", "b", "", None)],
            "spec.bespoke.tolerations[0].key",
        ),
        (
            |r, _| r.triton.tolerations = vec![toleration("a b", "", "b", "", None)],
            "spec.bespoke.tolerations[0].key",
        ),
        (
            |r, _| r.triton.tolerations = vec![toleration("a", "", "b c", "", None)],
            "spec.bespoke.tolerations[0].value",
        ),
        (
            |r, _| r.triton.tolerations = vec![toleration("a", "Exists", "b", "", None)],
            "spec.bespoke.tolerations[0].value",
        ),
        (
            |r, _| r.triton.tolerations = vec![toleration("a", "Is", "", "", None)],
            "spec.bespoke.tolerations[0].operator",
        ),
        (
            |r, _| r.triton.tolerations = vec![toleration("a", "", "", "Never", None)],
            "spec.bespoke.tolerations[0].effect",
        ),
        (
            |r, _| r.triton.tolerations = vec![toleration("a", "", "", "NoSchedule", Some(1))],
            "spec.bespoke.tolerations[0].toleration_seconds",
        ),
        (|r, _| r.triton.affinity_json = "{}".into(), ""),
        (|r, _| r.triton.affinity_json = r#"{"nodeAffinity":null}"#.into(), ""),
        (|r, _| r.triton.affinity_json = "{".into(), "spec.bespoke.affinity_json"),
        (|r, _| r.triton.affinity_json = "[]".into(), "spec.bespoke.affinity_json"),
        (|r, _| r.triton.affinity_json = r#"{"nodeAfinity":{}}"#.into(), "spec.bespoke.affinity_json"),
        (|r, _| r.triton.affinity_json = r#"{"nodeAffinity":3}"#.into(), "spec.bespoke.affinity_json"),
        (|r, _| r.triton.affinity_json = " ".repeat(1 << 20) + "{}", "spec.bespoke.affinity_json"),
    ]);
}

#[test]
fn the_models_fit_into_one_environment_variable() {
    fn models(count: usize, letter: &str) -> Vec<(String, String)> {
        let uri = format!("https://m.example/{}", letter.repeat(1_900));
        (0..count).map(|index| (format!("m{index}"), uri.clone())).collect()
    }
    check(&[
        (|r, _| r.models = models(33, "x"), ""),
        (|r, _| r.models = models(35, "x"), "spec.models"),
        (|r, _| r.models = models(20, "\""), "spec.models"),
    ]);
}

#[test]
fn lifetime_replicas_and_labels_have_ranges() {
    check(&[
        (|r, _| r.lifetime = Some(SignedDuration::from_hours(24)), ""),
        (
            |r, _| r.lifetime = Some(SignedDuration::from_hours(25)),
            "spec.lifetime by server.leases.maximumLifetime",
        ),
        (
            |r, _| r.lifetime = Some(SignedDuration::from_secs(59)),
            "spec.lifetime by server.leases.minimumLifetime",
        ),
        (|r, _| r.lifetime = Some(SignedDuration::MIN), "spec.lifetime by server.leases.minimumLifetime"),
        (|r, _| r.replicas = Some(10), ""),
        (|r, _| r.replicas = Some(0), "spec.replicas"),
        (|r, _| r.replicas = Some(11), "spec.replicas by server.autoscaling.replicas.limits.maximum"),
        (|r, b| (b.autoscaling.enabled, r.replicas) = (false, Some(2)), ""),
        (|r, _| r.labels = map([("team", "vision")]), ""),
        (|r, _| r.labels = map([("team", "a b")]), "spec.labels[\"team\"]"),
        (|r, _| r.labels = map([("tms.internal/lease", "x")]), "spec.labels[\"tms.internal/lease\"]"),
        (|r, _| r.labels = (0..33).map(|i| (format!("l{i}"), String::new())).collect(), "spec.labels"),
    ]);
}

#[test]
fn autoscaled_replicas_stay_within_the_limits() {
    check(&[
        (|r, _| *scaling(r) = AutoscalingRequest::default(), ""),
        (
            |r, b| (b.autoscaling.enabled, _) = (false, scaling(r)),
            "spec.autoscaling until server.autoscaling.enable",
        ),
        (|r, _| scaling(r).minimum = Some(2), ""),
        (
            |r, _| scaling(r).minimum = Some(0),
            "spec.autoscaling.min_replicas by server.autoscaling.replicas.limits.minimum.lowerBound",
        ),
        (
            |r, _| scaling(r).minimum = Some(3),
            "spec.autoscaling.min_replicas by server.autoscaling.replicas.limits.minimum.upperBound",
        ),
        (|r, _| scaling(r).maximum = Some(10), ""),
        (
            |r, _| scaling(r).maximum = Some(11),
            "spec.autoscaling.max_replicas by server.autoscaling.replicas.limits.maximum",
        ),
        (|r, _| scaling(r).maximum = Some(0), "spec.autoscaling.max_replicas"),
        (
            |r, _| (scaling(r).minimum, scaling(r).maximum) = (Some(2), Some(1)),
            "spec.autoscaling.max_replicas",
        ),
        (
            |r, b| (b.autoscaling.default_minimum, scaling(r).maximum) = (2, Some(1)),
            "spec.autoscaling.max_replicas by server.autoscaling.replicas.default.minimum",
        ),
        (|r, _| (r.replicas, _) = (Some(1), scaling(r)), "spec.replicas"),
    ]);
}

/// Lets leases sleep, and wake by the length of a queue.
fn allow_sleep(bounds: &mut Bounds) {
    let texts = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let allowed = [("queueName", "orders-*|returns"), ("value", "1..100")];
    let settable = allowed.map(|(key, rule)| (key.to_owned(), Allowed::parse(rule).unwrap()));
    (bounds.autoscaling.provider, bounds.autoscaling.minimum_lower_bound) = (Provider::Keda, 0);
    bounds.autoscaling.triggers = vec![TriggerBounds {
        kind: "orders".to_owned(),
        trigger_type: "rabbitmq".to_owned(),
        metric_type: TriggerMetric::AverageValue,
        authentication: None,
        fixed: texts(&[("mode", "QueueLength"), ("value", "20")]),
        settable: settable.into(),
    }];
}

fn ask_trigger(request: &mut Request, kind: &str, metadata: &[(&str, &str)]) {
    let metadata = metadata.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    scaling(request).triggers.push(TriggerRequest { kind: kind.to_owned(), metadata });
}

#[test]
fn a_lease_sleeps_only_where_something_outside_its_pods_can_wake_it() {
    const TRIGGERS: &str = "spec.autoscaling.triggers";
    const KEY: &str = "server.autoscaling.keda.triggers";
    let cases: [(Change, String); 11] = [
        (|r, b| (allow_sleep(b), scaling(r).minimum = Some(1)).1, String::new()),
        (
            |r, b| (allow_sleep(b), scaling(r).minimum = Some(0)).1,
            format!("spec.autoscaling.min_replicas by {KEY}"),
        ),
        (
            |r, b| {
                allow_sleep(b);
                scaling(r).minimum = Some(0);
                ask_trigger(r, "orders", &[("queueName", "orders-eu")]);
            },
            String::new(),
        ),
        (
            |r, b| {
                allow_sleep(b);
                ask_trigger(r, "orders", &[("queueName", "returns"), ("value", "100")]);
            },
            String::new(),
        ),
        (
            |r, _| ask_trigger(r, "orders", &[("queueName", "returns")]),
            format!("{TRIGGERS} until server.autoscaling.provider"),
        ),
        (|r, b| (allow_sleep(b), ask_trigger(r, "order", &[])).1, format!("{TRIGGERS}[0].kind by {KEY}")),
        (
            |r, b| (allow_sleep(b), ask_trigger(r, "orders", &[])).1,
            format!("{TRIGGERS}[0].metadata[\"queueName\"]"),
        ),
        (
            |r, b| (allow_sleep(b), ask_trigger(r, "orders", &[("queueName", "secrets")])).1,
            format!("{TRIGGERS}[0].metadata[\"queueName\"] by {KEY}"),
        ),
        (
            |r, b| (allow_sleep(b), ask_trigger(r, "orders", &[("queueName", "returns"), ("value", "0")])).1,
            format!("{TRIGGERS}[0].metadata[\"value\"] by {KEY}"),
        ),
        (
            |r, b| (allow_sleep(b), ask_trigger(r, "orders", &[("queueName", "returns"), ("host", "h")])).1,
            format!("{TRIGGERS}[0].metadata[\"host\"]"),
        ),
        (
            |r, b| {
                allow_sleep(b);
                ask_trigger(r, "orders", &[("queueName", "returns")]);
                ask_trigger(r, "orders", &[("queueName", "orders-eu")]);
            },
            format!("{TRIGGERS}[1].kind"),
        ),
    ];
    for (change, expected) in cases {
        check(&[(change, &expected)]);
    }
}

#[test]
fn a_lease_that_nothing_can_wake_is_told_what_could() {
    let (mut request, mut bounds) = (request(), bounds());
    allow_sleep(&mut bounds);
    scaling(&mut request).minimum = Some(0);
    let refused = grant(&request, &bounds).unwrap_err();
    insta::assert_snapshot!(messages(&refused), @"spec.autoscaling.min_replicas: a minimum of 0 asked, but no trigger from outside the pods, which alone wakes a lease without pods: add a trigger of kind orders, or ask for a minimum of 1 (server.autoscaling.keda.triggers)");
    ask_trigger(&mut request, "orders", &[("queueName", "orders-eu")]);
    let accepted = grant(&request, &bounds).unwrap();
    let sleepy = "the lease falls asleep while clients still use it once its triggers are silent: only queueTime and \
                  gpuUtilization tell KEDA of requests";
    assert!(accepted.warnings.contains(&sleepy.to_owned()), "{:?}", accepted.warnings);
}

#[test]
fn metrics_change_only_as_far_as_they_are_allowed() {
    use MetricName::{CpuUtilization, GpuUtilization, QueueTime};
    const QUEUE: &str =
        "spec.autoscaling.metrics[\"queueTime\"] by server.autoscaling.metrics.queueTime.allowed";
    const CPU: &str =
        "spec.autoscaling.metrics[\"cpuUtilization\"] by server.autoscaling.metrics.cpuUtilization.allowed";
    const NONE: &str = "spec.autoscaling.metrics by server.autoscaling.metrics";
    check(&[
        (|r, _| ask(r, "queueTime", Some(true), None), ""),
        (|r, _| ask(r, "queueTime", None, Some(i64::MAX / 1000)), ""),
        (
            |r, _| ask(r, "queueTime", None, Some(i64::MAX)),
            "spec.autoscaling.metrics[\"queueTime\"].threshold",
        ),
        (
            |r, _| ask(r, "queueTime", None, Some(9_999)),
            "spec.autoscaling.metrics[\"queueTime\"].threshold by server.autoscaling.metrics.queueTime.threshold.minimum",
        ),
        (
            |r, _| ask(r, "gpuUtilization", None, Some(101)),
            "spec.autoscaling.metrics[\"gpuUtilization\"].threshold by \
             server.autoscaling.metrics.gpuUtilization.threshold.maximum",
        ),
        (
            |r, _| ask(r, "cpuUtilization", None, Some(-1)),
            "spec.autoscaling.metrics[\"cpuUtilization\"].threshold by \
             server.autoscaling.metrics.cpuUtilization.threshold.minimum",
        ),
        (
            |r, _| ask(r, "queueTime", Some(false), Some(10_000)),
            "spec.autoscaling.metrics[\"queueTime\"].threshold",
        ),
        (|r, _| ask(r, "cpuUtilisation", None, None), "spec.autoscaling.metrics[\"cpuUtilisation\"]"),
        // What is not allowed may be named with what it is, and in no other way.
        (|r, b| (metric(b, QueueTime).allowed, _) = (false, ask(r, "queueTime", None, None)), ""),
        (|r, b| (metric(b, QueueTime).allowed, _) = (false, ask(r, "queueTime", Some(false), None)), ""),
        (|r, b| (metric(b, QueueTime).allowed, _) = (false, ask(r, "queueTime", Some(true), None)), QUEUE),
        (|r, b| (metric(b, QueueTime).allowed, _) = (false, ask(r, "queueTime", None, Some(10_000))), QUEUE),
        (
            |r, b| {
                (metric(b, CpuUtilization).allowed, _) =
                    (false, ask(r, "cpuUtilization", Some(true), Some(90)))
            },
            "",
        ),
        (
            |r, b| (metric(b, CpuUtilization).allowed, _) = (false, ask(r, "cpuUtilization", None, Some(80))),
            CPU,
        ),
        (
            |r, b| {
                (metric(b, CpuUtilization).allowed, _) = (false, ask(r, "cpuUtilization", Some(false), None))
            },
            CPU,
        ),
        (
            |r, b| {
                (metric(b, GpuUtilization).allowed, metric(b, GpuUtilization).enabled) = (false, true);
                r.triton.gpus = Some(0);
                ask(r, "gpuUtilization", Some(true), None);
            },
            "spec.autoscaling.metrics[\"gpuUtilization\"]",
        ),
        // Something has to scale the lease.
        (|r, _| ask(r, "cpuUtilization", Some(false), None), NONE),
        (|r, b| (metric(b, CpuUtilization).enabled, _) = (false, scaling(r)), NONE),
        (
            |r, b| {
                b.autoscaling
                    .metrics
                    .values_mut()
                    .for_each(|metric| (metric.allowed, metric.enabled) = (false, false));
                scaling(r);
            },
            "spec.autoscaling.metrics until server.autoscaling.metrics",
        ),
        (
            |r, b| {
                b.autoscaling
                    .metrics
                    .values_mut()
                    .for_each(|metric| (metric.allowed, metric.enabled) = (false, false));
                metric(b, GpuUtilization).enabled = true;
                r.triton.gpus = Some(0);
                scaling(r);
            },
            NONE,
        ),
    ]);
}

#[test]
fn gpu_metrics_need_gpus_that_can_be_measured() {
    const GPU: &str = "spec.autoscaling.metrics[\"gpuUtilization\"]";
    const MIG: &str = "spec.autoscaling.metrics[\"gpuMemoryUtilization\"] by server.autoscaling.gpuSource";
    check(&[
        (|r, _| (r.triton.gpus, _) = (Some(1), ask(r, "gpuUtilization", Some(true), None)), ""),
        (|r, _| (r.triton.gpus, _) = (Some(0), ask(r, "gpuUtilization", Some(true), None)), GPU),
        (|r, _| (r.triton.gpus, _) = (Some(0), ask(r, "gpuUtilization", None, Some(90))), GPU),
        (|r, _| (r.triton.gpus, _) = (Some(0), ask(r, "gpuUtilization", Some(false), None)), ""),
        (
            |r, _| {
                r.triton.gpu_resource = "nvidia.com/mig-1g.5gb".into();
                ask(r, "gpuMemoryUtilization", Some(true), None);
            },
            MIG,
        ),
        (
            |r, b| {
                b.autoscaling.gpu_source = GpuSource::Dcgm;
                r.triton.gpu_resource = "nvidia.com/mig-1g.5gb".into();
                ask(r, "gpuMemoryUtilization", Some(true), None);
            },
            "",
        ),
    ]);
}

#[test]
fn a_pace_is_one_that_kubernetes_takes() {
    const UP: &str = "spec.autoscaling.behavior.scale_up";
    let cases: [(Option<ScalingRulesRequest>, &str); 9] = [
        (rules(Some(3600), "Disabled", &[("Pods", 1, 1), ("Percent", 100, 1800)]), ""),
        (rules(None, "", &[]), ""),
        (rules(Some(3601), "", &[]), ".stabilization_window_seconds"),
        (rules(None, "Most", &[]), ".select_policy"),
        (rules(None, "", &[("Pod", 1, 1)]), ".policies[0].type"),
        (rules(None, "", &[("Pods", 1, 1), ("Pods", 0, 1)]), ".policies[1].value"),
        (rules(None, "", &[("Pods", u32::MAX, 1)]), ".policies[0].value"),
        (rules(None, "", &[("Pods", 1, 0)]), ".policies[0].period_seconds"),
        (rules(None, "", &[("Pods", 1, 1801)]), ".policies[0].period_seconds"),
    ];
    for (asked, expected) in cases {
        let mut request = request();
        scaling(&mut request).behavior.scale_up = asked;
        let found =
            grant(&request, &bounds()).err().map(|violations| faults(&violations)).unwrap_or_default();
        let expected = if expected.is_empty() { String::new() } else { format!("{UP}{expected}") };
        assert_eq!(found, expected);
    }
}

#[test]
fn a_request_meets_every_fault_at_once_in_words_to_act_on() {
    let mut request = request();
    request.models.push(("resnet".to_owned(), "https://me:secret@models.example.com/resnet".to_owned()));
    request.triton.gpus = Some(12);
    request.triton.cpu = "100".to_owned();
    request.triton.memory = "400m".to_owned();
    request.triton.affinity_json = r#"{"nodeAffinity":{"required":[]}}"#.to_owned();
    request.replicas = Some(12);
    request.lifetime = Some(SignedDuration::from_hours(48));
    request.labels = map([("tms.internal/team", "a b")]);
    scaling(&mut request).minimum = Some(3);
    scaling(&mut request).maximum = Some(12);
    ask(&mut request, "cpuUtilization", None, Some(10));
    ask(&mut request, "queueTime", None, Some(10));
    ask(&mut request, "gpuUtilisation", None, Some(10));
    insta::assert_snapshot!(messages(&grant(&request, &bounds()).unwrap_err()), @r#"
    spec.models[1].name: "resnet" is the name of spec.models[0] already, each model needs its own
    spec.models[1].uri: the uri contains credentials: leave them out, since others can read a lease; the administrator binds a Secret to the address (server.modelRepositories.https)
    spec.bespoke.gpus: 12 GPUs asked for each replica, at most 8 are allowed (server.resources.maximum.gpus)
    spec.bespoke.cpu: 100 CPU asked, at most 64 is allowed (server.resources.maximum.cpu)
    spec.bespoke.memory: "400m" is not a whole number of bytes; did you mean 400Mi?
    spec.bespoke.affinity_json: "nodeAffinity.required" is not a field of a Kubernetes Affinity
    spec.replicas: a fixed number of replicas and autoscaling asked, which exclude each other: leave one out
    spec.replicas: 12 replicas asked, at most 10 are allowed (server.autoscaling.replicas.limits.maximum)
    spec.autoscaling.min_replicas: a minimum of 3 asked, 1 to 2 are allowed (server.autoscaling.replicas.limits.minimum.upperBound)
    spec.autoscaling.max_replicas: 12 replicas asked, at most 10 are allowed (server.autoscaling.replicas.limits.maximum)
    spec.autoscaling.metrics["gpuUtilisation"]: "gpuUtilisation" is not a metric (did you mean gpuUtilization?): cpuUtilization, memoryUtilization, gpuUtilization, gpuMemoryUtilization, queueTime are
    spec.autoscaling.metrics["cpuUtilization"].threshold: 10 percent asked, 50 to 100 are allowed (server.autoscaling.metrics.cpuUtilization.threshold.minimum)
    spec.autoscaling.metrics["queueTime"].threshold: 10 microseconds asked, at least 10000 are allowed (server.autoscaling.metrics.queueTime.threshold.minimum)
    spec.lifetime: a lifetime of 48h asked, 1m to 24h is allowed (server.leases.maximumLifetime)
    spec.labels["tms.internal/team"]: "a b" is not a label value: at most 63 of A-Z a-z 0-9 _ . - are, with a letter or digit at both ends, or nothing
    spec.labels["tms.internal/team"]: "tms.internal/team" is refused: labels under tms.internal belong to TMS
    "#);
}

#[test]
fn the_guides_example_is_refused_naming_what_would_allow_it() {
    let mut bounds = bounds();
    bounds.autoscaling.enabled = false;
    bounds
        .autoscaling
        .metrics
        .values_mut()
        .for_each(|metric| (metric.allowed, metric.enabled) = (false, false));
    let mut request = request();
    ask(&mut request, "queueTime", Some(true), None);
    insta::assert_snapshot!(messages(&grant(&request, &bounds).unwrap_err()), @r#"
    spec.autoscaling: autoscaling asked, but the administrator has not enabled it (server.autoscaling.enable)
    spec.autoscaling.metrics["queueTime"]: a change of queueTime asked, but leases are not allowed to change it (server.autoscaling.metrics.queueTime.allowed)
    "#);
    bounds.autoscaling.enabled = true;
    scaling(&mut request).metrics.clear();
    insta::assert_snapshot!(messages(&grant(&request, &bounds).unwrap_err()), @"spec.autoscaling.metrics: no metric scales the lease and none may be chosen for it: the administrator has to set server.autoscaling.metrics.<metric>.allowed or .enabled to true for one of cpuUtilization, memoryUtilization, gpuUtilization, gpuMemoryUtilization, queueTime (server.autoscaling.metrics)");
    metric(&mut bounds, MetricName::QueueTime).allowed = true;
    insta::assert_snapshot!(messages(&grant(&request, &bounds).unwrap_err()), @"spec.autoscaling.metrics: no metric scales the lease: choose queueTime (server.autoscaling.metrics)");
}

#[test]
fn everything_absent_is_filled_in_canonically() {
    let mut request = request();
    request.triton.cpu = "0.5".to_owned();
    request.triton.memory = "512Mi".to_owned();
    request.triton.tolerations = vec![toleration("a", "", "", "", None)];
    scaling(&mut request).minimum = Some(2);
    scaling(&mut request).behavior.scale_down = rules(Some(10), "", &[]);
    let mut bounds = bounds();
    bounds.autoscaling.default_maximum = 1;
    let granted = grant(&request, &bounds).unwrap().granted;
    assert_eq!((granted.triton.cpu.as_str(), granted.triton.memory.as_str()), ("500m", "512Mi"));
    assert_eq!(granted.triton.shared_memory, "512Mi", "the default gives way to a small memory");
    assert_eq!(granted.triton.tolerations[0].operator, "Equal");
    assert_eq!(granted.lifetime, SignedDuration::from_hours(1));
    let Scaling::Auto(auto) = granted.scaling else { panic!("autoscaling was asked") };
    assert_eq!((auto.minimum, auto.maximum), (2, 2), "the default maximum gives way to the minimum");
    assert_eq!(auto.metrics, [(MetricName::CpuUtilization, 90)].into());
    assert_eq!(auto.behavior.scale_down.stabilization_window_seconds, 10);
    assert_eq!(auto.behavior.scale_down.select_policy, SelectPolicy::Min);
}

#[test]
fn what_may_surprise_is_told() {
    let cases: [(Change, &str); 8] = [
        (
            |r, b| {
                b.repositories.allows_http = true;
                r.models[0].1 = "http://models.example.com/internal/resnet?secret".to_owned();
            },
            "http://models.example.com/internal/resnet is fetched without Secret model-credentials: credentials are sent over https:// alone",
        ),
        (|r, _| ask(r, "gpuUtilization", None, Some(90)), ""),
        (
            |r, _| ask(r, "gpuUtilization", None, Some(91)),
            "gpuUtilization never adds a replica at a threshold of 91 percent: Kubernetes ignores deviations up to 10 percent of it",
        ),
        (
            |r, b| {
                b.autoscaling.behavior.scale_up.tolerance_milli = Some(50);
                ask(r, "gpuUtilization", None, Some(95));
            },
            "",
        ),
        (
            |r, _| {
                r.models[0].1 = "https://models.example.com/vLLM/llama".to_owned();
                ask(r, "queueTime", Some(true), None);
            },
            "queueTime may never scale this lease: vLLM and TensorRT-LLM take requests at once and queue them by themselves",
        ),
        (
            |r, _| {
                r.triton.gpu_resource = "nvidia.com/gpu.shared".to_owned();
                ask(r, "gpuUtilization", Some(true), None);
            },
            "GPUs of nvidia.com/gpu.shared serve several pods: GPU metrics measure the whole device, work of others included",
        ),
        (
            |r, b| {
                metric(b, MetricName::GpuUtilization).enabled = true;
                r.triton.gpus = Some(0);
                scaling(r);
            },
            "gpuUtilization does not scale this lease: the lease has no GPUs",
        ),
        (|r, _| r.triton.gpu_resource = "nvidia.com/gpu.shared".to_owned(), ""),
    ];
    for (change, expected) in cases {
        let (mut request, mut bounds) = (request(), bounds());
        change(&mut request, &mut bounds);
        let warnings = grant(&request, &bounds).unwrap().warnings.join("\n");
        assert_eq!(warnings, expected);
    }
}

#[test]
fn an_idle_window_holds_three_looks_and_is_no_longer_than_a_lifetime() {
    fn ask(request: &mut Request, seconds: Option<i64>) {
        let idle_window = seconds.map(SignedDuration::from_secs);
        request.automatic_renewal = Some(AutomaticRenewalRequest { idle_window });
    }
    let looks = "spec.automatic_renewal.idle_window by server.leases.automaticRenewal.lookInterval";
    check(&[
        (|r, _| ask(r, None), ""),
        (|r, _| ask(r, Some(180)), ""),
        (|r, _| ask(r, Some(179)), looks),
        (|r, _| ask(r, Some(0)), looks),
        (|r, _| ask(r, Some(86_400)), ""),
        (|r, _| ask(r, Some(86_401)), "spec.automatic_renewal.idle_window by server.leases.maximumLifetime"),
        (
            |r, b| {
                ask(r, None);
                b.automatic_renewal = None;
            },
            "spec.automatic_renewal until server.cluster.kind",
        ),
    ]);
}

#[test]
fn an_idle_window_that_nobody_names_is_the_default_and_no_longer_than_a_lifetime() {
    let (mut asked, mut bounds) = (request(), bounds());
    asked.automatic_renewal = Some(AutomaticRenewalRequest::default());
    let window =
        |bounds: &Bounds| grant(&asked, bounds).unwrap().granted.automatic_renewal.unwrap().idle_window;
    assert_eq!(window(&bounds), SignedDuration::from_mins(30));
    bounds.lifetime.maximum = SignedDuration::from_mins(10);
    bounds.lifetime.default = SignedDuration::from_mins(10);
    assert_eq!(window(&bounds), SignedDuration::from_mins(10));
}
