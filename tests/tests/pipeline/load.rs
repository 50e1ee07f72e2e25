//! Leases in the whole loop, as a user sets it up: Tritons are measured, TMS serves what Prometheus recorded, the autoscaler
//! decides, and clients go on asking.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tms_proto::v1::{
    Autoscaling, BespokeTriton, ExplainRequest, ExplainResponse, Lease, LeaseSpec, Metric, MetricExplanation,
};
use tms_tests::cluster::{Fault, Part};
use tms_tests::load::{Kind, Load};
use tms_tests::models::Model;
use tms_tests::pipeline::GpuFigures;
use tms_tests::triton;
use tms_tests::wait::{inside, until, until_so};

use crate::installation::{Client, Installation, models};
use crate::registration::Registration;
use crate::site::Store;
use tms_tests::node::{break_node, use_node};

/// All metrics, from Prometheus, as quick as that is, and an autoscaler without patience.
const FLAGS: [&str; 20] = [
    "--set=server.autoscaling.provider=builtin",
    "--set=server.autoscaling.builtin.prometheusUrl=http://prometheus.monitoring.svc:9090",
    "--set=server.autoscaling.gpuSource=dcgm",
    "--set=server.autoscaling.prometheus.scrapeInterval=5s",
    "--set=server.autoscaling.prometheus.scrapeTimeout=4s",
    "--set=server.autoscaling.prometheus.window=20s",
    "--set=server.autoscaling.metrics.queueTime.enabled=false",
    "--set=server.autoscaling.metrics.cpuUtilization.allowed=true",
    "--set=server.autoscaling.metrics.gpuUtilization.allowed=true",
    "--set=server.autoscaling.metrics.gpuMemoryUtilization.allowed=true",
    "--set=server.autoscaling.behavior.scaleUp.stabilizationWindowSeconds=0",
    "--set=server.autoscaling.behavior.scaleUp.policies[0].type=Pods",
    "--set=server.autoscaling.behavior.scaleUp.policies[0].value=4",
    "--set=server.autoscaling.behavior.scaleUp.policies[0].periodSeconds=15",
    "--set=server.autoscaling.behavior.scaleDown.stabilizationWindowSeconds=0",
    "--set=server.autoscaling.behavior.scaleDown.policies[0].type=Pods",
    "--set=server.autoscaling.behavior.scaleDown.policies[0].value=4",
    "--set=server.autoscaling.behavior.scaleDown.policies[0].periodSeconds=15",
    "--set=server.leases.loadTimeout=5m",
    "--set=server.resources.default.memory=512Mi",
];

/// Runs a scenario with TMS in the namespace `tms-loop`.
fn with_loop<F: Future<Output = ()>>(parts: &[Part], scenario: impl FnOnce(Client<'static>) -> F + Send) {
    static INSTALLATION: OnceLock<Option<Installation>> = OnceLock::new();
    let installation = INSTALLATION.get_or_init(|| {
        // A pipeline that is kept between runs may have that of the last one. It ends with this process or with the next.
        std::mem::forget(Registration::none("tms-loop")?);
        Installation::install_with("tms-loop", None, &FLAGS)
    });
    let Some(installation) = installation else { return };
    installation.cluster.start_parts(&[&[Part::Prometheus], parts].concat());
    inside(installation.cluster, || async { scenario(installation.client()).await });
}

/// A wish for models that metrics scale from one replica, each by its name and threshold.
fn scaling<const N: usize>(spec: LeaseSpec, maximum: u32, metrics: [(&str, i64); N]) -> LeaseSpec {
    let metric = |(name, threshold): (&str, i64)| {
        (name.to_owned(), Metric { enable: Some(true), threshold: Some(threshold) })
    };
    let autoscaling = Autoscaling {
        min_replicas: Some(1),
        max_replicas: Some(maximum),
        metrics: metrics.map(metric).into(),
        ..Autoscaling::default()
    };
    LeaseSpec { autoscaling: Some(autoscaling), ..spec }
}

fn on(spec: LeaseSpec, gpus: u32, cpu: &str) -> LeaseSpec {
    let bespoke = BespokeTriton { gpus: Some(gpus), cpu: cpu.to_owned(), ..BespokeTriton::default() };
    LeaseSpec { bespoke: Some(bespoke), ..spec }
}

fn service(lease: &Lease) -> &str {
    &lease.endpoint.as_ref().expect("it is ready").host
}

async fn explain(client: &Client<'_>, lease: &str) -> ExplainResponse {
    let request = ExplainRequest { lease_id: lease.to_owned() };
    client.leases.clone().explain(request).await.expect("it explains").into_inner()
}

fn metric<'a>(explanation: &'a ExplainResponse, name: &str) -> &'a MetricExplanation {
    explanation.metrics.iter().find(|metric| metric.name == name).expect("it scales the lease")
}

