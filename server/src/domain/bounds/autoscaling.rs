//! Autoscaling as a lease asks for it: how many replicas, by which metrics, at which thresholds.
//!
//! A metric that is not allowed cannot be changed in any way; naming it with exactly what the administrator set changes
//! nothing and is accepted. A metric asked for by name must work on the lease's Triton; one that the administrator merely
//! enabled by default is left out there, with a warning.

use std::collections::BTreeMap;

use super::findings::{Findings, are, entry, quoted};
use super::{
    AutoscalingBounds, AutoscalingRequest, GpuSource, MetricBounds, MetricRequest, behavior, triggers,
};
use crate::domain::lease::Triton;
use crate::domain::quantity::Quantity;
use crate::domain::scaling::{Autoscaling, Behavior, MetricName};

/// Largest threshold where the administrator sets none: Kubernetes counts thousandths of it in 64 bits.
const LARGEST_THRESHOLD: i64 = i64::MAX / 1000;
/// Deviation from a threshold, in thousandths, that Kubernetes ignores unless told otherwise.
const USUAL_TOLERANCE_MILLI: u32 = 100;
/// Most unknown metrics that one answer names.
const MOST_UNKNOWN: usize = 8;

/// What is to be scaled.
pub(super) struct Subject<'a> {
    /// The Triton of each replica.
    pub triton: &'a Triton,
    /// Whether its requests wait in a queue that Triton does not see.
    pub queues_itself: bool,
}

/// Returns the autoscaling asked for, with the administrator's defaults for what is absent.
pub(super) fn granted(
    field: &str,
    request: &AutoscalingRequest,
    subject: &Subject<'_>,
    bounds: &AutoscalingBounds,
    findings: &mut Findings,
) -> Autoscaling {
    if !bounds.enabled {
        findings.refuse_until(
            "server.autoscaling.enable",
            field,
            "autoscaling asked, but the administrator has not enabled it",
        );
    }
    let (minimum, maximum) = replicas(field, request, bounds, findings);
    let metrics = metrics(&format!("{field}.metrics"), &request.metrics, subject, bounds, findings);
    let behavior =
        behavior::granted(&format!("{field}.behavior"), &request.behavior, &bounds.behavior, findings);
    warn_of_thresholds_out_of_reach(&metrics, &behavior, findings);
    let triggers = triggers::granted(&format!("{field}.triggers"), &request.triggers, bounds, findings);
    if minimum == 0 && bounds.minimum_lower_bound == 0 {
        check_waking(field, request, &metrics, bounds, findings);
    }
    Autoscaling { minimum, maximum, metrics, behavior, triggers }
}

/// What pods measure cannot wake a lease that has none.
fn check_waking(
    field: &str,
    request: &AutoscalingRequest,
    metrics: &BTreeMap<MetricName, i64>,
    bounds: &AutoscalingBounds,
    findings: &mut Findings,
) {
    if request.triggers.is_empty() {
        let known: Vec<_> = bounds.triggers.iter().map(|trigger| trigger.kind.as_str()).collect();
        let advice = if known.is_empty() {
            "the administrator allows no trigger".to_owned()
        } else {
            format!("add a trigger of kind {}", known.join(" or "))
        };
        findings.refuse_by(
            "server.autoscaling.keda.triggers",
            format!("{field}.min_replicas"),
            format!(
                "a minimum of 0 asked, but no trigger from outside the pods, which alone wakes a lease without pods: \
                 {advice}, or ask for a minimum of 1"
            ),
        );
    }
    let shows_use = |name: &MetricName| matches!(name, MetricName::QueueTime | MetricName::GpuUtilization);
    if !metrics.keys().any(shows_use) {
        findings.warn(
            "the lease falls asleep while clients still use it once its triggers are silent: only queueTime and \
             gpuUtilization tell KEDA of requests",
        );
    }
}

fn replicas(
    field: &str,
    request: &AutoscalingRequest,
    bounds: &AutoscalingBounds,
    findings: &mut Findings,
) -> (u32, u32) {
    const KEY: &str = "server.autoscaling.replicas";
    let (lower, upper, most) = (bounds.minimum_lower_bound, bounds.minimum_upper_bound, bounds.maximum);
    let minimum = request.minimum.unwrap_or(bounds.default_minimum);
    if request.minimum.is_some() && !(lower..=upper).contains(&minimum) {
        let bound = if minimum < lower { "lowerBound" } else { "upperBound" };
        findings.refuse_by(
            format!("{KEY}.limits.minimum.{bound}"),
            format!("{field}.min_replicas"),
            format!("a minimum of {minimum} asked, {lower} to {upper} {} allowed", are(upper)),
        );
    }
    let Some(maximum) = request.maximum else {
        return (minimum, bounds.default_maximum.max(minimum));
    };
    let field = format!("{field}.max_replicas");
    if maximum > most {
        let message = format!("{maximum} replicas asked, at most {most} {} allowed", are(most));
        findings.refuse_by(format!("{KEY}.limits.maximum"), field, message);
    } else if maximum == 0 {
        findings.refuse(field, format!("0 replicas asked, 1 to {most} {} allowed", are(most)));
    } else if maximum < minimum && request.minimum.is_some() {
        findings.refuse(field, format!("at most {maximum} replicas asked, but at least {minimum}, too"));
    } else if maximum < minimum {
        let message = format!(
            "at most {maximum} replicas asked, but {minimum} is the least of a lease that does not say"
        );
        findings.refuse_by(format!("{KEY}.default.minimum"), field, message);
    }
    (minimum, maximum)
}

