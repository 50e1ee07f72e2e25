//! Reads `server.autoscaling` by the rules A1 to A15, and says which of them the cluster leaves open (A15, A16).

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::reader::Reader;
use super::{builtin, keda, labels};
use crate::domain::bounds::{AutoscalingBounds, GpuSource, MetricBounds, Provider};
use crate::domain::scaling::{Behavior, MetricName, PolicyKind, ScalingPolicy, ScalingRules, SelectPolicy};

/// The tolerance of a cluster that is told none, in thousandths.
const CLUSTER_TOLERANCE_MILLI: i64 = 100;
/// The largest threshold of which the cluster can still count thousandths.
const LARGEST_QUEUE_TIME: i64 = i64::MAX / 1000;
const HOUR_IN_MICROSECONDS: i64 = 3_600_000_000;

/// `server.autoscaling.prometheus`, as plans need it.
pub(super) struct Prometheus {
    pub pod_monitor_labels: BTreeMap<String, String>,
    pub rule_labels: BTreeMap<String, String>,
    pub scrape_interval_seconds: u32,
    pub scrape_timeout_seconds: u32,
    pub window_seconds: u32,
    pub url: Option<String>,
}

/// Reads the bounds.
pub(super) fn bounds(reader: &mut Reader) -> Option<AutoscalingBounds> {
    let enabled = reader.boolean("server.autoscaling.enable");
    let provider = provider(reader);
    let gpu_source = reader.choice(
        "server.autoscaling.gpuSource",
        &[("triton", GpuSource::Triton), ("dcgm", GpuSource::Dcgm)],
        None,
    );
    let replicas = replicas(reader, provider);
    let behavior = behavior(reader);
    let metrics = metrics(reader);
    let triggers = keda::triggers(reader);
    let bounds = AutoscalingBounds {
        enabled: enabled?,
        provider: provider?,
        gpu_source: gpu_source?,
        default_minimum: replicas.default_minimum?,
        default_maximum: replicas.default_maximum?,
        minimum_lower_bound: replicas.lower_bound?,
        minimum_upper_bound: replicas.upper_bound?,
        maximum: replicas.maximum?,
        metrics: metrics?,
        behavior: behavior?,
        triggers: triggers?,
    };
    if bounds.enabled {
        warn_of_metrics(reader, &bounds);
    }
    Some(bounds)
}

fn provider(reader: &mut Reader) -> Option<Provider> {
    let key = "server.autoscaling.provider";
    let words = [("adapter", Provider::Adapter), ("builtin", Provider::Builtin), ("keda", Provider::Keda)];
    reader.choice(key, &words, None)
}

struct Replicas {
    default_minimum: Option<u32>,
    default_maximum: Option<u32>,
    lower_bound: Option<u32>,
    upper_bound: Option<u32>,
    maximum: Option<u32>,
}

fn replicas(reader: &mut Reader, provider: Option<Provider>) -> Replicas {
    let lower = "server.autoscaling.replicas.limits.minimum.lowerBound";
    let upper = "server.autoscaling.replicas.limits.minimum.upperBound";
    let minimum = "server.autoscaling.replicas.default.minimum";
    let maximum = "server.autoscaling.replicas.default.maximum";
    let limit = "server.autoscaling.replicas.limits.maximum";

    let lower_bound = lower_bound(reader, lower, provider);
    let upper_bound = number_of_replicas(reader, upper, "A1");
    // A lease that does not say has no trigger that could wake it.
    let default_minimum = number_of_replicas(reader, minimum, "A1");
    let default_maximum = number_of_replicas(reader, maximum, "A1");
    let most = number_of_replicas(reader, limit, "A1");

    let [lower, upper] = [(lower, lower_bound.as_ref()), (upper, upper_bound.as_ref())];
    let [minimum, maximum] = [(minimum, default_minimum.as_ref()), (maximum, default_maximum.as_ref())];
    let limit = (limit, most.as_ref());
    reader.demand_order(lower, upper, Some("A3"));
    reader.demand_order(lower, minimum, Some("A3"));
    reader.demand_order(minimum, upper, Some("A3"));
    reader.demand_order(upper, limit, Some("A3"));
    reader.demand_order(minimum, maximum, Some("A4"));
    reader.demand_order(maximum, limit, Some("A4"));
    Replicas { default_minimum, default_maximum, lower_bound, upper_bound, maximum: most }
}

