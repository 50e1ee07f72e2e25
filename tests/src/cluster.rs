//! A running test cluster, as `tests/cluster/cluster` starts it: who may talk to it, how a test gets inside,
//! what it breaks, and what was written. How the cluster is made is left to that script.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::Deserialize;

use crate::process::program;
use crate::skip;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/cluster");

/// The script's exit status where this machine cannot run a cluster.
const CANNOT: i32 = 4;

/// A running cluster. One that a test has started itself ends when it is dropped.
pub struct Cluster {
    place: Place,
    owned: bool,
}

enum Place {
    /// Started by the script; all its state is in this folder.
    Folder { folder: PathBuf, state: State },
    /// Somebody's own, named by `KUBECONFIG` with `TMS_TEST_CLUSTER=existing`.
    Existing { kubeconfig: PathBuf },
}

/// What `state.json` says.
#[derive(Deserialize)]
struct State {
    first: u32,
    kubeconfigs: BTreeMap<String, PathBuf>,
    audit_log: PathBuf,
    path: String,
}

/// A part that can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Etcd,
    Apiserver,
    Controllers,
    Scheduler,
    Kwok,
    /// Of a real node only.
    Containerd,
    /// Of a real node only. Its pods go on without it.
    Kubelet,
    /// Of a real node only.
    Dns,
    /// Of a pipeline only, as all that follow: a pod that the operator makes.
    Prometheus,
    /// Prometheus Operator.
    Operator,
    MetricsServer,
    /// The operator of KEDA.
    Keda,
    /// KEDA's server of external metrics.
    KedaAdapter,
    Rabbitmq,
    /// The exporter of GPU figures: a pod.
    Dcgm,
}

/// What runs in a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Pods are only said to run, by kwok.
    ControlPlane,
    /// Pods run.
    Node,
    /// Pods run, and what measures and scales can be started.
    Pipeline,
}

/// What is done to a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Kills it; it stays away until `Restart`.
    Stop,
    /// Suspends it: connections stay open, nobody answers.
    Freeze,
    /// Resumes it.
    Thaw,
    /// Kills it if it runs, starts it, and waits until etcd or the apiserver answers again.
    Restart,
}

impl Cluster {
    /// Starts a cluster for the caller alone. `None` where this machine cannot; the test is then counted as
    /// skipped and only has to return.
    pub fn start(name: &str) -> Option<Self> {
        Self::start_alone(name, Profile::ControlPlane).inspect_err(|reason| skip(reason)).ok()
    }

