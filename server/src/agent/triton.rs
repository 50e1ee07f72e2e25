//! Triton's HTTP interface, as far as loading models needs it.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::HeaderValue;
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;
use url::Url;

use super::fault::Fault;
use super::words;
use crate::chain::chain;

/// The header that opens the repository API.
const KEY: &str = "tms-key";
/// Most bytes of an answer that are read.
const LONGEST_ANSWER: usize = 64 << 10;
/// Time in which a question is answered. A load has no such bound: large models take their time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A question that Triton did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Silence {
    /// Nobody listens, as while it starts.
    #[error("waits for Triton to start")]
    NotUp,
    /// The connection was cut.
    #[error("Triton cannot be reached: {0}")]
    Gone(String),
    /// It takes too long.
    #[error("Triton does not answer within 5 s")]
    Slow,
}

/// A Triton.
pub struct Triton {
    client: Client<HttpConnector, Full<Bytes>>,
    url: Url,
    key: Option<HeaderValue>,
}

impl Triton {
    /// Returns the Triton at `url`, such as `http://127.0.0.1:8000`.
    pub fn at(url: &str, key: Option<HeaderValue>) -> Result<Self, url::ParseError> {
        let url = Url::parse(url)?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(ANSWER_TIMEOUT));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(1)
            .build(connector);
        Ok(Self { client, url, key })
    }

    /// Returns whether it is up, and not about to end.
    pub async fn is_live(&self) -> Result<bool, Silence> {
        self.ask(&["v2", "health", "live"]).await
    }

    /// Returns whether it serves a model.
    pub async fn serves(&self, model: &str) -> Result<bool, Silence> {
        self.ask(&["v2", "models", model, "ready"]).await
    }

    /// Has it load a model, and waits until it has.
    pub async fn load(&self, model: &str) -> Result<(), Fault> {
        let request = self.request(Method::POST, &["v2", "repository", "models", model, "load"]);
        let (status, text) = self.call(request).await.map_err(|gone| Fault::transient(gone.to_string()))?;
        if status == StatusCode::OK {
            return Ok(());
        }
        let error = words::error_of(&text);
        match status {
            StatusCode::BAD_REQUEST if !words::may_pass(&error) && self.is_live().await.unwrap_or(false) => {
                Err(Fault::permanent(words::plain(&error)))
            }
            // Older and newer versions differ in the code for this one, which a repeated load cannot change.
            StatusCode::INTERNAL_SERVER_ERROR if error.contains(words::NOT_POLLED) => {
                Err(Fault::permanent(words::plain(&error)))
            }
            StatusCode::FORBIDDEN => Err(Fault::transient(
                "Triton refuses the agent's key for its repository API (TMS_REPOSITORY_KEY)".to_owned(),
            )),
            _ => Err(Fault::transient(format!("Triton answers {status}: {}", words::plain(&error)))),
        }
    }

    async fn ask(&self, path: &[&str]) -> Result<bool, Silence> {
        let request = self.request(Method::GET, path);
        match timeout(ANSWER_TIMEOUT, self.call(request)).await {
            Ok(answer) => Ok(answer?.0 == StatusCode::OK),
            Err(_) => Err(Silence::Slow),
        }
    }

    fn request(&self, method: Method, path: &[&str]) -> Request<Full<Bytes>> {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let mut request = Request::builder().method(method).uri(url.as_str());
        if let Some(key) = &self.key {
            request = request.header(KEY, key);
        }
        request.body(Full::default()).expect("an address with other segments is an address")
    }

    async fn call(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, String), Silence> {
        let response = self.client.request(request).await.map_err(|error| match error.is_connect() {
            true => Silence::NotUp,
            false => Silence::Gone(chain(&error)),
        })?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
        let body = body.map_err(|error| Silence::Gone(error.to_string()))?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}