/// Waits until the autoscaler wants so many replicas, and returns the metric whose proposal won then, where one did.
async fn wants(client: &Client<'_>, lease: &str, replicas: u32) -> Option<String> {
    until_so(&format!("{replicas} replicas are wanted"), 90, async || {
        let explanation = explain(client, lease).await;
        if explanation.replicas.is_some_and(|seen| seen.desired == replicas) {
            return Ok(explanation.metrics.into_iter().find(|metric| metric.wins).map(|metric| metric.name));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        Err(format!("{explanation:#?}"))
    })
    .await
}

/// What the autoscaler says of a lease with one metric, line by line as it changes: replicas wanted, and the value.
struct Watch {
    lines: Receiver<String>,
    process: std::process::Child,
}

impl Watch {
    fn start(client: &Client<'_>, lease: &str) -> Self {
        let path = "--output=jsonpath={.status.desiredReplicas} {.status.currentMetrics[0].pods.current.averageValue}{\"\\n\"}";
        let (namespace, name) = (client.installation.namespace.name, format!("tms-{lease}"));
        let watch = ["get", "hpa", &name, "--namespace", namespace, "--watch", path];
        let mut process = client.installation.cluster.start_kubectl(&watch);
        let output = BufReader::new(process.stdout.take().expect("it was piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok())
        });
        Self { lines, process }
    }

    /// What it said from its first value on.
    fn end(mut self) -> Vec<String> {
        self.process.kill().expect("it is ours");
        self.process.wait().expect("it is ours");
        self.lines.iter().skip_while(|line| line.ends_with(' ')).collect()
    }
}

/// Requests that each pod of a lease has answered, by its models, as its Triton counts them.
async fn answered(client: &Client<'_>, lease: &str) -> BTreeMap<String, BTreeMap<String, u64>> {
    let mut answered = BTreeMap::new();
    for pod in client.installation.pods(lease) {
        let Some(address) = pod.address else { continue };
        let counters = triton::counters(address).await.unwrap_or_default();
        answered.insert(pod.name, counters.answered);
    }
    answered
}

/// A model for each kind of client, so that Triton counts them apart.
const MODELS: [(Kind, &str); 3] = [(Kind::Fresh, "fresh"), (Kind::Kept, "kept"), (Kind::Grpc, "grpc")];

#[test]
fn a_lease_goes_to_its_maximum_and_back_under_load_and_no_request_fails() {
    let _pipeline = use_node();
    with_loop(&[], async |client| {
        let slow = MODELS.map(|(_, name)| Model::echo(name).with("service_time_ms", "150"));
        let store = Store::start(&slow).await;
        let uris = MODELS.map(|(_, name)| store.uri(name));
        let spec = models([("fresh", &uris[0]), ("kept", &uris[1]), ("grpc", &uris[2])]);
        let lease = client.ready(scaling(spec, 3, [("queueTime", 10_000)])).await;
        let watch = Watch::start(&client, &lease.id);
        let idle = async || {
            let explanation = explain(&client, &lease.id).await;
            metric(&explanation, "queueTime").reported_value
        };
        assert_eq!(until("the autoscaler knows the metric", 60, idle).await, 0.0, "idle is 0");

        let cluster = client.installation.cluster;
        let mut load = Load::start(cluster, "tms-loop", service(&lease), &MODELS);
        load.free(4);
        let three = |lease: &Lease| lease.replicas.is_some_and(|seen| seen.ready == 3);
        client.until(&lease.id, "has three ready replicas", three).await;
        // A channel of gRPC finds the new ones when the server closes its connection.
        let all_take_part = async || {
            let now = answered(&client, &lease.id).await;
            let all = now.len() == 3
                && now.values().all(|pod| {
                    MODELS.iter().all(|(_, model)| pod.get(*model).is_some_and(|count| *count > 0))
                });
            if !all {
                tokio::time::sleep(Duration::from_secs(1)).await;
                return Err(format!("{now:?}"));
            }
            Ok(now)
        };
        let before = until_so("every replica is asked by every client", 60, all_take_part).await;
        tokio::time::sleep(Duration::from_secs(15)).await;
        let after = answered(&client, &lease.id).await;
        for (kind, model) in MODELS {
            let share = |pod: &String| (after[pod][model] - before[pod][model]) as f64;
            let all: f64 = before.keys().map(share).sum();
            let shares: Vec<_> = before.keys().map(|pod| share(pod) / all).collect();
            println!("{}: {all} requests, shares {shares:.2?}", kind.as_str());
            assert!(shares.iter().all(|share| *share >= 0.1), "{kind:?}: {shares:?}");
        }

        load.free(0);
        client
            .until(&lease.id, "is back at one replica", |lease| {
                lease.replicas.is_some_and(|seen| seen.desired == 1 && seen.current == 1)
            })
            .await;
        println!("replicas 1, 3, 1: {}", load.end().all_good(100));
        let said = watch.end();
        assert_eq!(said.first().map(String::as_str), Some("1 0"), "{said:?}");
        assert!(said.iter().any(|line| line.starts_with("3 ")), "{said:?}");
        assert!(said.iter().all(|line| !line.ends_with(' ')), "never <unknown>: {said:?}");
        client.release(&lease.id).await;
    });
}

#[test]
fn the_largest_of_several_metrics_wins_and_one_request_in_ten_seconds_has_the_right_queue_time() {
    let _pipeline = use_node();
    with_loop(&[Part::Dcgm], async |client| {
        let store = Store::start(&[Model::echo("slow").with("service_time_ms", "400")]).await;
        // The queue is measured and never too long.
        let thresholds = [("gpuUtilization", 50), ("gpuMemoryUtilization", 50), ("queueTime", 60_000_000)];
        let spec = on(models([("slow", &store.uri("slow"))]), 1, "20m");
        let lease = client.ready(scaling(spec, 2, thresholds)).await;
        let (cluster, pods) = (client.installation.cluster, format!("tms-{}", lease.id));
        let figures = |utilization, memory_used_mib| {
            cluster.set_gpus("tms-loop", &pods, GpuFigures { utilization, memory_used_mib });
        };
        let all_known = async || {
            let explanation = explain(&client, &lease.id).await;
            let all = explanation.metrics.iter().all(|metric| metric.reported_value == Some(0.0));
            all.then_some(explanation.metrics.len())
        };
        assert_eq!(until("the autoscaler knows that all is idle", 60, all_known).await, 3);

        // Two at once in twenty seconds: one is served at once, one waits for the other.
        let mut load = Load::start(cluster, "tms-loop", service(&lease), &[(Kind::Fresh, "slow")]);
        let queue_time = async || metric(&explain(&client, &lease.id).await, "queueTime").value;
        // The one of the beginning is counted, and not within the window.
        let success = format!("nv_inference_request_success{{pod=~\"{pods}-.+\"}}");
        let earlier = format!("sum({success}) == 1 and sum(rate({success}[20s])) == 0");
        until("what was asked at the beginning is forgotten", 60, async || {
            cluster.prometheus_query(&earlier).ok().filter(|none| !none.is_empty())
        })
        .await;
        load.together(2);
        // The first alone did not wait.
        let both = async || queue_time().await.filter(|value| *value > 10_000.0);
        let value = until("the two are measured", 60, both).await;
        assert!((150_000.0..=250_000.0).contains(&value), "{value} of two requests that take 400 ms each");
        load.end().all_good(2);

        figures(0, 30_720);
        assert_eq!(wants(&client, &lease.id, 2).await.as_deref(), Some("gpuMemoryUtilization"));
        let three_quarters = metric(&explain(&client, &lease.id).await, "gpuMemoryUtilization").value;
        assert!(three_quarters.is_some_and(|value| value > 55.0 && value <= 75.0), "{three_quarters:?}");
        // The other takes its place before the first is back, and nothing changes.
        figures(95, 0);
        until("the other metric wins", 60, async || {
            let explanation = explain(&client, &lease.id).await;
            let is_held = explanation.replicas.is_some_and(|seen| seen.desired == 2);
            assert!(is_held, "{explanation:#?}");
            (metric(&explanation, "gpuUtilization").wins
                && metric(&explanation, "gpuMemoryUtilization").proposal == Some(0))
            .then_some(())
        })
        .await;
        figures(0, 0);
        wants(&client, &lease.id, 1).await;
        client.release(&lease.id).await;
    });
}

#[test]
fn a_lease_follows_the_cpu_that_its_tritons_use() {
    let _pipeline = use_node();
    with_loop(&[Part::MetricsServer], async |client| {
        let spec = on(models([("claimed", "pvc://models/claimed")]), 0, "200m");
        let lease = client.ready(scaling(spec, 2, [("cpuUtilization", 50)])).await;
        let known = async || metric(&explain(&client, &lease.id).await, "cpuUtilization").reported_value;
        let idle = until("the autoscaler knows the metric", 90, known).await;
        assert!(idle < 50.0, "{idle} % of 200m while nobody asks");
        let mut load = Load::start(
            client.installation.cluster,
            "tms-loop",
            service(&lease),
            &[(Kind::Grpc, "claimed"), (Kind::Kept, "claimed")],
        );
        load.free(1);
        wants(&client, &lease.id, 2).await;
        load.free(0);
        wants(&client, &lease.id, 1).await;
        println!("by CPU 1, 2, 1: {}", load.end().all_good(100));
        client.release(&lease.id).await;
    });
}

#[test]
fn replicas_hold_while_prometheus_stands_still_and_the_lease_says_so() {
    let _pipeline = break_node();
    with_loop(&[Part::Dcgm], async |client| {
        let spec = on(models([("claimed", "pvc://models/claimed")]), 1, "20m");
        let lease = client.ready(scaling(spec, 2, [("gpuUtilization", 50)])).await;
        let (cluster, pods) = (client.installation.cluster, format!("tms-{}", lease.id));
        cluster.set_gpus("tms-loop", &pods, GpuFigures { utilization: 95, memory_used_mib: 0 });
        wants(&client, &lease.id, 2).await;
        cluster.fault(Part::Prometheus, Fault::Freeze);
        cluster.set_gpus("tms-loop", &pods, GpuFigures::default());
        let unknown = until_so("the autoscaler cannot read the metric", 60, async || {
            let explanation = explain(&client, &lease.id).await;
            let condition =
                |of: &&tms_proto::v1::AutoscalerCondition| of.r#type == "ScalingActive" && !of.status;
            match explanation.conditions.iter().find(condition) {
                Some(condition) => Ok((condition.reason.clone(), explanation)),
                None => Err(format!("{explanation:#?}")),
            }
        });
        let (reason, explanation) = unknown.await;
        assert_eq!(reason, "FailedGetPodsMetric");
        let error = &metric(&explanation, "gpuUtilization").error;
        assert!(error.contains("Prometheus cannot be read"), "{explanation:#?}");
        assert_eq!(explanation.replicas.map(|seen| seen.desired), Some(2));
        println!("{}", explanation.summary);
        // Two more looks of the autoscaler, each of which waits for Prometheus.
        tokio::time::sleep(Duration::from_secs(12)).await;
        let held = explain(&client, &lease.id).await;
        assert_eq!(held.replicas.map(|seen| seen.desired), Some(2), "{held:#?}");
        cluster.fault(Part::Prometheus, Fault::Thaw);
        wants(&client, &lease.id, 1).await;
        client.release(&lease.id).await;
    });
}
