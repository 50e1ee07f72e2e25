//! Every hop of the chain by which leases scale is really broken, once, and named: on a pipeline of its own, which nothing else
//! needs whole, and where nobody else serves the metrics of pods.

#[path = "../node/installation.rs"]
#[expect(dead_code, reason = "the tests of the node use the rest")]
mod installation;
#[path = "../node/namespace.rs"]
#[expect(dead_code, reason = "the tests of the node use the rest")]
mod namespace;
#[path = "../node/traffic.rs"]
#[expect(dead_code, reason = "the tests of the node use the rest")]
mod traffic;

use std::io::{BufRead, BufReader};

use tms_proto::v1::server_service_client::ServerServiceClient;
use tms_proto::v1::{
    AcquireRequest, Autoscaling, DiagnoseRequest, DiagnoseResponse, HopOutcome, LeaseSpec, Verdict,
};
use tms_tests::cluster::{Cluster, Fault, Part};
use tms_tests::pipeline::PROMETHEUS;
use tms_tests::wait::{inside, until_so};
use tonic::transport::Channel;

use self::installation::{Client, Installation, models, with_gpus};

const NAMESPACE: &str = "tms-doctor";

fn cluster() -> Option<&'static Cluster> {
    Cluster::shared_pipeline()
}

/// TMS serves the metrics itself and reads them from Prometheus, so that nearly every hop is needed.
fn install() -> Option<Installation> {
    let cluster = cluster()?;
    cluster.start_parts(&[Part::Prometheus, Part::MetricsServer]);
    let values = format!(
        "server.autoscaling.provider=builtin,server.autoscaling.builtin.prometheusUrl={PROMETHEUS},\
         server.doctor.clusterRights=true,server.autoscaling.metrics.cpuUtilization.enabled=true,\
         server.autoscaling.prometheus.scrapeInterval=5s,server.autoscaling.prometheus.scrapeTimeout=4s,\
         server.autoscaling.prometheus.window=20s"
    );
    Installation::install_with(NAMESPACE, None, &["--set", &values])
}

/// Who is asked, and what is broken.
struct Patient<'a> {
    installation: &'a Installation,
    cluster: &'static Cluster,
    about: ServerServiceClient<Channel>,
    lease: String,
}

impl Patient<'_> {
    async fn diagnose(&self, lease: &str) -> DiagnoseResponse {
        let request = DiagnoseRequest { lease_id: lease.to_owned() };
        self.about.clone().diagnose(request).await.expect("it never fails because of the chain").into_inner()
    }

    /// Waits until exactly these hops are broken, in this order, and returns what is said of the first.
    async fn is_broken_at(&self, lease: &str, expected: &[&str]) -> String {
        let what = format!("the broken hops are {expected:?}");
        let remedy = until_so(&what, 90, async || {
            let diagnosis = self.diagnose(lease).await;
            let broken = hops(&diagnosis, HopOutcome::Broken);
            if broken == expected { Ok(diagnosis) } else { Err(told(&diagnosis)) }
        });
        let diagnosis = remedy.await;
        assert_eq!(diagnosis.first_broken, expected[0]);
        assert_eq!(diagnosis.verdict(), Verdict::Broken);
        let first = diagnosis.hops.into_iter().find(|hop| hop.name == expected[0]).expect("it is among them");
        assert!(
            !first.expected.is_empty() && !first.found.is_empty() && !first.remedy.is_empty(),
            "{first:?}"
        );
        first.remedy
    }

    async fn is_healthy(&self, lease: &str) {
        until_so("every hop works", 120, async || {
            let diagnosis = self.diagnose(lease).await;
            if diagnosis.verdict() == Verdict::Healthy { Ok(()) } else { Err(told(&diagnosis)) }
        })
        .await;
    }

    fn kubectl(&self, args: &[&str]) -> String {
        self.cluster.kubectl(args).unwrap_or_else(|complaint| panic!("kubectl {args:?}: {complaint}"))
    }

    fn here(&self, args: &[&str]) -> String {
        self.kubectl(&[&["--namespace", NAMESPACE], args].concat())
    }
}

fn hops(diagnosis: &DiagnoseResponse, outcome: HopOutcome) -> Vec<&str> {
    let those = diagnosis.hops.iter().filter(|hop| hop.outcome() == outcome);
    those.map(|hop| hop.name.as_str()).collect()
}

fn told(diagnosis: &DiagnoseResponse) -> String {
    let words = diagnosis.hops.iter().map(|hop| format!("{} {:?}: {}", hop.name, hop.outcome(), hop.found));
    format!("{}\n{}", diagnosis.summary, words.collect::<Vec<_>>().join("\n"))
}

