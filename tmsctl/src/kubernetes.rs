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
                Failure::local(format!("there is no usable kubeconfig: {error}"));
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
        let mut pods = self
            .pods
            .list(&params)
            .await
            .map_err(|error| self.failure("list pods", "list pods", &error))?
            .items;
        pods.sort_by_key(|pod| pod.metadata.creation_timestamp.clone());
        let mut replicas: Vec<_> = pods.into_iter().map(Replica::from).collect();
        replicas.sort_by_key(|replica| !replica.serves());
        Ok(replicas)
    }

    /// Opens a way to a port of a replica.
    pub async fn forward(&self, replica: &str, port: u16) -> Result<Portforwarder, Failure> {
        let opened = self.pods.portforward(replica, &[port]).await;
        opened.map_err(|error| self.failure("forward a port", "get and create pods/portforward", &error))
    }

    /// Returns the pods, for calls that have no words of their own here.
    pub fn pods(&self) -> &Api<Pod> {
        &self.pods
    }

    /// Returns an error of the Kubernetes API in words: what was to be done, and the right that it needs.
    pub fn failure(&self, deed: &str, right: &str, error: &kube::Error) -> Failure {
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
        let failure = Failure::local(format!("the Kubernetes API refuses to {deed}: {message}"));
        match code {
            401 => failure.hint("does the kubeconfig still know you? `kubectl auth whoami` tells"),
            403 => failure.hint(format!(
                "you need the right to {right} in namespace {}; `kubectl auth can-i --list -n {0}` shows yours",
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

#[cfg(test)]
pub mod testing {
    //! An API server of fixed answers.

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Returns the replicas of a lease in a cluster whose API answers each path that begins so with this status and body.
    pub async fn replicas(answers: Vec<(&'static str, u16, String)>) -> Replicas {
        // Another test may have done so.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(serve(listener, answers));
        of(&url)
    }

    /// Returns the replicas of a lease in the cluster with this API.
    pub fn of(url: &str) -> Replicas {
        let mut config = Config::new(url.parse().unwrap());
        config.default_retry = false;
        let client = Client::try_from(config).unwrap();
        Replicas {
            pods: Api::namespaced(client, "models"),
            url: url.to_owned(),
            lease: "3f0a".to_owned(),
            namespace: "models".to_owned(),
        }
    }

    async fn serve(listener: TcpListener, answers: Vec<(&'static str, u16, String)>) {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(connection.read_u8().await.unwrap());
            }
            let request = String::from_utf8(request).unwrap();
            let path = request.split(' ').nth(1).unwrap();
            let answer = answers.iter().find(|(begin, _, _)| path.starts_with(begin));
            let (_, status, body) = answer.unwrap_or_else(|| panic!("no answer to {path}"));
            let head = format!(
                "HTTP/1.1 {status} It\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            connection.write_all((head + body).as_bytes()).await.unwrap();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PODS: &str = "/api/v1/namespaces/models/pods?&labelSelector=tms.internal%2Flease-id%3D3f0a";

    fn plain(failure: &Failure) -> String {
        anstream::adapter::strip_str(&failure.report()).to_string()
    }

    #[tokio::test]
    async fn replicas_that_serve_come_first_and_of_those_the_oldest() {
        let pod = |name: &str, minute: u8, ready: &str, is_ending: bool| {
            let ending = if is_ending { r#","deletionTimestamp":"2026-11-22T17:00:00Z""# } else { "" };
            format!(
                r#"{{"metadata":{{"name":"{name}","creationTimestamp":"2026-11-22T16:{minute:02}:00Z"{ending}}},
                "status":{{"conditions":[{{"type":"Ready","status":"{ready}"}}]}}}}"#
            )
        };
        let pods = [
            pod("loads", 1, "False", false),
            pod("young", 30, "True", false),
            pod("ends", 2, "True", true),
            pod("old", 3, "True", false),
        ];
        let list =
            format!(r#"{{"apiVersion":"v1","kind":"PodList","metadata":{{}},"items":[{}]}}"#, pods.join(","));
        let replicas = testing::replicas(vec![(PODS, 200, list)]).await.list().await.unwrap();
        let names: Vec<_> = replicas.iter().map(|replica| replica.name.as_str()).collect();
        assert_eq!(names, ["old", "young", "loads", "ends"]);
    }

    #[tokio::test]
    async fn a_right_that_is_missing_is_named() {
        let refusal = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","reason":"Forbidden","code":403,
            "message":"pods is forbidden: User \"ada\" cannot list resource \"pods\" in API group \"\" in the namespace \"models\""}"#;
        let replicas = testing::replicas(vec![("/", 403, refusal.to_owned())]).await;
        let listed = replicas.list().await.unwrap_err();
        insta::assert_snapshot!(plain(&listed), @r#"
        fatal: the Kubernetes API refuses to list pods: pods is forbidden: User "ada" cannot list resource "pods" in API group "" in the namespace "models"
        hint: you need the right to list pods in namespace models; `kubectl auth can-i --list -n models` shows yours
        "#);
        let Err(forwarded) = replicas.forward("old", 8000).await else { panic!("it was forwarded") };
        insta::assert_snapshot!(plain(&forwarded), @r#"
        fatal: the Kubernetes API refuses to forward a port: pods is forbidden: User "ada" cannot list resource "pods" in API group "" in the namespace "models"
        hint: you need the right to get and create pods/portforward in namespace models; `kubectl auth can-i --list -n models` shows yours
        "#);
        assert_eq!(forwarded.exit_code(), 1);
    }

    #[tokio::test]
    async fn a_cluster_that_does_not_answer_is_told_with_its_address() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let failure = testing::of("http://127.0.0.1:1").list().await.unwrap_err();
        assert_eq!(failure.exit_code(), 3);
        assert!(plain(&failure).contains("http://127.0.0.1:1"), "{}", plain(&failure));
    }

    #[tokio::test]
    async fn a_kubeconfig_that_is_not_there_is_told_with_the_flags_that_name_one() {
        let arguments = ClusterArguments { kubeconfig: Some("no/such".into()), context: None };
        let Err(failure) = arguments.replicas("3f0a", "models").await else { panic!("it was read") };
        insta::assert_snapshot!(plain(&failure), @r#"
        fatal: there is no usable kubeconfig: failed to read kubeconfig from '"no/such"': No such file or directory (os error 2)
        hint: --kubeconfig FILE and --context NAME say how to reach the cluster; `kubectl config view` shows yours
        "#);
    }
}