    /// Returns a cluster of this process alone, which its tests may break one after another; it ends with the process.
    /// `None` as for `start`.
    pub fn own(name: &str) -> Option<&'static Self> {
        static OWN: OnceLock<Result<Cluster, String>> = OnceLock::new();
        OWN.get_or_init(|| Self::start_alone(name, Profile::ControlPlane))
            .as_ref()
            .inspect_err(|reason| skip(reason))
            .ok()
    }

    /// Returns the cluster that tests share: the existing one, the one of `TMS_TEST_CLUSTER_DIR`, or one
    /// started for this process. `None` as for `start`.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Result<Cluster, String>> = OnceLock::new();
        let shared =
            SHARED.get_or_init(|| match (existing_kubeconfig(), std::env::var_os("TMS_TEST_CLUSTER_DIR")) {
                (Some(kubeconfig), _) => Ok(Self { place: Place::Existing { kubeconfig }, owned: false }),
                (None, Some(folder)) => Ok(Self::running_in(folder.into(), false)),
                (None, None) => Self::start_in("shared", Profile::ControlPlane),
            });
        shared.as_ref().inspect_err(|reason| skip(reason)).ok()
    }

    /// Moves the calling thread into the cluster's network. What it starts from then on, processes and
    /// current-thread runtimes, is inside too; other threads are not.
    pub fn enter(&self) {
        if let Place::Folder { state, .. } = &self.place {
            let network = File::open(format!("/proc/{}/ns/net", state.first)).expect("the cluster runs");
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("root may enter a network namespace");
        }
    }

    /// Returns the kubeconfig of a user: `admin`, `tms`, `rival` or `bench`. An existing cluster has one for all.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        match &self.place {
            Place::Folder { state, .. } => {
                state.kubeconfigs.get(user).expect("a user of the harness").clone()
            }
            Place::Existing { kubeconfig } => kubeconfig.clone(),
        }
    }

    /// Runs kubectl as administrator. Returns what it printed, or its complaint.
    pub fn kubectl(&self, args: &[&str]) -> Result<String, String> {
        self.kubectl_as("admin", args, "")
    }

    /// Creates the objects of a YAML text as administrator.
    pub fn create(&self, yaml: &str) -> Result<String, String> {
        self.kubectl_as("admin", &["create", "-f", "-"], yaml)
    }

    /// Runs kubectl as a user, with a text as its standard input.
    pub fn kubectl_as(&self, user: &str, args: &[&str], input: &str) -> Result<String, String> {
        let mut command = self.command("kubectl");
        command.args(args).env("KUBECONFIG", self.kubeconfig(user));
        let output = self.run_inside(command, input);
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// Runs a program of the harness inside, such as helm or ctr, as administrator. Returns what it printed, or its
    /// complaint.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String, String> {
        let output = self.script("enter").arg(program).args(args).output().expect("the script runs");
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// Starts kubectl as administrator, with its input and output piped.
    pub fn start_kubectl(&self, args: &[&str]) -> Child {
        let mut command = self.command("kubectl");
        command.args(args).env("KUBECONFIG", self.kubeconfig("admin"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let start = || {
            self.enter();
            command.spawn().expect("kubectl starts")
        };
        std::thread::scope(|scope| scope.spawn(start).join().expect("it starts inside"))
    }

    /// Breaks a part, or mends it.
    pub fn fault(&self, part: Part, fault: Fault) {
        let Place::Folder { folder, .. } = &self.place else {
            panic!("an existing cluster is not ours to break")
        };
        let output =
            script("fault", folder).args([fault.as_str(), part.as_str()]).output().expect("the script runs");
        assert!(output.status.success(), "{fault:?} of {part:?}: {}", text(output.stderr));
    }

    /// Returns the file to which the API server writes a line for each answered write, as it is answered.
    pub fn audit_log(&self) -> &Path {
        match &self.place {
            Place::Folder { state, .. } => &state.audit_log,
            Place::Existing { .. } => panic!("an existing cluster shows no audit log"),
        }
    }

    pub(crate) fn start_alone(name: &str, profile: Profile) -> Result<Self, String> {
        match existing_kubeconfig() {
            Some(_) => Err("needs a cluster of its own, and was told to use an existing one".to_owned()),
            None => Self::start_in(name, profile),
        }
    }

    fn start_in(name: &str, profile: Profile) -> Result<Self, String> {
        let owner = std::process::id().to_string();
        let folder = cache_folder().join("run").join(format!("{name}-{}", unique()));
        let mut command = script("up", &folder);
        command.args(["--owner", &owner]);
        if profile != Profile::ControlPlane {
            command.args(["--profile", profile.as_str(), "--binary"]).arg(program());
        }
        if profile == Profile::Pipeline {
            command.args(["--start", "none"]);
        }
        let output = command.output().expect("the script of the harness runs");
        match output.status.code() {
            Some(0) => Ok(Self::running_in(folder, true)),
            Some(CANNOT) => Err(first_line(&text(output.stderr)).to_owned()),
            _ => panic!("the cluster does not start: {}", text(output.stderr)),
        }
    }

    pub(crate) fn running_in(folder: PathBuf, owned: bool) -> Self {
        let path = folder.join("state.json");
        let state =
            fs::read(&path).unwrap_or_else(|error| panic!("no cluster runs: {}: {error}", path.display()));
        let state = serde_json::from_slice(&state).expect("the harness wrote state.json");
        Self { place: Place::Folder { folder, state }, owned }
    }

    /// The folder of all its state.
    pub(crate) fn folder(&self) -> &Path {
        match &self.place {
            Place::Folder { folder, .. } => folder,
            Place::Existing { .. } => panic!("the folder of an existing cluster is not ours"),
        }
    }

    /// A command of the harness on this cluster, but for its arguments.
    pub(crate) fn script(&self, verb: &str) -> Command {
        script(verb, self.folder())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        if let Place::Folder { state, .. } = &self.place {
            let path = std::env::var("PATH").unwrap_or_default();
            command.env("PATH", format!("{}:{path}", state.path));
            for proxy in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"]
            {
                command.env_remove(proxy);
            }
        }
        command
    }

    /// A thread of its own enters, so that the caller stays where it is.
    fn run_inside(&self, mut command: Command, input: &str) -> Output {
        let run = || {
            self.enter();
            let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = piped.spawn().expect("the program starts");
            let mut stdin = child.stdin.take().expect("it was piped");
            // A program that reads nothing closes the pipe; its own words say more than that.
            let _ = stdin.write_all(input.as_bytes());
            drop(stdin);
            child.wait_with_output().expect("the program can be waited for")
        };
        std::thread::scope(|scope| scope.spawn(run).join().expect("it runs inside"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let Place::Folder { folder, .. } = &self.place else { return };
        if !self.owned {
            return;
        }
        let ended = script("down", folder).status().is_ok_and(|status| status.success());
        // The logs of a test that fails stay.
        if ended && !std::thread::panicking() {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

impl Profile {
    fn as_str(self) -> &'static str {
        match self {
            Self::ControlPlane => "control-plane",
            Self::Node => "node",
            Self::Pipeline => "pipeline",
        }
    }
}

impl Part {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Apiserver => "apiserver",
            Self::Controllers => "controllers",
            Self::Scheduler => "scheduler",
            Self::Kwok => "kwok",
            Self::Containerd => "containerd",
            Self::Kubelet => "kubelet",
            Self::Dns => "dns",
            Self::Prometheus => "prometheus",
            Self::Operator => "operator",
            Self::MetricsServer => "metrics-server",
            Self::Keda => "keda",
            Self::KedaAdapter => "keda-adapter",
            Self::Rabbitmq => "rabbitmq",
            Self::Dcgm => "dcgm",
        }
    }
}

impl Fault {
    fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Freeze => "freeze",
            Self::Thaw => "thaw",
            Self::Restart => "restart",
        }
    }
}

fn existing_kubeconfig() -> Option<PathBuf> {
    (std::env::var("TMS_TEST_CLUSTER").as_deref() == Ok("existing"))
        .then(|| std::env::var_os("KUBECONFIG").expect("KUBECONFIG names the existing cluster").into())
}

/// Returns a text that no other call on this machine gets meanwhile.
pub(crate) fn unique() -> String {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), CALLS.fetch_add(1, Ordering::Relaxed))
}

fn cache_folder() -> PathBuf {
    let from = |variable| std::env::var_os(variable).map(PathBuf::from);
    from("TMS_TEST_CACHE").unwrap_or_else(|| {
        let caches = from("XDG_CACHE_HOME").or_else(|| from("HOME").map(|home| home.join(".cache")));
        caches.expect("HOME is set").join("tms-test")
    })
}

fn script(verb: &str, folder: &Path) -> Command {
    let mut command = Command::new(SCRIPT);
    command.arg(verb).arg("--dir").arg(folder).stdin(Stdio::null());
    command
}

fn first_line(complaint: &str) -> &str {
    complaint.lines().next().map_or("", |line| line.trim_start_matches("cluster: "))
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}
