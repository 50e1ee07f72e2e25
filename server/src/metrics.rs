//! Figures of the server itself, and the page on which Prometheus reads them.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header;
use axum::routing::get;
use jiff::SignedDuration;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::domain::census::{Census, WINDOWS};
use crate::domain::start::ColdStart;
use crate::domain::state::State;

/// Content type of the page.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// First and number of the buckets of a start, in seconds; each is twice the one before it. The last ends after more than an
/// hour.
const START_BUCKETS: (f64, u16) = (0.25, 15);
/// The same of an answer: from a millisecond to more than half a minute.
const ANSWER_BUCKETS: (f64, u16) = (0.001, 16);

/// Figures of one server. None of them names a lease or an owner, so that there are few, however many leases there are.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    cold_start: Family<Part, Histogram, fn() -> Histogram>,
    leader: Gauge,
    leases: Family<InState, Gauge>,
    ending: Family<Within, Gauge>,
    replicas: Family<Kind, Gauge>,
    gpus: Family<Kind, Gauge>,
    autoscalers: Family<Kind, Gauge>,
    passes: Timed<Outcome>,
    kubernetes_calls: Timed<Outcome>,
    database: Timed<OfDatabase>,
    rpcs: Timed<OfRpc>,
    agent_answers: Family<Outcome, Counter>,
    custom_metrics_answers: Family<HttpCode, Counter>,
    certificates: Family<Kind, Gauge>,
}

