//! A real PostgreSQL for tests: one server for each test process, on a socket in a temporary folder, and a new database
//! for each test. The server ends with the process, however that ends.

use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

use crate::cluster::Cluster;

/// Waits at its standard input for the end of the test process, then stops the server and removes its files.
const SCRIPT: &str = r#"
set -eu
folder=$(mktemp -d "${TMPDIR:-/tmp}/tms-postgres.XXXXXX")
trap 'rm -rf "$folder"' EXIT
initdb -D "$folder/data" -U postgres -A trust -E UTF8 --no-sync >"$folder/log" 2>&1 || { cat "$folder/log" >&2; exit 1; }
echo "host all all 10.0.0.0/8 scram-sha-256" >>"$folder/data/pg_hba.conf"
postgres -D "$folder/data" -k "$folder" -c listen_addresses="$2" -c fsync="$1" -c max_connections=400 >>"$folder/log" 2>&1 &
echo "$folder"
read -r _ || true
kill -INT $!
wait
"#;

/// Where pods of a node reach what runs beside them.
pub const NODE_ADDRESS: &str = "10.200.0.1";
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

/// Where pods of a node find a PostgreSQL, and with which password.
pub struct ForPods {
    pub url: String,
    pub password: &'static str,
    /// Its standard input stays open as long as this lives.
    _process: Child,
}

/// Starts a server with an empty database that pods of a node reach; `None` as for `database`.
pub async fn for_pods(cluster: &Cluster) -> Option<ForPods> {
    const PASSWORD: &str = "swordfish";
    let Some(programs) = programs() else {
        crate::skip("there is no PostgreSQL: neither initdb nor postgres");
        return None;
    };
    let start_inside = || {
        cluster.enter();
        start(programs, NODE_ADDRESS)
    };
    let server = std::thread::scope(|scope| scope.spawn(start_inside).join()).expect("it is started inside");
    let mut connection = connect(&server.url).await;
    for statement in ["CREATE DATABASE tms", "ALTER ROLE postgres PASSWORD 'swordfish'"] {
        sqlx::query(statement).execute(&mut connection).await.expect("the administrator may");
    }
    connection.close().await.expect("a connection closes");
    let process = server._process.expect("it was started here");
    Some(ForPods {
        url: format!("postgres://postgres@{NODE_ADDRESS}:5432/tms"),
        password: PASSWORD,
        _process: process,
    })
}

/// Returns the URL of the server's own database.
fn server() -> Option<&'static str> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    let server = SERVER.get_or_init(|| match env::var("TMS_TEST_POSTGRES_URL") {
        Ok(url) => Some(Server { url, _process: None }),
        Err(_) => programs().map(|programs| start(programs, "")),
    });
    server.as_ref().map(|server| server.url.as_str())
}

struct Server {
    url: String,
    /// Its standard input stays open as long as this process lives.
    _process: Option<Child>,
}

/// Starts a server that also listens on an address, if one is given. `TMS_TEST_POSTGRES_FSYNC=on` makes it sync to the
/// disk, for measurements.
fn start(programs: PathBuf, address: &str) -> Server {
    let fsync = env::var("TMS_TEST_POSTGRES_FSYNC").unwrap_or_else(|_| "off".to_owned());
    let mut process = as_a_user_that_postgres_accepts()
        .args(["sh", "-c", SCRIPT, "tms-postgres", &fsync, address])
        .env("PATH", path_with(programs))
        .current_dir("/")
        // Ctrl-C at the terminal must reach only the tests; the script then cleans up.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sh can be started");
    let mut folder = String::new();
    let output = process.stdout.take().expect("the output is piped");
    BufReader::new(output).read_line(&mut folder).expect("the script writes text");
    assert!(!folder.is_empty(), "initdb failed; its words are above");
    Server {
        url: format!("postgres://postgres@localhost/postgres?host={}", folder.trim_end()),
        _process: Some(process),
    }
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
