//! TMS as its chart installs it: one server on SQLite and one on PostgreSQL, each in a namespace in which Pod Security
//! `restricted` is enforced, with its leases.

use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rcgen::CertifiedKey;
use tempfile::NamedTempFile;
use tms_proto::v1::lease_service_client::LeaseServiceClient;
use tms_proto::v1::{
    AcquireRequest, AcquireResponse, BespokeTriton, Lease, LeaseSpec, LeaseState, Model, ReleaseRequest,
    StatusRequest,
};
use tms_tests::cluster::Cluster;
use tms_tests::models;
use tms_tests::postgres::{self, InCluster};
use tms_tests::server::Database;
use tms_tests::wait::until;
use tokio::net::TcpStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Status, Streaming};

use crate::namespace::Namespace;
use tms_tests::node::{break_node, use_node};

/// What both installations are configured with. A Triton of these tests is small, and ends soon.
const VALUES: &str = "
images: {server: docker.io/local/tms-server:test, triton: docker.io/local/triton:2.51}
server:
  cluster: {callsPerSecond: 1000, callsInFlight: 32}
  leases: {defaultLifetime: 1h, minimumLifetime: 1s, maximumLifetime: 8h, loadTimeout: 5m}
  resources:
    default: {gpus: 0, cpu: 20m, memory: 256Mi, sharedMemory: 64Mi}
    maximum: {gpus: 16}
  modelRepositories:
    pvc: [{claimName: models, accessMode: ReadOnlyMany}]
    trustBundle: model-authorities
    maximumSize: 256Mi
  autoscaling:
    enable: true
    metrics: {queueTime: {allowed: true, enabled: true}}
  triton: {preStopSeconds: 5, exitTimeoutSeconds: 30}
";

/// TMS in a namespace of its own.
pub struct Installation {
    pub cluster: &'static Cluster,
    pub namespace: Namespace,
    address: String,
    authority: String,
    authority_file: NamedTempFile,
    _postgres: Option<InCluster>,
}

