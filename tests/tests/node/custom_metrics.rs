//! Leases that scale on a cluster without any monitoring: TMS itself serves custom.metrics.k8s.io.

use std::time::{Duration, SystemTime};

use jiff::SignedDuration;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tms_proto::v1::server_service_client::ServerServiceClient;
use tms_proto::v1::{Autoscaling, CapabilitiesRequest, LeaseSpec, Metric};
use tms_server::clock::{stopwatch, system_now};
use tms_tests::models::Model;
use tms_tests::wait::{inside, until};

use crate::installation::{Client, Installation, models};
use crate::registration::Registration;
use crate::site::Store;
use tms_tests::node::{break_node, use_node};

const SERIES: &str = "tms_avg_request_queue_duration";

/// Builtin, with a window that ends soon, and no patience for the way back.
const FLAGS: [&str; 9] = [
    "--set=server.autoscaling.provider=builtin",
    "--set=server.autoscaling.prometheus.scrapeInterval=5s",
    "--set=server.autoscaling.prometheus.scrapeTimeout=5s",
    "--set=server.autoscaling.prometheus.window=20s",
    "--set=server.autoscaling.behavior.scaleUp.stabilizationWindowSeconds=0",
    "--set=server.autoscaling.behavior.scaleDown.stabilizationWindowSeconds=0",
    "--set=server.autoscaling.behavior.scaleDown.policies[0].type=Pods",
    "--set=server.autoscaling.behavior.scaleDown.policies[0].value=4",
    "--set=server.autoscaling.behavior.scaleDown.policies[0].periodSeconds=15",
];

/// Asks a model all the time, four at a time, for this many seconds.
const ASK_FOR: &str = r#"
import json, sys, threading, time, urllib.request
url, end = sys.argv[1], time.monotonic() + float(sys.argv[2])
question = json.dumps({"inputs": [{"name": "INPUT", "datatype": "FP32", "shape": [1], "data": [1.5]}]}).encode()
def ask():
    while time.monotonic() < end:
        urllib.request.urlopen(urllib.request.Request(url, question), timeout=60).read()
