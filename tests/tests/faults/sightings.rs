//! Everything that a Deployment was, from one moment to another: a watch misses no version of it.

use std::sync::{Arc, Mutex};

use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, Config};
use tms_tests::cluster::Cluster;
use tms_tests::server::World;
use tms_tests::wait::until;
use tokio::task::JoinHandle;

/// The versions of one Deployment that were seen, oldest first.
pub struct Sightings {
    seen: Arc<Mutex<Vec<Deployment>>>,
    task: JoinHandle<()>,
}

impl Sightings {
    /// Begins to watch the Deployment of a lease, which is there.
    pub async fn of(world: &World, cluster: &Cluster, id: &str) -> Self {
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig("admin")).unwrap();
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
        let api: Api<Deployment> = Api::namespaced(Client::try_from(config).unwrap(), &world.namespace);
        let config = watcher::Config::default().fields(&format!("metadata.name=tms-{id}"));
        let seen = Arc::<Mutex<Vec<Deployment>>>::default();
        let kept = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut events = std::pin::pin!(watcher(api, config).default_backoff().touched_objects());
            while let Some(event) = events.next().await {
                kept.lock().unwrap().extend(event.ok());
            }
        });
        let sightings = Self { seen, task };
        until("the Deployment is seen", 20, async || (!sightings.now().is_empty()).then_some(())).await;
        sightings
    }

    /// Waits until the version that is current now has been seen, and returns all until then.
    pub async fn until_now(&self, current: &serde_json::Value) -> Vec<Deployment> {
        let version = current["metadata"]["resourceVersion"].as_str().unwrap();
        until(&format!("version {version} is seen"), 20, async || {
            let seen = self.now();
            let has_version =
                |deployment: &Deployment| deployment.metadata.resource_version.as_deref() == Some(version);
            seen.iter().any(has_version).then_some(seen)
        })
        .await
    }

    /// Waits until the Deployment is of this generation of its lease, or a newer one.
    pub async fn until_generation(&self, generation: i64) {
        until(&format!("generation {generation} is seen"), 60, async || {
            self.now().last().filter(|newest| generation_of(newest) >= generation).map(drop)
        })
        .await;
    }

    fn now(&self) -> Vec<Deployment> {
        self.seen.lock().unwrap().clone()
    }
}

/// Returns the generation of the lease for which a Deployment was applied.
pub fn generation_of(deployment: &Deployment) -> i64 {
    let annotations = deployment.metadata.annotations.as_ref().unwrap();
    annotations["tms.internal/generation"].parse().unwrap()
}

impl Drop for Sightings {
    fn drop(&mut self) {
        self.task.abort();
    }
}