/// Returns the threshold of each metric that scales the lease. One that was refused counts as scaling, so that its fault is
/// not followed by the complaint that nothing scales.
fn metrics(
    field: &str,
    asked: &BTreeMap<String, MetricRequest>,
    subject: &Subject<'_>,
    bounds: &AutoscalingBounds,
    findings: &mut Findings,
) -> BTreeMap<MetricName, i64> {
    let unknown: Vec<&String> = asked.keys().filter(|key| MetricName::from_key(key).is_none()).collect();
    for key in unknown.iter().take(MOST_UNKNOWN) {
        findings.refuse(entry(field, key), unknown_metric(key));
    }
    let mut active = BTreeMap::new();
    let mut choices = Vec::new();
    let mut hindered = Vec::new();
    for (&name, metric) in &bounds.metrics {
        let obstacle = obstacle(name, subject.triton, bounds.gpu_source);
        match &obstacle {
            None if metric.allowed => choices.push(name.key()),
            Some(obstacle) if metric.allowed || metric.enabled => {
                hindered.push(format!("not {} because {}", name.key(), obstacle.reason));
            }
            None | Some(_) => {}
        }
        let request = asked.get(name.key()).filter(|request| **request != MetricRequest::default());
        let threshold = match request {
            Some(request) => named(&entry(field, name.key()), name, *request, metric, obstacle, findings),
            None => unnamed(name, metric, obstacle, findings),
        };
        active.extend(threshold.map(|threshold| (name, threshold)));
    }
    if active.is_empty() && choices.is_empty() && hindered.is_empty() {
        refuse_without_choice(field, findings);
    } else if active.is_empty() && unknown.is_empty() {
        let choose = format!("choose {}", choices.join(" or "));
        let advice = if choices.is_empty() { hindered.join(", ") } else { choose };
        let message = format!("no metric scales the lease: {advice}");
        findings.refuse_by("server.autoscaling.metrics", field, message);
    }
    warn_of_misleading_metrics(&active, subject, findings);
    active
}

fn warn_of_misleading_metrics(
    active: &BTreeMap<MetricName, i64>,
    subject: &Subject<'_>,
    findings: &mut Findings,
) {
    if active.contains_key(&MetricName::QueueTime) && subject.queues_itself {
        findings.warn(
            "queueTime may never scale this lease: vLLM and TensorRT-LLM take requests at once and queue them by themselves",
        );
    }
    let resource = &subject.triton.gpu_resource;
    if active.keys().any(|name| name.needs_gpu()) && resource.ends_with(".shared") {
        findings.warn(format!(
            "GPUs of {resource} serve several pods: GPU metrics measure the whole device, work of others included"
        ));
    }
}

/// Returns the threshold of a metric that the request names, or `None` where it shall not scale the lease.
fn named(
    field: &str,
    name: MetricName,
    request: MetricRequest,
    bounds: &MetricBounds,
    obstacle: Option<Obstacle>,
    findings: &mut Findings,
) -> Option<i64> {
    let key = name.key();
    let by_default = bounds.enabled && obstacle.is_none();
    let is_enabled = request.enable.unwrap_or(by_default || request.threshold.is_some());
    let threshold = request.threshold.unwrap_or(bounds.default);
    let is_as_set = is_enabled == by_default || is_enabled == bounds.enabled;
    let is_change = !is_as_set || threshold != bounds.default;
    let is_forbidden = is_change && !bounds.allowed;
    if is_forbidden {
        findings.refuse_by(
            format!("server.autoscaling.metrics.{key}.allowed"),
            field,
            format!("a change of {key} asked, but leases are not allowed to change it"),
        );
    } else if !is_enabled && request.threshold.is_some() {
        findings.refuse(
            format!("{field}.threshold"),
            format!("a threshold of {threshold} asked for {key}, which is asked to be off: leave one out"),
        );
    } else {
        check_threshold(field, name, threshold, bounds, findings);
    }
    if !is_enabled {
        return is_forbidden.then_some(threshold);
    }
    if let Some(obstacle) = obstacle {
        let message = format!("{key} asked, but {}", obstacle.reason);
        match obstacle.key {
            Some(key) => findings.refuse_by(key, field, message),
            None => findings.refuse(field, message),
        }
    }
    Some(threshold)
}