impl Installation {
    /// Returns the installation on this database, which the tests of this file share. `None` where there is no node, or
    /// no PostgreSQL; the test is then counted as skipped.
    pub fn on(database: Database) -> Option<&'static Self> {
        static SQLITE: OnceLock<Option<Installation>> = OnceLock::new();
        static POSTGRES: OnceLock<Option<Installation>> = OnceLock::new();
        match database {
            Database::Sqlite => SQLITE.get_or_init(|| Self::install("tms-sqlite", None)).as_ref(),
            Database::Postgres => POSTGRES
                .get_or_init(|| {
                    let cluster = crate::cluster()?;
                    Self::install("tms-postgres", Some(InCluster::start(cluster)?))
                })
                .as_ref(),
        }
    }

    /// Installs TMS anew into a namespace.
    pub fn install(name: &'static str, postgres: Option<InCluster>) -> Option<Self> {
        Self::install_with(name, postgres, &[])
    }

    /// The same with more flags of helm.
    pub fn install_with(name: &'static str, postgres: Option<InCluster>, flags: &[&str]) -> Option<Self> {
        let namespace = Namespace::new(name)?;
        let cluster = namespace.cluster;
        cluster.claim(name, "models", "ReadOnlyMany", |folder| {
            models::Model::echo("claimed").lay_out(folder);
        });
        let authority = format!("--from-literal=ca.crt={}", certificate().cert.pem());
        namespace.kubectl(&["create", "configmap", "model-authorities", &authority]).expect("a ConfigMap");
        namespace.start_client();
        let mut values = VALUES.to_owned();
        if let Some(postgres) = &postgres {
            let password = format!("--from-literal=password={}", postgres::PASSWORD);
            namespace.kubectl(&["create", "secret", "generic", "database", &password]).expect("a Secret");
            values.push_str(&format!(
                "  database: {{url: \"{}\", passwordSecret: {{name: database}}}}\n  deployment: {{replicas: 2}}\n",
                postgres.url()
            ));
        }
        let file = NamedTempFile::new().expect("a temporary file can be made");
        std::fs::write(file.path(), values).expect("a file can be written");
        let file = file.path().to_str().expect("its name is plain");
        let install = ["install", "tms", CHART, "--namespace", name, "--wait", "--timeout=120s", "--values"];
        let said = cluster.run("helm", &[&install[..], &[file], flags].concat());
        if let Err(complaint) = said {
            let pods = namespace.kubectl(&["describe", "pods"]).unwrap_or_default();
            let logs = namespace.kubectl(&["logs", "deployment/tms"]).unwrap_or_default();
            panic!("the chart cannot be installed: {complaint}\n{pods}\n{logs}");
        }
        let field = |what: &str, path: &str| {
            namespace.kubectl(&["get", what, &format!("--output=go-template={path}")]).expect("it is there")
        };
        let address = field("service/tms", "{{.spec.clusterIP}}");
        let authority = field("secret/tms-tls", "{{index .data \"ca.crt\" | base64decode}}");
        let authority_file = NamedTempFile::new().expect("a temporary file can be made");
        std::fs::write(authority_file.path(), &authority).expect("a file can be written");
        let reached = format!("{address}:30345");
        tms_tests::wait::inside(cluster, || async {
            // The node forwards to a pod a moment after the pod is ready.
            until("the server is reached", 30, async || TcpStream::connect(&reached).await.ok()).await;
        });
        let address = format!("https://{reached}");
        Some(Self { cluster, namespace, address, authority, authority_file, _postgres: postgres })
    }

    /// Changes the release by helm, and waits until the server runs so.
    pub fn helm(&self, command: &[&str]) {
        let place = ["--namespace", self.namespace.name, "--wait", "--timeout=120s"];
        self.cluster
            .run("helm", &[command, &place].concat())
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    }

    /// Returns a command of tmsctl, which reaches the server at `target`, for a thread inside the cluster's network.
    pub fn tmsctl(&self, target: &str, args: &[&str]) -> Command {
        let program = tms_tests::process::program().with_file_name("tmsctl");
        assert!(program.is_file(), "{} is missing: cargo build --package tmsctl", program.display());
        let mut command = Command::new(program);
        command.args(args).args(["--target", target, "--ca"]).arg(self.authority_file.path());
        command.env("KUBECONFIG", self.cluster.kubeconfig("admin")).stdin(Stdio::null());
        command
    }

    /// Returns a client, for a thread inside the cluster's network.
    pub fn client(&self) -> Client<'_> {
        Client { installation: self, leases: LeaseServiceClient::new(self.channel()) }
    }

    /// Returns a connection to the server, for a thread inside the cluster's network.
    pub fn channel(&self) -> Channel {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.authority))
            .domain_name(format!("tms.{}.svc", self.namespace.name));
        let endpoint = Endpoint::from_shared(self.address.clone()).expect("an address");
        let endpoint =
            endpoint.tls_config(tls).expect("an authority").connect_timeout(Duration::from_secs(5));
        endpoint.connect_lazy()
    }

    /// What the API server refused to the server, for want of rights.
    pub fn refused_by_rights(&self) -> Vec<String> {
        let account = format!("system:serviceaccount:{}:tms", self.namespace.name);
        let answers = self.cluster.answers_to(&account);
        assert!(!answers.is_empty(), "the audit log knows nothing of {account}");
        let refused = answers.into_iter().filter(|answer| answer.code == 403);
        refused.map(|answer| format!("{} {}/{}", answer.verb, answer.resource, answer.subresource)).collect()
    }

    /// The pods of a lease that are not on their way out: their names and UIDs, and the restarts of their Tritons.
    pub fn pods(&self, lease: &str) -> Vec<Pod> {
        let list = self.json(&["get", "pods", "--selector", &format!("tms.internal/lease-id={lease}")]);
        let items = list["items"].as_array().expect("a list").iter();
        let alive = items.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let mut pods: Vec<_> = alive.map(Pod::read).collect();
        pods.sort_by(|one, other| one.name.cmp(&other.name));
        pods
    }

    /// What kubectl answers about the namespace, as JSON.
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let answer = self.namespace.kubectl(&[args, &["--output=json"]].concat());
        serde_json::from_str(&answer.unwrap_or_else(|error| panic!("kubectl {args:?}: {error}")))
            .expect("JSON")
    }
}

/// The certificate of the web servers from which models come, which is its own authority.
pub fn certificate() -> &'static CertifiedKey<rcgen::KeyPair> {
    static CERTIFICATE: OnceLock<CertifiedKey<rcgen::KeyPair>> = OnceLock::new();
    CERTIFICATE.get_or_init(|| {
        let names = [postgres::NODE.to_owned()];
        rcgen::generate_simple_self_signed(names).expect("a certificate can be made")
    })
}

/// The chart.
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../helm");

