//! Downloads one archive into a file. A transfer that is cut goes on where it ended, if the server says that the file is still
//! the same; redirects are followed within bounds and never carry credentials to another host.

mod answer;
mod hop;

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper::header::{HeaderValue, IF_RANGE, RANGE};
use hyper::{Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::time::timeout;

use self::answer::{Found, Known, Transfer};
use self::hop::Hop;
use super::fault::Fault;
use super::room::Room;
use crate::chain::chain;
use crate::domain::uri::HttpUri;

/// Time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time from a request to the head of its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Time without a byte after which a transfer counts as cut.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A client for http and https.
pub type Web = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// Returns a client that trusts the certificates of the system.
pub fn web() -> io::Result<Web> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_nodelay(true);
    // HTTP/1 alone: one transfer at a time, and ranges of it.
    let https = HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(rustls::crypto::ring::default_provider())?
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    Ok(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(https))
}

/// What is downloaded, and under which conditions.
pub struct Order<'a> {
    /// Its address and checksum.
    pub uri: &'a HttpUri,
    /// Name of the Secret and the header's value that it holds.
    pub authorization: Option<(&'a str, HeaderValue)>,
    /// Whether a redirect may lead to `http://`.
    pub allow_http: bool,
    /// Most bytes.
    pub room: Room,
}

/// What has come of a file.
#[derive(Clone, Copy, Debug)]
pub struct Came {
    /// Bytes that came in this try.
    pub now: u64,
    /// Bytes that came in all.
    pub bytes: u64,
    /// Bytes of the whole file, where the server says so.
    pub total: Option<u64>,
}

/// A file that grows over several tries.
pub struct Partial {
    file: File,
    sum: Sha256,
    known: Known,
    /// Whether it was put together from several answers.
    is_pieced: bool,
    /// Whether it has been given a second chance already.
    had_chance: bool,
}

impl Partial {
    /// Makes the file anew.
    pub async fn create(path: &Path) -> io::Result<Self> {
        let file = File::create(path).await?;
        Ok(Self { file, sum: Sha256::new(), known: Known::default(), is_pieced: false, had_chance: false })
    }

    /// Bytes that have come.
    pub fn written(&self) -> u64 {
        self.known.written
    }

    /// Begins anew, once, if pieces of different files may be why this one is wrong; returns whether it does.
    pub async fn second_chance(&mut self) -> Result<bool, Fault> {
        if !self.is_pieced || self.had_chance {
            return Ok(false);
        }
        self.had_chance = true;
        self.restart(None, None).await.map_err(disk)?;
        Ok(true)
    }

    async fn restart(&mut self, validator: Option<HeaderValue>, total: Option<u64>) -> io::Result<()> {
        self.file.set_len(0).await?;
        self.file.rewind().await?;
        self.sum = Sha256::new();
        self.known = Known { written: 0, total, validator };
        self.is_pieced = false;
        Ok(())
    }

    async fn append(&mut self, bytes: &Bytes) -> io::Result<()> {
        self.file.write_all(bytes).await?;
        self.sum.update(bytes);
        self.known.written += bytes.len() as u64;
        Ok(())
    }
}

/// Goes on with a download until it is complete and its checksum right. `tell` learns of the bytes,
/// first of all when the server has answered.
pub async fn download(
    web: &Web,
    order: &Order<'_>,
    partial: &mut Partial,
    tell: &(impl Fn(Came) + Sync),
) -> Result<(), Fault> {
    let (response, hop) = follow(web, order, partial).await?;
    let found = match answer::found(&response, order, &hop, &partial.known) {
        Ok(found) => found,
        Err(fault) => {
            if answer::is_about_range(response.status()) {
                partial.restart(None, None).await.map_err(disk)?;
            }
            return Err(fault);
        }
    };
    match found.found {
        Found::Whole => {
            let validator = answer::validator(response.headers()).cloned();
            partial.restart(validator, found.total).await.map_err(disk)?;
        }
        Found::Rest => {
            partial.is_pieced = true;
            partial.known.total = found.total;
        }
    }
    let outcome = receive(response.into_body(), &found, order, partial, tell).await;
    // What has come counts for the next try too.
    partial.file.flush().await.map_err(disk)?;
    outcome?;
    match verify(order.uri, partial) {
        Err(fault) if partial.second_chance().await? => Err(anew(&fault)),
        verdict => verdict,
    }
}

