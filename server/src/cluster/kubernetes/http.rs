//! One GET of a pod, bounded in time and size. Pods serve plain HTTP inside the cluster, and each answer is small, so that a
//! connection for each is enough.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longest time in which a pod takes up a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest time in which a pod tells its answer, once it has begun.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes that a connection holds before somebody reads them.
const BUFFER: usize = 32 * 1024;

/// A pod did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum GetError {
    /// It cannot be reached.
    #[error("cannot connect to {0}")]
    Connect(SocketAddr, #[source] std::io::Error),
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[from] hyper::Error),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Late(Duration),
    /// It refused.
    #[error("the answer is {0}")]
    Refused(StatusCode),
    /// The answer broke off or is too long.
    #[error("the answer cannot be read: {0}")]
    Body(String),
}

/// Returns what the address answers to a GET of `path`, which takes at most `timeout` in all and has at most `largest` bytes.
/// Once the answer begins, it is read when `turn` has come, and whatever `turn` gives is held meanwhile.
pub(super) async fn get<T>(
    address: SocketAddr,
    path: &str,
    timeout: Duration,
    largest: usize,
    turn: impl Future<Output = T>,
) -> Result<Bytes, GetError> {
    let answer = async {
        let connect = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address));
        let stream = connect.await.map_err(|_| GetError::Late(CONNECT_TIMEOUT))?;
        let stream = stream.map_err(|error| GetError::Connect(address, error))?;
        ask(stream, address, path, largest, turn).await
    };
    tokio::time::timeout(timeout, answer).await.map_err(|_| GetError::Late(timeout))?
}

async fn ask<T>(
    stream: TcpStream,
    address: SocketAddr,
    path: &str,
    largest: usize,
    turn: impl Future<Output = T>,
) -> Result<Bytes, GetError> {
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(BUFFER).handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .expect("an address and a path of this program make a request");
    let answer = async {
        let answer = sender.send_request(request).await?;
        if answer.status() != StatusCode::OK {
            return Err(GetError::Refused(answer.status()));
        }
        let _turn = turn.await;
        let body = tokio::time::timeout(READ_TIMEOUT, Limited::new(answer.into_body(), largest).collect());
        let body = body.await.map_err(|_| GetError::Late(READ_TIMEOUT))?;
        Ok(body.map_err(|error| GetError::Body(error.to_string()))?.to_bytes())
    };
    let mut answer = std::pin::pin!(answer);
    // The connection moves the bytes; it may be over before the answer is read to its end.
    tokio::select! {
        answer = &mut answer => answer,
        _ = connection => answer.await,
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request with these bytes, then closes or, where `is_open`, keeps the connection.
    async fn outcome(answer: &'static str, is_open: bool) -> Result<String, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /status HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
            if is_open {
                std::future::pending::<()>().await;
            }
        };
        let asked = get(address, "/status", Duration::from_millis(500), 10, ready(()));
        let served = async {
            server.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            answer = asked => match answer {
                Ok(body) => Ok(String::from_utf8_lossy(&body).into_owned()),
                Err(error) => Err(error.to_string()),
            },
            () = served => unreachable!("it never ends"),
        }
    }

    #[tokio::test]
    async fn an_answer_is_bounded_in_size_and_time() {
        let told = async |answer, is_open| outcome(answer, is_open).await.unwrap_or_else(|error| error);
        assert_eq!(
            told("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0123456789", false).await,
            "0123456789"
        );
        assert_eq!(told("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", true).await, "ok");
        let long = told("HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n0123456789a", false).await;
        assert_eq!(long, "the answer cannot be read: length limit exceeded");
        let refused = told("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", false).await;
        assert_eq!(refused, "the answer is 503 Service Unavailable");
        assert_eq!(told("", true).await, "no answer within 500ms");
        assert_eq!(told("SSH-2.0\r\n", false).await, "the connection broke");
    }

    #[tokio::test]
    async fn an_address_where_nobody_listens_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = get(address, "/", Duration::from_secs(5), 10, ready(())).await.unwrap_err();
        assert_eq!(error.to_string(), format!("cannot connect to {address}"));
    }
}