/// Only KEDA wakes a lease that has no replicas.
fn lower_bound(reader: &mut Reader, key: &str, provider: Option<Provider>) -> Option<u32> {
    let bound = reader.integer(key, 0..=i64::from(i32::MAX), |_| Some("A1"));
    let bound = bound.and_then(|bound| u32::try_from(bound).ok())?;
    if bound > 0 || provider.is_none_or(|provider| provider == Provider::Keda) {
        return Some(bound);
    }
    let problem =
        "must be at least 1: leases scale to zero replicas with server.autoscaling.provider keda alone";
    reader.fault(key, problem.to_owned(), Some("A2"))
}

fn number_of_replicas(reader: &mut Reader, key: &str, rule_of_zero: &'static str) -> Option<u32> {
    let rule = |value| if value == Some(0) { Some(rule_of_zero) } else { Some("A1") };
    let value = reader.integer(key, 1..=i64::from(i32::MAX), rule)?;
    u32::try_from(value).ok()
}

fn metrics(reader: &mut Reader) -> Option<BTreeMap<MetricName, MetricBounds>> {
    let read: Vec<_> = MetricName::ALL.map(|name| metric(reader, name).map(|bounds| (name, bounds))).into();
    read.into_iter().collect()
}

fn metric(reader: &mut Reader, name: MetricName) -> Option<MetricBounds> {
    let key = |part: &str| format!("server.autoscaling.metrics.{}.{part}", name.key());
    let allowed = reader.boolean(&key("allowed"));
    let enabled = reader.boolean(&key("enabled"));
    let default = threshold(reader, name, &key("threshold.default"));
    let minimum = threshold(reader, name, &key("threshold.minimum"));
    let maximum = match name {
        MetricName::QueueTime => unbounded_threshold(reader, name, &key("threshold.maximum")),
        MetricName::CpuUtilization
        | MetricName::MemoryUtilization
        | MetricName::GpuUtilization
        | MetricName::GpuMemoryUtilization => largest_percentage(reader, &key("threshold.maximum")).map(Some),
    };

    let highest = maximum.flatten();
    let keys = [key("threshold.minimum"), key("threshold.default"), key("threshold.maximum")];
    reader.demand_order((&keys[0], minimum.as_ref()), (&keys[1], default.as_ref()), Some("A5"));
    reader.demand_order((&keys[1], default.as_ref()), (&keys[2], highest.as_ref()), Some("A5"));
    reader.demand_order((&keys[0], minimum.as_ref()), (&keys[2], highest.as_ref()), Some("A5"));
    Some(MetricBounds {
        allowed: allowed?,
        enabled: enabled?,
        default: default?,
        minimum: minimum?,
        maximum: maximum?,
    })
}

fn threshold(reader: &mut Reader, name: MetricName, key: &str) -> Option<i64> {
    let (largest, rule) = if name.is_percent() { (100, "A8") } else { (LARGEST_QUEUE_TIME, "A10") };
    reader.integer(key, 1..=largest, |value| rule_of_number(value, "A7", rule))
}

fn largest_percentage(reader: &mut Reader, key: &str) -> Option<i64> {
    let value = reader.integer(key, 1..=100, |value| rule_of_number(value, "A6", "A8"));
    if value.is_none() && reader.faults.last().is_some_and(|fault| fault.rule == Some("A6")) {
        reader.advise("0 means no upper bound for queueTime only; the largest percentage is 100");
    }
    value
}

/// Reads a largest threshold of which 0 stands for none.
fn unbounded_threshold(reader: &mut Reader, name: MetricName, key: &str) -> Option<Option<i64>> {
    match reader.integer(key, 0..=LARGEST_QUEUE_TIME, |value| rule_of_number(value, "A6", "A10"))? {
        0 => Some(None),
        _ => threshold(reader, name, key).map(Some),
    }
}

