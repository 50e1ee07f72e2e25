//! Figures of the server itself, and the page on which Prometheus reads them.

use std::sync::Arc;

use axum::Router;
use axum::http::header;
use axum::routing::get;
use jiff::SignedDuration;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::domain::start::ColdStart;

/// Content type of the page.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// First of the buckets of a start, in seconds; each is twice the one before it.
const FIRST_BUCKET: f64 = 0.25;
/// Buckets of a start: the last ends after more than an hour.
const BUCKETS: u16 = 15;

/// Figures of one server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    cold_start: Family<Part, Histogram, fn() -> Histogram>,
    leader: Gauge,
}

/// Part of a start.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Part {
    stage: &'static str,
}

impl Metrics {
    /// Returns figures that have counted nothing.
    pub fn new() -> Self {
        let cold_start: Family<Part, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(exponential_buckets(FIRST_BUCKET, 2.0, BUCKETS)));
        let mut registry = Registry::default();
        registry.register(
            "tms_replica_cold_start_seconds",
            "Where the first start of a lease went: time until its last needed replica was scheduled, had fetched its models, \
             had loaded them, and was ready, each from the stage before",
            cold_start.clone(),
        );
        let leader = Gauge::default();
        registry.register(
            "tms_leader",
            "Whether this server leads those of its database and makes the cluster follow: 1 or 0",
            leader.clone(),
        );
        Self { registry, cold_start, leader }
    }

    /// Counts the first start of a lease. A part that is not known is counted with the one that follows it.
    pub fn count_cold_start(&self, start: &ColdStart) {
        let parts = [
            ("scheduled", start.scheduled),
            ("fetched", start.fetched),
            ("loaded", start.loaded),
            ("ready", start.ready),
        ];
        for (stage, took) in parts {
            if let Some(took) = took {
                self.cold_start.get_or_create(&Part { stage }).observe(SignedDuration::as_secs_f64(&took));
            }
        }
    }

    /// Says whether this server leads those of its database.
    pub fn lead(&self, is_leading: bool) {
        self.leader.set(is_leading.into());
    }

    /// Returns all figures in the text format of OpenMetrics.
    pub fn page(&self) -> String {
        let mut page = String::new();
        encode(&mut page, &self.registry).expect("writing to a string succeeds");
        page
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns what answers `GET /metrics`.
pub fn router(metrics: Arc<Metrics>) -> Router {
    let answer = async move || ([(header::CONTENT_TYPE, OPEN_METRICS)], metrics.page());
    Router::new().route("/metrics", get(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_counted_by_its_known_parts() {
        let metrics = Metrics::new();
        let seconds = |seconds| Some(SignedDuration::from_secs(seconds));
        metrics.count_cold_start(&ColdStart {
            scheduled: seconds(1),
            fetched: seconds(70),
            loaded: None,
            ready: seconds(8000),
            total: SignedDuration::from_secs(8071),
        });
        let page = metrics.page();
        for line in [
            r#"tms_replica_cold_start_seconds_sum{stage="fetched"} 70.0"#,
            r#"tms_replica_cold_start_seconds_bucket{le="0.5",stage="scheduled"} 0"#,
            r#"tms_replica_cold_start_seconds_bucket{le="1.0",stage="scheduled"} 1"#,
            r#"tms_replica_cold_start_seconds_bucket{le="4096.0",stage="ready"} 0"#,
            r#"tms_replica_cold_start_seconds_count{stage="ready"} 1"#,
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        assert!(!page.contains("loaded\"}"), "{page}");
    }

    #[test]
    fn a_server_that_leads_says_so() {
        let metrics = Metrics::new();
        let says = |line: &str| metrics.page().lines().any(|found| found == line);
        assert!(says("tms_leader 0"));
        metrics.lead(true);
        assert!(says("tms_leader 1"));
    }
}
