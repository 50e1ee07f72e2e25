//! Leases that KEDA scales: asleep, awake, by their queue time, and handed from one provider to the other.

use std::sync::OnceLock;

use serde_json::Value;
use tms_proto::v1::{
    ActivateRequest, Autoscaling, ExplainRequest, LeaseSpec, LeaseState, Metric, StatusRequest, Trigger,
};
use tms_tests::cluster::Part;
use tms_tests::pipeline::RABBITMQ;
use tms_tests::wait::{inside, until};

use crate::installation::{Client, Installation, models};
use crate::traffic::Traffic;
use tms_tests::node::{break_node, use_node};

/// As quick as Prometheus, KEDA and the autoscaler can be.
const QUICK: [&str; 6] = [
    "--set",
    "server.autoscaling.prometheus.scrapeInterval=5s,server.autoscaling.prometheus.scrapeTimeout=4s,server.autoscaling.prometheus.window=20s",
    "--set",
    "server.autoscaling.provider=keda,server.autoscaling.keda.prometheusUrl=http://prometheus.monitoring.svc:9090,server.autoscaling.keda.pollingInterval=5s,server.autoscaling.keda.cooldownPeriod=10s,server.autoscaling.replicas.limits.minimum.lowerBound=0,server.autoscaling.metrics.queueTime.threshold.minimum=1,server.autoscaling.behavior.scaleUp.stabilizationWindowSeconds=0,server.autoscaling.behavior.scaleDown.stabilizationWindowSeconds=0",
    "--set-json",
    r#"server.autoscaling.keda.triggers=[{"kind":"orders","type":"rabbitmq","authenticationName":"rabbitmq","metadata":{"protocol":"amqp","mode":"QueueLength","value":"20"},"leaseMetadata":{"queueName":"orders-*","value":"1..100"}}]"#,
];

/// The queue that wakes the lease.
const QUEUE: &str = "orders-eu";

fn installation() -> Option<&'static Installation> {
    static INSTALLATION: OnceLock<Option<Installation>> = OnceLock::new();
    INSTALLATION.get_or_init(|| Installation::install_with("tms-keda", None, &QUICK)).as_ref()
}

