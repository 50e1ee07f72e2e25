//! A listener on a free loopback port, over SQLite, under a clock that stands still.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use tempfile::TempDir;
use tms_proto::v1;
use tms_proto::v1::lease_service_client::LeaseServiceClient;
use tms_proto::v1::server_service_client::ServerServiceClient;
use tms_server::clock::Clock;
use tms_server::config::{self, Config, Listen, Tls};
use tms_server::domain::autoscaler::explanation::Evidence;
use tms_server::domain::capabilities::Capabilities;
use tms_server::domain::doctor::Diagnosis;
use tms_server::domain::lease::{Lease, LeaseId, ModelState, Phase, Report, SERVER};
use tms_server::grpc::{Services, Simulations, Wake};
use tms_server::serve::{Answering, answer};
use tms_server::store::{Options, Store};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt as _;

/// Bounds of every test: autoscaling by queue time, lifetimes from a minute to a week.
const VALUES: &str = "
server:
  autoscaling:
    enable: true
    metrics:
      queueTime: { allowed: true, enabled: true }
";

/// How long any awaited thing may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A server under test.
pub struct Server {
    pub store: Store,
    pub clock: Clock,
    pub woken: Woken,
    /// What a look at the cluster finds.
    pub evidence: Arc<Mutex<Option<Evidence>>>,
    pub stop: CancellationToken,
    answering: Option<Answering>,
    address: SocketAddr,
    _folder: TempDir,
}

/// What the reconciler would have been told.
#[derive(Clone, Default)]
pub struct Woken(Arc<Mutex<Vec<LeaseId>>>);

impl Wake for Woken {
    fn wake(&self, id: LeaseId) {
        self.0.lock().unwrap().push(id);
    }
}

impl Woken {
    pub fn ids(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(ToString::to_string).collect()
    }
}

fn inspector(
    evidence: Arc<Mutex<Option<Evidence>>>,
) -> Box<dyn Fn(Lease) -> BoxFuture<'static, Option<Evidence>> + Send + Sync> {
    Box::new(move |_| {
        let found = evidence.lock().unwrap().clone();
        Box::pin(async { found })
    })
}

/// What a test may ask of its server.
#[derive(Default)]
pub struct Wishes {
    pub values: Option<&'static str>,
    pub maximum_per_owner: u32,
    pub tls: Option<Tls>,
}

pub fn configuration(values: &str) -> Config {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("values.yaml");
    std::fs::write(&file, values).unwrap();
    config::load(&[file], std::iter::empty()).unwrap().0
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(Wishes::default()).await
    }

    pub async fn start_with(wishes: Wishes) -> Self {
        let config = configuration(wishes.values.unwrap_or(VALUES));
        let folder = TempDir::new().unwrap();
        let clock = Clock::manual("2026-01-01T00:00:00Z".parse().unwrap());
        let options = Options {
            url: format!("sqlite://{}", folder.path().join("tms.db").display()),
            password: None,
            deadlines: config.deadlines(),
            maximum_per_owner: wishes.maximum_per_owner,
        };
        let store = Store::open(&options, &clock).await.unwrap();
        let evidence = Arc::<Mutex<Option<Evidence>>>::default();
        let (woken, stop) = (Woken::default(), CancellationToken::new());
        let services = Services {
            store: store.clone(),
            clock: clock.clone(),
            bounds: config.bounds.clone(),
            settings: config.plan_settings(store.installation().to_owned()),
            namespace: "models".to_owned(),
            cluster_kind: "kubernetes",
            capabilities: Box::new(Capabilities::assumed),
            inspect: inspector(Arc::clone(&evidence)),
            diagnose: Box::new(|_| Box::pin(async { Diagnosis { findings: Vec::new() } })),
            simulations: Simulations::default(),
            wake: Box::new(woken.clone()),
            metrics: Arc::default(),
            stop: stop.clone(),
        };
        let listen = Listen { address: (Ipv4Addr::LOCALHOST, 0).into(), tls: wishes.tls };
        let answering = answer(&listen, None, services).await.unwrap();
        let address = answering.address();
        Self { store, clock, woken, evidence, stop, answering: Some(answering), address, _folder: folder }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    pub async fn leases(&self) -> LeaseServiceClient<Channel> {
        LeaseServiceClient::new(self.channel().await)
    }

    pub async fn about(&self) -> ServerServiceClient<Channel> {
        ServerServiceClient::new(self.channel().await)
    }

    /// Acquires a lease without waiting for it.
    pub async fn acquire(&self, spec: v1::LeaseSpec) -> v1::Lease {
        acquire(&mut self.leases().await, spec).await
    }

    /// Changes the report of a lease, as the reconciler would.
    pub async fn change(&self, lease: &v1::Lease, change: impl Fn(&mut Report, Timestamp) + Send + Sync) {
        let now = self.clock.now();
        let change = |lease: &mut Lease| {
            let mut report = lease.report.clone();
            change(&mut report, now);
            Ok::<_, Infallible>(((), lease.observe(report)))
        };
        self.store.change(lease.id.parse().unwrap(), SERVER, now, change).await.unwrap();
    }

    /// Reports the phase and the state of every model.
    pub async fn report(&self, lease: &v1::Lease, phase: Phase, models: ModelState) {
        self.change(lease, |report, now| {
            report.phase = phase;
            report.models.iter_mut().for_each(|model| model.state = models);
            if phase == Phase::Ready {
                report.first_ready_at = Some(now);
            }
        })
        .await;
    }

    /// Closes an ended lease.
    pub async fn close(&self, lease: &v1::Lease) {
        let now = self.clock.now();
        let close = |lease: &mut Lease| Ok::<_, Infallible>(((), lease.close(now)));
        self.store.change(lease.id.parse().unwrap(), SERVER, now, close).await.unwrap();
    }

    /// Stops the server and waits until it has.
    pub async fn stop(&mut self) {
        self.stop.cancel();
        within(self.answering.take().unwrap().ended()).await;
    }
}

