//! Metrics by a script: what pods use and record, as the API server finds it behind two APIServices.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, mpsc};

use serde_json::{Value, json};
use tms_server::clock::system_now;
use tms_server::domain::lease::LeaseId;
use tms_server::domain::plan::{MetricSource, metric_source};
use tms_server::domain::scaling::MetricName;
use tms_tests::cluster::Cluster;
use tms_tests::site::{Asked, Reply, Site, answer};
use tms_tests::wait::until;

use crate::situations::Told;

/// The address of tests inside a cluster that its API server may proxy to.
const ADDRESS: &str = "10.200.0.1";
const RECORDED: &str = "/apis/custom.metrics.k8s.io/v1beta1";
const USED: &str = "/apis/metrics.k8s.io/v1beta1";

/// Values by lease, and there by the name of the metric in its API; `None` is a fault.
type Script = Arc<Mutex<HashMap<(String, String), Option<Vec<(String, i64)>>>>>;

/// The source of every metric.
pub struct Scripted {
    script: Script,
}

/// Returns a value in the thousandths that are read of it.
pub fn milli(name: MetricName, value: i64) -> i64 {
    match metric_source(name) {
        // It is scripted in thousandths of a CPU.
        MetricSource::Container(_) => value,
        MetricSource::Recorded(_) => value * 1000,
    }
}

impl Scripted {
    /// Serves both APIs, and waits until the API server finds them.
    pub async fn start(cluster: &'static Cluster, namespace: &str) -> Self {
        let script = Script::default();
        let port = serve(cluster, namespace, &script);
        cluster.create(&objects(namespace, port)).unwrap();
        until("both APIs are found", 30, async || {
            let found = |path: &str| cluster.kubectl(&["get", "--raw", path]).is_ok();
            (found(RECORDED) && found(USED)).then_some(())
        })
        .await;
        Self { script }
    }

    /// Says what the pods of a lease have from now on.
    pub fn tell(&self, id: LeaseId, pods: &[String], told: &BTreeMap<MetricName, Told>) {
        let mut script = self.script.lock().unwrap();
        for (name, told) in told {
            let metric = match metric_source(*name) {
                MetricSource::Container(resource) => resource,
                MetricSource::Recorded(series) => series,
            };
            let values = match told {
                Told::Fault => None,
                Told::Values(values) => {
                    assert_eq!(values.len(), pods.len(), "a value for each pod");
                    let known = pods.iter().zip(values);
                    Some(
                        known
                            .filter_map(|(pod, value)| Some((pod.clone(), milli(*name, (*value)?))))
                            .collect(),
                    )
                }
            };
            script.insert((id.to_string(), metric.to_owned()), values);
        }
    }
}

/// Serves on a thread of its own, since the test's waits for kubectl; it ends with the process. Returns the port.
fn serve(cluster: &'static Cluster, namespace: &str, script: &Script) -> u16 {
    let made = rcgen::generate_simple_self_signed([format!("scripted.{namespace}.svc")]).unwrap();
    let (told, (port, served)) = (Arc::clone(script), mpsc::channel());
    std::thread::spawn(move || {
        cluster.enter();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let reply = move |asked: &Asked, _| reply(&told, asked);
            let site = Site::https_on(ADDRESS.parse().unwrap(), &made, reply).await;
            port.send(site.address.port()).unwrap();
            std::future::pending::<()>().await;
        });
    });
    served.recv().unwrap()
}

fn reply(script: &Script, asked: &Asked) -> Reply {
    let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
    let lease = query.split(['=', '&', '%']).find_map(lease_id);
    let body = match (path, lease) {
        (RECORDED, _) => resources(
            "custom.metrics.k8s.io/v1beta1",
            &["pods/tms_avg_request_queue_duration", "pods/tms_gpu_utilization"],
        ),
        (USED, _) => resources("metrics.k8s.io/v1beta1", &["pods"]),
        (path, Some(lease)) if path.starts_with(RECORDED) => {
            let series = path.rsplit('/').next().unwrap_or_default();
            values(
                script,
                lease,
                series,
                |pod, milli| recorded(pod, series, milli),
                "MetricValueList",
                "custom.metrics.k8s.io/v1beta1",
            )
        }
        (path, Some(lease)) if path.starts_with(USED) => {
            values(script, lease, "cpu", used, "PodMetricsList", "metrics.k8s.io/v1beta1")
        }
        _ => None,
    };
    match body {
        Some(body) => answer(200, &[("content-type", "application/json")], body.to_string().as_bytes()),
        None => {
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "reason": "NotFound",
                "message": "the script says so",
            });
            answer(404, &[("content-type", "application/json")], status.to_string().as_bytes())
        }
    }
}

/// The lease id in a part of an encoded selector such as `labelSelector=tms.internal%2Flease-id%3D0123…`.
fn lease_id(part: &str) -> Option<String> {
    let digits = part.strip_prefix("3D")?;
    (digits.len() == 32).then(|| digits.to_owned())
}

fn values(
    script: &Script,
    lease: String,
    metric: &str,
    item: impl Fn(&str, i64) -> Value,
    kind: &str,
    version: &str,
) -> Option<Value> {
    let values = script.lock().unwrap().get(&(lease, metric.to_owned()))?.clone()?;
    let items: Vec<_> = values.iter().map(|(pod, milli)| item(pod, *milli)).collect();
    Some(json!({ "kind": kind, "apiVersion": version, "metadata": {}, "items": items }))
}

fn recorded(pod: &str, series: &str, milli: i64) -> Value {
    json!({
        "describedObject": { "kind": "Pod", "name": pod, "apiVersion": "/v1" },
        "metricName": series, "timestamp": second(), "windowSeconds": 1, "value": format!("{milli}m"),
    })
}

fn used(pod: &str, milli: i64) -> Value {
    json!({
        "metadata": { "name": pod }, "timestamp": second(), "window": "1s",
        "containers": [{ "name": "triton", "usage": { "cpu": format!("{milli}m"), "memory": "1Mi" } }],
    })
}

fn second() -> String {
    format!("{:.0}", system_now())
}

fn resources(version: &str, names: &[&str]) -> Option<Value> {
    let resource = |name: &&str| json!({ "name": name, "singularName": "", "namespaced": true, "kind": "MetricValueList", "verbs": ["get", "list"] });
    let resources: Vec<_> = names.iter().map(resource).collect();
    Some(
        json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources }),
    )
}

fn objects(namespace: &str, port: u16) -> String {
    let service = format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: scripted, namespace: {namespace}}}
spec: {{ports: [{{name: https, port: 443, targetPort: {port}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: scripted-1, namespace: {namespace}, labels: {{kubernetes.io/service-name: scripted}}}}
addressType: IPv4
endpoints: [{{addresses: [{ADDRESS}], conditions: {{ready: true}}}}]
ports: [{{name: https, port: {port}, protocol: TCP}}]
"
    );
    let apis = ["custom.metrics.k8s.io", "metrics.k8s.io"].map(|group| {
        format!(
            "
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {{name: v1beta1.{group}}}
spec:
  group: {group}
  version: v1beta1
  service: {{name: scripted, namespace: {namespace}, port: 443}}
  insecureSkipTLSVerify: true
  groupPriorityMinimum: 100
  versionPriority: 100
"
        )
    });
    [service, apis[0].clone(), apis[1].clone()].join("---")
}