fn prometheus(cluster: &Cluster, spec: &str) -> Result<String, String> {
    let patch = format!("{{\"spec\":{{{spec}}}}}");
    let place =
        ["patch", "prometheus", "prometheus", "--namespace", "monitoring", "--type", "merge", "--patch"];
    cluster.kubectl(&[&place[..], &[&patch]].concat())
}

fn served(cluster: &Cluster, is_served: bool) -> Result<String, String> {
    let patch =
        format!("[{{\"op\":\"replace\",\"path\":\"/spec/versions/0/served\",\"value\":{is_served}}}]");
    let name = "podmonitors.monitoring.coreos.com";
    cluster.kubectl(&["patch", "customresourcedefinition", name, "--type", "json", "--patch", &patch])
}

/// What a test that failed has broken is whole for the next.
struct Whole(&'static Cluster);

impl Drop for Whole {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let [selected, any] = ["{\"matchLabels\":{\"release\":\"prometheus\"}}", "{\"matchLabels\":null}"];
        let spec = format!(
            "\"podMonitorSelector\":{selected},\"ruleSelector\":{selected},\"podMonitorNamespaceSelector\":{any},\
             \"ruleNamespaceSelector\":{any},\"enforcedSampleLimit\":null,\"scrapeClasses\":null"
        );
        let mended = [prometheus(self.0, &spec), served(self.0, true)];
        eprintln!("mended after a failure: {mended:?}");
    }
}

#[test]
fn the_doctor_names_the_first_broken_hop_each_time_and_none_where_all_work() {
    let Some(installation) = install() else { return };
    let cluster = installation.cluster;
    let _whole = Whole(cluster);
    inside(cluster, || async {
        let client: Client<'_> = installation.client();
        let about = ServerServiceClient::new(installation.channel());
        let mut patient = Patient { installation: &installation, cluster, about, lease: String::new() };
        patient.is_healthy("").await;
        let autoscaling = Autoscaling { min_replicas: Some(1), max_replicas: Some(2), ..Default::default() };
        let wish = models([("claimed", "pvc://models/claimed")]);
        patient.lease = client.ready(LeaseSpec { autoscaling: Some(autoscaling), ..wish }).await.id;
        patient.is_healthy(&patient.lease).await;
        says_nothing_where_all_is_well(&patient);

        prometheus_takes_nothing_of_ours(&patient).await;
        apis_are_away(&patient).await;
        a_stranger_has_no_request(&patient).await;
        no_node_has_so_many_gpus(&patient, &client).await;
        two_autoscalers(&patient).await;
        prometheus_is_frozen(&patient).await;
        a_replica_is_not_ours_any_more(&patient).await;
        figures_are_lost_on_the_way(&patient).await;
        the_operator_is_gone(&patient).await;
        patient.is_healthy(&patient.lease).await;
        somebody_switches_the_autoscaler_off(&patient).await;
        client.release(&patient.lease).await;
    });
}

fn says_nothing_where_all_is_well(patient: &Patient<'_>) {
    let place = ["port-forward", "--namespace", NAMESPACE, "service/tms", ":30345"];
    let mut forward = patient.cluster.start_kubectl(&place);
    let mut line = String::new();
    let output = forward.stdout.as_mut().expect("it was piped");
    BufReader::new(output).read_line(&mut line).expect("kubectl writes text");
    let port = line.split_once("127.0.0.1:").and_then(|(_, rest)| rest.split(' ').next()).expect("a port");
    let target = format!("https://localhost:{port}");
    let said =
        patient.installation.tmsctl(&target, &["doctor", &patient.lease]).output().expect("tmsctl runs");
    forward.kill().expect("it is ours");
    forward.wait().expect("it is ours");
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert_eq!((said.status.code(), err.as_ref()), (Some(0), ""), "{out}");
    assert!(out.contains("Every hop works.") && !out.contains('✗'), "{out}");
    let log = patient.here(&["logs", "deployment/tms"]);
    assert!(log.contains("the chain by which leases scale: Every hop works."), "{log}");
    assert!(!log.contains("leases do not scale"), "{log}");
}

