//! Servers and people as processes: where the binaries are, what a command said and how it ended.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Between two looks at a condition.
const PACE: Duration = Duration::from_millis(10);

/// Every metric may be asked for, and queue time is on.
pub const VALUES: &str = "
server:
  leases: {defaultLifetime: 1h, minimumLifetime: 1s, maximumLifetime: 8h}
  autoscaling:
    enable: true
    replicas:
      default: {minimum: 1, maximum: 4}
      limits: {maximum: 8, minimum: {lowerBound: 1, upperBound: 4}}
    metrics:
      cpuUtilization: {allowed: true}
      gpuUtilization: {allowed: true, enabled: true}
      queueTime: {allowed: true, enabled: true}
";

/// A wish for one model; its other flags follow.
pub const CREATE: &str = "lease create -m name=resnet50,uri=https://models.example.com/resnet50.tar.gz";

/// Returns a binary of this build, which lies beside the test's own folder.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join(name);
    assert!(program.is_file(), "{} is missing: cargo build -p tms-server -p tmsctl", program.display());
    program
}

/// Waits until `condition` gives a value, and fails the test where it does not within `seconds`.
pub fn until<T>(what: &str, seconds: u32, mut condition: impl FnMut() -> Option<T>) -> T {
    for _ in 0..seconds * 100 {
        if let Some(value) = condition() {
            return value;
        }
        std::thread::sleep(PACE);
    }
    panic!("{what}: not within {seconds} s")
}

/// What a command said, and the code with which it ended.
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Said {
    /// Returns standard output of a command that succeeded, without the end of its last line.
    pub fn done(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out.trim_end().to_owned()
    }

    /// Returns everything as one text: data, words and the exit code.
    pub fn whole(&self) -> String {
        format!("{}{}exit {}", self.out, self.err, self.code)
    }
}

/// What outlives a server process: its folder with database, manifests, values and log.
pub struct Place {
    folder: TempDir,
    environment: Vec<(String, String)>,
}

impl Place {
    /// Makes a place with a values.yaml.
    pub fn new(values: &str) -> Self {
        let place = Self { folder: TempDir::new().unwrap(), environment: Vec::new() };
        place.write("values.yaml", values);
        place
    }

    /// Adds a variable to the environment of its servers.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Writes a file and returns where it is.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns everything that its servers logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Starts a server on a free port and waits until it answers.
    pub fn start(&self) -> Server<'_> {
        self.start_on(0)
    }

    /// Starts a server on a port and waits until it answers.
    pub fn start_on(&self, port: u16) -> Server<'_> {
        let address_file = self.path("address");
        // That of the server before would be taken for the new one's.
        let _ = fs::remove_file(&address_file);
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = self.serve();
        command.arg("--address-file").arg(&address_file);
        command.env("TMS__SERVER__APISERVICE__PORT", port.to_string()).stdout(Stdio::null()).stderr(log);
        let mut child = command.spawn().unwrap();
        let address = until("the server listens", 30, || {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "{}", self.log());
            fs::read_to_string(&address_file).ok()
        });
        Server { place: self, child, address: address.trim().to_owned() }
    }

    /// Runs a server that is expected to refuse to start.
    pub fn refused(&self) -> Said {
        let mut command = self.serve();
        command.env("TMS__SERVER__APISERVICE__PORT", "0");
        ended(command, 30)
    }

    /// Runs `check-config` on its values.
    pub fn check_config(&self) -> Said {
        let mut command = self.server("check-config");
        command.arg("values.yaml");
        ended(command, 30)
    }

    /// Returns the command that serves here, on the port of its values.
    pub fn serve(&self) -> Command {
        let mut command = self.server("serve");
        command.args(["--values", "values.yaml"]);
        command
    }

    fn server(&self, verb: &str) -> Command {
        let mut command = clean(&program("tms-server"));
        command.arg(verb).current_dir(self.folder.path());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// A server process, killed when it is dropped.
pub struct Server<'a> {
    place: &'a Place,
    child: Child,
    address: String,
}

impl Server<'_> {
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn port(&self) -> u16 {
        self.address.rsplit_once(':').unwrap().1.parse().unwrap()
    }

    /// Returns somebody whose target it is.
    pub fn person(&self) -> Person {
        Person::at(&format!("http://{}", self.address))
    }

    /// Kills it where it stands.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and returns how it did, within a second.
    pub fn terminate(mut self) -> ExitStatus {
        signal(&self.child, Signal::TERM);
        until("the server ends", 1, || self.child.try_wait().unwrap())
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("The log of the server:\n{}", self.place.log());
        }
    }
}