/// Tells which rule a number outside its range breaks.
fn rule_of_number(value: Option<i128>, zero: &'static str, large: &'static str) -> Option<&'static str> {
    match value {
        Some(0) => Some(zero),
        Some(1..) => Some(large),
        Some(_) | None => Some("A1"),
    }
}

fn behavior(reader: &mut Reader) -> Option<Behavior> {
    let scale_up = scaling_rules(reader, "server.autoscaling.behavior.scaleUp");
    let scale_down = scaling_rules(reader, "server.autoscaling.behavior.scaleDown");
    Some(Behavior { scale_up: scale_up?, scale_down: scale_down? })
}

fn scaling_rules(reader: &mut Reader, key: &str) -> Option<ScalingRules> {
    let stabilization = pace(reader, &format!("{key}.stabilizationWindowSeconds"), 0..=3600);
    let select_policy = reader.choice(
        &format!("{key}.selectPolicy"),
        &[("Max", SelectPolicy::Max), ("Min", SelectPolicy::Min), ("Disabled", SelectPolicy::Disabled)],
        Some("A15"),
    );
    let tolerance_milli = reader.thousandths(&format!("{key}.tolerance"), "A15");
    let list = format!("{key}.policies");
    let policies: Vec<_> =
        (0..reader.length(&list)).map(|index| policy(reader, &format!("{list}[{index}]"))).collect();
    if policies.is_empty() {
        reader.fault::<()>(&list, "must hold at least one policy".to_owned(), Some("A15"));
    }
    Some(ScalingRules {
        stabilization_window_seconds: stabilization?,
        select_policy: select_policy?,
        policies: policies.into_iter().collect::<Option<_>>()?,
        tolerance_milli: tolerance_milli?,
    })
}

fn policy(reader: &mut Reader, key: &str) -> Option<ScalingPolicy> {
    let words = [("Pods", PolicyKind::Pods), ("Percent", PolicyKind::Percent)];
    let kind = reader.choice(&format!("{key}.type"), &words, Some("A15"));
    let value = pace(reader, &format!("{key}.value"), 1..=i32::MAX.into());
    let period_seconds = pace(reader, &format!("{key}.periodSeconds"), 1..=1800);
    Some(ScalingPolicy { kind: kind?, value: value?, period_seconds: period_seconds? })
}

fn pace(reader: &mut Reader, key: &str, range: std::ops::RangeInclusive<i64>) -> Option<u32> {
    reader.integer(key, range, |_| Some("A15")).and_then(|value| u32::try_from(value).ok())
}

/// Reads how Prometheus finds and scrapes what TMS makes for it.
pub(super) fn prometheus(reader: &mut Reader) -> Option<Prometheus> {
    let key = |part: &str| format!("server.autoscaling.prometheus.{part}");
    let [interval_key, timeout_key, window_key] = ["scrapeInterval", "scrapeTimeout", "window"].map(key);
    let pod_monitor_labels = labels::labels(reader, &key("podMonitorLabels"), Some("A13"));
    let rule_labels = labels::labels(reader, &key("ruleLabels"), Some("A13"));
    let url = reader.optional(&key("url"), builtin::url_fault);
    let second = SignedDuration::from_secs(1);
    let interval = reader.seconds(&interval_key, second..=SignedDuration::from_mins(1), Some("A14"));
    let timeout = reader.seconds(&timeout_key, second..=SignedDuration::from_mins(1), Some("A14"));
    let window = reader.seconds(&window_key, second..=SignedDuration::from_hours(1), Some("A14"));
    let [shown_timeout, shown_interval] = [timeout, interval].map(|seconds| seconds.map(Seconds));
    reader.demand_order(
        (&timeout_key, shown_timeout.as_ref()),
        (&interval_key, shown_interval.as_ref()),
        Some("A14"),
    );
    if let (Some(interval), Some(window)) = (interval, window)
        && window < 4 * interval
    {
        demand_window(reader, (&interval_key, interval), (&window_key, window));
    }
    Some(Prometheus {
        pod_monitor_labels: pod_monitor_labels?,
        rule_labels: rule_labels?,
        scrape_interval_seconds: interval?,
        scrape_timeout_seconds: timeout?,
        window_seconds: window?,
        url: url?,
    })
}

