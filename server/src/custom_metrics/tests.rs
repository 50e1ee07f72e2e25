//! The API over its own listener: real handshakes, real requests.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use futures::future::BoxFuture;
use insta::assert_snapshot;
use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::certificate::Identity;
use super::*;
use crate::cluster::kubernetes::aggregation::FrontProxy;
use crate::cluster::{GaugeError, Gauged, PodName, ScalingPod};
use crate::domain::lease::LeaseId;
use crate::domain::scaling::MetricName;

const HOST: &str = "tms-custom-metrics.tms.svc";
const ONE: &str = "11111111111111111111111111111111";
const TWO: &str = "22222222222222222222222222222222";

fn now() -> Timestamp {
    crate::clock::system_now()
}

/// Two pods of one lease and one of another.
struct Pods;

impl Show for Pods {
    fn show_scaling(&self, show: &mut dyn FnMut(ScalingPod<'_>)) {
        for (lease, name) in [(TWO, "tms-2-c"), (ONE, "tms-1-b"), (ONE, "tms-1-a")] {
            let labels = [("tms.internal/lease-id", lease), ("app.kubernetes.io/name", "triton")];
            let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
            let lease: LeaseId = lease.parse().unwrap();
            show(ScalingPod { lease, name, uid: name, labels: &labels });
        }
    }
}

/// Queue times; no GPU has one, and GPU memory cannot be told.
struct Values;

impl Gauge for Values {
    fn gauge<'a>(
        &'a self,
        metric: MetricName,
        pods: &'a [PodName],
    ) -> BoxFuture<'a, Result<Vec<Option<Gauged>>, GaugeError>> {
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        let value = |pod: &PodName| match (metric, pod.name.as_str()) {
            (MetricName::QueueTime, "tms-1-a") => Some(Gauged { value: 1234.5678, at }),
            (MetricName::QueueTime, "tms-2-c") => Some(Gauged { value: 0.0, at }),
            _ => None,
        };
        let told = match metric {
            MetricName::GpuMemoryUtilization => Err(GaugeError("Prometheus cannot be read: gone".to_owned())),
            _ => Ok(pods.iter().map(value).collect()),
        };
        Box::pin(std::future::ready(told))
    }
}

/// An authority of client certificates.
struct Authority {
    params: CertificateParams,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { params, key: KeyPair::generate().unwrap() }
    }

    fn pem(&self) -> String {
        self.params.self_signed(&self.key).unwrap().pem()
    }

    fn client(&self, name: &str) -> Client {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap();
        Client(Some((certificate.pem(), key.serialize_pem())))
    }
}

/// Who asks, by certificate and key if any.
struct Client(Option<(String, String)>);

/// A listener that runs as long as this lives.
struct World {
    address: SocketAddr,
    authorities: String,
    front: Authority,
    trust: watch::Sender<Option<Trust>>,
    _listening: tokio::task::JoinHandle<()>,
}

impl World {
    async fn new() -> Self {
        let front = Authority::new();
        let (trust, trusted) = watch::channel(None);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let desk = Desk {
            namespace: "leases".to_owned(),
            window_seconds: 60,
            pods: Arc::new(Pods),
            values: Arc::new(Values),
            metrics: Arc::default(),
        };
        let router = api::router(Arc::new(desk));
        let listening = tokio::spawn(listen(listener, router, trusted));
        let mut world = Self { address, authorities: String::new(), front, trust, _listening: listening };
        world.renew();
        world
    }

    /// Serves by a new certificate.
    fn renew(&mut self) {
        let identity = Identity::read(&Identity::make(HOST, now(), None).unwrap(), HOST, now()).unwrap();
        let front_proxy = FrontProxy {
            authorities: self.front.pem(),
            allowed_names: vec!["front-proxy-client".to_owned()],
            username_headers: vec!["X-Remote-User".to_owned()],
        };
        self.trust.send_replace(Some(upkeep::trusting(&front_proxy, &identity).unwrap()));
        self.authorities = identity.authorities;
    }

    /// Sends a request and returns the code and the body of its answer, or what broke.
    async fn send(&self, client: &Client, request: &str) -> Result<(u16, String), String> {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(self.authorities.as_bytes()) {
            roots.add(authority.unwrap()).unwrap();
        }
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match &client.0 {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => config
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
                )
                .unwrap(),
        };
        let stream = TcpStream::connect(self.address).await.unwrap();
        let host = ServerName::try_from(HOST).unwrap();
        let connecting = TlsConnector::from(Arc::new(config)).connect(host, stream);
        let mut stream = connecting.await.map_err(|error| error.to_string())?;
        stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map_err(|error| error.to_string())?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        Ok((head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned()))
    }

    /// Asks as the Kubernetes API server does.
    async fn get(&self, path: &str) -> (u16, String) {
        let client = self.front.client("front-proxy-client");
        self.send(&client, &request("GET", path, "X-Remote-User: system:kube-controller-manager\r\n"))
            .await
            .unwrap()
    }

    /// Asks for queue times, and returns the names of the pods that have one, and the code.
    async fn pods(&self, rest: &str) -> String {
        let path = format!("/apis/custom.metrics.k8s.io/v1beta2/namespaces/{rest}");
        let (code, body) = self.get(&path).await;
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        match body["items"].as_array() {
            None => {
                format!("{code} {}: {}", body["reason"].as_str().unwrap(), body["message"].as_str().unwrap())
            }
            Some(items) => {
                let names = items.iter().map(|item| item["describedObject"]["name"].as_str().unwrap());
                format!("{code} [{}]", names.collect::<Vec<_>>().join(" "))
            }
        }
    }
}

