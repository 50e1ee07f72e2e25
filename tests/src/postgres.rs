//! A real PostgreSQL for tests: one server for each test process, on a socket in a temporary folder, and a new database
//! for each test. The server ends with the process, however that ends.

use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

use crate::cluster::Cluster;

/// Starts the server anew for each line of its standard input; at the end of that, which is that of the test process, stops
/// it and removes its files.
const SCRIPT: &str = r#"
set -eu
folder=$(mktemp -d "${TMPDIR:-/tmp}/tms-postgres.XXXXXX")
trap 'rm -rf "$folder"' EXIT
echo swordfish >"$folder/password"
initdb -D "$folder/data" -U postgres -A trust --pwfile="$folder/password" -E UTF8 --no-sync >"$folder/log" 2>&1 || { cat "$folder/log" >&2; exit 1; }
echo "host all all 10.0.0.0/8 scram-sha-256" >>"$folder/data/pg_hba.conf"
while
    postgres -D "$folder/data" -k "$folder" -c listen_addresses="$2" -p "$3" -c fsync="$1" -c max_connections=400 >>"$folder/log" 2>&1 &
    echo "$folder"
    read -r _
do
    kill -INT $!
    wait $! || true
done
kill -INT $!
wait
"#;

/// The address of a cluster's node, at which its pods find what runs beside them.
pub const NODE: &str = "10.200.0.1";

/// What a PostgreSQL asks those for who come over the network.
pub const PASSWORD: &str = "swordfish";

/// How often a starting server is tried, and the pause between.
const ATTEMPTS: u32 = 600;
const PAUSE: Duration = Duration::from_millis(50);

/// Returns the URL of a new, empty database, or `None` after [`crate::skip`] where there is no PostgreSQL. It lies on the
/// server of `TMS_TEST_POSTGRES_URL` (an administrator's URL; the database stays there), or on one of our own.
pub async fn database() -> Option<String> {
    let Some(server) = server() else {
        crate::skip("there is no PostgreSQL: neither initdb and postgres nor TMS_TEST_POSTGRES_URL");
        return None;
    };
    let name = format!("tms_{}", uuid::Uuid::new_v4().simple());
    let mut connection = connect(server).await;
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .execute(&mut connection)
        .await
        .expect("the administrator of the tests' PostgreSQL may create a database");
    connection.close().await.expect("a connection closes");
    Some(with_database(server, &name))
}

/// A PostgreSQL inside a cluster's network, which its pods reach with [`PASSWORD`]. It ends when it is dropped.
pub struct InCluster {
    server: Server,
}

impl InCluster {
    /// Starts one with an empty database. `None` as for [`database`].
    pub fn start(cluster: &Cluster) -> Option<Self> {
        let Some(programs) = programs() else {
            crate::skip("there is no PostgreSQL: neither initdb nor postgres");
            return None;
        };
        let run = || {
            cluster.enter();
            let free = TcpListener::bind((NODE, 0)).and_then(|listener| listener.local_addr());
            let port = free.expect("the node has free ports").port();
            let server = Server {
                url: format!("postgres://postgres@{NODE}:{port}/postgres"),
                ..start_at(programs, NODE, port)
            };
            let listens = (0..ATTEMPTS).any(|_| {
                std::thread::sleep(PAUSE);
                TcpStream::connect((NODE, port)).is_ok()
            });
            assert!(listens, "PostgreSQL does not listen on {NODE}:{port}");
            Self { server }
        };
        Some(std::thread::scope(|scope| scope.spawn(run).join().expect("PostgreSQL starts")))
    }

    /// The URL of its database, inside the cluster.
    pub fn url(&self) -> &str {
        &self.server.url
    }
}

/// A PostgreSQL of one test alone, which it may start anew. It ends when it is dropped.
pub struct Own(Server);

impl Own {
    /// Starts one with an empty database. `None` as for [`database`].
    pub fn start() -> Option<Self> {
        let own = programs().map(|programs| Self(start(programs)));
        if own.is_none() {
            crate::skip("there is no PostgreSQL: neither initdb nor postgres");
        }
        own
    }

