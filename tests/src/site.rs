//! A web server that answers byte for byte as a test says, over http or https, and remembers what it was asked.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};

use rcgen::{CertifiedKey, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// A request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// An answer.
pub enum Reply {
    /// These bytes, after which the connection is closed.
    Bytes(Vec<u8>),
    /// Nothing at all, on a connection that stays open.
    Silence,
}

/// Answers with a status, headers and a body.
pub fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    let mut bytes = format!("HTTP/1.1 {status} Said So\r\nconnection: close\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend(format!("{name}: {value}\r\n").into_bytes());
    }
    if !headers.iter().any(|(name, _)| *name == "content-length") {
        bytes.extend(format!("content-length: {}\r\n", body.len()).into_bytes());
    }
    bytes.extend(b"\r\n");
    bytes.extend(body);
    Reply::Bytes(bytes)
}

/// Answers as a web server does that knows ranges.
pub fn file(asked: &Asked, body: &[u8], tag: &str) -> Reply {
    let start =
        asked.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    match start {
        Some(start) if asked.header("if-range") == Some(tag) => {
            let range = format!("bytes {start}-{}/{}", body.len() - 1, body.len());
            answer(206, &[("etag", tag), ("content-range", &range)], &body[start..])
        }
        _ => answer(200, &[("etag", tag)], body),
    }
}

/// Answers with the first bytes of a file, and then cuts the connection.
pub fn cut(body: &[u8], after: usize, tag: &str) -> Reply {
    let length = body.len().to_string();
    answer(200, &[("etag", tag), ("content-length", &length)], &body[..after])
}

/// A running server.
pub struct Site {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Site {
    /// Serves http; `reply` is told the request and how many came before it.
    pub async fn http(reply: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(Ipv4Addr::LOCALHOST.into(), None, reply).await
    }

    /// Serves https as `localhost` and `127.0.0.1`, with a certificate that is written to `certificate`.
    pub async fn https(
        certificate: &Path,
        reply: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let mut known = std::fs::read_to_string(certificate).unwrap_or_default();
        known.push_str(&made.cert.pem());
        std::fs::write(certificate, known).unwrap();
        Self::https_on(Ipv4Addr::LOCALHOST.into(), &made, reply).await
    }

    /// Serves https on an address, with a certificate.
    pub async fn https_on(
        address: IpAddr,
        made: &CertifiedKey<KeyPair>,
        reply: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config =
            config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        Self::start(address, Some(TlsAcceptor::from(Arc::new(config))), reply).await
    }

    async fn start(
        address: IpAddr,
        tls: Option<TlsAcceptor>,
        reply: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let site = Self { address: listener.local_addr().unwrap(), asked: Arc::default() };
        let (asked, reply) = (site.asked.clone(), Arc::new(reply));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (asked, reply, tls) = (asked.clone(), reply.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => talk(stream, &asked, &*reply).await,
                        // A client that does not trust the certificate ends here.
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                talk(stream, &asked, &*reply).await;
                            }
                        }
                    }
                });
            }
        });
        site
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Paths that were asked for with a method, in order.
    pub fn paths(&self, method: &str) -> Vec<String> {
        self.asked().into_iter().filter(|asked| asked.method == method).map(|asked| asked.path).collect()
    }
}

async fn talk(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    asked: &Mutex<Vec<Asked>>,
    reply: &(dyn Fn(&Asked, usize) -> Reply + Send + Sync),
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let mut first = lines.next().unwrap().split(' ');
    let header =
        |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    let request = Asked {
        method: first.next().unwrap().to_owned(),
        path: first.next().unwrap().to_owned(),
        headers: lines.filter_map(header).collect(),
    };
    let before = {
        let mut asked = asked.lock().unwrap();
        asked.push(request.clone());
        asked.len() - 1
    };
    match reply(&request, before) {
        Reply::Silence => std::future::pending().await,
        Reply::Bytes(bytes) => {
            // A client may have enough before the end.
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
    }
}
