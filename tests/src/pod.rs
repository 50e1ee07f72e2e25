//! A pod that a test plays: its agent and its Triton answer on an address of their own on this machine.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tms_server::domain::plan::{AGENT_PORT, TRITON_METRICS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long the agent keeps a question waiting.
const LONG_POLL: Duration = Duration::from_secs(20);

/// An agent and a Triton. They end with it.
pub struct Pod {
    address: IpAddr,
    told: Arc<Told>,
    _tasks: JoinSet<()>,
}

/// What they tell, and how often they were asked.
struct Told {
    status: watch::Sender<(u64, Value)>,
    questions: AtomicU64,
    requests: AtomicU64,
    looks: AtomicU64,
    metrics: Mutex<Option<String>>,
}

impl Pod {
    /// Starts both on an address that nobody else has.
    pub async fn start() -> Self {
        let [one, two, three, ..] = *uuid::Uuid::new_v4().as_bytes();
        let address = IpAddr::V4(Ipv4Addr::new(127, one.max(1), two, three.clamp(1, 254)));
        let told = Arc::new(Told {
            status: watch::Sender::new((1, json!([]))),
            questions: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            looks: AtomicU64::new(0),
            metrics: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        for port in [AGENT_PORT, TRITON_METRICS] {
            let listener = TcpListener::bind((address, port)).await.expect("the address is free");
            tasks.spawn(serve(listener, Arc::clone(&told)));
        }
        Self { address, told, _tasks: tasks }
    }

    /// Where they answer.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Makes the agent tell this of its models.
    pub fn tell(&self, models: Value) {
        self.told.status.send_modify(|(revision, known)| {
            *revision += 1;
            *known = models;
        });
    }

    /// How often the agent was asked.
    pub fn questions(&self) -> u64 {
        self.told.questions.load(Ordering::SeqCst)
    }

    /// Makes Triton have answered so many requests.
    pub fn serve(&self, requests: u64) {
        self.told.requests.store(requests, Ordering::SeqCst);
    }

    /// Makes Triton's metrics this text.
    pub fn serve_metrics(&self, text: String) {
        *self.told.metrics.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    /// How often Triton was asked for its metrics.
    pub fn looks(&self) -> u64 {
        self.told.looks.load(Ordering::SeqCst)
    }
}

async fn serve(listener: TcpListener, told: Arc<Told>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(answer(stream, Arc::clone(&told)));
    }
}

/// Answers one request. A client that goes away is no fault.
async fn answer(mut stream: TcpStream, told: Arc<Told>) {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let body = match path.split_once('?').unwrap_or((path, "")) {
        ("/metrics", _) => told.metrics(),
        ("/status", query) => {
            told.status(query.strip_prefix("after=").and_then(|text| text.parse().ok())).await
        }
        _ => panic!("nobody asks for {path}"),
    };
    let answer =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    let _ = stream.write_all(answer.as_bytes()).await;
}

impl Told {
    fn metrics(&self) -> String {
        self.looks.fetch_add(1, Ordering::SeqCst);
        let requests = self.requests.load(Ordering::SeqCst);
        let given = self.metrics.lock().unwrap_or_else(PoisonError::into_inner).clone();
        given.unwrap_or_else(|| {
            format!("nv_inference_request_success{{model=\"bert\",version=\"1\"}} {requests}\n")
        })
    }

    async fn status(&self, after: Option<u64>) -> String {
        self.questions.fetch_add(1, Ordering::SeqCst);
        let mut status = self.status.subscribe();
        if let Some(after) = after {
            let news = status.wait_for(|(revision, _)| *revision > after);
            let _ = tokio::time::timeout(LONG_POLL, news).await;
        }
        let (revision, models) = self.status.borrow().clone();
        json!({ "revision": revision, "models": models }).to_string()
    }
}