fn demand_window(
    reader: &mut Reader,
    (interval_key, interval): (&str, u32),
    (window_key, window): (&str, u32),
) {
    if reader.is_default(window_key) {
        let problem = format!("must be at most a quarter of {window_key}, which is {window}s (default)");
        reader.fault::<()>(interval_key, problem, Some("A14"));
        reader.advise(&format!("set {window_key} too, to {}s or more", 4 * interval));
    } else {
        let origin = reader.origin(interval_key);
        let problem = format!("must be at least four times {interval_key}, which is {interval}s ({origin})");
        reader.fault::<()>(window_key, problem, Some("A14"));
    }
}

/// Seconds as values.yaml writes them.
#[derive(PartialEq, PartialOrd)]
struct Seconds(u32);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}s", self.0)
    }
}

/// Warns of labels that probably nobody selects.
pub(super) fn warn_of_labels(reader: &mut Reader, prometheus: &Prometheus) {
    for (part, object, labels) in [
        ("podMonitorLabels", "PodMonitors", &prometheus.pod_monitor_labels),
        ("ruleLabels", "PrometheusRules", &prometheus.rule_labels),
    ] {
        if labels.is_empty() {
            let key = format!("server.autoscaling.prometheus.{part}");
            reader.warn(
                &key,
                format!("is empty: Prometheus probably selects no {object} of TMS"),
                Some("A13"),
            );
        }
    }
}

fn warn_of_metrics(reader: &mut Reader, bounds: &AutoscalingBounds) {
    if bounds.metrics.values().all(|metric| !metric.allowed && !metric.enabled) {
        let problem = "no metric is enabled or allowed, so every request for autoscaling is refused";
        reader.warn("server.autoscaling.metrics", problem.to_owned(), Some("A11"));
    }
    let tolerance = bounds.behavior.scale_up.tolerance_milli.map_or(CLUSTER_TOLERANCE_MILLI, i64::from);
    for (name, metric) in &bounds.metrics {
        let key = |part: &str| format!("server.autoscaling.metrics.{}.{part}", name.key());
        if metric.enabled && !metric.allowed {
            let problem =
                "scales every autoscaled lease, and no lease can change that: it is not allowed".to_owned();
            reader.warn(&key("enabled"), problem, Some("A12"));
        }
        // A lease moves the threshold only of a metric that is allowed.
        let largest = metric.maximum.filter(|_| metric.allowed);
        let thresholds = [("threshold.default", Some(metric.default)), ("threshold.maximum", largest)];
        let is_used = metric.allowed || metric.enabled;
        let problem = if name.is_percent() { why_it_hardly_scales } else { why_it_is_long };
        let found = thresholds
            .into_iter()
            .filter(|_| is_used)
            .filter_map(|(part, threshold)| Some((part, problem(threshold?, tolerance)?)))
            .next();
        if let Some((part, (rule, problem))) = found {
            reader.warn(&key(part), problem, Some(rule));
        }
    }
}

fn why_it_hardly_scales(threshold: i64, tolerance_milli: i64) -> Option<(&'static str, String)> {
    let needed_milli = threshold * (1000 + tolerance_milli);
    let needed = format!("{}.{} %", needed_milli / 1000, needed_milli % 1000 / 100);
    let problem = match needed_milli {
        ..=93_500 => return None,
        93_501..100_000 => {
            format!("hardly ever adds a replica: the mean must exceed {needed}, tolerance included")
        }
        _ => format!("can never add a replica: the mean would have to exceed {needed}, tolerance included"),
    };
    Some(("A9", problem + "; choose at most 85, or set server.autoscaling.behavior.scaleUp.tolerance"))
}

fn why_it_is_long(threshold: i64, _tolerance_milli: i64) -> Option<(&'static str, String)> {
    let is_long = threshold > HOUR_IN_MICROSECONDS;
    is_long.then(|| ("A10", "is more than an hour; the unit is microseconds".to_owned()))
}