/// What lets KEDA into RabbitMQ.
fn authentication() -> String {
    format!(
        "
apiVersion: v1
kind: Secret
metadata: {{name: rabbitmq}}
stringData: {{host: \"{RABBITMQ}\"}}
---
apiVersion: keda.sh/v1alpha1
kind: TriggerAuthentication
metadata: {{name: rabbitmq}}
spec: {{secretTargetRef: [{{parameter: host, name: rabbitmq, key: host}}]}}
"
    )
}

/// Asks RabbitMQ's own interface, from a pod.
fn rabbitmq(installation: &Installation, method: &str, path: &str, body: &str) {
    let program = format!(
        "import base64, urllib.request as web\n\
         question = web.Request('http://rabbitmq.rabbitmq.svc:15672/api/{path}', {body:?}.encode(), method={method:?})\n\
         question.add_header('Authorization', 'Basic ' + base64.b64encode(b'guest:guest').decode())\n\
         question.add_header('Content-Type', 'application/json')\n\
         web.urlopen(question).read()"
    );
    installation.namespace.ask(&program).expect("RabbitMQ answers");
}

fn publish(installation: &Installation) {
    let message =
        format!(r#"{{"properties":{{}},"routing_key":"{QUEUE}","payload":"1","payload_encoding":"string"}}"#);
    rabbitmq(installation, "POST", "exchanges/%2F/amq.default/publish", &message);
}

/// From so many to three replicas, by a queue time that any traffic exceeds.
fn wish(minimum: u32, triggers: Vec<Trigger>) -> LeaseSpec {
    let queue_time = Metric { enable: Some(true), threshold: Some(1) };
    let autoscaling = Autoscaling {
        min_replicas: Some(minimum),
        max_replicas: Some(3),
        metrics: [("queueTime".to_owned(), queue_time)].into(),
        triggers,
        ..Autoscaling::default()
    };
    LeaseSpec { autoscaling: Some(autoscaling), ..models([("claimed", "pvc://models/claimed")]) }
}

async fn until_asleep(client: &Client<'_>, id: &str) {
    client.until(id, "sleeps", |lease| lease.state() == LeaseState::Asleep).await;
}

async fn until_ready(client: &Client<'_>, id: &str, replicas: u32) {
    let is_ready = |lease: &tms_proto::v1::Lease| {
        lease.state() == LeaseState::Ready && lease.replicas.is_some_and(|seen| seen.ready >= replicas)
    };
    client.until(id, &format!("has {replicas} ready replicas"), is_ready).await;
}

#[test]
fn a_lease_scales_by_its_queue_time_sleeps_and_is_woken_by_hand_and_by_a_queue() {
    let _pipeline = use_node();
    let Some(installation) = installation() else { return };
    let cluster = installation.cluster;
    cluster.start_parts(&[Part::Prometheus, Part::KedaAdapter, Part::Rabbitmq]);
    installation.namespace.create(&authentication());
    rabbitmq(installation, "PUT", &format!("queues/%2F/{QUEUE}"), "{}");
    inside(cluster, || async {
        let client = installation.client();
        let orders = Trigger {
            kind: "orders".to_owned(),
            metadata: [("queueName".to_owned(), QUEUE.to_owned())].into(),
        };
        // It begins awake, so that its models are proven.
        let lease = client.ready(wish(0, vec![orders])).await;
        let id = lease.id.as_str();
        let name = format!("tms-{id}");

        let traffic = Traffic::start(installation, &lease, "claimed");
        until_ready(&client, id, 3).await;
        let explained = client
            .leases
            .clone()
            .explain(ExplainRequest { lease_id: id.to_owned() })
            .await
            .unwrap()
            .into_inner();
        let [metric] = explained.metrics.as_slice() else { panic!("{explained:#?}") };
        assert_eq!(metric.source, "external.metrics.k8s.io/s0-prometheus", "{explained:#?}");
        assert!(metric.proposal.is_some_and(|proposal| proposal >= 3), "{explained:#?}");
        assert!(explained.unknowns.iter().any(|unknown| unknown.contains("(orders)")), "{explained:#?}");
        traffic.end().all_good();

        until_asleep(&client, id).await;
        assert!(installation.json(&["get", "deployment", &name])["spec"]["replicas"] == 0);
        let explained = client
            .leases
            .clone()
            .explain(ExplainRequest { lease_id: id.to_owned() })
            .await
            .unwrap()
            .into_inner();
        assert!(explained.summary.starts_with("The lease sleeps"), "{explained:#?}");

        client.leases.clone().activate(ActivateRequest { lease_id: id.to_owned() }).await.unwrap();
        until_ready(&client, id, 1).await;
        let awake = client.until(id, "is awake", |lease| lease.waking_since.is_none()).await;
        assert_eq!(awake.message, "");
        until_asleep(&client, id).await;
        let status = client.leases.clone().status(StatusRequest { lease_id: id.to_owned() }).await.unwrap();
        let events = status.into_inner().events;
        let activation = events.iter().find(|event| event.reason == "Activated").expect("it is told");
        assert_eq!(activation.actor, lease.owner);

        publish(installation);
        until_ready(&client, id, 1).await;
        rabbitmq(installation, "DELETE", &format!("queues/%2F/{QUEUE}/contents"), "");
        until_asleep(&client, id).await;
        client.release(id).await;
        assert_eq!(
            installation.namespace.kubectl(&["get", "hpa,scaledobject", "--output=name"]).unwrap(),
            ""
        );
    });
}

#[test]
fn a_lease_is_handed_from_keda_to_tms_and_back_with_one_autoscaler_and_no_dip() {
    // Others have leases there too.
    let _pipeline = break_node();
    let Some(installation) = installation() else { return };
    let cluster = installation.cluster;
    cluster.start_parts(&[Part::Prometheus, Part::KedaAdapter]);
    inside(cluster, || async {
        let client = installation.client();
        let lease = client.ready(wish(2, Vec::new())).await;
        let name = format!("tms-{}", lease.id);
        let autoscaler = || installation.json(&["get", "hpa", &name]);
        let of_lease = format!("tms.internal/lease-id={}", lease.id);
        let owned_by = async |kind: &str, metric: &str| {
            until(&format!("the autoscaler belongs to the {kind}"), 60, async || {
                let all = installation.json(&["get", "hpa", "--selector", &of_lease]);
                assert_eq!(all["items"].as_array().map(Vec::len), Some(1), "never two: {all}");
                let found = autoscaler();
                let is_so = found["metadata"]["ownerReferences"][0]["kind"] == kind
                    && found["spec"]["metrics"][0]["type"] == metric;
                is_so.then_some(())
            })
            .await;
        };
        until("KEDA makes an autoscaler", 60, async || {
            installation.namespace.kubectl(&["get", "hpa", &name]).ok()
        })
        .await;
        owned_by("ScaledObject", "External").await;
        let uid = autoscaler()["metadata"]["uid"].clone();
        let pods = installation.pods(&lease.id);
        // The generation of a ReplicaSet counts changes of its spec, replicas included.
        let sets = ["get", "replicasets", "--selector", &of_lease];
        let generation = || installation.json(&sets)["items"][0]["metadata"]["generation"].clone();
        let before = generation();

        for (provider, kind, metric) in
            [("builtin", "Deployment", "Pods"), ("keda", "ScaledObject", "External")]
        {
            let set = format!("server.autoscaling.provider={provider}");
            let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../helm");
            let limit = format!(
                "server.autoscaling.replicas.limits.minimum.lowerBound={}",
                if provider == "keda" { 0 } else { 1 }
            );
            installation.helm(&["upgrade", "tms", chart, "--reuse-values", "--set", &set, "--set", &limit]);
            owned_by(kind, metric).await;
            assert_eq!(autoscaler()["metadata"]["uid"], uid, "it stays the same");
            assert_eq!(generation(), before, "no replica came or went");
            assert_eq!(installation.pods(&lease.id), pods);
            let left = installation.json(&["get", "scaledobject", "--selector", &of_lease]);
            let expected = usize::from(provider == "keda");
            assert_eq!(left["items"].as_array().map(Vec::len), Some(expected), "{left}");
        }
        assert_ne!(autoscaler()["status"], Value::Null);
        // Its server is another one by now.
        let client = installation.client();
        client.until(&lease.id, "is known", |_| true).await;
        client.release(&lease.id).await;
    });
}
