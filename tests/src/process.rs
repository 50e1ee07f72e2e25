//! The server as a process of its own, so that a test can kill, freeze and start it again like any other program.

use std::fs::{self, File};
use std::future::ready;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tms_proto::v1::lease_service_client::LeaseServiceClient;
use tonic::transport::{Channel, Endpoint};

use crate::server::World;
use crate::wait::until;

/// Lines of its log that are shown when a test fails.
const LINES_SHOWN: usize = 60;

/// A server that runs as a process, inside the network of the thread that started it. It is killed when it is dropped
/// and when its thread ends, and what it logged is shown if that is because of a failure.
pub struct Process {
    name: String,
    child: Child,
    folder: PathBuf,
}

impl Process {
    /// Starts a server of this world, which is not ready then. Servers of different names can run side by side; one of
    /// the same name continues the log of the one before.
    pub fn start(world: &World, name: &str, environment: &[(&str, &str)]) -> Self {
        let folder = world.folder.path().to_owned();
        let log = File::options().create(true).append(true).open(log_file(&folder, name));
        let log = log.expect("a log can be written");
        let address_file = address_file(&folder, name);
        // That of the process before would be taken for the new one's.
        let _ = fs::remove_file(&address_file);
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program()).arg("serve");
        for file in world.files() {
            command.arg("--values").arg(file);
        }
        command.arg("--address-file").arg(&address_file).envs(environment.iter().copied());
        for proxy in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(proxy);
        }
        // Ctrl-C at the terminal must reach only the tests.
        command.process_group(0).current_dir(&folder).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a file has more than one handle")).stderr(log);
        let child = command.spawn().expect("setpriv, and by it the server, can be started");
        Self { name: name.to_owned(), child, folder }
    }

    /// Waits until it answers, and returns where.
    pub async fn address(&mut self) -> SocketAddr {
        let (name, file) = (self.name.clone(), address_file(&self.folder, &self.name));
        until(&format!("server {name} listens"), 60, || {
            let ended = self.child.try_wait().expect("the process is ours");
            assert!(ended.is_none(), "server {name} ended by itself: {ended:?}");
            let address = fs::read_to_string(&file).ok();
            ready(address.map(|text| text.trim().parse().expect("the server writes an address")))
        })
        .await
    }

    /// Waits until it answers, and returns a client of it.
    pub async fn leases(&mut self) -> LeaseServiceClient<Channel> {
        LeaseServiceClient::new(channel(self.address().await))
    }

    /// Kills it where it stands.
    pub fn kill(&mut self) {
        self.child.kill().expect("the process is ours");
        self.child.wait().expect("the process is ours");
    }

    /// Asks it to end, and returns how it did.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let name = self.name.clone();
        until(&format!("server {name} ends"), 30, || {
            ready(self.child.try_wait().expect("the process is ours"))
        })
        .await
    }

    /// Suspends it in the middle of whatever it does.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// What it and those of its name before it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(log_file(&self.folder, &self.name)).unwrap_or_default()
    }

    /// Whether it leads the servers of its database, as it said last.
    pub fn leads(&self) -> bool {
        let log = self.log();
        log.rfind("this server leads: it takes the passes") > log.rfind("this server leads no more")
    }

    /// Waits until it leads.
    pub async fn until_leads(&self, seconds: u64) {
        until(&format!("server {} leads", self.name), seconds, || ready(self.leads().then_some(()))).await;
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process has an id");
        kill_process(pid, signal).expect("the process is ours");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
            eprintln!("The end of the log of server {}:\n{}", self.name, last.join("\n"));
        }
    }
}

/// Returns a connection to a server, made when it is first used.
pub fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy()
}

/// Returns the server's program, which lies where cargo puts that of this very build.
pub fn program() -> PathBuf {
    let own = std::env::current_exe().expect("the system knows which program runs");
    let folder = own.parent().expect("a program lies in a folder");
    // Tests lie in target/PROFILE/deps.
    let folder = folder.parent().filter(|_| folder.ends_with("deps")).unwrap_or(folder);
    let program = folder.join("tms-server");
    assert!(program.is_file(), "{} is missing: cargo build --package tms-server", program.display());
    program
}

fn log_file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.log"))
}

fn address_file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.address"))
}
