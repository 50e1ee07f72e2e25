//! Reads `server.autoscaling.builtin`: how the server serves custom.metrics.k8s.io itself.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use url::Url;

use super::autoscaling::Prometheus;
use super::labels;
use super::reader::Reader;
use super::{ClusterKind, CustomMetrics};
use crate::domain::bounds::{AutoscalingBounds, GpuSource, Provider};

/// Name of Service and Secret where none is given.
const SERVICE_NAME: &str = "tms-custom-metrics";

/// The keys of `server.autoscaling.builtin`.
pub(super) struct Builtin {
    port: u16,
    service_name: String,
    prometheus_url: Option<String>,
}

/// Reads the keys, whoever is the provider.
pub(super) fn builtin(reader: &mut Reader) -> Option<Builtin> {
    let key = |part: &str| format!("server.autoscaling.builtin.{part}");
    let port = reader.small(&key("listenPort"), 0..=65535);
    let service_name = reader.optional(&key("serviceName"), labels::service_fault);
    let prometheus_url = reader.optional(&key("prometheusUrl"), url_fault);
    Some(Builtin {
        port: u16::try_from(port?).ok()?,
        service_name: service_name?.unwrap_or_else(|| SERVICE_NAME.to_owned()),
        prometheus_url: prometheus_url?,
    })
}

/// Returns what the server serves; nothing where another provider has the numbers, or where there are no pods to see.
pub(super) fn custom_metrics(
    reader: &mut Reader,
    builtin: Builtin,
    bounds: &AutoscalingBounds,
    prometheus: &Prometheus,
    address: IpAddr,
    cluster: &ClusterKind,
) -> Option<CustomMetrics> {
    if bounds.provider != Provider::Builtin {
        return None;
    }
    if bounds.gpu_source == GpuSource::Dcgm && builtin.prometheus_url.is_none() {
        let problem = "is not possible with server.autoscaling.provider builtin and no Prometheus: Tritons do not tell \
                       what DCGM measures";
        reader.fault::<()>("server.autoscaling.gpuSource", problem.to_owned(), None);
        reader
            .advise("set server.autoscaling.builtin.prometheusUrl, or server.autoscaling.gpuSource: triton");
    }
    demand_own_port(reader, builtin.port);
    if matches!(cluster, ClusterKind::Manifests { .. }) {
        let problem = "serves no metrics while server.cluster.kind is manifests, so that leases with metrics of Triton do \
                       not scale; the chart makes it kubernetes";
        reader.warn("server.autoscaling.provider", problem.to_owned(), None);
        return None;
    }
    bounds.enabled.then(|| CustomMetrics {
        address: SocketAddr::new(address, builtin.port),
        service_name: builtin.service_name,
        prometheus_url: builtin.prometheus_url,
        scrape_interval: Duration::from_secs(prometheus.scrape_interval_seconds.into()),
        scrape_timeout: Duration::from_secs(prometheus.scrape_timeout_seconds.into()),
        window: Duration::from_secs(prometheus.window_seconds.into()),
    })
}

fn demand_own_port(reader: &mut Reader, port: u16) {
    for other in ["server.apiService.port", "server.apiService.healthPort"] {
        if port != 0 && reader.small(other, 0..=65535) == Some(port.into()) {
            let key = "server.autoscaling.builtin.listenPort";
            reader.fault::<()>(key, format!("must be another port than {other}"), None);
        }
    }
}

pub(super) fn url_fault(text: &str) -> Option<&'static str> {
    let Ok(url) = Url::parse(text) else { return Some(NOT_A_URL) };
    let is_plain = url.query().is_none() && url.fragment().is_none();
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !is_plain {
        return Some(NOT_A_URL);
    }
    (!url.username().is_empty() || url.password().is_some()).then_some("must not hold a user or a password")
}

const NOT_A_URL: &str = "must be a URL such as http://prometheus.monitoring.svc:9090";
