//! `tmsctl server bounds`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use tms_proto::v1::{self, BoundsRequest, BoundsResponse};

use super::Global;
use crate::failure::Failure;
use crate::{output, text, words};

/// Show what a lease may ask for, and what it gets where it does not ask
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The administrator sets the bounds in the server's values.yaml: server.autoscaling, server.leases, server.modelRepositories, \
server.resources.

With -z: one metric on a line: its key, whether a lease may change it, whether it is on by default, and the default, the \
smallest and the largest threshold.")]
pub struct Arguments {}

#[derive(Serialize)]
struct Bounds {
    autoscaling: Autoscaling,
    lifetime: Lifetime,
    resources: ResourceBounds,
    default_image: String,
    repositories: Repositories,
}

#[derive(Serialize)]
struct Autoscaling {
    enabled: bool,
    provider: String,
    default_minimum: u32,
    default_maximum: u32,
    minimum_lower_bound: u32,
    minimum_upper_bound: u32,
    maximum: u32,
    metrics: BTreeMap<String, Metric>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    triggers: Vec<Trigger>,
}

#[derive(Serialize)]
struct Trigger {
    kind: String,
    r#type: String,
    metadata: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Metric {
    allowed: bool,
    enabled: bool,
    threshold_default: i64,
    threshold_minimum: i64,
    threshold_maximum: Option<i64>,
}

#[derive(Serialize)]
struct Lifetime {
    minimum_seconds: u64,
    default_seconds: u64,
    maximum_seconds: u64,
}

#[derive(Serialize)]
struct ResourceBounds {
    default: Resources,
    maximum: Resources,
    gpu_resource: String,
}

#[derive(Serialize)]
struct Repositories {
    claims: Vec<String>,
    http_allowed: bool,
    maximum_bytes: u64,
    maximum_total_bytes: u64,
}

#[derive(Serialize)]
struct Resources {
    gpus: u32,
    cpu: String,
    memory: String,
}

pub async fn run(global: &Global) -> Result<(), Failure> {
    let form = global.form()?;
    let connection = global.connect().await?;
    let answer = connection.answer("Bounds", connection.server().bounds(BoundsRequest {})).await?;
    let bounds = Bounds::from(answer);
    form.print(&bounds, || page(&bounds, output::width()), || lines(&bounds))
}

fn page(bounds: &Bounds, width: Option<u16>) -> String {
    let width = text::inner(width);
    let Bounds { autoscaling, lifetime, resources, default_image, repositories } = bounds;
    let told = |seconds| words::duration(Duration::from_secs(seconds));
    let mut page = text::facts(&[
        ("Image", default_image.clone()),
        ("Models", repositories_in_words(repositories)),
        (
            "Lifetime",
            format!(
                "{} to {}, {} by default",
                told(lifetime.minimum_seconds),
                told(lifetime.maximum_seconds),
                told(lifetime.default_seconds)
            ),
        ),
        ("Replicas", format!("up to {} where fixed, 1 by default", autoscaling.maximum)),
        ("GPU", resources.gpu_resource.clone()),
        ("Autoscaling", autoscaling_in_words(autoscaling)),
    ]);
    let rows = [("default", &resources.default), ("most", &resources.maximum)];
    let rows =
        rows.map(|(name, of)| [name.to_owned(), of.gpus.to_string(), of.cpu.clone(), of.memory.clone()]);
    page +=
        &text::section("Resources of a replica", &text::table(&["", "GPUS", "CPU", "MEMORY"], rows, width));
    if autoscaling.enabled {
        page += &text::section("Metrics and their thresholds", &metric_table(autoscaling, width));
    }
    if !autoscaling.triggers.is_empty() {
        page += &text::section("Triggers", &trigger_table(autoscaling, width));
    }
    page
}

fn repositories_in_words(repositories: &Repositories) -> String {
    let places = ["https://"].into_iter().chain(repositories.http_allowed.then_some("http://"));
    let claims = repositories.claims.iter().map(|claim| format!("pvc://{claim}/"));
    let places: Vec<_> = places.map(str::to_owned).chain(claims).collect();
    // An older server says nothing of it.
    let most = match repositories.maximum_bytes {
        0 => String::new(),
        bytes => format!("; {} each", indicatif::BinaryBytes(bytes)),
    };
    let most_together = match repositories.maximum_total_bytes {
        0 => String::new(),
        bytes => format!(", {} in all", indicatif::BinaryBytes(bytes)),
    };
    format!("{}{most}{most_together}", places.join(", "))
}

fn autoscaling_in_words(autoscaling: &Autoscaling) -> String {
    if !autoscaling.enabled {
        return "not allowed".to_owned();
    }
    format!(
        "fewest {} to {}, {} by default; most {}, {} by default; by {}",
        autoscaling.minimum_lower_bound,
        autoscaling.minimum_upper_bound,
        autoscaling.default_minimum,
        autoscaling.maximum,
        autoscaling.default_maximum,
        autoscaling.provider,
    )
}

fn yes_no(is_so: bool) -> String {
    if is_so { "yes" } else { "no" }.to_owned()
}

fn metric_table(autoscaling: &Autoscaling, width: Option<u16>) -> String {
    let rows = autoscaling.metrics.iter().map(|(name, metric)| {
        let told = |value| words::threshold(name, value);
        let range = match metric.threshold_maximum {
            Some(maximum) => format!("{} to {}", told(metric.threshold_minimum), told(maximum)),
            None => format!("{} or more", told(metric.threshold_minimum)),
        };
        [name.clone(), yes_no(metric.allowed), yes_no(metric.enabled), told(metric.threshold_default), range]
    });
    text::table(&["METRIC", "ALLOWED", "ENABLED", "DEFAULT", "RANGE"], rows, width)
}

fn trigger_table(autoscaling: &Autoscaling, width: Option<u16>) -> String {
    let rows = autoscaling.triggers.iter().map(|trigger| {
        let settable = trigger.metadata.iter().map(|(key, allowed)| format!("{key}: {allowed}"));
        [trigger.kind.clone(), trigger.r#type.clone(), settable.collect::<Vec<_>>().join("; ")]
    });
    text::table(&["KIND", "TYPE", "A LEASE MAY SET"], rows, width)
}

fn lines(bounds: &Bounds) -> String {
    let fields = |(name, metric): (&String, &Metric)| {
        text::line(&[
            name.clone(),
            metric.allowed.to_string(),
            metric.enabled.to_string(),
            metric.threshold_default.to_string(),
            metric.threshold_minimum.to_string(),
            metric.threshold_maximum.map(|maximum| maximum.to_string()).unwrap_or_default(),
        ])
    };
    bounds.autoscaling.metrics.iter().map(fields).collect()
}

impl From<BoundsResponse> for Bounds {
    fn from(answer: BoundsResponse) -> Self {
        let lifetime = answer.lifetime.unwrap_or_default();
        let resources = answer.resources.unwrap_or_default();
        let repositories = answer.repositories.unwrap_or_default();
        Self {
            autoscaling: answer.autoscaling.unwrap_or_default().into(),
            lifetime: Lifetime {
                minimum_seconds: lifetime.minimum_seconds,
                default_seconds: lifetime.default_seconds,
                maximum_seconds: lifetime.maximum_seconds,
            },
            resources: ResourceBounds {
                default: resources.default.unwrap_or_default().into(),
                maximum: resources.maximum.unwrap_or_default().into(),
                gpu_resource: resources.gpu_resource,
            },
            default_image: answer.default_image,
            repositories: Repositories {
                claims: repositories.claims,
                http_allowed: repositories.http_allowed,
                maximum_bytes: repositories.maximum_bytes,
                maximum_total_bytes: repositories.maximum_total_bytes,
            },
        }
    }
}

impl From<v1::AutoscalingBounds> for Autoscaling {
    fn from(bounds: v1::AutoscalingBounds) -> Self {
        let metric = |metric: v1::MetricBounds| Metric {
            allowed: metric.allowed,
            enabled: metric.enabled,
            threshold_default: metric.threshold_default,
            threshold_minimum: metric.threshold_minimum,
            threshold_maximum: metric.threshold_maximum,
        };
        Self {
            enabled: bounds.enabled,
            provider: bounds.provider,
            default_minimum: bounds.default_minimum,
            default_maximum: bounds.default_maximum,
            minimum_lower_bound: bounds.minimum_lower_bound,
            minimum_upper_bound: bounds.minimum_upper_bound,
            maximum: bounds.maximum,
            metrics: bounds.metrics.into_iter().map(|(name, of)| (name, metric(of))).collect(),
            triggers: bounds
                .triggers
                .into_iter()
                .map(|of| Trigger { kind: of.kind, r#type: of.r#type, metadata: of.metadata })
                .collect(),
        }
    }
}

impl From<v1::Resources> for Resources {
    fn from(resources: v1::Resources) -> Self {
        Self { gpus: resources.gpus, cpu: resources.cpu, memory: resources.memory }
    }
}
