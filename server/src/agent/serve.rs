//! The agent's HTTP server: `/fetched` and `/ready` for probes, `/status` for tms-server.

use std::convert::Infallible;
use std::pin::pin;
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
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::status::{Board, Snapshot};

/// Time that a question for later news waits.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// Time in which a client must have sent its request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Most connections at a time, so that nobody can fill the agent's memory.
const CONNECTIONS: usize = 256;
/// Most questions for later news that wait at a time; further ones are answered at once.
const WAITING: usize = 16;
/// Time after which a connection is closed once its answer is given, and time in which it is closed in any case.
const BOUNDS: (Duration, Duration) = (Duration::from_secs(35), Duration::from_secs(60));
/// Most bytes of a request's head.
const HEAD_BYTES: usize = 16 << 10;
/// Pause after a connection could not be taken, for want of files.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers for as long as the agent lives.
pub async fn serve(listener: TcpListener, board: Arc<Board>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let desk = Desk { board, waiting: Arc::new(Semaphore::new(WAITING)) };
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
        let desk = desk.clone();
        tokio::spawn(async move {
            attend(stream, desk, BOUNDS).await;
            drop(place);
        });
    }
}

/// What every connection shares.
#[derive(Clone)]
struct Desk {
    board: Arc<Board>,
    /// Places for questions that wait for later news.
    waiting: Arc<Semaphore>,
}

/// Answers on one connection, within bounds in time: the first lets an answer under way be given, the second does not.
async fn attend(stream: TcpStream, desk: Desk, (soft, hard): (Duration, Duration)) {
    let answer = service_fn(|request| answer(request, desk.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = pin!(connection);
    let mut end = timeout(soft, connection.as_mut()).await;
    if end.is_err() {
        connection.as_mut().graceful_shutdown();
        end = timeout(hard.saturating_sub(soft), connection).await;
    }
    match end {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(error = %error, "a connection ended early"),
        Err(_) => tracing::debug!("a connection took too long"),
    }
}

/// Returns what is on the board once it is later than a revision, or now if that takes long or too many wait already.
async fn later(desk: &Desk, revision: u64) -> Snapshot {
    let Ok(_place) = desk.waiting.try_acquire() else { return desk.board.snapshot() };
    match timeout(LONGEST_WAIT, desk.board.after(revision)).await {
        Ok(later) => later,
        Err(_) => desk.board.snapshot(),
    }
}

async fn answer(request: Request<Incoming>, desk: Desk) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() != Method::GET {
        return Ok(text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered"));
    }
    let snapshot = desk.board.snapshot();
    Ok(match request.uri().path() {
        "/fetched" if snapshot.is_fetched => text(StatusCode::OK, "every model is laid out"),
        "/fetched" => text(StatusCode::SERVICE_UNAVAILABLE, &snapshot.unready().unwrap_or_default()),
        "/ready" => match snapshot.unready() {
            None if snapshot.is_fetched => text(StatusCode::OK, "every model is ready"),
            reason => text(StatusCode::SERVICE_UNAVAILABLE, &reason.unwrap_or_default()),
        },
        "/status" => match after(request.uri().query()) {
            Ok(None) => status(&snapshot),
            Ok(Some(revision)) => status(&later(&desk, revision).await),
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// More than any of these tests needs.
    const DEADLINE: Duration = Duration::from_secs(10);

    fn desk(waiting: usize) -> Desk {
        let board = Arc::new(Board::new(["a".to_owned()].into_iter()));
        Desk { board, waiting: Arc::new(Semaphore::new(waiting)) }
    }

    /// Sends a request and returns all that comes until the connection is closed.
    async fn asked(request: &str, desk: Desk, bounds: (Duration, Duration)) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let served = tokio::spawn(attend(stream, desk, bounds));
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(DEADLINE, client.read_to_string(&mut answer)).await.expect("it is closed").unwrap();
        served.await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_question_for_news_is_answered_at_once_where_too_many_wait() {
        let desk = desk(1);
        let mut first = pin!(later(&desk, 1));
        assert!(futures::poll!(first.as_mut()).is_pending());
        let second = futures::poll!(pin!(later(&desk, 1)));
        assert!(matches!(second, std::task::Poll::Ready(Snapshot { revision: 1, .. })));
        desk.board.fetched();
        assert_eq!(first.await.revision, 2);
        assert!(futures::poll!(pin!(later(&desk, 2))).is_pending(), "its place is free again");
    }

    #[tokio::test]
    async fn a_connection_is_closed_after_its_answer_or_without_one() {
        let (short, long) = (Duration::from_millis(50), DEADLINE * 2);
        let kept = asked("GET /status HTTP/1.1\r\nhost: a\r\n\r\n", desk(1), (short, long)).await;
        assert!(kept.starts_with("HTTP/1.1 200"), "{kept}");
        let slow =
            asked("GET /status?after=1 HTTP/1.1\r\nhost: a\r\n\r\n", desk(1), (short, short * 2)).await;
        assert_eq!(slow, "", "its news never came");
    }
}