fn request(method: &str, path: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n{headers}\r\n")
}

fn pretty(json: &str) -> String {
    serde_json::to_string_pretty(&serde_json::from_str::<serde_json::Value>(json).unwrap()).unwrap()
}

#[tokio::test]
async fn each_version_names_its_metrics() {
    let world = World::new().await;
    let (code, body) = world.get("/apis/custom.metrics.k8s.io/v1beta1").await;
    assert_eq!(code, 200);
    assert_snapshot!(pretty(&body), @r#"
    {
      "apiVersion": "v1",
      "groupVersion": "custom.metrics.k8s.io/v1beta1",
      "kind": "APIResourceList",
      "resources": [
        {
          "kind": "MetricValueList",
          "name": "pods/tms_gpu_utilization",
          "namespaced": true,
          "singularName": "",
          "verbs": [
            "get"
          ]
        },
        {
          "kind": "MetricValueList",
          "name": "pods/tms_gpu_memory_utilization",
          "namespaced": true,
          "singularName": "",
          "verbs": [
            "get"
          ]
        },
        {
          "kind": "MetricValueList",
          "name": "pods/tms_avg_request_queue_duration",
          "namespaced": true,
          "singularName": "",
          "verbs": [
            "get"
          ]
        }
      ]
    }
    "#);
    let (_, second) = world.get("/apis/custom.metrics.k8s.io/v1beta2").await;
    assert_eq!(second, body.replace("v1beta1", "v1beta2"));
    let (_, groups) = world.get("/apis").await;
    let (_, group) = world.get("/apis/custom.metrics.k8s.io").await;
    let groups: serde_json::Value = serde_json::from_str(&groups).unwrap();
    assert_eq!(groups["groups"][0].to_string(), group);
    assert_eq!(groups["groups"][0]["versions"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn values_are_told_in_the_form_of_each_version() {
    let world = World::new().await;
    let path = |version: &str| {
        format!(
            "/apis/custom.metrics.k8s.io/{version}/namespaces/leases/pods/*/tms_avg_request_queue_duration"
        )
    };
    let (_, first) = world.get(&path("v1beta1")).await;
    assert_snapshot!(pretty(&first), @r#"
    {
      "apiVersion": "custom.metrics.k8s.io/v1beta1",
      "items": [
        {
          "describedObject": {
            "apiVersion": "/v1",
            "kind": "Pod",
            "name": "tms-1-a",
            "namespace": "leases"
          },
          "metricName": "tms_avg_request_queue_duration",
          "selector": null,
          "timestamp": "2027-01-15T08:00:00Z",
          "value": "1234567m",
          "window": 60
        },
        {
          "describedObject": {
            "apiVersion": "/v1",
            "kind": "Pod",
            "name": "tms-2-c",
            "namespace": "leases"
          },
          "metricName": "tms_avg_request_queue_duration",
          "selector": null,
          "timestamp": "2027-01-15T08:00:00Z",
          "value": "0",
          "window": 60
        }
      ],
      "kind": "MetricValueList",
      "metadata": {}
    }
    "#);
    let (_, second) = world.get(&path("v1beta2")).await;
    let second: serde_json::Value = serde_json::from_str(&second).unwrap();
    assert_snapshot!(pretty(&second["items"][0].to_string()), @r#"
    {
      "describedObject": {
        "apiVersion": "/v1",
        "kind": "Pod",
        "name": "tms-1-a",
        "namespace": "leases"
      },
      "metric": {
        "name": "tms_avg_request_queue_duration",
        "selector": null
      },
      "timestamp": "2027-01-15T08:00:00Z",
      "value": "1234567m",
      "windowSeconds": 60
    }
    "#);
}

#[tokio::test]
async fn only_pods_that_are_asked_for_and_have_a_value_are_told() {
    let world = World::new().await;
    let table = [
        "leases/pods/*/tms_avg_request_queue_duration",
        "leases/pods/*/tms_avg_request_queue_duration?labelSelector=tms.internal%2Flease-id%3D11111111111111111111111111111111",
        "leases/pods/*/tms_avg_request_queue_duration?labelSelector=tms.internal%2Flease-id+notin+%281%2C11111111111111111111111111111111%29",
        "leases/pods/*/tms_avg_request_queue_duration?metricLabelSelector=pod%3Dtms-2-c",
        "leases/pods/*/tms_avg_request_queue_duration?metricLabelSelector=pod%3Dnone",
        "leases/pods/*/tms_avg_request_queue_duration?labelSelector=a%3Eb",
        "leases/pods/tms-1-a/tms_avg_request_queue_duration",
        "leases/pods/tms-1-b/tms_avg_request_queue_duration",
        "leases/pods/other/tms_avg_request_queue_duration",
        "other/pods/*/tms_avg_request_queue_duration",
        "leases/pods/*/tms_gpu_utilization",
        "leases/pods/*/tms_gpu_memory_utilization",
        "leases/pods/*/nv_gpu_utilization",
        "leases/services/*/tms_gpu_utilization",
        "leases/metrics/tms_gpu_utilization",
    ];
    let mut lines = Vec::new();
    for rest in table {
        lines.push(format!("{rest}\n  {}", world.pods(rest).await));
    }
    assert_snapshot!(lines.join("\n"), @r#"
    leases/pods/*/tms_avg_request_queue_duration
      200 [tms-1-a tms-2-c]
    leases/pods/*/tms_avg_request_queue_duration?labelSelector=tms.internal%2Flease-id%3D11111111111111111111111111111111
      200 [tms-1-a]
    leases/pods/*/tms_avg_request_queue_duration?labelSelector=tms.internal%2Flease-id+notin+%281%2C11111111111111111111111111111111%29
      200 [tms-2-c]
    leases/pods/*/tms_avg_request_queue_duration?metricLabelSelector=pod%3Dtms-2-c
      200 [tms-2-c]
    leases/pods/*/tms_avg_request_queue_duration?metricLabelSelector=pod%3Dnone
      200 []
    leases/pods/*/tms_avg_request_queue_duration?labelSelector=a%3Eb
      400 BadRequest: unable to parse requirement "a>b": it must be KEY, !KEY, KEY=VALUE, KEY!=VALUE, KEY in (VALUE,…) or KEY notin (VALUE,…)
    leases/pods/tms-1-a/tms_avg_request_queue_duration
      200 [tms-1-a]
    leases/pods/tms-1-b/tms_avg_request_queue_duration
      404 NotFound: the server could not find the metric tms_avg_request_queue_duration for pods tms-1-b
    leases/pods/other/tms_avg_request_queue_duration
      404 NotFound: the server could not find the metric tms_avg_request_queue_duration for pods other
    other/pods/*/tms_avg_request_queue_duration
      200 []
    leases/pods/*/tms_gpu_utilization
      200 []
    leases/pods/*/tms_gpu_memory_utilization
      503 ServiceUnavailable: Prometheus cannot be read: gone
    leases/pods/*/nv_gpu_utilization
      404 NotFound: the server could not find the metric nv_gpu_utilization for pods
    leases/services/*/tms_gpu_utilization
      404 NotFound: there is nothing here
    leases/metrics/tms_gpu_utilization
      404 NotFound: there is nothing here
    "#);
}

#[tokio::test]
async fn nobody_but_the_front_proxy_is_answered() {
    let world = World::new().await;
    let path = "/apis/custom.metrics.k8s.io/v1beta1";
    let user = "X-Remote-User: system:masters\r\n";
    let code = async |client: &Client, path: &str, headers: &str| {
        world.send(client, &request("GET", path, headers)).await.map(|(code, _)| code)
    };
    let front = world.front.client("front-proxy-client");
    assert_eq!(code(&front, path, user).await, Ok(200));
    assert_eq!(code(&front, path, "").await, Ok(401), "for nobody");
    assert_eq!(code(&front, path, "X-Remote-User: \r\n").await, Ok(401), "for nobody");
    assert_eq!(code(&world.front.client("somebody"), path, user).await, Ok(401), "by another certificate");
    assert_eq!(code(&Client(None), path, user).await, Ok(401), "without a certificate");
    assert_eq!(code(&Client(None), "/healthz", "").await, Ok(200));
    assert_eq!(code(&Client(None), "/openapi/v2", "").await, Ok(401));
    assert_eq!(code(&front, "/openapi/v2", user).await, Ok(200));
    assert_eq!(code(&front, "/openapi/v1", user).await, Ok(404));
    let foreign = Authority::new().client("front-proxy-client");
    assert!(code(&foreign, path, user).await.is_err(), "by another authority");
    let post = world.send(&front, &request("POST", path, user)).await.unwrap();
    assert_eq!(post.0, 405);
    assert!(post.1.contains(r#""kind":"Status""#), "{}", post.1);
}

#[tokio::test]
async fn new_connections_are_served_by_a_renewed_certificate() {
    let mut world = World::new().await;
    assert_eq!(world.get("/healthz").await.0, 200);
    let before = world.authorities.clone();
    world.renew();
    assert_ne!(world.authorities, before);
    assert_eq!(world.get("/healthz").await.0, 200);
    world.authorities = before;
    let late = world.send(&Client(None), &request("GET", "/healthz", "")).await;
    assert!(late.is_err(), "only the new authority vouches for it");
}

#[test]
fn labels_of_a_value_are_those_of_the_recorded_series() {
    let labels = answer::labels_of_value("leases", "a", "7");
    let expected = [("namespace", "leases"), ("pod", "a"), ("tms_lease_id", "7")];
    assert_eq!(labels, BTreeMap::from(expected.map(|(key, value)| (key.to_owned(), value.to_owned()))));
}