    /// The URL of its database.
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// Ends it, whoever is connected, and begins to start it anew.
    pub fn restart(&mut self) {
        let script = self.0.script.as_mut().expect("it is ours");
        writeln!(script.input, "again").expect("the script reads");
        script.read_line();
    }
}

/// Returns the URL of the server's own database.
fn server() -> Option<&'static str> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    let server = SERVER.get_or_init(|| match env::var("TMS_TEST_POSTGRES_URL") {
        Ok(url) => Some(Server { url, script: None }),
        Err(_) => programs().map(start),
    });
    server.as_ref().map(|server| server.url.as_str())
}

struct Server {
    url: String,
    script: Option<Script>,
}

/// The script that runs a server, until its input is closed by the end of this process or by dropping this.
struct Script {
    _process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Script {
    fn read_line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the script writes text");
        line.trim_end().to_owned()
    }
}

fn start(programs: PathBuf) -> Server {
    start_at(programs, "", 5432)
}

/// Starts a server on a socket, and on an address where one is given. `TMS_TEST_POSTGRES_FSYNC=on` makes it sync to the disk, for measurements.
fn start_at(programs: PathBuf, address: &str, port: u16) -> Server {
    let fsync = env::var("TMS_TEST_POSTGRES_FSYNC").unwrap_or_else(|_| "off".to_owned());
    let mut process = as_a_user_that_postgres_accepts()
        .args(["sh", "-c", SCRIPT, "tms-postgres", &fsync, address, &port.to_string()])
        .env("PATH", path_with(programs))
        .current_dir("/")
        // Ctrl-C at the terminal must reach only the tests; the script then cleans up.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sh can be started");
    let mut script = Script {
        input: process.stdin.take().expect("the input is piped"),
        output: BufReader::new(process.stdout.take().expect("the output is piped")),
        _process: process,
    };
    let folder = script.read_line();
    assert!(!folder.is_empty(), "initdb failed; its words are above");
    Server { url: format!("postgres://postgres@localhost/postgres?host={folder}"), script: Some(script) }
}

/// PostgreSQL refuses to run as root.
fn as_a_user_that_postgres_accepts() -> Command {
    if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]);
        command
    } else {
        Command::new("env")
    }
}

/// Returns the folder that holds PostgreSQL's programs: of those on the PATH, then of Debian's the newest.
fn programs() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut debian: Vec<_> = debian.map(|version| version.path().join("bin")).collect();
    debian.sort();
    env::split_paths(&path)
        .chain(debian.into_iter().rev())
        .find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
}

fn path_with(programs: PathBuf) -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    env::join_paths([programs].into_iter().chain(env::split_paths(&path))).expect("folders on a PATH")
}

async fn connect(url: &str) -> PgConnection {
    for _ in 1..ATTEMPTS {
        if let Ok(connection) = PgConnection::connect(url).await {
            return connection;
        }
        tokio::time::sleep(PAUSE).await;
    }
    PgConnection::connect(url).await.expect("the tests' PostgreSQL accepts connections")
}

/// Puts another database into a URL.
fn with_database(url: &str, name: &str) -> String {
    let (address, parameters) = url.split_once('?').unwrap_or((url, ""));
    let authority = address.find("://").map_or(0, |at| at + 3);
    let server = address[authority..].find('/').map_or(address, |at| &address[..authority + at]);
    format!("{server}/{name}?{parameters}")
}

#[cfg(test)]
mod tests {
    use super::with_database;

    #[test]
    fn a_url_gets_another_database() {
        let cases = [
            ("postgres://a:b@host:5432/postgres", "postgres://a:b@host:5432/new?"),
            ("postgres://host", "postgres://host/new?"),
            ("postgres://host/old?host=/tmp/x", "postgres://host/new?host=/tmp/x"),
        ];
        for (url, expected) in cases {
            assert_eq!(with_database(url, "new"), expected);
        }
    }
}
