//! A cluster with a real node and with what measures and scales: Prometheus and its operator, metrics-server, KEDA, a queue,
//! and GPUs whose figures a test sets. Each is started by the tests that need it.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::Deserialize;

use crate::cluster::{Cluster, Part, Profile};
use crate::skip;

/// Where pods and programs of the cluster find Prometheus.
pub const PROMETHEUS: &str = "http://prometheus.monitoring.svc:9090";
/// The same for those who do not ask the cluster's DNS.
pub const PROMETHEUS_BY_ADDRESS: &str = "http://10.96.0.90:9090";
/// The label that PodMonitors, ServiceMonitors and PrometheusRules carry for this Prometheus, in any namespace.
pub const PROMETHEUS_LABEL: (&str, &str) = ("release", "prometheus");
/// Where programs of the cluster find RabbitMQ.
pub const RABBITMQ: &str = "amqp://guest:guest@rabbitmq.rabbitmq.svc:5672/";

/// One element of an instant vector.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Sample {
    #[serde(rename = "metric")]
    pub labels: BTreeMap<String, String>,
    /// When it was evaluated, in seconds since 1970, and the value as Prometheus writes it.
    value: (f64, String),
}

impl Sample {
    pub fn value(&self) -> f64 {
        self.value.1.parse().expect("Prometheus writes numbers")
    }

    /// A label, or nothing where it has none of this name.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// What a GPU is said to measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GpuFigures {
    /// Percent of the time that it is busy, 0 to 100.
    pub utilization: u32,
    /// Of 40960 MiB.
    pub memory_used_mib: u32,
}

impl Cluster {
    /// Starts a pipeline for the caller alone, with none of its own parts yet. `None` as for `start`.
    pub fn pipeline(name: &str) -> Option<Self> {
        Self::start_alone(name, Profile::Pipeline).inspect_err(|reason| skip(reason)).ok()
    }

    /// Returns the pipeline that tests share: the one of `TMS_TEST_PIPELINE_DIR`, which then gets the image of this build's
    /// server, or one started for this process, with none of its own parts yet. `None` as for `start`.
    pub fn shared_pipeline() -> Option<&'static Self> {
        static SHARED: OnceLock<Result<Cluster, String>> = OnceLock::new();
        let shared = SHARED
            .get_or_init(|| Self::running_or_new("TMS_TEST_PIPELINE_DIR", "pipeline", Profile::Pipeline));
        shared.as_ref().inspect_err(|reason| skip(reason)).ok()
    }

    /// Starts parts of a pipeline and what they need, where they do not run yet, and returns when they are of use.
    pub fn start_parts(&self, parts: &[Part]) {
        let parts: Vec<_> = parts.iter().map(|part| part.as_str()).collect();
        let output = self.script("start").args(&parts).output().expect("the script runs");
        assert!(output.status.success(), "{parts:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Asks Prometheus now. Returns the elements of an instant vector, or its complaint.
    pub fn prometheus_query(&self, promql: &str) -> Result<Vec<Sample>, String> {
        let query = ["query", "instant", "--format=json", PROMETHEUS_BY_ADDRESS, promql];
        let answer = self.run("promtool", &query)?;
        serde_json::from_str(&answer).map_err(|error| format!("{answer}: {error}"))
    }

    /// Says what the GPUs measure of the pods whose names begin so, from the next scrape on. The longest beginning counts.
    pub fn set_gpus(&self, namespace: &str, pod: &str, figures: GpuFigures) {
        let values = format!(
            r#"{{"DCGM_FI_DEV_GPU_UTIL": {}, "DCGM_FI_DEV_FB_USED": {}}}"#,
            figures.utilization, figures.memory_used_mib
        );
        let data = BTreeMap::from([(format!("{namespace}.{pod}"), values)]);
        let object = serde_json::json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "dcgm-values", "namespace": "monitoring"},
            "data": data,
        });
        // A manager for each key, so that one test's figures leave those of others alone.
        let manager = format!("--field-manager={namespace}.{pod}");
        let apply = ["apply", "--server-side", "--force-conflicts", &manager, "-f", "-"];
        self.kubectl_as("admin", &apply, &object.to_string()).expect("the figures are set");
    }
}