/// A pod of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub name: String,
    pub uid: String,
    /// Absent: it has none yet.
    pub address: Option<IpAddr>,
    pub triton_restarts: i64,
}

impl Pod {
    fn read(pod: &serde_json::Value) -> Self {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let triton = &pod["status"]["containerStatuses"][0];
        Self {
            name: text(&pod["metadata"]["name"]),
            uid: text(&pod["metadata"]["uid"]),
            address: pod["status"]["podIP"].as_str().and_then(|address| address.parse().ok()),
            triton_restarts: triton["restartCount"].as_i64().unwrap_or(0),
        }
    }
}

/// A client of one installation.
pub struct Client<'a> {
    pub installation: &'a Installation,
    pub leases: LeaseServiceClient<Channel>,
}

impl Client<'_> {
    /// Begins to acquire a lease.
    pub async fn acquire(&self, spec: LeaseSpec) -> Result<Streaming<AcquireResponse>, Status> {
        let request_id = uuid::Uuid::new_v4().to_string();
        let request = AcquireRequest { spec: Some(spec), request_id, no_wait: false };
        Ok(self.leases.clone().acquire(request).await?.into_inner())
    }

    /// Acquires a lease, and returns it with what was told on the way, when the stream has ended.
    pub async fn acquired(&self, spec: LeaseSpec) -> (Lease, Vec<AcquireResponse>) {
        let mut stream = self.acquire(spec).await.expect("the lease is granted");
        let mut told = Vec::new();
        let all = async {
            while let Some(message) = stream.message().await.expect("the stream goes on") {
                told.push(message);
            }
        };
        tokio::time::timeout(Duration::from_secs(180), all)
            .await
            .expect("the lease is ready or ended in time");
        let last =
            told.last().and_then(|message| message.lease.clone()).expect("the last message has the lease");
        (last, told)
    }

    /// Acquires a lease that becomes ready.
    pub async fn ready(&self, spec: LeaseSpec) -> Lease {
        let (lease, told) = self.acquired(spec).await;
        assert_eq!(lease.state(), LeaseState::Ready, "{}: {told:#?}", lease.message);
        lease
    }

    /// The lease now, or nothing while the server is away.
    pub async fn lease(&self, id: &str) -> Option<Lease> {
        let answer = self.leases.clone().status(StatusRequest { lease_id: id.to_owned() }).await;
        answer.ok()?.into_inner().lease
    }

    /// Waits until a lease is as it should be.
    pub async fn until(&self, id: &str, what: &str, is_so: impl Fn(&Lease) -> bool) -> Lease {
        until(&format!("lease {id} {what}"), 180, async || self.lease(id).await.filter(|lease| is_so(lease)))
            .await
    }

    /// Releases a lease, and waits until it holds nothing.
    pub async fn release(&self, id: &str) {
        let request = ReleaseRequest { lease_id: id.to_owned() };
        self.leases.clone().release(request).await.expect("it is released");
        self.until(id, "holds nothing", |lease| lease.closed_at.is_some()).await;
        assert!(self.installation.pods(id).is_empty());
        assert_eq!(self.installation.refused_by_rights(), Vec::<String>::new());
    }
}

/// A wish for models, each by its name and uri.
pub fn models<const N: usize>(models: [(&str, &str); N]) -> LeaseSpec {
    let models = models.map(|(name, uri)| Model { name: name.to_owned(), uri: uri.to_owned() });
    LeaseSpec { models: models.to_vec(), ..LeaseSpec::default() }
}

/// The same with as many GPUs.
pub fn with_gpus(spec: LeaseSpec, gpus: u32) -> LeaseSpec {
    LeaseSpec { bespoke: Some(BespokeTriton { gpus: Some(gpus), ..BespokeTriton::default() }), ..spec }
}

/// Runs a scenario on one installation, inside the cluster's network.
pub fn on<F: Future<Output = ()>>(database: Database, scenario: impl FnOnce(Client<'static>) -> F + Send) {
    let _node = use_node();
    run(database, scenario);
}

/// The same, while nobody else uses the node.
pub fn alone_on<F: Future<Output = ()>>(
    database: Database,
    scenario: impl FnOnce(Client<'static>) -> F + Send,
) {
    let _node = break_node();
    run(database, scenario);
}

fn run<F: Future<Output = ()>>(database: Database, scenario: impl FnOnce(Client<'static>) -> F + Send) {
    let Some(installation) = Installation::on(database) else { return };
    tms_tests::wait::inside(installation.cluster, || async { scenario(installation.client()).await });
}
