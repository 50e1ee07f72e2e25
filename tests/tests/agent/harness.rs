//! The agent as a process, in folders of its own.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use tms_tests::process::program;
use tms_tests::wait::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a pod gives to its agent, in a folder that several agents may use one after another.
pub struct Pod {
    folder: TempDir,
    models: Vec<Value>,
    variables: Vec<(String, String)>,
}

impl Pod {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["models", "claims/c", "credentials"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        Self { folder, models: Vec::new(), variables: Vec::new() }
    }

    /// A path in the pod's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Adds a model.
    pub fn model(mut self, name: &str, uri: &str) -> Self {
        self.models.push(json!({ "name": name, "uri": uri }));
        self
    }

    /// Adds a model whose address a Secret applies to.
    pub fn secret_model(mut self, name: &str, uri: &str, secret: &str, content: &str) -> Self {
        let mount = self.path("credentials").join(secret);
        fs::create_dir_all(&mount).unwrap();
        fs::write(mount.join("authorization"), content).unwrap();
        self.models.push(json!({ "name": name, "uri": uri, "secret": secret }));
        self
    }

    /// Writes a file into the claim `c`.
    pub fn claim(self, path: &str, content: &[u8]) -> Self {
        let path = self.path("claims/c").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    /// Sets a variable.
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.variables.push((name.to_owned(), value.to_string()));
        self
    }

    /// Starts an agent, and waits until it answers or has ended.
    pub async fn start(&self) -> Agent {
        let address_file = self.path("address");
        // That of an agent before would be taken for the new one's.
        let _ = fs::remove_file(&address_file);
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        let at = |name: &str| self.path(name).into_os_string();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program()).args([
            "agent",
            "--lease",
            "0123",
            "--address-file",
        ]);
        command.arg(&address_file);
        command.env("TMS_MODELS", serde_json::to_string(&self.models).unwrap());
        command.env("TMS_REPOSITORY_KEY", "the-key").env("TMS_MAXIMUM_BYTES", (64 << 20).to_string());
        command.env("TMS_AGENT_ADDRESS", "127.0.0.1:0").env("TMS_TRITON_URL", "http://127.0.0.1:9");
        command.env("TMS_MODELS_DIRECTORY", at("models")).env("TMS_CLAIMS_DIRECTORY", at("claims"));
        command.env("TMS_CREDENTIALS_DIRECTORY", at("credentials"));
        command.env("TMS_TERMINATION_LOG", at("termination-log")).env("SSL_CERT_FILE", at("certificates"));
        command.env_remove("RUST_LOG").envs(self.variables.iter().cloned());
        // Ctrl-C at the terminal must reach only the tests.
        command.process_group(0).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let mut child = command.spawn().expect("setpriv, and by it the agent, can be started");
        let address = until("the agent listens", 30, || {
            let written =
                fs::read_to_string(&address_file).ok().map(|text| Some(text.trim().parse().unwrap()));
            let ended = child.try_wait().unwrap().map(|_| None);
            std::future::ready(written.or(ended))
        });
        let address = address.await;
        Agent { child, address, log: self.path("log") }
    }

    /// What its log says.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// What the agent gave Kubernetes as reason for its end.
    pub fn termination(&self) -> String {
        fs::read_to_string(self.path("termination-log")).unwrap_or_default()
    }

    /// The model's files with their lengths, sorted.
    pub fn files(&self, model: &str) -> Vec<String> {
        let mut found = Vec::new();
        list(&self.path("models").join(model), "", &mut found);
        found.sort();
        found
    }
}

fn list(at: &Path, prefix: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(at).into_iter().flatten() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        match entry.path().metadata().unwrap() {
            about if about.is_dir() => list(&entry.path(), &format!("{name}/"), found),
            about => found.push(format!("{name} {}", about.len())),
        }
    }
}

/// A running agent. It is killed when it is dropped, and its log is shown if that is because of a failure.
pub struct Agent {
    child: Child,
    address: Option<SocketAddr>,
    log: PathBuf,
}

impl Agent {
    /// Asks it, and returns code and body of its answer.
    pub async fn get(&self, path: &str) -> (u16, String) {
        get(self.address.expect("the agent is there"), path.to_owned()).await
    }

    /// Its status.
    pub async fn status(&self) -> Value {
        serde_json::from_str(&self.get("/status").await.1).unwrap()
    }

    /// Waits until a path answers 200.
    pub async fn answers(&mut self, path: &str) {
        let address = self.address.expect("the agent is there");
        until(&format!("the agent's {path}"), 60, || {
            assert!(self.child.try_wait().unwrap().is_none(), "the agent ended");
            let answer = get(address, path.to_owned());
            async move { (answer.await.0 == 200).then_some(()) }
        })
        .await;
    }

    /// Waits until its status fits, and returns it.
    pub async fn shows(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        until(what, 60, || {
            let status = self.status();
            let fits = &fits;
            async move { Some(status.await).filter(|status| fits(status)) }
        })
        .await
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        until("the agent ends", 60, || std::future::ready(self.child.try_wait().unwrap())).await
    }

    /// Asks it to end as the kubelet does, and returns how it did.
    pub async fn terminate(&mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.ended().await
    }

    /// Kills it where it stands.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The most memory that it has had, in KiB.
    pub fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("The agent's log:\n{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

async fn get(address: SocketAddr, path: String) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.trim_end().to_owned())
}