threads = [threading.Thread(target=ask) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"#;

/// Asks the server itself, without a certificate, and with a token and the name of a user instead of it.
const ASK_DIRECTLY: &str = r#"
import ssl, sys, urllib.error, urllib.request
context = ssl._create_unverified_context()
for headers in [{}, {"X-Remote-User": "system:masters", "Authorization": "Bearer admin-token"}]:
    try:
        print(urllib.request.urlopen(urllib.request.Request(sys.argv[1], headers=headers), context=context, timeout=10).status)
    except urllib.error.HTTPError as error:
        print(error.code)
"#;

fn scaling(model: &str, uri: &str) -> LeaseSpec {
    let target = Metric { threshold: Some(10_000), ..Metric::default() };
    let autoscaling = Autoscaling {
        min_replicas: Some(1),
        max_replicas: Some(2),
        metrics: [("queueTime".to_owned(), target)].into(),
        ..Autoscaling::default()
    };
    LeaseSpec { autoscaling: Some(autoscaling), ..models([(model, uri)]) }
}

/// What the autoscaler of a lease has seen last of the metric; nothing while that is unknown.
fn seen(client: &Client<'_>, lease: &str) -> Option<String> {
    let autoscaler = client.installation.json(&["get", "hpa", &format!("tms-{lease}")]);
    autoscaler["status"]["currentMetrics"][0]["pods"]["current"]["averageValue"].as_str().map(str::to_owned)
}

/// What the Kubernetes API answers for the pods of a lease.
fn raw(client: &Client<'_>, version: &str, lease: &str) -> Value {
    let namespace = client.installation.namespace.name;
    let path = format!(
        "/apis/custom.metrics.k8s.io/{version}/namespaces/{namespace}/pods/*/{SERIES}?labelSelector=tms.internal%2Flease-id%3D{lease}"
    );
    let answer = client.installation.cluster.kubectl(&["get", "--raw", &path]).expect("it is answered");
    serde_json::from_str(&answer).expect("JSON")
}

#[test]
fn a_lease_scales_out_and_in_by_its_queue_on_a_cluster_without_prometheus() {
    let _node = use_node();
    let Some(_registration) = Registration::none("tms-builtin") else { return };
    let Some(installation) = Installation::install_with("tms-builtin", None, &FLAGS) else { return };
    inside(installation.cluster, || async { scales(installation.client()).await });
}

async fn scales(client: Client<'_>) {
    let store = Store::start(&[Model::echo("slow").with("service_time_ms", "100")]).await;
    let lease = client.ready(scaling("slow", &store.uri("slow"))).await;
    let ready = stopwatch();
    let first = until("the autoscaler knows the metric", 30, async || seen(&client, &lease.id)).await;
    println!("known {:.1} s after READY", ready.elapsed().as_secs_f64());
    assert_eq!(first, "0", "idle is 0");

    for (version, name) in [("v1beta1", "/items/0/metricName"), ("v1beta2", "/items/0/metric/name")] {
        let answer = raw(&client, version, &lease.id);
        assert_eq!(answer.pointer(name), Some(&Value::from(SERIES)), "{answer}");
        assert_eq!(answer["items"].as_array().map(Vec::len), Some(1), "{answer}");
        assert_eq!(answer["items"][0]["value"], "0", "{answer}");
        assert_eq!(
            answer["items"][0]["describedObject"]["name"],
            client.installation.pods(&lease.id)[0].name.as_str()
        );
    }
    let namespace = client.installation.namespace.name;
    assert_eq!(holder(&client).await, format!("{namespace}/tms-custom-metrics"));

    let url = format!("https://tms-custom-metrics.{namespace}.svc/apis/custom.metrics.k8s.io/v1beta1");
    let python = |program: &str, args: &[&str]| {
        let command = [&["python3", "-c", program], args].concat();
        client.installation.cluster.run_in_pod(namespace, "client", "client", &command)
    };
    assert_eq!(python(ASK_DIRECTLY, &[&url]).as_deref(), Ok("401\n401\n"));

    let endpoint = lease.endpoint.as_ref().expect("it is ready");
    let model = format!("http://{}:{}/v2/models/slow/infer", endpoint.host, endpoint.http_port);
    std::thread::scope(|scope| {
        let cluster = client.installation.cluster;
        let command = ["python3", "-c", ASK_FOR, &model, "40"].map(str::to_owned);
        let asking = scope.spawn(move || {
            let command: Vec<_> = command.iter().map(String::as_str).collect();
            cluster.run_in_pod(namespace, "client", "client", &command)
        });
        let begun = stopwatch();
        while client.installation.pods(&lease.id).len() < 2 {
            assert!(begun.elapsed() < Duration::from_secs(40), "{}", raw(&client, "v1beta1", &lease.id));
            std::thread::sleep(Duration::from_millis(500));
        }
        println!("two replicas are wanted {:.1} s after the load began", begun.elapsed().as_secs_f64());
        asking.join().expect("it ends").expect("every request is answered");
    });
    is_replaced_before_its_end(&client, &lease.id).await;
    client
        .until(&lease.id, "is back at one replica", |lease| {
            lease.replicas.as_ref().is_some_and(|replicas| replicas.desired == 1 && replicas.ready == 1)
        })
        .await;
    client.release(&lease.id).await;
}

/// Puts a certificate in the place of the server's that ends in a month, and asks until the server has made another. Every
/// question is answered meanwhile.
async fn is_replaced_before_its_end(client: &Client<'_>, lease: &str) {
    const SECRET: &str = "secret/tms-custom-metrics";
    let namespace = &client.installation.namespace;
    let mut certificate =
        CertificateParams::new([format!("tms-custom-metrics.{}.svc", namespace.name)]).expect("a name");
    let in_a_month = system_now() + SignedDuration::from_hours(24 * 30);
    certificate.not_after = SystemTime::from(in_a_month).into();
    let key = KeyPair::generate().expect("a key");
    let ending = certificate.self_signed(&key).expect("a certificate").pem();
    let patch = json!({ "stringData": { "tls.crt": ending, "tls.key": key.serialize_pem() } });
    let authorities = || client.installation.json(&["get", SECRET])["data"]["ca.crt"].clone();
    let before = authorities();
    namespace
        .kubectl(&["patch", SECRET, "--type=merge", "--patch", &patch.to_string()])
        .expect("it is put there");

    let believed = || {
        let service = client.installation.json(&["get", "apiservice", "v1beta1.custom.metrics.k8s.io"]);
        service["spec"]["caBundle"].clone()
    };
    until("the API server believes another authority", 60, async || {
        raw(client, "v1beta1", lease);
        (believed() != before).then_some(())
    })
    .await;
    for _ in 0..20 {
        raw(client, "v1beta1", lease);
    }
    assert_eq!(believed(), authorities(), "what servers share is what the API server believes");
}

#[test]
fn an_api_that_another_serves_is_left_alone_until_it_is_free_and_goes_with_the_release() {
    let _node = break_node();
    let Some(registration) = Registration::none("tms-rival") else { return };
    registration.0.create(OF_ANOTHER).expect("it is created");
    let Some(installation) = Installation::install_with("tms-rival", None, &FLAGS) else { return };
    inside(installation.cluster, || async { is_left_alone(installation.client()).await });
}

/// That of a custom-metrics adapter.
const OF_ANOTHER: &str = "
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.custom.metrics.k8s.io}
spec:
  group: custom.metrics.k8s.io
  version: v1beta1
  groupPriorityMinimum: 100
  versionPriority: 100
  insecureSkipTLSVerify: true
  service: {namespace: monitoring, name: prometheus-adapter}
