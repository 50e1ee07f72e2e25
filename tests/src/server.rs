//! A server in the test's own process, on a real database and a real cluster, with a clock that the test moves.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;
use tms_proto::v1::lease_service_client::LeaseServiceClient;
use tms_proto::v1::server_service_client::ServerServiceClient;
use tms_proto::v1::{
    AcquireRequest, AcquireResponse, Autoscaling, Lease, LeaseSpec, LeaseState, Model, ReleaseRequest,
    StatusRequest,
};
use tms_server::clock::Clock;
use tms_server::config;
use tms_server::serve::{self, Running};
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use crate::audit::AuditLine;
use crate::cluster::Cluster;
use crate::postgres;
use crate::wait::until_so;

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    Sqlite,
    Postgres,
}

/// Which cluster.
#[derive(Clone, Copy)]
pub enum Target {
    Manifests,
    Kubernetes(&'static Cluster),
}

/// Where nothing is written for this long, nothing is under way.
const QUIET: Duration = Duration::from_millis(1500);

/// What outlives a server: its database, its cluster, its configuration and its clock.
pub struct World {
    /// A folder for whatever the test likes.
    pub folder: TempDir,
    /// Namespace of the leases.
    pub namespace: String,
    /// Where the leases' objects go.
    pub target: Target,
    /// The clock of every server of this world.
    pub clock: Clock,
    /// values.yaml, beyond what the world itself needs.
    pub values: String,
    /// Where its database is.
    pub database_url: String,
}

/// Every metric may be asked for, queue time is the default, and little takes long.
pub const VALUES: &str = "
server:
  leases: {defaultLifetime: 1h, minimumLifetime: 1s, maximumLifetime: 8h, loadTimeout: 30m}
  resources:
    default: {gpus: 1, cpu: 100m, memory: 256Mi, sharedMemory: 64Mi}
  autoscaling:
    enable: true
    replicas:
      default: {minimum: 1, maximum: 4}
      limits: {maximum: 8, minimum: {lowerBound: 1, upperBound: 4}}
    metrics:
      cpuUtilization: {allowed: true}
      memoryUtilization: {allowed: true}
      gpuUtilization: {allowed: true}
      gpuMemoryUtilization: {allowed: true}
      queueTime: {allowed: true, enabled: true}
";

impl World {
    /// Makes a world; `None` where this machine cannot, which is counted as a skipped test.
    pub async fn new(database: Database, target: Target) -> Option<Self> {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let database_url = match database {
            Database::Sqlite => format!("sqlite:{}", folder.path().join("tms.db").display()),
            Database::Postgres => postgres::database().await?,
        };
        Some(Self::at(database_url, folder, target))
    }

    /// Makes a world on a PostgreSQL of the test's own.
    pub fn on(postgres: &postgres::Own, target: Target) -> Self {
        let folder = TempDir::new().expect("a temporary folder can be made");
        Self::at(postgres.url().to_owned(), folder, target)
    }

    fn at(database_url: String, folder: TempDir, target: Target) -> Self {
        let namespace = format!("tms-{}", uuid::Uuid::new_v4().simple());
        if let Target::Kubernetes(cluster) = target {
            cluster.kubectl(&["create", "namespace", &namespace]).expect("a namespace can be made");
        }
        let clock = Clock::manual(tms_server::clock::system_now());
        Self { folder, namespace, target, clock, values: VALUES.to_owned(), database_url }
    }

    /// Starts a server of this world.
    pub async fn start(&self) -> Server {
        let (config, _) =
            config::load(&self.files(), std::iter::empty()).unwrap_or_else(|faults| panic!("{faults}"));
        let running = serve::start(&config, self.clock.clone()).await.expect("the server starts");
        let channel = Endpoint::from_shared(format!("http://{}", running.address()))
            .expect("an address")
            .connect_lazy();
        Server {
            running,
            leases: LeaseServiceClient::new(channel.clone()),
            about: ServerServiceClient::new(channel.clone()),
            channel,
        }
    }

    /// Writes the configuration and returns its files, as a server takes them.
    pub fn files(&self) -> Vec<PathBuf> {
        let cluster = match self.target {
            Target::Manifests => {
                format!("{{kind: manifests, manifests: {{directory: {}}}}}", self.manifests().display())
            }
            Target::Kubernetes(cluster) => format!(
                "{{kind: kubernetes, kubeconfig: {}, callsPerSecond: 10000, callTimeoutSeconds: 5}}",
                cluster.kubeconfig("tms").display()
            ),
        };
        let own = format!(
            "kubernetes: {{namespace: {}}}\nserver:\n  apiService: {{port: 0}}\n  database: {{url: \"{}\"}}\n  cluster: {cluster}\n",
            self.namespace, self.database_url
        );
        let (ours, theirs) = (self.folder.path().join("own.yaml"), self.folder.path().join("values.yaml"));
        fs::write(&ours, own).expect("a file can be written");
        fs::write(&theirs, &self.values).expect("a file can be written");
        vec![ours, theirs]
    }

    /// The folder of manifests.
    pub fn manifests(&self) -> PathBuf {
        self.folder.path().join("manifests")
    }

    /// What kubectl answers about the world's namespace, as JSON.
    pub fn kubectl(&self, args: &[&str]) -> serde_json::Value {
        let Target::Kubernetes(cluster) = self.target else { panic!("this world has no Kubernetes") };
        let mut all = vec!["--namespace", self.namespace.as_str(), "--output=json"];
        all.extend(args);
        let answer = cluster.kubectl(&all).unwrap_or_else(|error| panic!("kubectl {args:?}: {error}"));
        serde_json::from_str(&answer).unwrap_or(serde_json::Value::Null)
    }

