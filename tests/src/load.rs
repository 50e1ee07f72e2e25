//! Load on the models of a lease, from the pod `client` of a namespace, with no request tried again.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout};

use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;

/// What asks; it says itself how.
const PROGRAM: &str = include_str!("load.py");

/// How a client reaches Triton.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// HTTP, with a connection for each request.
    Fresh,
    /// HTTP, on connections that are kept for three seconds.
    Kept,
    /// One gRPC channel for as long as the load lasts, to each address of the headless Service in turn.
    Grpc,
}

impl Kind {
    /// Each way to reach Triton.
    pub const ALL: [Self; 3] = [Self::Fresh, Self::Kept, Self::Grpc];

    /// What reports call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "HTTP, new connections",
            Self::Kept => "HTTP, kept connections",
            Self::Grpc => "gRPC, headless Service",
        }
    }
}

#[derive(Serialize)]
struct Client<'a> {
    name: &'static str,
    kind: Kind,
    model: &'a str,
}

/// Clients at work.
pub struct Load {
    process: Child,
    output: BufReader<ChildStdout>,
}

/// How it went.
#[derive(Debug, Deserialize)]
pub struct Report {
    clients: BTreeMap<String, Requests>,
    /// Requests by the second since 1970 in which they were sent.
    pub sent: BTreeMap<i64, u64>,
}

#[derive(Debug, Deserialize)]
struct Requests {
    good: u64,
    failed: Vec<String>,
}

impl Load {
    /// Starts a client of each kind that is named, with the model that it asks, and returns when each was answered once.
    /// `service` is that of the lease.
    pub fn start(cluster: &Cluster, namespace: &str, service: &str, clients: &[(Kind, &str)]) -> Self {
        let (name, rest) = service.split_once('.').expect("a Service has a name and a namespace");
        let headless = format!("{name}-headless.{rest}");
        let clients: Vec<_> =
            clients.iter().map(|&(kind, model)| Client { name: kind.as_str(), kind, model }).collect();
        let clients = serde_json::to_string(&clients).expect("clients are JSON");
        let place = ["exec", "--stdin", "--namespace", namespace, "client", "--", "python3", "-c"];
        let program = [PROGRAM, service, &headless, &clients];
        let mut process = cluster.start_kubectl(&[&place[..], &program].concat());
        let output = BufReader::new(process.stdout.take().expect("it was piped"));
        let mut load = Self { process, output };
        assert_eq!(load.line(), "answered");
        load
    }

    /// Lets as many callers for each client ask all the time from now on.
    pub fn free(&mut self, callers: u32) {
        self.say(&format!("free {callers}"));
    }

    /// Lets as many requests a second arrive from now on in all, whether or not those before are answered.
    pub fn rate(&mut self, requests_per_second: f64) {
        self.say(&format!("rate {requests_per_second}"));
    }

    /// Sends so many requests of each client at once.
    pub fn together(&mut self, requests: u32) {
        self.say(&format!("together {requests}"));
    }

    /// Ends, when the requests under way are answered.
    pub fn end(mut self) -> Report {
        drop(self.process.stdin.take());
        let report = self.line();
        self.process.wait().expect("kubectl is ours");
        serde_json::from_str(&report).unwrap_or_else(|error| panic!("no report: {error}: {report:?}"))
    }

    fn say(&mut self, line: &str) {
        let input = self.process.stdin.as_mut().expect("it was piped");
        writeln!(input, "{line}").expect("the client reads");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the client writes text");
        line.trim_end().to_owned()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // One that has ended already needs neither.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Report {
    /// Returns itself, after each client turns out to have been answered at least so often, and never otherwise.
    pub fn all_good(self, at_least: u64) -> Self {
        for (client, requests) in &self.clients {
            let failed = &requests.failed;
            assert!(failed.is_empty(), "{client}: besides {} that were answered: {failed:#?}", requests.good);
            assert!(requests.good >= at_least, "{client}: only {} requests", requests.good);
        }
        self
    }

    /// Requests that were not answered well.
    pub fn failed(&self) -> usize {
        self.clients.values().map(|requests| requests.failed.len()).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let client = |(name, requests): (&String, &Requests)| {
            format!("{name}: {} requests, {} failed", requests.good, requests.failed.len())
        };
        f.write_str(&self.clients.iter().map(client).collect::<Vec<_>>().join("; "))
    }
}
