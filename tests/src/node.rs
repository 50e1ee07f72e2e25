//! A cluster with a real node, on which pods run: its images, its volumes, and commands in its pods.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::cluster::{Cluster, Profile};
use crate::skip;

/// Images that every node has. All run as any user, with a read-only root file system; `/tmp` may have to be mounted.
pub const TRITON: &str = "docker.io/local/triton:2.51";
/// A shell with its usual commands, Python 3.11 with numpy, and `tritonclient.grpc`; sleeps for ever by itself.
pub const CLIENT: &str = "docker.io/local/client:1";

/// Held for reading by tests that have pods, for writing by one that breaks the node they share, or what measures it.
static NODE: RwLock<()> = RwLock::new(());

/// Keeps the node whole until the test ends.
pub fn use_node() -> RwLockReadGuard<'static, ()> {
    NODE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until nobody uses the node, and keeps others from it until the test ends.
pub fn break_node() -> RwLockWriteGuard<'static, ()> {
    NODE.write().unwrap_or_else(PoisonError::into_inner)
}

impl Cluster {
    /// Starts a cluster with a real node for the caller alone; it has the image of this build's server, tagged `test`.
    /// `None` as for `start`.
    pub fn node(name: &str) -> Option<Self> {
        Self::start_alone(name, Profile::Node).inspect_err(|reason| skip(reason)).ok()
    }

    /// Returns the cluster with a real node that tests share: the one of `TMS_TEST_NODE_DIR`, which then gets the image
    /// of this build's server, or one started for this process. `None` as for `start`.
    pub fn shared_node() -> Option<&'static Self> {
        static SHARED: OnceLock<Result<Cluster, String>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| Self::running_or_new("TMS_TEST_NODE_DIR", "node", Profile::Node));
        shared.as_ref().inspect_err(|reason| skip(reason)).ok()
    }

    /// The cluster that runs in the folder that the variable names, with the image of this build's server, or a new one.
    pub(crate) fn running_or_new(variable: &str, name: &str, profile: Profile) -> Result<Self, String> {
        let Some(folder) = std::env::var_os(variable) else { return Self::start_alone(name, profile) };
        let cluster = Self::running_in(folder.into(), false);
        cluster.add_server_image(&crate::process::program(), "test");
        Ok(cluster)
    }

    /// Gives the node an image with this program as the server, and returns its name.
    pub fn add_server_image(&self, program: &Path, tag: &str) -> String {
        let mut command = self.script("image");
        let output = command.args(["--tag", tag, "tms-server", "--binary"]).arg(program).output();
        let output = output.expect("the script runs");
        assert!(output.status.success(), "no image: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Runs a command in a container of a pod (`NAME`, `deployment/NAME` or `service/NAME`). Returns what it printed, or
    /// its complaint.
    pub fn run_in_pod(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        command: &[&str],
    ) -> Result<String, String> {
        let exec = ["exec", "--namespace", namespace, pod, "--container", container, "--"];
        self.kubectl(&[&exec[..], command].concat())
    }

    /// Kills a container where it stands, which no command inside it can: the first process of a container ignores
    /// signals of its own. kubelet starts it again as its restart policy says.
    pub fn kill_container(&self, namespace: &str, pod: &str, container: &str) {
        let statuses =
            "{range .status['initContainerStatuses','containerStatuses'][*]}{.name}={.containerID} {end}";
        let output = format!("--output=jsonpath={statuses}");
        let ids =
            self.kubectl(&["get", "pod", pod, "--namespace", namespace, &output]).expect("the pod is there");
        let wanted = format!("{container}=containerd://");
        let id = ids.split(' ').find_map(|id| id.strip_prefix(&wanted)).expect("the container runs");
        let kill = ["ctr", "--namespace", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", id];
        let output = self.script("enter").args(kill).output().expect("the script runs");
        assert!(output.status.success(), "not killed: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Makes a bound claim whose volume is a folder of the node, which `fill` fills, and which anybody can read.
    /// `access_mode` is one of Kubernetes, such as `ReadOnlyMany`. Returns the folder.
    pub fn claim(&self, namespace: &str, name: &str, access_mode: &str, fill: impl FnOnce(&Path)) -> PathBuf {
        let folder = self.folder().join("data/volumes").join(format!("{namespace}-{name}"));
        fs::create_dir_all(&folder).expect("the cluster's folder is ours");
        fill(&folder);
        let_anybody_read(&folder);
        let volume = format!("{namespace}-{name}");
        // That of an earlier claim of this name stays when the claim goes.
        let old = ["delete", "persistentvolume", &volume, "--ignore-not-found", "--timeout=60s"];
        self.kubectl(&old).expect("it is free");
        self.create(&format!(
            r#"
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {volume}}}
spec:
  storageClassName: given
  capacity: {{storage: 1Gi}}
  accessModes: [{access_mode}]
  claimRef: {{namespace: {namespace}, name: {name}}}
  local: {{path: {path}}}
  nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: [{{key: tms.test/node, operator: In, values: [real]}}]}}]}}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{namespace: {namespace}, name: {name}}}
spec:
  storageClassName: given
  volumeName: {volume}
  accessModes: [{access_mode}]
  resources: {{requests: {{storage: 1Gi}}}}
"#,
            path = folder.display(),
        ))
        .expect("a claim and its volume are created");
        self.kubectl(&[
            "wait",
            "--namespace",
            namespace,
            &format!("persistentvolumeclaim/{name}"),
            "--for=jsonpath={.status.phase}=Bound",
            "--timeout=30s",
        ])
        .expect("the claim is bound");
        folder
    }
}

/// Pods read as users of their own.
fn let_anybody_read(path: &Path) {
    let mode = if path.is_dir() { 0o755 } else { 0o644 };
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("the file is ours");
    for entry in path.read_dir().into_iter().flatten().flatten() {
        let_anybody_read(&entry.path());
    }
}