";

async fn is_left_alone(client: Client<'_>) {
    let installation = client.installation;
    let log = || installation.namespace.kubectl(&["logs", "deployment/tms"]).unwrap_or_default();
    let services = || {
        let path = "--output=jsonpath={range .items[?(@.spec.group==\"custom.metrics.k8s.io\")]}{.metadata.name} \
                    {.spec.service.namespace}/{.spec.service.name} {end}";
        installation.cluster.kubectl(&["get", "apiservices", path]).expect("they are listed")
    };
    until("the log says who serves it", 30, async || {
        log().contains("monitoring/prometheus-adapter serves it already").then_some(())
    })
    .await;
    assert_eq!(services().trim(), "v1beta1.custom.metrics.k8s.io monitoring/prometheus-adapter");
    assert_eq!(holder(&client).await, "monitoring/prometheus-adapter");
    let lease = client.ready(scaling("claimed", "pvc://models/claimed")).await;
    client.release(&lease.id).await;

    installation
        .cluster
        .kubectl(&["delete", "apiservice", "v1beta1.custom.metrics.k8s.io"])
        .expect("it goes");
    let ours = "v1beta1.custom.metrics.k8s.io tms-rival/tms-custom-metrics v1beta2.custom.metrics.k8s.io \
                tms-rival/tms-custom-metrics";
    until("the API is taken up", 60, async || (services().trim() == ours).then_some(())).await;
    until("the API server reaches the server", 60, async || {
        let ready =
            ["wait", "apiservice/v1beta1.custom.metrics.k8s.io", "--for=condition=Available", "--timeout=5s"];
        installation.cluster.kubectl(&ready).ok()
    })
    .await;

    installation
        .cluster
        .run("helm", &["uninstall", "tms", "--namespace", "tms-rival", "--wait"])
        .expect("it goes");
    until("the registration goes with the release", 60, async || services().trim().is_empty().then_some(()))
        .await;
}

/// Who serves the API, as the server knows.
async fn holder(client: &Client<'_>) -> String {
    let mut server = ServerServiceClient::new(client.installation.channel());
    let answer = server.capabilities(CapabilitiesRequest {}).await.expect("it answers");
    let found = answer.into_inner();
    assert!(found.custom_metrics, "{found:?}");
    found.custom_metrics_service
}
