//! Puts the parts of a server together: [`start`] wires store, cluster, reconciler and gRPC, [`serve`] keeps them running
//! until it is told to stop.

mod custom_metrics;
mod database;
mod doctor;
mod figures;
mod listener;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use listener::{Answering, answer, write_address};

use self::database::{open, stay};
use self::listener::listen_key;
use crate::chain::chain;
use crate::clock::Clock;
use crate::cluster::kubernetes::{ConnectError, Kubernetes, Limits, namespace_of};
use crate::cluster::manifests::{Manifests, OpenError};
use crate::cluster::{Act, Cluster, Observe};
use crate::config::{ClusterKind, Config, NoPassword, check_capabilities};
use crate::domain::lease::LeaseId;
use crate::grpc::{self, Services, Simulations};
use crate::metrics::Metrics;
use crate::reconcile::{self, Reconciler, Renewal, Waker};
use crate::store::{Store, StoreError};

/// Passes under way at once.
const PASSES: usize = 32;
/// Pause between two tries to find out what the cluster serves, at the start.
const DISCOVERY_PAUSE: Duration = Duration::from_secs(2);
/// Time between two looks at the clock of the database.
const CLOCK_INTERVAL: Duration = Duration::from_secs(60);
/// Namespace of leases where neither the configuration nor the cluster names one.
const DEFAULT_NAMESPACE: &str = "default";

