//! Clients that ask a lease all the time, from a pod, with no request tried again: by HTTP with a new connection for each
//! request, by HTTP on connections that are kept for a while, and by gRPC.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout};

use serde::Deserialize;
use tms_proto::v1::Lease;

use crate::installation::Installation;

/// Asks until its input ends, then says how it went. A connection is kept for less time than a replica goes on answering
/// once it has left its Service (server.triton.preStopSeconds), as every client with a pool has to be set.
const ASK_ALL_THE_TIME: &str = r#"
import http.client, json, sys, threading, time
import numpy, tritonclient.grpc as triton

host, model = sys.argv[1], sys.argv[2]
question = json.dumps({"inputs": [{"name": "INPUT", "datatype": "FP32", "shape": [2], "data": [1.5, 2.5]}]})
path = f"/v2/models/{model}/infer"
stop = threading.Event()
report = {}

def ask(connection):
    connection.request("POST", path, question, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{answer.status} {body[:200]}")

def fresh():
    connection = http.client.HTTPConnection(host, 8000, timeout=30)
    try:
        ask(connection)
    finally:
        connection.close()

kept = []
def keep_alive():
    if not kept or time.monotonic() - kept[0][1] > 3:
        if kept:
            kept.pop()[0].close()
        kept.append((http.client.HTTPConnection(host, 8000, timeout=30), time.monotonic()))
    try:
        ask(kept[0][0])
    except BaseException:
        kept.pop()[0].close()
        raise

client = triton.InferenceServerClient(f"{host}:8001")
given = triton.InferInput("INPUT", [2], "FP32")
given.set_data_from_numpy(numpy.array([1.5, 2.5], dtype=numpy.float32))
def grpc():
    client.infer(model, [given], client_timeout=30)

def go_on(name, once):
    good, failed = 0, []
    while not stop.is_set():
        try:
            once()
            good += 1
        except BaseException as error:
            failed.append(f"{time.strftime('%H:%M:%S')} {type(error).__name__}: {error}"[:300])
        time.sleep(0.02)
    report[name] = {"good": good, "failed": failed}

clients = {"http, new connections": fresh, "http, kept connections": keep_alive, "grpc": grpc}
# The node forwards to the first replica a moment after that is ready.
def begin(once):
    for attempt in range(300):
        try:
            return once()
        except Exception:
            time.sleep(0.1)
    once()

for once in clients.values():
    begin(once)
threads = [threading.Thread(target=go_on, args=item) for item in clients.items()]
for thread in threads:
    thread.start()
print("asking", flush=True)
sys.stdin.read()
stop.set()
for thread in threads:
    thread.join()
print(json.dumps(report))
"#;

/// Clients at work.
pub struct Traffic {
    process: Child,
    output: BufReader<ChildStdout>,
}

/// How it went, by the kind of client.
#[derive(Deserialize)]
pub struct Report(BTreeMap<String, Requests>);

#[derive(Deserialize)]
struct Requests {
    good: u64,
    failed: Vec<String>,
}

impl Traffic {
    /// Begins to ask a model of a lease.
    pub fn start(installation: &Installation, lease: &Lease, model: &str) -> Self {
        let host = &lease.endpoint.as_ref().expect("a lease has an address").host;
        let (process, output) = run(installation, &[ASK_ALL_THE_TIME, host, model]);
        let mut traffic = Self { process, output };
        assert_eq!(traffic.line(), "asking");
        traffic
    }

    /// Ends, when the requests under way are answered.
    pub fn end(mut self) -> Report {
        drop(self.process.stdin.take());
        let report = self.line();
        self.process.wait().expect("kubectl is ours");
        serde_json::from_str(&report).expect("a report")
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the client writes text");
        line.trim_end().to_owned()
    }
}

impl Report {
    /// Returns itself, after all requests turn out to be answered and to be many.
    pub fn all_good(self) -> Self {
        assert_eq!(self.0.len(), 3);
        for (client, requests) in &self.0 {
            assert_eq!(
                requests.failed,
                Vec::<String>::new(),
                "{client}: besides {} that were answered",
                requests.good
            );
            assert!(requests.good > 20, "{client}: only {} requests", requests.good);
        }
        self
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let client = |(name, requests): (&String, &Requests)| {
            format!("{name}: {} requests, {} failed", requests.good, requests.failed.len())
        };
        f.write_str(&self.0.iter().map(client).collect::<Vec<_>>().join("; "))
    }
}

/// Asks once by HTTP and once by gRPC, and says so when both are on their way.
const ASK_LONG: &str = r#"
import http.client, json, sys, threading, time
import numpy, tritonclient.grpc as triton

host, model = sys.argv[1], sys.argv[2]
question = json.dumps({"inputs": [{"name": "INPUT", "datatype": "FP32", "shape": [2], "data": [1.5, 2.5]}]})
answers = {}

def by_http():
    connection = http.client.HTTPConnection(host, 8000, timeout=60)
    connection.request("POST", f"/v2/models/{model}/infer", question, {"Content-Type": "application/json"})
    answers["http"] = str(connection.getresponse().status)
    connection.close()

def by_grpc():
    given = triton.InferInput("INPUT", [2], "FP32")
    given.set_data_from_numpy(numpy.array([1.5, 2.5], dtype=numpy.float32))
    triton.InferenceServerClient(f"{host}:8001").infer(model, [given], client_timeout=60)
    answers["grpc"] = "ok"

# The node forwards to the first replica a moment after that is ready.
for attempt in range(300):
    try:
        connection = http.client.HTTPConnection(host, 8000, timeout=10)
        connection.request("GET", f"/v2/models/{model}/ready")
        if connection.getresponse().status == 200 and triton.InferenceServerClient(f"{host}:8001").is_model_ready(model):
            break
    except Exception:
        pass
    time.sleep(0.1)
threads = [threading.Thread(target=by_http), threading.Thread(target=by_grpc)]
for thread in threads:
    thread.start()
time.sleep(1)
print("sent", flush=True)
for thread in threads:
    thread.join()
print(f"http {answers.get('http')}, grpc {answers.get('grpc')}")
"#;

/// Requests that take long.
pub struct LongRequest {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl LongRequest {
    /// Sends them, and returns when they are under way.
    pub async fn start(installation: &Installation, lease: &Lease, model: &str) -> Self {
        let host = &lease.endpoint.as_ref().expect("a lease has an address").host;
        let (process, mut output) = run(installation, &[ASK_LONG, host, model]);
        let mut line = String::new();
        output.read_line(&mut line).expect("the client writes text");
        assert_eq!(line, "sent\n");
        Self { process, output }
    }

    /// How they were answered.
    pub fn answers(mut self) -> String {
        let mut said = String::new();
        self.output.read_to_string(&mut said).expect("the client writes text");
        self.process.wait().expect("kubectl is ours");
        said.trim_end().to_owned()
    }
}

/// Runs a Python program in the pod `client`.
fn run(installation: &Installation, program: &[&str]) -> (Child, BufReader<ChildStdout>) {
    let place =
        ["exec", "--stdin", "--namespace", installation.namespace.name, "client", "--", "python3", "-c"];
    let mut process = installation.cluster.start_kubectl(&[&place[..], program].concat());
    let output = BufReader::new(process.stdout.take().expect("it was piped"));
    (process, output)
}