async fn prometheus_takes_nothing_of_ours(patient: &Patient<'_>) {
    let (cluster, lease) = (patient.cluster, patient.lease.as_str());
    let patch = |spec: &str| prometheus(cluster, spec).expect("Prometheus is changed");
    let selector = |field: &str, label: &str| format!("\"{field}\":{{\"matchLabels\":{{{label}}}}}");
    for (field, hop, key) in [
        ("podMonitorSelector", "podMonitorLabels", "server.autoscaling.prometheus.podMonitorLabels"),
        ("ruleSelector", "ruleLabels", "server.autoscaling.prometheus.ruleLabels"),
    ] {
        patch(&selector(field, "\"release\":\"other\""));
        let remedy = patient.is_broken_at(lease, &[hop]).await;
        assert_eq!(remedy, format!("set {key}: {{release: other}}"));
        patch(&selector(field, "\"release\":\"prometheus\""));
    }
    for (field, hop) in
        [("podMonitorNamespaceSelector", "podMonitorNamespace"), ("ruleNamespaceSelector", "ruleNamespace")]
    {
        patch(&selector(field, "\"team\":\"vision\""));
        let remedy = patient.is_broken_at(lease, &[hop]).await;
        let words: Vec<_> = remedy.split(' ').collect();
        assert_eq!(words[..5], ["kubectl", "label", "namespace", NAMESPACE, "team=vision"]);
        // What is said to mend it does.
        patient.kubectl(&words[1..]);
        patient.is_healthy(lease).await;
        patch(&format!("\"{field}\":{{\"matchLabels\":null}}"));
        patient.kubectl(&["label", "namespace", NAMESPACE, "team-"]);
    }
    let other = "\"release\":\"other\"";
    patch(&format!("{},{}", selector("podMonitorSelector", other), selector("ruleSelector", other)));
    patient.is_broken_at(lease, &["podMonitorLabels", "ruleLabels"]).await;
    let ours = "\"release\":\"prometheus\"";
    patch(&format!("{},{}", selector("podMonitorSelector", ours), selector("ruleSelector", ours)));
    patient.is_healthy(lease).await;
}

async fn apis_are_away(patient: &Patient<'_>) {
    let (cluster, lease) = (patient.cluster, patient.lease.as_str());
    cluster.fault(Part::MetricsServer, Fault::Stop);
    patient.is_broken_at(lease, &["resourceMetrics"]).await;
    let mut service: serde_json::Value =
        serde_json::from_str(&patient.here(&["get", "service", "tms-custom-metrics", "--output=json"]))
            .expect("JSON");
    patient.here(&["delete", "service", "tms-custom-metrics"]);
    patient.is_broken_at(lease, &["customMetricsApi", "resourceMetrics"]).await;
    cluster.fault(Part::MetricsServer, Fault::Restart);
    patient.is_broken_at(lease, &["customMetricsApi"]).await;
    for field in ["resourceVersion", "uid", "creationTimestamp"] {
        service["metadata"].as_object_mut().expect("an object").remove(field);
    }
    let create = ["create", "--namespace", NAMESPACE, "-f", "-"];
    cluster.kubectl_as("admin", &create, &service.to_string()).expect("the Service is back");
    patient.is_healthy(lease).await;
}

/// A pod that never runs, and that the autoscaler counts among those of the lease.
const STRANGER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: stranger, labels: {tms.internal/lease-id: LEASE}}
spec:
  automountServiceAccountToken: false
  schedulingGates: [{name: tms.test/never}]
  securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: triton
    image: docker.io/local/client:1
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"#;

async fn a_stranger_has_no_request(patient: &Patient<'_>) {
    patient.installation.namespace.create(&STRANGER.replace("LEASE", &patient.lease));
    patient.is_broken_at(&patient.lease, &["requests"]).await;
    patient.here(&["delete", "pod", "stranger"]);
}

async fn no_node_has_so_many_gpus(patient: &Patient<'_>, client: &Client<'_>) {
    let wish = with_gpus(models([("claimed", "pvc://models/claimed")]), 16);
    let spec = LeaseSpec { autoscaling: Some(Autoscaling::default()), ..wish };
    let request = AcquireRequest { spec: Some(spec), request_id: String::new(), no_wait: true };
    let mut stream = client.leases.clone().acquire(request).await.expect("it is granted").into_inner();
    let first = stream.message().await.expect("the stream goes on").expect("a message");
    let lease = first.lease.expect("the first message has the lease").id;
    let remedy = patient.is_broken_at(&lease, &["scheduling"]).await;
    assert!(remedy.contains("16 free nvidia.com/gpu"), "{remedy}");
    client.release(&lease).await;
}