/// Returns the threshold of a metric that the request does not name, or `None` where it does not scale the lease.
fn unnamed(
    name: MetricName,
    bounds: &MetricBounds,
    obstacle: Option<Obstacle>,
    findings: &mut Findings,
) -> Option<i64> {
    if !bounds.enabled {
        return None;
    }
    if let Some(obstacle) = obstacle {
        findings.warn(format!("{} does not scale this lease: {}", name.key(), obstacle.reason));
        return None;
    }
    Some(bounds.default)
}

fn check_threshold(
    field: &str,
    name: MetricName,
    asked: i64,
    bounds: &MetricBounds,
    findings: &mut Findings,
) {
    let unit = if name.is_percent() { "percent" } else { "microseconds" };
    let most = bounds.maximum.unwrap_or(LARGEST_THRESHOLD);
    if (bounds.minimum..=most).contains(&asked) {
        return;
    }
    let field = format!("{field}.threshold");
    let range = match bounds.maximum {
        Some(most) => format!("{} to {most} are allowed", bounds.minimum),
        None if asked < bounds.minimum => format!("at least {} are allowed", bounds.minimum),
        None => return findings.refuse(field, format!("{asked} {unit} asked, at most {most} are possible")),
    };
    let bound = if asked < bounds.minimum { "minimum" } else { "maximum" };
    findings.refuse_by(
        format!("server.autoscaling.metrics.{}.threshold.{bound}", name.key()),
        field,
        format!("{asked} {unit} asked, {range}"),
    );
}

fn refuse_without_choice(field: &str, findings: &mut Findings) {
    let names = MetricName::ALL.map(MetricName::key).join(", ");
    findings.refuse_until(
        "server.autoscaling.metrics",
        field,
        format!(
            "no metric scales the lease and none may be chosen for it: the administrator has to set \
             server.autoscaling.metrics.<metric>.allowed or .enabled to true for one of {names}"
        ),
    );
}

fn unknown_metric(key: &str) -> String {
    let distance =
        |known: &&str| strsim::damerau_levenshtein(&key.to_ascii_lowercase(), &known.to_ascii_lowercase());
    let names = MetricName::ALL.map(MetricName::key);
    // Comparing takes time that grows with the length, and nothing that long is a slip of the hand.
    let nearest = names.iter().copied().filter(|_| key.len() <= 64).min_by_key(distance);
    let hint = nearest.filter(|known| distance(known) <= known.len() / 3);
    let hint = hint.map(|known| format!(" (did you mean {known}?)")).unwrap_or_default();
    format!("{} is not a metric{hint}: {} are", quoted(key), names.join(", "))
}

/// Why a metric cannot scale the replicas of a Triton.
struct Obstacle {
    reason: String,
    /// The key of values.yaml that could remove it.
    key: Option<&'static str>,
}

fn obstacle(name: MetricName, triton: &Triton, source: GpuSource) -> Option<Obstacle> {
    let is_nothing = |text: &str| Quantity::parse(text).is_ok_and(|quantity| !quantity.is_positive());
    let of = |reason: &str| Some(Obstacle { reason: reason.to_owned(), key: None });
    match name {
        MetricName::CpuUtilization if is_nothing(&triton.cpu) => of("the lease requests no CPU"),
        MetricName::MemoryUtilization if is_nothing(&triton.memory) => of("the lease requests no memory"),
        MetricName::GpuUtilization | MetricName::GpuMemoryUtilization if triton.gpus == 0 => {
            of("the lease has no GPUs")
        }
        MetricName::GpuUtilization | MetricName::GpuMemoryUtilization
            if triton.gpu_resource.contains("mig-") && source == GpuSource::Triton =>
        {
            Some(Obstacle {
                reason: format!("Triton cannot measure the MIG devices of {}", quoted(&triton.gpu_resource)),
                key: Some("server.autoscaling.gpuSource"),
            })
        }
        MetricName::CpuUtilization
        | MetricName::MemoryUtilization
        | MetricName::GpuUtilization
        | MetricName::GpuMemoryUtilization
        | MetricName::QueueTime => None,
    }
}

/// Warns where even full use stays within the deviation that Kubernetes ignores. CPU is no such case: it has a request and
/// no limit, so that its use can exceed 100 percent.
fn warn_of_thresholds_out_of_reach(
    metrics: &BTreeMap<MetricName, i64>,
    behavior: &Behavior,
    findings: &mut Findings,
) {
    let tolerance = i64::from(behavior.scale_up.tolerance_milli.unwrap_or(USUAL_TOLERANCE_MILLI));
    for (name, threshold) in
        metrics.iter().filter(|(name, _)| name.is_percent() && **name != MetricName::CpuUtilization)
    {
        if threshold.saturating_mul(1000 + tolerance) >= 100 * 1000 {
            findings.warn(format!(
                "{} never adds a replica at a threshold of {threshold} percent: Kubernetes ignores deviations up to {} percent of it",
                name.key(),
                tolerance / 10,
            ));
        }
    }
}