/// Returns the fault of a file that is fetched a second time, for what was wrong with the first.
pub fn anew(fault: &Fault) -> Fault {
    Fault::transient(format!("{fault}; it came in several pieces and is fetched anew"))
}

/// Sends the request and follows redirects.
async fn follow(
    web: &Web,
    order: &Order<'_>,
    partial: &mut Partial,
) -> Result<(Response<Incoming>, Hop), Fault> {
    let mut hop = Hop::first(order)?;
    loop {
        let request = request(&hop, order, partial)?;
        let place = hop.place();
        let response = match timeout(ANSWER_TIMEOUT, web.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                return Err(Fault::transient(format!("cannot reach {place}: {}", chain(&error))));
            }
            Err(_) => return Err(Fault::transient(format!("{place} does not answer within 60 s"))),
        };
        if !response.status().is_redirection() || response.status() == hyper::StatusCode::NOT_MODIFIED {
            return Ok((response, hop));
        }
        hop = hop.next(&response, order)?;
    }
}

fn request(hop: &Hop, order: &Order<'_>, partial: &Partial) -> Result<Request<Empty<Bytes>>, Fault> {
    let mut request = Request::get(hop.url.as_str())
        .header(hyper::header::USER_AGENT, concat!("tms-server/", env!("CARGO_PKG_VERSION")))
        // The checksum and the size are those of the file as it lies there.
        .header(hyper::header::ACCEPT_ENCODING, "identity");
    if let Some((_, value)) = order.authorization.as_ref().filter(|_| hop.is_trusted) {
        request = request.header(hyper::header::AUTHORIZATION, value);
    }
    if let Some(validator) = partial.known.validator.as_ref().filter(|_| partial.known.written > 0) {
        request =
            request.header(RANGE, format!("bytes={}-", partial.known.written)).header(IF_RANGE, validator);
    }
    request
        .body(Empty::new())
        .map_err(|error| Fault::permanent(format!("{} cannot be asked for: {error}", hop.place())))
}

async fn receive(
    mut body: Incoming,
    transfer: &Transfer,
    order: &Order<'_>,
    partial: &mut Partial,
    tell: &(impl Fn(Came) + Sync),
) -> Result<(), Fault> {
    let (start, total) = (partial.known.written, transfer.total);
    tell(Came { now: 0, bytes: start, total });
    loop {
        let frame = match timeout(IDLE_TIMEOUT, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(cut_off(partial, &chain(&error))),
            Ok(None) => break,
            Err(_) => return Err(cut_off(partial, "nothing came for 30 s")),
        };
        let Ok(bytes) = frame.into_data() else { continue };
        if partial.known.written + bytes.len() as u64 > order.room.bytes() {
            return Err(answer::too_large(&order.room));
        }
        partial.append(&bytes).await.map_err(disk)?;
        tell(Came { now: partial.known.written - start, bytes: partial.known.written, total });
    }
    debug_assert!(body.is_end_stream());
    match transfer.total {
        Some(total) if total != partial.known.written => Err(cut_off(partial, "it ended early")),
        _ => Ok(()),
    }
}

fn verify(uri: &HttpUri, partial: &mut Partial) -> Result<(), Fault> {
    let Some(expected) = uri.sha256 else { return Ok(()) };
    let found: [u8; 32] = partial.sum.clone().finalize().into();
    if found == expected {
        return Ok(());
    }
    Err(Fault::permanent(format!(
        "the file at {uri} has another checksum than its uri: it is sha256={}, the uri says sha256={}",
        hexadecimal(&found),
        hexadecimal(&expected)
    )))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn cut_off(partial: &Partial, why: &str) -> Fault {
    Fault::transient(format!("the download was cut after {} bytes: {why}", partial.known.written))
}

fn disk(error: io::Error) -> Fault {
    Fault::of_files("cannot write the downloaded file", &error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_file_of_several_pieces_is_given_a_second_chance_and_only_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("download");
        let mut partial = Partial::create(&path).await.unwrap();
        partial.append(&Bytes::from_static(b"whole")).await.unwrap();
        assert!(!partial.second_chance().await.unwrap());
        assert_eq!(partial.written(), 5);

        partial.is_pieced = true;
        assert!(partial.second_chance().await.unwrap());
        assert_eq!((partial.written(), std::fs::metadata(&path).unwrap().len()), (0, 0));

        partial.append(&Bytes::from_static(b"again")).await.unwrap();
        partial.is_pieced = true;
        assert!(!partial.second_chance().await.unwrap());
        assert_eq!(partial.written(), 5);
    }
}