pub async fn acquire(client: &mut LeaseServiceClient<Channel>, spec: v1::LeaseSpec) -> v1::Lease {
    let request = v1::AcquireRequest { spec: Some(spec), no_wait: true, ..Default::default() };
    let mut stream = client.acquire(request).await.unwrap().into_inner();
    let first = within(stream.message()).await.unwrap().unwrap();
    assert_eq!(within(stream.message()).await.unwrap(), None);
    first.lease.unwrap()
}

/// A spec with models of these names.
pub fn spec(models: &[&str]) -> v1::LeaseSpec {
    let model = |name: &&str| v1::Model {
        name: (*name).to_owned(),
        uri: format!("https://models.example.com/{name}.tar.gz"),
    };
    v1::LeaseSpec { models: models.iter().map(model).collect(), ..Default::default() }
}

pub fn lifetime(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

/// A refusal as people and programs read it.
pub fn told(status: &Status) -> String {
    let details = status.get_error_details();
    let mut text = format!("{:?}: {}", status.code(), status.message());
    if let Some(info) = details.error_info() {
        let mut metadata: Vec<_> =
            info.metadata.iter().map(|(key, value)| format!("{key}={value}")).collect();
        metadata.sort();
        write!(text, "\nerror: {} ({}) {}", info.reason, info.domain, metadata.join(" ")).unwrap();
    }
    for violation in details.bad_request().into_iter().flat_map(|request| &request.field_violations) {
        write!(text, "\nfield: {}: {}", violation.field, violation.description).unwrap();
    }
    for violation in details.precondition_failure().into_iter().flat_map(|failure| &failure.violations) {
        write!(text, "\nprecondition: {} {}: {}", violation.r#type, violation.subject, violation.description)
            .unwrap();
    }
    for violation in details.quota_failure().into_iter().flat_map(|failure| &failure.violations) {
        write!(text, "\nquota: {}: {}", violation.subject, violation.description).unwrap();
    }
    if let Some(resource) = details.resource_info() {
        write!(text, "\nresource: {} {}", resource.resource_type, resource.resource_name).unwrap();
    }
    text
}

/// The same with ids that differ in every run replaced.
pub fn told_of(status: &Status, lease: &v1::Lease) -> String {
    told(status).replace(&lease.id, "<lease>")
}

/// Certificates of one authority, in a folder.
pub struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    certificate: String,
    folder: TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::default();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).unwrap().pem();
        let folder = TempDir::new().unwrap();
        Self { issuer: rcgen::Issuer::new(parameters, key), certificate, folder }
    }

    /// Returns certificate and key in PEM.
    pub fn issue(&self, common_name: &str, hosts: &[&str]) -> (String, String) {
        let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut parameters = rcgen::CertificateParams::new(hosts).unwrap();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, common_name);
        let key = rcgen::KeyPair::generate().unwrap();
        (parameters.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Returns TLS for a server on this machine that lets only clients of this authority in.
    pub fn server(&self) -> Tls {
        let (certificate, key) = self.issue("server", &["localhost"]);
        Tls {
            certificate_file: self.write("server.pem", &certificate),
            key_file: self.write("server.key", &key),
            client_ca_file: Some(self.write("ca.pem", &self.certificate)),
        }
    }
}
