//! The agent's HTTP server: `/fetched` and `/ready` for probes, `/status` for tms-server.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::status::{Board, Snapshot};

/// Time that a question for later news waits.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// Time in which a client must have sent its request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Most connections at a time, so that nobody can fill the agent's memory.
const CONNECTIONS: usize = 256;
/// Most bytes of a request's head.
const HEAD_BYTES: usize = 16 << 10;
/// Pause after a connection could not be taken, for want of files.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers for as long as the agent lives.
pub async fn serve(listener: TcpListener, board: Arc<Board>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = places.clone().acquire_owned().await.expect("nobody closes it");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(error = %error, "cannot take a connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let board = board.clone();
        tokio::spawn(async move {
            let answer = service_fn(|request| answer(request, board.clone()));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(HEAD_BYTES)
                .serve_connection(TokioIo::new(stream), answer);
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "a connection ended early");
            }
            drop(place);
        });
    }
}

async fn answer(request: Request<Incoming>, board: Arc<Board>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() != Method::GET {
        return Ok(text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered"));
    }
    let snapshot = board.snapshot();
    Ok(match request.uri().path() {
        "/fetched" if snapshot.is_fetched => text(StatusCode::OK, "every model is laid out"),
        "/fetched" => text(StatusCode::SERVICE_UNAVAILABLE, &snapshot.unready().unwrap_or_default()),
        "/ready" => match snapshot.unready() {
            None if snapshot.is_fetched => text(StatusCode::OK, "every model is ready"),
            reason => text(StatusCode::SERVICE_UNAVAILABLE, &reason.unwrap_or_default()),
        },
        "/status" => match after(request.uri().query()) {
            Ok(None) => status(&snapshot),
            Ok(Some(revision)) => match timeout(LONGEST_WAIT, board.after(revision)).await {
                Ok(later) => status(&later),
                Err(_) => status(&board.snapshot()),
            },
            Err(NotARevision) => {
                text(StatusCode::BAD_REQUEST, "after must be a revision, such as /status?after=7")
            }
        },
        _ => text(StatusCode::NOT_FOUND, "there are /fetched, /ready and /status"),
    })
}

/// The parameter `after` is not a number.
struct NotARevision;

fn after(query: Option<&str>) -> Result<Option<u64>, NotARevision> {
    let pairs = query.unwrap_or_default().split('&');
    let value = pairs.filter_map(|pair| pair.strip_prefix("after=")).next();
    value.map(|value| value.parse().map_err(|_| NotARevision)).transpose()
}

fn status(snapshot: &Snapshot) -> Response<Full<Bytes>> {
    let json = serde_json::to_vec(snapshot).expect("a snapshot is JSON");
    response(StatusCode::OK, "application/json", json)
}

fn text(status: StatusCode, line: &str) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", format!("{line}\n").into_bytes())
}

fn response(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, kind)
        .header(CACHE_CONTROL, "no-store")
        .body(Full::from(body))
        .expect("the parts are valid")
}