/// Part of a start.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Part {
    stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InState {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Within {
    within: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfDatabase {
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRpc {
    rpc: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpCode {
    code: u16,
}

/// How long something took, by what it was and how it ended.
type Timed<Labels> = Family<Labels, Histogram, fn() -> Histogram>;

impl Metrics {
    /// Returns figures that have counted nothing.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let cold_start = timed(
            &mut registry,
            "tms_replica_cold_start_seconds",
            "Where the first start of a lease went: time until its last needed replica was scheduled, had fetched its models, \
             had loaded them, and was ready, each from the stage before",
            || histogram(START_BUCKETS),
        );
        let leader = Gauge::default();
        registry.register(
            "tms_leader",
            "Whether this server leads those of its database and makes the cluster follow: 1 or 0",
            leader.clone(),
        );
        let build = Family::<_, Gauge>::default();
        build.get_or_create(&[("version", crate::VERSION)]).set(1);
        registry.register("tms_build_info", "The version of this server; always 1", build);
        let register = &mut registry;
        let answers = || histogram(ANSWER_BUCKETS);
        let metrics = Self {
            cold_start,
            leader,
            leases: family(register, "tms_leases", "Leases of the database that hold something, by state"),
            ending: family(
                register,
                "tms_leases_ending",
                "Leases whose time is over within this, unless it is renewed",
            ),
            replicas: family(
                register,
                "tms_lease_replicas",
                "Replicas of all leases together: wanted by them or their autoscalers, and ready",
            ),
            gpus: family(
                register,
                "tms_lease_gpus",
                "GPUs of all leases together: held by the replicas that are wanted, and reserved by the most that may be",
            ),
            autoscalers: family(
                register,
                "tms_troubled_autoscalers",
                "Autoscalers of leases that know none of their metrics (no_metric), or would go beyond their maximum (at_maximum)",
            ),
            passes: timed(
                register,
                "tms_pass_seconds",
                "Time that a pass over one lease took, by how it ended",
                answers,
            ),
            kubernetes_calls: timed(
                register,
                "tms_kubernetes_call_seconds",
                "Time that the Kubernetes API took to answer a call, by how it answered; watches are not among them",
                answers,
            ),
            database: timed(
                register,
                "tms_database_seconds",
                "Time until a write was committed (commit), and until all leases were counted (census)",
                answers,
            ),
            rpcs: timed(
                register,
                "tms_rpc_seconds",
                "Time until the answer of an RPC was over, by its code",
                answers,
            ),
            agent_answers: family(
                register,
                "tms_agent_questions",
                "Questions to the agents of replicas that load",
            ),
            custom_metrics_answers: family(
                register,
                "tms_custom_metrics_answers",
                "Answers of this server as custom.metrics.k8s.io, by HTTP status",
            ),
            certificates: family(
                register,
                "tms_certificate_expiry_timestamp_seconds",
                "When the certificate of this listener of the server expires, in seconds since 1970",
            ),
            registry,
        };
        metrics.begin();
        metrics
    }

    /// Begins the series that matter by their first count, which Prometheus would not see if they began with it.
    fn begin(&self) {
        for stage in ["scheduled", "fetched", "loaded", "ready"] {
            drop(self.cold_start.get_or_create(&Part { stage }));
        }
        for outcome in ["rested", "conflict", "cluster", "database", "restless", "lapsed", "hung"] {
            drop(self.passes.get_or_create(&Outcome { outcome }));
        }
        for outcome in ["ok", "conflict", "refused", "away", "busy"] {
            drop(self.kubernetes_calls.get_or_create(&Outcome { outcome }));
        }
        for (operation, outcome) in
            [("commit", "ok"), ("commit", "failed"), ("census", "ok"), ("census", "failed")]
        {
            drop(self.database.get_or_create(&OfDatabase { operation, outcome }));
        }
        for outcome in ["ok", "failed"] {
            drop(self.agent_answers.get_or_create(&Outcome { outcome }));
        }
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

    /// Tells how many leases there are, or that this is not known.
    pub fn tell_census(&self, census: Option<&Census>) {
        let Some(census) = census else {
            self.leases.clear();
            self.ending.clear();
            self.replicas.clear();
            self.gpus.clear();
            return;
        };
        for state in State::ALL.map(State::as_str) {
            let count = census.states.get(state).copied().unwrap_or(0);
            self.leases.get_or_create(&InState { state }).set(count.into());
        }
        for ((within, _), count) in WINDOWS.into_iter().zip(census.ending) {
            self.ending.get_or_create(&Within { within }).set(count.into());
        }
        for (family, kind, count) in [
            (&self.replicas, "wanted", census.wanted),
            (&self.replicas, "ready", census.ready),
            (&self.gpus, "held", census.gpus_held),
            (&self.gpus, "reserved", census.gpus_reserved),
        ] {
            family.get_or_create(&Kind { kind }).set(count.into());
        }
    }

    /// Tells how many autoscalers know none of their metrics, and how many would go beyond their maximum.
    pub fn tell_troubled_autoscalers(&self, counts: [u32; 2]) {
        for (kind, count) in ["no_metric", "at_maximum"].into_iter().zip(counts) {
            self.autoscalers.get_or_create(&Kind { kind }).set(count.into());
        }
    }

    /// Tells when the certificate of the API expires, in seconds since 1970, if it has one.
    pub fn tell_certificate(&self, expires_at: Option<i64>) {
        if let Some(expires_at) = expires_at {
            self.certificates.get_or_create(&Kind { kind: "api" }).set(expires_at);
        }
    }

    /// Counts a pass.
    pub fn count_pass(&self, outcome: &'static str, took: Duration) {
        self.passes.get_or_create(&Outcome { outcome }).observe(took.as_secs_f64());
    }

    /// Counts a call to the Kubernetes API.
    pub fn count_kubernetes_call(&self, outcome: &'static str, took: Duration) {
        self.kubernetes_calls.get_or_create(&Outcome { outcome }).observe(took.as_secs_f64());
    }

    /// Counts something that the database was asked for.
    pub fn count_database(&self, operation: &'static str, is_done: bool, took: Duration) {
        let outcome = if is_done { "ok" } else { "failed" };
        self.database.get_or_create(&OfDatabase { operation, outcome }).observe(took.as_secs_f64());
    }

    /// Counts an RPC. Its name must be one of ours.
    pub fn count_rpc(&self, rpc: &'static str, code: &'static str, took: Duration) {
        self.rpcs.get_or_create(&OfRpc { rpc, code }).observe(took.as_secs_f64());
    }

    /// Counts a question to an agent.
    pub fn count_agent_answer(&self, is_answered: bool) {
        let outcome = if is_answered { "ok" } else { "failed" };
        self.agent_answers.get_or_create(&Outcome { outcome }).inc();
    }

    /// Counts an answer of custom.metrics.k8s.io.
    pub fn count_custom_metrics_answer(&self, code: u16) {
        self.custom_metrics_answers.get_or_create(&HttpCode { code }).inc();
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

fn histogram((first, count): (f64, u16)) -> Histogram {
    Histogram::new(exponential_buckets(first, 2.0, count))
}

fn timed<L: Labels>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    histogram: fn() -> Histogram,
) -> Timed<L> {
    let family = Timed::<L>::new_with_constructor(histogram);
    registry.register(name, help, family.clone());
    family
}

fn family<L: Labels, M>(registry: &mut Registry, name: &str, help: &str) -> Family<L, M>
where
    M: Default + EncodeMetric + TypedMetric + fmt::Debug + Send + Sync + 'static,
{
    let family = Family::<L, M>::default();
    registry.register(name, help, family.clone());
    family
}

/// What sets one series of a family apart.
trait Labels: EncodeLabelSet + Clone + Eq + Hash + fmt::Debug + Send + Sync + 'static {}

impl<T: EncodeLabelSet + Clone + Eq + Hash + fmt::Debug + Send + Sync + 'static> Labels for T {}

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
        assert!(page.contains(r#"tms_replica_cold_start_seconds_count{stage="loaded"} 0"#), "{page}");
    }

    #[test]
    fn every_state_is_told_until_leases_cannot_be_counted() {
        let metrics = Metrics::new();
        let census = Census {
            states: [("READY", 3)].into(),
            ending: [1, 2, 3],
            wanted: 5,
            ready: 4,
            gpus_held: 10,
            gpus_reserved: 40,
        };
        metrics.tell_census(Some(&census));
        let page = metrics.page();
        for line in [
            r#"tms_leases{state="READY"} 3"#,
            r#"tms_leases{state="DEGRADED"} 0"#,
            r#"tms_leases_ending{within="1h"} 2"#,
            r#"tms_lease_replicas{kind="ready"} 4"#,
            r#"tms_lease_gpus{kind="reserved"} 40"#,
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        metrics.tell_census(None);
        assert!(!metrics.page().contains("READY"), "what is not known is not told");
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
