//! A server of the release profile as a process of its own.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tms_proto::v1::lease_service_client::LeaseServiceClient;
use tms_proto::v1::{AcquireRequest, LeaseSpec};
use tms_tests::server::World;
use tms_tests::wait::until;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::disk::first_number;
use crate::programs;

/// Clients of leases.
pub type Leases = LeaseServiceClient<Channel>;

/// A running server, which ends with this value.
pub struct Process {
    child: Child,
    /// Where it answers.
    pub url: String,
}

impl Process {
    /// Starts a server of a world and waits until it listens.
    pub async fn start(world: &World) -> Self {
        let (address, log) = (world.folder.path().join("address"), world.folder.path().join("log"));
        // One of an earlier server.
        let _ = fs::remove_file(&address);
        let log = fs::File::options().create(true).append(true).open(log).expect("a file can be made");
        let mut command = Command::new(programs().join("tms-server"));
        command.arg("serve").arg("--address-file").arg(&address);
        for file in world.files() {
            command.arg("--values").arg(file);
        }
        let child = command.stdin(Stdio::null()).stderr(log).spawn().expect("the server starts");
        let address = until("the server listens", 30, async || fs::read_to_string(&address).ok()).await;
        Self { child, url: format!("http://{}", address.trim()) }
    }

    /// Returns a client with a connection of its own.
    pub async fn leases(&self) -> Leases {
        let endpoint = Endpoint::from_shared(self.url.clone()).expect("a URL");
        Leases::new(endpoint.connect().await.expect("the server answers"))
    }

    /// Returns its memory in use and the most that it ever used, in MB.
    pub fn memory(&self) -> (f64, f64) {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(path).expect("the server runs");
        let megabytes = |field| {
            let line = status.lines().find(|line| line.starts_with(field)).unwrap_or_default();
            first_number(line) as f64 * 1024.0 / 1e6
        };
        (megabytes("VmRSS:"), megabytes("VmHWM:"))
    }

    /// Ends it in good order.
    pub async fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is ours");
        let look = || std::future::ready(self.child.try_wait().ok().flatten());
        until("the server ends", 30, look).await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already needs neither.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Acquires a lease and returns its id: as soon as it is stored, or once it is ready.
pub async fn acquire(leases: &mut Leases, spec: LeaseSpec, waits: bool) -> Result<String, Status> {
    let request = AcquireRequest { spec: Some(spec), request_id: String::new(), no_wait: !waits };
    let mut stream = leases.acquire(request).await?.into_inner();
    let mut id = String::new();
    while let Some(message) = stream.message().await? {
        if let Some(lease) = message.lease {
            id = lease.id;
        }
    }
    Ok(id)
}

/// Waits for a while: what is measured then has to come to rest first.
pub async fn rest(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Writes a kubeconfig of a cluster that is away.
pub fn kubeconfig_of_nothing(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("away.kubeconfig");
    let text = "\
apiVersion: v1
kind: Config
clusters: [{name: away, cluster: {server: \"http://127.0.0.1:1\"}}]
contexts: [{name: away, context: {cluster: away, user: away}}]
users: [{name: away, user: {}}]
current-context: away
";
    fs::write(&path, text).expect("a file can be written");
    path
}