async fn two_autoscalers(patient: &Patient<'_>) {
    let deployment = format!("deployment/tms-{}", patient.lease);
    patient.here(&["autoscale", &deployment, "--name=rival", "--min=1", "--max=2", "--cpu-percent=80"]);
    patient.is_broken_at(&patient.lease, &["ambiguousSelector"]).await;
    patient.here(&["delete", "hpa", "rival"]);
    patient.is_healthy(&patient.lease).await;
}

async fn prometheus_is_frozen(patient: &Patient<'_>) {
    patient.cluster.fault(Part::Prometheus, Fault::Freeze);
    patient.is_broken_at(&patient.lease, &["prometheusApi"]).await;
    patient.cluster.fault(Part::Prometheus, Fault::Thaw);
    patient.is_healthy(&patient.lease).await;
}

/// A pod without the label of the installation is still one of the autoscaler's, and TMS does not know it.
async fn a_replica_is_not_ours_any_more(patient: &Patient<'_>) {
    let pod = patient.installation.pods(&patient.lease).remove(0).name;
    let label = "tms.internal/installation";
    let jsonpath = "--output=jsonpath={.metadata.labels.tms\\.internal/installation}";
    let installation = patient.here(&["get", "pod", &pod, jsonpath]);
    patient.here(&["label", "pod", &pod, &format!("{label}-")]);
    patient.is_broken_at(&patient.lease, &["customMetric"]).await;
    patient.here(&["label", "pod", &pod, &format!("{label}={installation}")]);
    patient.is_healthy(&patient.lease).await;
}

/// Another rule that records the same.
const SECOND_RULE: &str = r#"
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata: {name: second, labels: {release: prometheus}}
spec:
  groups:
  - name: second
    interval: 5s
    rules:
    - record: tms_avg_request_queue_duration
      expr: 0 * sum by (namespace, pod) (up{job="tms-doctor/tms-LEASE"})
      labels: {second: "true"}
"#;

async fn figures_are_lost_on_the_way(patient: &Patient<'_>) {
    let (cluster, lease) = (patient.cluster, patient.lease.as_str());
    patient.installation.namespace.create(&SECOND_RULE.replace("LEASE", lease));
    patient.is_broken_at(lease, &["rule"]).await;
    patient.here(&["delete", "prometheusrule", "second"]);
    let drops = "\"scrapeClasses\":[{\"name\":\"drops\",\"default\":true,\"metricRelabelings\":\
                 [{\"action\":\"drop\",\"sourceLabels\":[\"__name__\"],\"regex\":\"nv_inference_.*\"}]}]";
    prometheus(cluster, drops).expect("Prometheus is changed");
    patient.is_broken_at(lease, &["series"]).await;
    prometheus(cluster, "\"scrapeClasses\":null,\"enforcedSampleLimit\":1").expect("Prometheus is changed");
    patient.is_broken_at(lease, &["target"]).await;
    prometheus(cluster, "\"enforcedSampleLimit\":null").expect("Prometheus is changed");
    patient.is_healthy(lease).await;
}

async fn the_operator_is_gone(patient: &Patient<'_>) {
    let (cluster, lease) = (patient.cluster, patient.lease.as_str());
    let mut object: serde_json::Value = serde_json::from_str(&patient.kubectl(&[
        "get",
        "prometheus",
        "prometheus",
        "--namespace=monitoring",
        "--output=json",
    ]))
    .expect("JSON");
    // What it runs stays.
    patient.kubectl(&["delete", "prometheus", "prometheus", "--namespace=monitoring", "--cascade=orphan"]);
    patient.is_broken_at(lease, &["prometheus"]).await;
    for field in ["resourceVersion", "uid", "creationTimestamp", "generation"] {
        object["metadata"].as_object_mut().expect("an object").remove(field);
    }
    cluster.kubectl_as("admin", &["create", "-f", "-"], &object.to_string()).expect("it is back");
    served(cluster, false).expect("the definition is changed");
    patient.is_broken_at(lease, &["monitoringKinds"]).await;
    served(cluster, true).expect("the definition is changed");
}

async fn somebody_switches_the_autoscaler_off(patient: &Patient<'_>) {
    let deployment = format!("deployment/tms-{}", patient.lease);
    patient.here(&["scale", &deployment, "--replicas=0"]);
    let remedy = patient.is_broken_at(&patient.lease, &["autoscaler"]).await;
    // What is said to mend it does.
    let command = remedy.split_once("kubectl ").expect("a command").1;
    patient.kubectl(&command.split(' ').collect::<Vec<_>>());
    patient.is_healthy(&patient.lease).await;
}
