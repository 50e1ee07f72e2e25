//! A cluster behind a Kubernetes API server: watches keep a cache, applies and deletes change what there is.

pub mod aggregation;
mod announce;
mod apply;
mod autoscaler;
mod cache;
mod calls;
mod chain;
mod discovery;
mod exposition;
mod http;
mod inspect;
mod live;
mod pods;
mod progress;
pub mod samples;
mod substance;
mod usage;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ApiResource};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::{Semaphore, watch as signal};
use tokio::task::JoinHandle;

use self::announce::Announcer;
use self::cache::{Cache, Subject};
use self::calls::Calls;
pub use self::calls::Limits;
use self::progress::Followers;
use self::watch::Listed;
pub use self::watch::Wake;
use super::{Act, ActError, Inspect, Measure, Observe, ScalingPod, Show, Sight};
use crate::clock::stopwatch;
use crate::domain::autoscaler::explanation::Evidence;
use crate::domain::autoscaler::record::Trouble;
use crate::domain::capabilities::Capabilities;
use crate::domain::doctor::evidence::Evidence as Chain;
use crate::domain::lease::{Happening, Lease, LeaseId};
use crate::domain::observed::Observed;
use crate::domain::plan::{Kind, Plan};
use crate::domain::usage::Served;
use crate::metrics::Metrics;

/// The field manager of everything that TMS applies.
pub const FIELD_MANAGER: &str = "tms";

/// Tritons that are asked for their use at once.
const LOOKS: usize = 32;

/// Which cluster, and how to use it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Path of a kubeconfig; `None` takes the pod's own account, or the default kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of every object.
    pub namespace: String,
    /// Identity of the installation.
    pub installation: String,
    /// Bounds on calls.
    pub limits: Limits,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// A cluster cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig is wrong.
    #[error("cannot read the kubeconfig")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// There is no kubeconfig.
    #[error("cannot find out which Kubernetes API server to use")]
    Infer(#[from] kube::config::InferConfigError),
    /// The client cannot be made.
    #[error("cannot make a client of the Kubernetes API")]
    Client(#[from] kube::Error),
}

/// A cluster behind a Kubernetes API server.
pub struct Kubernetes {
    client: Client,
    namespace: String,
    installation: String,
    calls: Arc<Calls>,
    cache: Arc<Cache>,
    followers: Arc<Followers>,
    /// Bounds how many Tritons are asked for their use at once.
    looks: Semaphore,
    announcer: Announcer,
    capabilities: signal::Sender<Capabilities>,
    /// Who serves custom.metrics.k8s.io, where that was looked at.
    custom_metrics_service: Arc<Mutex<Option<String>>>,
    wake: Wake,
    /// Why it is not known what the cluster serves.
    undiscovered: Mutex<Option<String>>,
    watches: Mutex<BTreeMap<Subject, Watching>>,
}

struct Watching {
    listed: signal::Receiver<Listed>,
    task: JoinHandle<()>,
}

/// Returns the namespace that a kubeconfig names, or that of the pod.
pub async fn namespace_of(kubeconfig: Option<&Path>) -> Result<String, ConnectError> {
    Ok(config_of(kubeconfig).await?.default_namespace)
}

async fn config_of(kubeconfig: Option<&Path>) -> Result<Config, ConnectError> {
    Ok(match kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path)?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?
        }
        None => Config::infer().await?,
    })
}

impl Kubernetes {
    /// Connects, without asking the API server anything yet. `wake` is told of each lease that needs a look.
    pub async fn connect(options: Options, wake: Wake) -> Result<Self, ConnectError> {
        let mut config = config_of(options.kubeconfig.as_deref()).await?;
        // Calls have their own bounds; hidden retries would keep an outage from being seen.
        config.default_retry = false;
        config.connect_timeout = Some(options.limits.timeout);
        let client = Client::try_from(config)?;
        let calls = Arc::new(Calls::new(options.limits, Arc::clone(&options.metrics)));
        let cache = Arc::new(Cache::new(&options.installation));
        Ok(Self {
            announcer: Announcer::start(
                client.clone(),
                &options.namespace,
                &options.installation,
                Arc::clone(&calls),
            ),
            followers: Arc::new(Followers::new(Arc::clone(&cache), Arc::clone(&wake), options.metrics)),
            looks: Semaphore::new(LOOKS),
            cache,
            client,
            namespace: options.namespace,
            installation: options.installation,
            calls,
            capabilities: signal::Sender::new(Capabilities::unknown()),
            custom_metrics_service: Arc::default(),
            wake,
            undiscovered: Mutex::default(),
            watches: Mutex::default(),
        })
    }

    /// Returns how many autoscalers of leases say that they read no metric, and that they want more than their maximum.
    pub fn troubled_autoscalers(&self) -> [u32; 2] {
        [Trouble::NoMetric, Trouble::AtMaximum].map(|trouble| self.cache.autoscalers_in(trouble))
    }

    /// Starts the watches of everything that the cluster serves and that is not watched yet.
    fn watch_served(&self, capabilities: &Capabilities) {
        let is_served = |kind: &Kind| match kind {
            Kind::PodMonitor => capabilities.pod_monitor,
            Kind::PrometheusRule => capabilities.prometheus_rule,
            Kind::ScaledObject => capabilities.scaled_object,
            // The watch of Services sees it.
            Kind::HeadlessService => false,
            Kind::Deployment | Kind::Service | Kind::HorizontalPodAutoscaler | Kind::PodDisruptionBudget => {
                true
            }
        };
        let kinds = Kind::ALL.into_iter().filter(is_served);
        let objects = kinds.map(|kind| (Subject::Object(kind), apply::resource(kind)));
        let pods = (Subject::Pods, ApiResource::erase::<Pod>(&()));
        let mut watches = self.watching();
        for (subject, resource) in objects.chain([pods]) {
            watches.entry(subject).or_insert_with(|| self.watch(subject, &resource));
        }
    }