/// A server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The password of the database is not there.
    #[error(transparent)]
    Password(#[from] NoPassword),
    /// The database cannot be opened.
    #[error("cannot open the database (server.database.url)")]
    Store(#[from] StoreError),
    /// Leases that are not closed have their objects elsewhere.
    #[error(
        "{key} is {configured:?}, but leases of this database that are not closed have their objects in {held:?}: set \
         {key} back to {held:?}, at least until those leases are released and closed"
    )]
    Moved {
        /// The key that was changed.
        key: &'static str,
        /// Its value.
        configured: String,
        /// The value that the database holds.
        held: String,
    },
    /// The folder of manifests cannot be used.
    #[error("cannot use the folder of manifests (server.cluster.manifests.directory)")]
    Manifests(#[source] OpenError),
    /// The cluster cannot be used.
    #[error("cannot use the cluster (server.cluster)")]
    Cluster(#[from] ConnectError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address} ({})", listen_key(*key, source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The key to change, where only one can be meant.
        key: Option<&'static str>,
        /// Why not.
        source: io::Error,
    },
    /// The address of the figures cannot be listened on.
    #[error("cannot listen on {address} (server.metrics.listen)")]
    ListenMetrics {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The address of custom.metrics.k8s.io cannot be listened on.
    #[error("cannot listen on {address} (server.autoscaling.builtin.listenPort)")]
    ListenCustomMetrics {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Prometheus cannot be asked.
    #[error(
        "cannot read the authorities of this machine, by which a Prometheus is known (server.autoscaling)"
    )]
    Prometheus(#[source] io::Error),
    /// A file of TLS cannot be used.
    #[error("cannot use {} (server.tls.{key}): {problem}", path.display())]
    Tls {
        /// The key that names the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The address file cannot be written.
    #[error("cannot write {}", path.display())]
    AddressFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A part of the server ended though nobody told it to.
    #[error("the {0} ended by itself")]
    Ended(&'static str),
}

/// Starts a server and keeps it until `stop`. Writes the address that it listens on to `address_file`.
pub async fn serve(
    config: &Config,
    clock: Clock,
    address_file: Option<&Path>,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let mut running = start(config, clock).await?;
    if let Some(path) = address_file {
        write_address(path, running.address())
            .map_err(|source| ServeError::AddressFile { path: path.to_owned(), source })?;
    }
    let outcome = tokio::select! {
        () = stop.cancelled() => Ok(()),
        part = running.ended() => Err(ServeError::Ended(part)),
    };
    running.stop().await;
    outcome
}

/// Puts a server together and starts it.
pub async fn start(config: &Config, clock: Clock) -> Result<Running, ServeError> {
    let store = open(config, &clock).await?;
    let namespace = namespace(config).await?;
    stay(&store, &namespace, kind(config)).await?;
    let settings = config.plan_settings(store.installation().to_owned());
    let waker = Waker::default();
    let metrics = Arc::new(Metrics::new());
    let cluster = cluster(config, &store, &namespace, &waker, &metrics).await?;
    let stop = CancellationToken::new();

    let renewal = config.bounds.automatic_renewal.map(|renewal| Renewal {
        look_interval: renewal.look_interval,
        maximum: config.bounds.lifetime.maximum,
    });
    let options = reconcile::Options {
        plan: settings.clone(),
        deadlines: config.deadlines(),
        renewal,
        metrics: Arc::clone(&metrics),
        passes: PASSES,
        sweep_interval: config.cluster.sweep_interval,
    };
    let reconciler = Reconciler::new(store.clone(), cluster.as_dyn(), clock.clone(), waker.clone(), options);
    let (seen, inspected) = (cluster.as_dyn(), cluster.as_dyn());
    let doctor = doctor::doctor(config, cluster.as_dyn(), &settings, &namespace).await?;
    let (asked, leases_namespace) = (Arc::clone(&doctor), namespace.clone());
    let services = Services {
        store: store.clone(),
        clock: clock.clone(),
        bounds: config.bounds.clone(),
        settings,
        namespace,
        cluster_kind: kind(config),
        capabilities: Box::new(move || seen.capabilities()),
        inspect: Box::new(move |lease| {
            let cluster = Arc::clone(&inspected);
            Box::pin(async move { cluster.autoscaler(&lease).await })
        }),
        diagnose: Box::new(move |lease| {
            let doctor = Arc::clone(&asked);
            Box::pin(async move { doctor.diagnose(lease.as_ref()).await })
        }),
        simulations: Simulations::default(),
        wake: Box::new(waker.clone()),
        metrics: Arc::clone(&metrics),
        stop: stop.clone(),
    };
    let answering = answer(&config.listen, config.health_port, services).await?;
    tracing::info!(
        version = crate::VERSION,
        address = %answering.address(),
        tls = config.listen.tls.is_some(),
        database = database_kind(&store),
        cluster = kind(config),
        "listening"
    );

    let mut parts = JoinSet::new();
    let metrics_address = match config.metrics {
        Some(address) => {
            let sources = figures::Sources {
                store: store.clone(),
                clock: clock.clone(),
                kubernetes: cluster.kubernetes(),
                certificates: answering.certificates(),
            };
            Some(figures::serve(address, Arc::clone(&metrics), sources, &stop, &mut parts).await?)
        }
        None => None,
    };
    if let (Some(served), Held::Kubernetes(kubernetes)) = (&config.custom_metrics, &cluster) {
        let place = custom_metrics::Place { kubernetes, namespace: &leases_namespace, metrics: &metrics };
        custom_metrics::start(config, served, place, &clock, &stop, &mut parts).await?;
    }
    let until_stop = stop.clone();
    let config = config.clone();
    parts.spawn(async move {
        let discovered = until_stop.run_until_cancelled(async {
            cluster.discovered(&config).await;
            if matches!(cluster, Held::Kubernetes(_)) {
                doctor::tell(&doctor).await;
            }
        });
        tokio::join!(discovered, reconciler.run(until_stop.clone()));
        "reconciler"
    });
    let (until_stop, followed) = (stop.clone(), store.clone());
    parts.spawn(async move {
        until_stop.run_until_cancelled(follow_clock(&followed, &clock)).await;
        "clock"
    });
    Ok(Running { store, waker, answering, metrics_address, parts, stop })
}

/// A server that runs.
pub struct Running {
    store: Store,
    waker: Waker,
    answering: Answering,
    metrics_address: Option<SocketAddr>,
    parts: JoinSet<&'static str>,
    stop: CancellationToken,
}

impl Running {
    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.answering.address()
    }

    /// The address on which it serves its figures, if it does.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Its database.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What tells its reconciler of work.
    pub fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Waits until a part of it ends by itself, which none should, and names it.
    pub async fn ended(&mut self) -> &'static str {
        tokio::select! {
            () = self.answering.ended() => "listener",
            part = self.parts.join_next() => match part {
                Some(Ok(part)) => part,
                // A panic, which has been reported where it happened.
                Some(Err(_)) | None => "reconciler",
            },
        }
    }

    /// Ends it: streams end, calls and passes under way are finished.
    pub async fn stop(mut self) {
        self.stop.cancel();
        self.answering.ended().await;
        while self.parts.join_next().await.is_some() {}
        tracing::info!("stopped");
    }
}

/// The cluster as configured.
enum Held {
    Kubernetes(Arc<Kubernetes>),
    Manifests(Arc<Manifests>),
}

impl Held {
    fn as_dyn(&self) -> Arc<dyn Cluster> {
        match self {
            Self::Kubernetes(cluster) => Arc::clone(cluster) as Arc<dyn Cluster>,
            Self::Manifests(cluster) => Arc::clone(cluster) as Arc<dyn Cluster>,
        }
    }

    fn kubernetes(&self) -> Option<Arc<Kubernetes>> {
        match self {
            Self::Kubernetes(cluster) => Some(Arc::clone(cluster)),
            Self::Manifests(_) => None,
        }
    }

    /// Waits until it is known what the cluster serves. However long that takes, leases are taken on and expire.
    async fn discovered(&self, config: &Config) {
        let cluster = match self {
            Self::Kubernetes(cluster) => cluster,
            Self::Manifests(_) => return,
        };
        while let Err(error) = cluster.refresh().await {
            tracing::warn!(error = chain(&error), "cannot find out what the cluster serves");
            tokio::time::sleep(DISCOVERY_PAUSE).await;
        }
        let capabilities = cluster.capabilities();
        tracing::info!(?capabilities, "the cluster answers");
        for finding in check_capabilities(config, &capabilities) {
            tracing::warn!("{finding}");
        }
    }
}

async fn cluster(
    config: &Config,
    store: &Store,
    namespace: &str,
    waker: &Waker,
    metrics: &Arc<Metrics>,
) -> Result<Held, ServeError> {
    match &config.cluster.kind {
        ClusterKind::Manifests { directory } => {
            let manifests =
                Manifests::open(directory, store.installation()).map_err(ServeError::Manifests)?;
            Ok(Held::Manifests(Arc::new(manifests)))
        }
        ClusterKind::Kubernetes { kubeconfig } => {
            let options = crate::cluster::kubernetes::Options {
                kubeconfig: kubeconfig.clone(),
                namespace: namespace.to_owned(),
                installation: store.installation().to_owned(),
                limits: Limits {
                    in_flight: config.cluster.calls_in_flight,
                    per_second: config.cluster.calls_per_second,
                    timeout: config.cluster.call_timeout,
                },
                metrics: Arc::clone(metrics),
            };
            let waker = waker.clone();
            let wake = Arc::new(move |id: LeaseId| waker.wake(id));
            Ok(Held::Kubernetes(Arc::new(Kubernetes::connect(options, wake).await?)))
        }
    }
}

async fn namespace(config: &Config) -> Result<String, ServeError> {
    match (&config.namespace, &config.cluster.kind) {
        (Some(namespace), _) => Ok(namespace.clone()),
        (None, ClusterKind::Kubernetes { kubeconfig }) => Ok(namespace_of(kubeconfig.as_deref()).await?),
        (None, ClusterKind::Manifests { .. }) => Ok(DEFAULT_NAMESPACE.to_owned()),
    }
}

async fn follow_clock(store: &Store, clock: &Clock) {
    loop {
        tokio::time::sleep(CLOCK_INTERVAL).await;
        if let Err(error) = store.follow_clock(clock).await {
            tracing::warn!(error = chain(&error), "cannot read the clock of the database");
        }
    }
}

fn kind(config: &Config) -> &'static str {
    match config.cluster.kind {
        ClusterKind::Manifests { .. } => "manifests",
        ClusterKind::Kubernetes { .. } => "kubernetes",
    }
}

fn database_kind(store: &Store) -> &'static str {
    if store.is_shared() { "postgresql" } else { "sqlite" }
}

impl grpc::Wake for Waker {
    fn wake(&self, id: LeaseId) {
        Waker::wake(self, id);
    }
}
