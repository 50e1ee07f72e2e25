//! A namespace of one test, with a pod from which others are asked.

use tms_tests::cluster::Cluster;

/// A pod from which a test asks others. `restricted` allows it.
const CLIENT: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 0
  securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: client
    image: docker.io/local/client:1
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, readOnlyRootFilesystem: true}
"#;

/// A namespace of one test; it is deleted at the end, unless the test fails.
pub struct Namespace {
    pub cluster: &'static Cluster,
    pub name: &'static str,
}

impl Namespace {
    /// Makes it anew. `None` where there is no node; the test is then counted as skipped.
    pub fn new(name: &'static str) -> Option<Self> {
        let cluster = crate::cluster()?;
        let yaml = format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: \
             {{pod-security.kubernetes.io/enforce: restricted}}}}}}"
        );
        // A node that is kept between runs may have it still.
        let old = ["delete", "namespace", name, "--ignore-not-found", "--timeout=60s"];
        cluster.kubectl(&old).expect("that of the last run goes");
        cluster.create(&yaml).expect("the namespace is created");
        let account =
            ["wait", "--for=create", "serviceaccount/default", "--timeout=30s", "--namespace", name];
        cluster.kubectl(&account).expect("it gets its account");
        Some(Self { cluster, name })
    }

    pub fn create(&self, yaml: &str) {
        self.cluster
            .kubectl_as("admin", &["create", "--namespace", self.name, "-f", "-"], yaml)
            .expect("created");
    }

    pub fn kubectl(&self, args: &[&str]) -> Result<String, String> {
        self.cluster.kubectl(&[&["--namespace", self.name], args].concat())
    }

    /// Starts the pod `client` and waits until it runs.
    pub fn start_client(&self) {
        self.create(CLIENT);
        self.kubectl(&["wait", "pod/client", "--for=condition=Ready", "--timeout=60s"])
            .expect("the client runs");
    }

    /// Asks by a Python program in the pod `client` until it succeeds, and returns what it printed: the node forwards to
    /// a replica a moment after that is ready.
    pub async fn until_answered(&self, program: &str) -> String {
        let mut complaint = String::new();
        for _ in 0..30 {
            match self.ask(program) {
                Ok(said) => return said,
                Err(error) => complaint = error,
            }
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
        panic!("nobody answers: {complaint}");
    }

    /// Runs a Python program in the pod `client`. Returns what it printed, or its complaint.
    pub fn ask(&self, program: &str) -> Result<String, String> {
        self.cluster.run_in_pod(self.name, "client", "client", &["python3", "-c", program])
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let pods = self.kubectl(&["describe", "pods"]).unwrap_or_else(|complaint| complaint);
            eprintln!("The pods of namespace {}:\n{pods}", self.name);
        }
        let _ = self.cluster.kubectl(&["delete", "namespace", self.name, "--wait=false"]);
    }
}