    fn watch(&self, subject: Subject, resource: &ApiResource) -> Watching {
        let api = Api::namespaced_with(self.client.clone(), &self.namespace, resource);
        let (sender, listed) = signal::channel(Listed::NotYet);
        let told = watch::Told {
            cache: Arc::clone(&self.cache),
            followers: Arc::clone(&self.followers),
            wake: Arc::clone(&self.wake),
        };
        let follow = watch::follow(subject, api, self.installation.clone(), told, sender);
        Watching { listed, task: tokio::spawn(follow) }
    }

    fn watching(&self) -> std::sync::MutexGuard<'_, BTreeMap<Subject, Watching>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        for watching in self.watching().values() {
            watching.task.abort();
        }
    }
}

impl Observe for Kubernetes {
    fn observe(&self, lease: &Lease, plan: &Plan) -> Observed {
        self.cache.observe(lease, plan)
    }

    fn seen(&self) -> BTreeSet<LeaseId> {
        self.cache.leases()
    }

    fn sight(&self) -> Sight {
        let watching = self.watching();
        if watching.is_empty() {
            let trouble = self.undiscovered.lock().unwrap_or_else(PoisonError::into_inner);
            return trouble.clone().map_or(Sight::NotYet, Sight::Failing);
        }
        let unlisted = watching.values().map(|watching| watching.listed.borrow().clone());
        let states: Vec<_> = unlisted.filter(|listed| *listed != Listed::Complete).collect();
        let trouble = states.iter().find_map(|listed| match listed {
            Listed::Failing(cause) => Some(cause.clone()),
            Listed::NotYet | Listed::Complete => None,
        });
        match (trouble, states.is_empty()) {
            (Some(cause), _) => Sight::Failing(cause),
            (None, false) => Sight::NotYet,
            (None, true) => Sight::Full,
        }
    }

    fn listed(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let mut capabilities = self.capabilities.subscribe();
            // The sender lives in `self`. Before this there is not even a watch.
            let _ = capabilities.wait_for(|found| found.kubernetes.is_some()).await;
            let listed: Vec<_> = self.watching().values().map(|watching| watching.listed.clone()).collect();
            for mut listed in listed {
                // A watch that ended has no sender any more; it ends only with the server.
                let _ = listed.wait_for(|listed| *listed == Listed::Complete).await;
            }
        })
    }

    fn has_objects(&self, id: LeaseId) -> bool {
        !self.cache.kinds(id).is_empty()
    }

    fn capabilities(&self) -> Capabilities {
        let custom_metrics_service =
            self.custom_metrics_service.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let found = self.capabilities.borrow().clone();
        // What was registered since the last look is served too.
        let custom_metrics = found.custom_metrics || custom_metrics_service.is_some();
        Capabilities { custom_metrics, custom_metrics_service, ..found }
    }
}

impl Show for Kubernetes {
    fn show_scaling(&self, show: &mut dyn FnMut(ScalingPod<'_>)) {
        self.cache.show_scaling(|lease, pod| {
            show(ScalingPod { lease, name: pod.name, uid: pod.uid, labels: pod.labels });
        });
    }
}

impl Measure for Kubernetes {
    fn served(&self, id: LeaseId) -> BoxFuture<'_, Vec<Served>> {
        Box::pin(self.ask_served(id))
    }

    fn follow_progress(&self, is_wanted: bool) {
        self.followers.follow(is_wanted);
    }
}

impl Inspect for Kubernetes {
    fn autoscaler<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Option<Evidence>> {
        Box::pin(async { Some(self.inspect_autoscaler(lease).await) })
    }

    fn chain<'a>(&'a self, lease: Option<&'a Lease>, is_wide: bool) -> BoxFuture<'a, Option<Chain>> {
        Box::pin(async move { Some(self.inspect_chain(lease, is_wide).await) })
    }
}

impl Act for Kubernetes {
    fn apply<'a>(&'a self, lease: &'a Lease, plan: &'a Plan) -> BoxFuture<'a, Result<(), ActError>> {
        Box::pin(self.apply_plan(lease, plan))
    }

    fn delete(&self, id: LeaseId) -> BoxFuture<'_, Result<(), ActError>> {
        Box::pin(self.delete_objects(id))
    }

    fn forget(&self, id: LeaseId) {
        self.cache.forget_lease(id);
    }

    fn announce(&self, lease: &Lease, happening: &Happening) {
        let uid = self.cache.stamp(lease.id, Kind::Deployment).map(|stamp| stamp.uid);
        self.announcer.announce(lease, uid, happening);
    }

    fn refresh(&self) -> BoxFuture<'_, Result<bool, ActError>> {
        Box::pin(async {
            self.cache.tidy(stopwatch());
            let found = discovery::discover(&self.client, &self.calls).await;
            let trouble = found.as_ref().err().map(ToString::to_string);
            *self.undiscovered.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
            let found = found?;
            self.watch_served(&found);
            Ok(self.capabilities.send_if_modified(|known| {
                let is_news = *known != found;
                *known = found;
                is_news
            }))
        })
    }
}