    /// Moves the clock, and the servers with it.
    pub fn advance(&self, by: SignedDuration) {
        self.clock.advance(by);
    }

    /// The kinds and names of the objects that leases have, sorted.
    pub fn objects(&self) -> Vec<String> {
        let mut objects = match self.target {
            Target::Manifests => self.manifest_files(),
            Target::Kubernetes(_) => {
                let kinds = "deployments,services,hpa,pdb,podmonitors,prometheusrules";
                let list = self.kubectl(&["get", kinds]);
                let items = list["items"].as_array().cloned().unwrap_or_default();
                let name = |item: &serde_json::Value| {
                    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
                    format!("{} {}", text(&item["kind"]), text(&item["metadata"]["name"]))
                };
                items.iter().map(name).collect()
            }
        };
        objects.sort();
        objects
    }

    fn manifest_files(&self) -> Vec<String> {
        let folders = fs::read_dir(self.manifests()).into_iter().flatten().flatten();
        let mut objects = Vec::new();
        for folder in folders {
            for file in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
                let text = fs::read_to_string(file.path()).unwrap_or_default();
                let kind = text.lines().find_map(|line| line.strip_prefix("kind: ")).unwrap_or_default();
                if kind != "Kustomization" {
                    let name =
                        text.lines().find_map(|line| line.strip_prefix("  name: ")).unwrap_or_default();
                    objects.push(format!("{kind} {name}"));
                }
            }
        }
        objects
    }
}

/// A running server and clients of it.
pub struct Server {
    /// The server itself.
    pub running: Running,
    /// Leases.
    pub leases: LeaseServiceClient<Channel>,
    /// The server's own questions.
    pub about: ServerServiceClient<Channel>,
    channel: Channel,
}

impl Server {
    /// Ends it in good order.
    pub async fn stop(self) {
        self.running.stop().await;
    }

    /// The connection, for other clients.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Acquires a lease and returns it as it was stored.
    pub async fn acquire(&self, spec: LeaseSpec) -> Result<Lease, Status> {
        let request = AcquireRequest { spec: Some(spec), request_id: String::new(), no_wait: true };
        let mut stream = self.acquire_stream(request).await?;
        let first = stream.message().await?.ok_or_else(|| Status::internal("an empty stream"))?;
        first.lease.ok_or_else(|| Status::internal("the first message has no lease"))
    }

    /// Begins to acquire a lease.
    pub async fn acquire_stream(
        &self,
        request: AcquireRequest,
    ) -> Result<Streaming<AcquireResponse>, Status> {
        Ok(self.leases.clone().acquire(request).await?.into_inner())
    }

    /// The lease now.
    pub async fn lease(&self, id: &str) -> Lease {
        let status = self.leases.clone().status(StatusRequest { lease_id: id.to_owned() }).await;
        status.expect("the lease is known").into_inner().lease.expect("an answer has a lease")
    }

    /// Releases a lease.
    pub async fn release(&self, id: &str) -> Result<Lease, Status> {
        let answer = self.leases.clone().release(ReleaseRequest { lease_id: id.to_owned() }).await?;
        Ok(answer.into_inner().lease.expect("an answer has a lease"))
    }

    /// Waits until a lease is in a state.
    pub async fn until_state(&self, id: &str, state: LeaseState) -> Lease {
        self.until_lease(&format!("lease {id} is {state:?}"), id, |lease| lease.state() == state).await
    }

    /// Waits until nothing is under way, events on Deployments included, and returns all that servers have written to
    /// the cluster until then.
    pub async fn until_quiet(&self, cluster: &Cluster) -> Vec<AuditLine> {
        let mut written = cluster.writes_of("tms");
        for _ in 0..100 {
            tokio::time::sleep(QUIET).await;
            let now = cluster.writes_of("tms");
            if now.len() == written.len() && self.running.waker().is_idle() {
                return now;
            }
            written = now;
        }
        panic!("the server does not come to rest: {:?}", &written[written.len().saturating_sub(20)..]);
    }

    /// Waits until a lease that ended holds nothing.
    pub async fn until_closed(&self, id: &str) -> Lease {
        self.until_lease(&format!("lease {id} is closed"), id, |lease| lease.closed_at.is_some()).await
    }

    async fn until_lease(&self, what: &str, id: &str, is_so: impl Fn(&Lease) -> bool) -> Lease {
        until_so(what, 60, async || {
            let lease = self.lease(id).await;
            match is_so(&lease) {
                true => Ok(lease),
                false => Err(format!("{lease:?}")),
            }
        })
        .await
    }
}

/// A wish for one model, and nothing else.
pub fn spec() -> LeaseSpec {
    let model = Model { name: "bert".to_owned(), uri: "https://models.example.com/bert.tar.gz".to_owned() };
    LeaseSpec { models: vec![model], ..LeaseSpec::default() }
}

/// A wish for one model on replicas between two numbers.
pub fn autoscaled(minimum: u32, maximum: u32) -> LeaseSpec {
    let autoscaling =
        Autoscaling { min_replicas: Some(minimum), max_replicas: Some(maximum), ..Autoscaling::default() };
    LeaseSpec { autoscaling: Some(autoscaling), ..spec() }
}

/// A moment of the interface.
pub fn timestamp(at: Option<prost_types::Timestamp>) -> Timestamp {
    let at = at.expect("a moment is given");
    Timestamp::new(at.seconds, at.nanos).expect("a moment")
}
