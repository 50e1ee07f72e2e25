//! `tmsctl server info`.

use serde::Serialize;
use tms_proto::v1::{CapabilitiesRequest, CapabilitiesResponse, VersionRequest};

use super::Global;
use crate::failure::Failure;
use crate::text;

/// Show what the server is and what its cluster has
#[derive(Debug, clap::Args)]
#[command(after_help = "With -z: one fact on a line, its name and its value.")]
pub struct Arguments {}

#[derive(Serialize)]
struct Info {
    version: String,
    url: String,
    cluster_kind: String,
    kubernetes_version: String,
    pod_monitor: bool,
    prometheus_rule: bool,
    scaled_object: bool,
    custom_metrics: bool,
    resource_metrics: bool,
    autoscaler_tolerance: bool,
    custom_metrics_service: String,
}

pub async fn run(global: &Global) -> Result<(), Failure> {
    let form = global.form()?;
    let connection = global.connect().await?;
    let version = connection.answer("Version", connection.server().version(VersionRequest {})).await?.version;
    let found =
        connection.answer("Capabilities", connection.server().capabilities(CapabilitiesRequest {})).await?;
    let info = info(version, connection.url().to_owned(), found);
    form.print(&info, || page(&info), || lines(&info))
}

fn info(version: String, url: String, found: CapabilitiesResponse) -> Info {
    Info {
        version,
        url,
        cluster_kind: found.cluster_kind,
        kubernetes_version: found.kubernetes_version,
        pod_monitor: found.pod_monitor,
        prometheus_rule: found.prometheus_rule,
        scaled_object: found.scaled_object,
        custom_metrics: found.custom_metrics,
        resource_metrics: found.resource_metrics,
        autoscaler_tolerance: found.autoscaler_tolerance,
        custom_metrics_service: found.custom_metrics_service,
    }
}

fn page(info: &Info) -> String {
    let mut facts = vec![
        ("Server", info.version.clone()),
        ("URL", info.url.clone()),
        ("Cluster", info.cluster_kind.clone()),
        ("Kubernetes", info.kubernetes_version.clone()),
    ];
    if !info.custom_metrics_service.is_empty() {
        facts.push(("Metrics API", info.custom_metrics_service.clone()));
    }
    let facts = text::facts(&facts);
    let rows = found(info).map(|(_, what, is_there)| [what.to_owned(), yes_no(is_there).to_owned()]);
    // Where manifests are written nothing is looked for.
    let heading = if info.cluster_kind == "manifests" { "Taken for granted" } else { "Found" };
    facts + &text::section(heading, &text::table(&["WHAT", "THERE"], rows, None))
}

fn lines(info: &Info) -> String {
    let texts = [
        ("version", info.version.as_str()),
        ("url", &info.url),
        ("cluster_kind", &info.cluster_kind),
        ("kubernetes_version", &info.kubernetes_version),
        ("custom_metrics_service", &info.custom_metrics_service),
    ];
    let flags = found(info).map(|(name, _, is_there)| (name, yes_no(is_there)));
    texts.into_iter().chain(flags).map(|(name, value)| text::line(&[name, value])).collect()
}

fn found(info: &Info) -> [(&'static str, &'static str, bool); 6] {
    [
        ("pod_monitor", "PodMonitor (monitoring.coreos.com/v1)", info.pod_monitor),
        ("prometheus_rule", "PrometheusRule (monitoring.coreos.com/v1)", info.prometheus_rule),
        ("scaled_object", "ScaledObject (keda.sh/v1alpha1)", info.scaled_object),
        ("custom_metrics", "custom metrics (custom.metrics.k8s.io)", info.custom_metrics),
        ("resource_metrics", "resource metrics (metrics.k8s.io)", info.resource_metrics),
        ("autoscaler_tolerance", "tolerance of an autoscaler", info.autoscaler_tolerance),
    ]
}

fn yes_no(is_there: bool) -> &'static str {
    if is_there { "yes" } else { "no" }
}
