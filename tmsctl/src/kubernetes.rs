//! The cluster that a lease runs in, reached with the kubeconfig of the person at the keyboard: for what passes no server
//! of TMS, the ports and the logs of replicas.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, Portforwarder};
use kube::client::UpgradeConnectionError;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::failure::{self, Failure};

/// Label of a replica that carries the id of its lease.
const LEASE_LABEL: &str = "tms.internal/lease-id";

/// Which cluster.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Kubernetes options")]
pub struct ClusterArguments {
    /// Kubeconfig of the cluster that the lease runs in [default: $KUBECONFIG, then ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

/// The replicas of one lease in its cluster.
pub struct Replicas {
    pods: Api<Pod>,
    url: String,
    lease: String,
    namespace: String,
}

/// One replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Name of its pod.
    pub name: String,
    /// Whether it serves.
    pub is_ready: bool,
    /// Whether it is being deleted.
    pub is_ending: bool,
}

impl ClusterArguments {
    /// Returns the replicas of a lease, without asking the cluster anything yet.
    pub async fn replicas(&self, lease: &str, namespace: &str) -> Result<Replicas, Failure> {
        let config = self.config().await?;
        let url = config.cluster_url.to_string();
        let client = Client::try_from(config).map_err(|error| {
            Failure::local(format!("the kubeconfig cannot be used: {}", failure::root_cause(&error)))
        })?;
        let pods = Api::namespaced(client, namespace);
        Ok(Replicas { pods, url, lease: lease.to_owned(), namespace: namespace.to_owned() })
    }

    async fn config(&self) -> Result<Config, Failure> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let kubeconfig = match &self.kubeconfig {
            Some(file) => Kubeconfig::read_from(file),
            None => Kubeconfig::read(),
        };
        let loaded = match kubeconfig {
            Ok(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig, &options).await,
            Err(error) => Err(error),
        };
        let mut config = loaded.map_err(|error| {
            let failure =
                Failure::local(format!("there is no usable kubeconfig: {}", failure::root_cause(&error)));
            failure.hint("--kubeconfig FILE and --context NAME say how to reach the cluster; `kubectl config view` shows yours")
        })?;
        // A person waits: the first failure is told.
        config.default_retry = false;
        Ok(config)
    }
}

impl Replicas {
    /// Returns the replicas: those that serve first, among them the oldest.
    pub async fn list(&self) -> Result<Vec<Replica>, Failure> {
        let params = ListParams::default().labels(&format!("{LEASE_LABEL}={}", self.lease));
        let mut pods =
            self.pods.list(&params).await.map_err(|error| self.failure("list pods", &error))?.items;
        pods.sort_by_key(|pod| pod.metadata.creation_timestamp.clone());
        let mut replicas: Vec<_> = pods.into_iter().map(Replica::from).collect();
        replicas.sort_by_key(|replica| !replica.serves());
        Ok(replicas)
    }

    /// Opens a way to a port of a replica.
    pub async fn forward(&self, replica: &str, port: u16) -> Result<Portforwarder, Failure> {
        let opened = self.pods.portforward(replica, &[port]).await;
        opened.map_err(|error| self.failure("create pods/portforward", &error))
    }

    /// Returns the pods, for calls that have no words of their own here.
    pub fn pods(&self) -> &Api<Pod> {
        &self.pods
    }

    /// Returns the namespace of the lease.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Returns an error of the Kubernetes API in words; `right` is what the call needs.
    pub fn failure(&self, right: &str, error: &kube::Error) -> Failure {
        let (code, message) = match error {
            kube::Error::Api(status) => (status.code, status.message.clone()),
            kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(status)) => {
                (status.as_u16(), format!("it answers {status}"))
            }
            error => {
                let cause = failure::root_cause(error);
                return Failure::away(format!("the Kubernetes API at {} cannot be used: {cause}", self.url))
                    .hint(
                        "is it the cluster of the lease? --kubeconfig FILE and --context NAME choose another",
                    );
            }
        };
        let failure = Failure::local(format!("the Kubernetes API refuses to {right}: {message}"));
        match code {
            401 => failure.hint("does the kubeconfig still know you? `kubectl auth whoami` tells"),
            403 => failure.hint(format!(
                "you need the right to {right} in namespace {}; `kubectl auth can-i {right} -n {0}` tells",
                self.namespace
            )),
            404 => failure.hint("the replica may just have gone; try again"),
            _ => failure,
        }
    }
}

impl Replica {
    /// Whether it serves and will go on.
    pub fn serves(&self) -> bool {
        self.is_ready && !self.is_ending
    }
}

impl From<Pod> for Replica {
    fn from(pod: Pod) -> Self {
        let conditions = pod.status.and_then(|status| status.conditions).unwrap_or_default();
        Self {
            name: pod.metadata.name.unwrap_or_default(),
            is_ready: conditions
                .iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            is_ending: pod.metadata.deletion_timestamp.is_some(),
        }
    }
}