/// Somebody at a command line, with a configuration file of their own.
pub struct Person {
    folder: TempDir,
    flags: Vec<String>,
}

impl Person {
    /// Somebody who has not saved any target.
    pub fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), flags: Vec::new() }
    }

    /// Somebody whose default target is there.
    pub fn at(url: &str) -> Self {
        let person = Self::new();
        person.tmsctl(&format!("target add lab {url}")).done();
        person
    }

    /// Adds flags to each of their commands.
    pub fn with(mut self, flags: &str) -> Self {
        self.flags.extend(flags.split_whitespace().map(str::to_owned));
        self
    }

    /// Runs a command to its end.
    pub fn tmsctl(&self, line: &str) -> Said {
        ended(self.command(line), 60)
    }

    /// Starts a command that goes on by itself.
    pub fn starts(&self, line: &str) -> Going {
        let mut child = self.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Going { child, out }
    }

    /// Runs a line of the shell in which `tmsctl` is the binary.
    pub fn shell(&self, line: &str) -> Said {
        let mut command = clean(Path::new("bash"));
        command.args(["-c", line]);
        self.equip(&mut command);
        ended(command, 60)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = clean(&program("tmsctl"));
        command.args(line.split_whitespace()).args(&self.flags);
        self.equip(&mut command);
        command
    }

    fn equip(&self, command: &mut Command) {
        let folder = program("tmsctl").parent().unwrap().to_owned();
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("TMSCTL_CONFIG", self.folder.path().join("tmsctl.yaml"));
        command.env("PATH", format!("{}:{path}", folder.display()));
    }
}

/// A command that is under way, killed when it is dropped.
pub struct Going {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Going {
    /// Waits for the next line of its standard output.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Presses Ctrl-C.
    pub fn interrupt(&self) {
        signal(&self.child, Signal::INT);
    }

    /// Waits for its end; returns what it said since.
    pub fn end(mut self) -> Said {
        let mut out = String::new();
        self.out.read_to_string(&mut out).unwrap();
        let mut err = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        let status = until("the command ends", 60, || self.child.try_wait().unwrap());
        Said { code: status.code().unwrap_or(-1), out, err }
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a command that nothing of the tester's own environment reaches, and that ends with the test.
pub fn clean(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let of_tms = ["TMS_", "TMS__", "TMSCTL"].iter().any(|prefix| name.starts_with(prefix));
        if of_tms || name.to_ascii_lowercase().ends_with("_proxy") || name == "RUST_LOG" {
            command.env_remove(name.as_ref());
        }
    }
    // Ctrl-C at the terminal must reach only the tests.
    command.process_group(0);
    command
}

/// Runs a command that has to end within `seconds`.
pub fn ended(mut command: Command, seconds: u32) -> Said {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let reading = |stream: &mut dyn Read| {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    };
    std::thread::scope(|scope| {
        let reads = [scope.spawn(move || reading(&mut out)), scope.spawn(move || reading(&mut err))];
        let mut looks = 0;
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None if looks == seconds * 100 => {
                    child.kill().unwrap();
                    panic!("{command:?} goes on and on");
                }
                None => looks += 1,
            }
            std::thread::sleep(PACE);
        };
        let [stdout, stderr] = reads.map(|read| read.join().unwrap());
        Said::from(Output { status, stdout, stderr })
    })
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Compares with an inline snapshot in which ids, times and ports have given way to their names.
#[macro_export]
macro_rules! assert_shows {
    ($text:expr, @$expected:literal) => {
        insta::with_settings!({filters => vec![
            (r"\b[0-9a-f]{32}\b", "<lease>"),
            (r"\b[0-9a-f]{12}\b", "<short>"),
            (r"\d{4}-\d\d-\d\d[T ][0-9:.]+(Z| UTC)", "<time>"),
            (r"in \d+(s|m|h)( \d+s)?|\d+s ago|\bnow\b", "<when>"),
            (r"127\.0\.0\.1:\d+", "<address>"),
            (r"/tmp/\.tmp\w+", "<folder>"),
            (r"(\S)  +", "$1  "),
        ]}, { insta::assert_snapshot!($text, @$expected) })
    };
}
