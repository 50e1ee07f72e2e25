//! A server that answers by a script, behind a wire that can be cut: for faults that a real server does not have at will.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use tms_proto::v1::lease_service_server::{LeaseService, LeaseServiceServer};
use tms_proto::v1::{
    AcquireRequest, AcquireResponse, ActivateRequest, ActivateResponse, ExplainRequest, ExplainResponse,
    ListRequest, ListResponse, PlanRequest, PlanResponse, ReleaseRequest, ReleaseResponse, RenewRequest,
    RenewResponse, SimulateRequest, SimulateResponse, StatusRequest, StatusResponse, UpdateRequest,
    UpdateResponse, WatchRequest, WatchResponse,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use crate::connection::Connection;
use crate::targets::Target;

/// One thing that a stream does.
#[derive(Clone)]
pub enum Act<T> {
    /// Sends a message.
    Send(T),
    /// Ends with an error.
    Fail(Status),
    /// Says nothing more.
    Hang,
}

/// What the calls do, one entry a call.
#[derive(Default)]
pub struct Script {
    pub acquires: VecDeque<Vec<Act<AcquireResponse>>>,
    pub watches: VecDeque<Vec<Act<WatchResponse>>>,
    pub lists: VecDeque<ListResponse>,
    pub acquire_requests: Vec<AcquireRequest>,
    pub watch_requests: Vec<WatchRequest>,
}

/// A running server.
#[derive(Clone)]
pub struct FakeServer {
    script: Arc<Mutex<Script>>,
    cut: broadcast::Sender<()>,
}

impl FakeServer {
    /// Starts a server, and connects to it through a wire.
    pub async fn start(script: Script) -> (Self, Connection) {
        let server = Self { script: Arc::new(Mutex::new(script)), cut: broadcast::channel(8).0 };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let inner = listener.local_addr().unwrap();
        let service = LeaseServiceServer::new(server.clone());
        let incoming = TcpListenerStream::new(listener);
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        let wire = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", wire.local_addr().unwrap());
        tokio::spawn(carry(wire, inner, server.cut.clone()));
        let target = Target { url, ca: None, certificate: None, key: None };
        (server, Connection::open(&target).await.unwrap())
    }

    /// Cuts every connection; new ones are let through.
    pub fn cut_wire(&self) {
        self.cut.send(()).expect("there is a connection to cut");
    }

    /// Returns what was asked so far.
    pub fn asked(&self) -> (Vec<AcquireRequest>, Vec<WatchRequest>) {
        let script = self.script.lock().unwrap();
        (script.acquire_requests.clone(), script.watch_requests.clone())
    }
}

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn play<T: Send + 'static>(acts: Vec<Act<T>>) -> Messages<T> {
    Box::pin(tokio_stream::iter(acts).then(async |act| match act {
        Act::Send(message) => Ok(message),
        Act::Fail(status) => Err(status),
        Act::Hang => std::future::pending().await,
    }))
}

async fn carry(wire: TcpListener, inner: std::net::SocketAddr, cut: broadcast::Sender<()>) {
    while let Ok((mut outside, _)) = wire.accept().await {
        let mut is_cut = cut.subscribe();
        tokio::spawn(async move {
            let mut inside = TcpStream::connect(inner).await.unwrap();
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut outside, &mut inside) => {}
                _ = is_cut.recv() => {}
            }
        });
    }
}

#[tonic::async_trait]
impl LeaseService for FakeServer {
    type AcquireStream = Messages<AcquireResponse>;
    type WatchStream = Messages<WatchResponse>;

    async fn acquire(
        &self,
        request: Request<AcquireRequest>,
    ) -> Result<Response<Self::AcquireStream>, Status> {
        let acts = {
            let mut script = self.script.lock().unwrap();
            script.acquire_requests.push(request.into_inner());
            script.acquires.pop_front().expect("the script has an acquisition")
        };
        match acts.first() {
            Some(Act::Fail(status)) => Err(status.clone()),
            _ => Ok(Response::new(play(acts))),
        }
    }

    async fn activate(&self, _: Request<ActivateRequest>) -> Result<Response<ActivateResponse>, Status> {
        Err(Status::unimplemented("the script has no activation"))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let acts = {
            let mut script = self.script.lock().unwrap();
            script.watch_requests.push(request.into_inner());
            script.watches.pop_front().expect("the script has a watch")
        };
        Ok(Response::new(play(acts)))
    }

    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let list = self.script.lock().unwrap().lists.pop_front();
        Ok(Response::new(list.expect("the script has a list")))
    }

    async fn update(&self, _: Request<UpdateRequest>) -> Result<Response<UpdateResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn release(&self, _: Request<ReleaseRequest>) -> Result<Response<ReleaseResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn explain(&self, _: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn simulate(&self, _: Request<SimulateRequest>) -> Result<Response<SimulateResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn plan(&self, _: Request<PlanRequest>) -> Result<Response<PlanResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }
}
