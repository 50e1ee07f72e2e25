//! Reads `server.autoscaling.keda`: how KEDA looks, and which triggers leases may ask for.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::builtin::url_fault;
use super::labels;
use super::reader::Reader;
use crate::domain::bounds::{Allowed, AutoscalingBounds, Keda, Provider, TriggerBounds};
use crate::domain::plan::series;
use crate::domain::scaling::{AuthenticationKind, MetricName, TriggerAuthentication, TriggerMetric};

const TRIGGERS: &str = "server.autoscaling.keda.triggers";
const PROMETHEUS: &str = "server.autoscaling.keda.prometheusUrl";

/// Reads how KEDA looks.
pub(super) fn keda(reader: &mut Reader) -> Option<Keda> {
    let key = |part: &str| format!("server.autoscaling.keda.{part}");
    let prometheus_url = reader.optional(PROMETHEUS, url_fault);
    let (second, hour) = (SignedDuration::from_secs(1), SignedDuration::from_hours(1));
    let polling_interval = reader.seconds(&key("pollingInterval"), second..=hour, None);
    let longest = SignedDuration::from_hours(24);
    let cooldown = reader.seconds(&key("cooldownPeriod"), SignedDuration::ZERO..=longest, None);
    Some(Keda {
        prometheus_url: prometheus_url?,
        polling_interval_seconds: polling_interval?,
        cooldown_seconds: cooldown?,
    })
}

/// Demands what KEDA needs for the metrics that leases may scale by.
pub(super) fn demand_prometheus(reader: &mut Reader, keda: &Keda, bounds: &AutoscalingBounds) {
    if !bounds.enabled || bounds.provider != Provider::Keda || keda.prometheus_url.is_some() {
        return;
    }
    let is_used = |name: &MetricName| bounds.metrics.get(name).is_some_and(|it| it.allowed || it.enabled);
    let recorded = MetricName::ALL.into_iter().filter(|name| series(*name).is_some());
    let recorded: Vec<_> = recorded.filter(is_used).map(MetricName::key).collect();
    if !recorded.is_empty() {
        let problem = format!(
            "must be given with server.autoscaling.provider keda, which reads {} from Prometheus",
            recorded.join(", ")
        );
        reader.fault::<()>(PROMETHEUS, problem, None);
        reader.advise("name it as KEDA reaches it, such as http://prometheus.monitoring.svc:9090");
    }
}

/// Reads the triggers that leases may ask for.
pub(super) fn triggers(reader: &mut Reader) -> Option<Vec<TriggerBounds>> {
    let read: Vec<_> = (0..reader.length(TRIGGERS)).map(|index| trigger(reader, index)).collect();
    let triggers: Vec<TriggerBounds> = read.into_iter().collect::<Option<_>>()?;
    for (index, trigger) in triggers.iter().enumerate() {
        let key = format!("{TRIGGERS}[{index}].kind");
        if let Some(first) = triggers[..index].iter().position(|earlier| earlier.kind == trigger.kind) {
            return reader.fault(&key, format!("must not repeat {TRIGGERS}[{first}].kind"), None);
        }
    }
    Some(triggers)
}

fn trigger(reader: &mut Reader, index: usize) -> Option<TriggerBounds> {
    let key = |part: &str| format!("{TRIGGERS}[{index}].{part}");
    let kind = reader.required(&key("kind"), kind_fault);
    let trigger_type = reader.required(&key("type"), type_fault);
    let words = [("AverageValue", TriggerMetric::AverageValue), ("Value", TriggerMetric::Value)];
    let metric_type = given(reader, &key("metricType"), TriggerMetric::AverageValue, |reader, key| {
        reader.choice(key, &words, None)
    });
    let authentication = authentication(reader, &key);
    let fixed = metadata(reader, &key("metadata"));
    let settable = settable(reader, &key("leaseMetadata"));
    let (fixed, settable) = (fixed?, settable?);
    demand_sound_defaults(reader, &key("metadata"), &fixed, &settable)?;
    Some(TriggerBounds {
        kind: kind?,
        trigger_type: trigger_type?,
        metric_type: metric_type?,
        authentication: authentication?,
        fixed,
        settable,
    })
}

fn authentication(
    reader: &mut Reader,
    key: &impl Fn(&str) -> String,
) -> Option<Option<TriggerAuthentication>> {
    let name = given(reader, &key("authenticationName"), None, |reader, key| {
        reader.optional(key, labels::object_fault)
    });
    let words = [
        ("TriggerAuthentication", AuthenticationKind::TriggerAuthentication),
        ("ClusterTriggerAuthentication", AuthenticationKind::ClusterTriggerAuthentication),
    ];
    let default = AuthenticationKind::TriggerAuthentication;
    let kind =
        given(reader, &key("authenticationKind"), default, |reader, key| reader.choice(key, &words, None));
    let (name, kind) = (name?, kind?);
    Some(name.map(|name| TriggerAuthentication { kind, name }))
}

/// Reads a key that may be absent.
fn given<T>(
    reader: &mut Reader,
    key: &str,
    default: T,
    read: impl FnOnce(&mut Reader, &str) -> Option<T>,
) -> Option<T> {
    if reader.is_given(key) { read(reader, key) } else { Some(default) }
}

fn metadata(reader: &mut Reader, key: &str) -> Option<BTreeMap<String, String>> {
    Some(reader.texts(key)?.into_iter().collect())
}

fn settable(reader: &mut Reader, key: &str) -> Option<BTreeMap<String, Allowed>> {
    let mut settable = BTreeMap::new();
    let mut is_sound = true;
    for (name, rule) in reader.texts(key)? {
        match Allowed::parse(&rule) {
            Some(allowed) => {
                settable.insert(name, allowed);
            }
            None => {
                is_sound = false;
                let problem = "must say what a lease may set: a range of integers such as 1..100, or texts with | between \
                               them, in which * stands for any letters, digits, -, _ and .";
                reader.fault::<()>(&format!("{key}.{name}"), problem.to_owned(), None);
            }
        }
    }
    is_sound.then_some(settable)
}

/// The value of a lease that sets none must be one that it could set.
fn demand_sound_defaults(
    reader: &mut Reader,
    key: &str,
    fixed: &BTreeMap<String, String>,
    settable: &BTreeMap<String, Allowed>,
) -> Option<()> {
    for (name, value) in fixed {
        if let Some(allowed) = settable.get(name).filter(|allowed| !allowed.admits(value)) {
            let problem = format!("must be one of the {allowed} that a lease may set");
            return reader.fault(&format!("{key}.{name}"), problem, None);
        }
    }
    Some(())
}

fn kind_fault(text: &str) -> Option<&'static str> {
    if MetricName::from_key(text).is_some() {
        return Some("must not be the name of a metric");
    }
    let is_sound = labels::object_fault(text).is_none() && text.len() <= 63;
    (!is_sound).then_some("must be 1 to 63 of a–z 0–9 - ., with a letter or digit at both ends")
}

fn type_fault(text: &str) -> Option<&'static str> {
    match text {
        "cpu" | "memory" => {
            Some("must not be cpu or memory: they measure pods, and cannot wake a lease without any")
        }
        _ => {
            let is_sound = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
            (!is_sound).then_some("must be the type of a trigger of KEDA, such as rabbitmq")
        }
    }
}
