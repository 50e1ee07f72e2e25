//! The series of a lease, from its Tritons to those who ask for them.

use std::sync::OnceLock;

use tms_proto::v1::{Autoscaling, Lease, LeaseSpec};
use tms_tests::cluster::{Cluster, Fault, Part};
use tms_tests::pipeline::{PROMETHEUS_BY_ADDRESS, Sample};
use tms_tests::wait::{inside, until};

use crate::installation::{Client, Installation, models};
use tms_tests::node::{break_node, use_node};

/// As quick as the Prometheus itself, and as short a window as that allows; and all that the chart has for monitoring.
const QUICK: [&str; 4] = [
    "--set",
    "server.autoscaling.prometheus.scrapeInterval=5s,server.autoscaling.prometheus.scrapeTimeout=4s,server.autoscaling.prometheus.window=20s",
    "--set",
    "server.metrics.enabled=true,server.metrics.podMonitor.enabled=true,server.metrics.alerts.enabled=true,server.metrics.dashboards.enabled=true",
];

/// The installation whose leases are measured.
pub fn installation() -> Option<&'static Installation> {
    static INSTALLATION: OnceLock<Option<Installation>> = OnceLock::new();
    INSTALLATION.get_or_init(|| Installation::install_with("tms-pipeline", None, &QUICK)).as_ref()
}

/// Runs a scenario with a lease of two idle Tritons that its queue time may scale.
fn with_lease<F: Future<Output = ()>>(
    parts: &[Part],
    scenario: impl FnOnce(&'static Cluster, Lease, Vec<String>) -> F + Send,
) {
    let Some(installation) = installation() else { return };
    let cluster = installation.cluster;
    cluster.start_parts(parts);
    inside(cluster, || async {
        let client: Client<'static> = installation.client();
        let autoscaling = Autoscaling { min_replicas: Some(2), max_replicas: Some(3), ..Default::default() };
        let wish = models([("claimed", "pvc://models/claimed")]);
        let lease = client.ready(LeaseSpec { autoscaling: Some(autoscaling), ..wish }).await;
        let pods = installation.pods(&lease.id).into_iter().map(|pod| pod.name).collect();
        let id = lease.id.clone();
        scenario(cluster, lease, pods).await;
        client.release(&id).await;
    });
}

/// Waits until a query has one element for each pod, and returns them in the order of the pods.
async fn one_for_each(cluster: &Cluster, query: &str, pods: &[String]) -> Vec<Sample> {
    let all = async || {
        let mut samples = cluster.prometheus_query(query).ok()?;
        samples.sort_by(|one, other| one.label("pod").cmp(other.label("pod")));
        samples.iter().map(|sample| sample.label("pod")).eq(pods).then_some(samples)
    };
    until(&format!("{query} has one element for each of {pods:?}"), 90, all).await
}

#[test]
fn an_idle_lease_has_one_recorded_queue_time_of_zero_for_each_pod_and_the_adapter_would_find_it() {
    let _pipeline = use_node();
    with_lease(&[Part::Prometheus], async |cluster, lease, pods| {
        let name = format!("tms-{}", lease.id);
        // The PodMonitor is picked up, and its job is the one that the rules ask for.
        let up = one_for_each(cluster, &format!("up{{job=\"tms-pipeline/{name}\"}}"), &pods).await;
        assert!(up.iter().all(|sample| sample.value() == 1.0), "{up:?}");
        // The rule is picked up, and idle is 0: not nothing, and once for each pod.
        let recorded = format!("tms_avg_request_queue_duration{{tms_lease_id=\"{}\"}}", lease.id);
        let queue_time = one_for_each(cluster, &recorded, &pods).await;
        assert!(queue_time.iter().all(|sample| sample.value() == 0.0), "{queue_time:?}");
        assert!(
            queue_time.iter().all(|sample| sample.label("namespace") == "tms-pipeline"),
            "{queue_time:?}"
        );

        // What prometheus-adapter discovers by its default rules, and what it then asks.
        let discovered = cluster
            .run(
                "promtool",
                &[
                    "query",
                    "series",
                    "--match={namespace!=\"\",__name__!~\"^container_.*\"}",
                    PROMETHEUS_BY_ADDRESS,
                ],
            )
            .unwrap();
        let ours = discovered.lines().filter(|line| line.contains("tms_avg_request_queue_duration"));
        let ours: Vec<_> = ours.filter(|line| line.contains(&lease.id)).collect();
        assert_eq!(ours.len(), 2, "{discovered}");
        let asked = format!(
            "sum(tms_avg_request_queue_duration{{namespace=\"tms-pipeline\",pod=~\"{}\"}}) by (pod)",
            pods.join("|")
        );
        let answered = one_for_each(cluster, &asked, &pods).await;
        assert!(answered.iter().all(|sample| sample.value() == 0.0), "{answered:?}");
    });
}

#[test]
fn the_cpu_of_each_container_of_a_lease_is_measured() {
    let _pipeline = use_node();
    with_lease(&[Part::MetricsServer], async |cluster, lease, pods| {
        let path = format!(
            "/apis/metrics.k8s.io/v1beta1/namespaces/tms-pipeline/pods?labelSelector=tms.internal%2Flease-id%3D{}",
            lease.id
        );
        let measured = async || {
            let answer = cluster.kubectl(&["get", "--raw", &path]).ok()?;
            let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
            let mut measured = Vec::new();
            for pod in answer["items"].as_array().unwrap() {
                let triton =
                    pod["containers"].as_array().unwrap().iter().find(|one| one["name"] == "triton")?;
                // In billionths of a CPU. A Triton that looks at its own state is never quite idle.
                let cpu = triton["usage"]["cpu"].as_str().unwrap();
                assert!(cpu.trim_end_matches('n').parse::<u64>().unwrap() > 0, "{answer}");
                measured.push(pod["metadata"]["name"].as_str().unwrap().to_owned());
            }
            measured.sort();
            (measured == pods).then_some(())
        };
        until("both pods are measured", 90, measured).await;
    });
}

#[test]
fn a_frozen_prometheus_answers_nobody_until_it_is_thawed() {
    let _pipeline = break_node();
    let Some(cluster) = crate::cluster() else { return };
    cluster.start_parts(&[Part::Prometheus]);
    assert_eq!(cluster.prometheus_query("vector(1)").unwrap()[0].value(), 1.0);
    cluster.fault(Part::Prometheus, Fault::Freeze);
    let patient = ["2", "promtool", "query", "instant", PROMETHEUS_BY_ADDRESS, "vector(1)"];
    cluster.run("timeout", &patient).expect_err("nobody answers");
    cluster.fault(Part::Prometheus, Fault::Thaw);
    inside(cluster, || async {
        until("it answers again", 30, async || cluster.prometheus_query("vector(1)").ok()).await;
    });
}
