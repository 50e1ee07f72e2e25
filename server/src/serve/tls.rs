//! TLS of the listener, from PEM files that are tried one by one so that a refusal names the one to mend. The files are looked
//! at again when connections come, since whoever issues certificates replaces them while the server runs.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::ServeError;
use crate::chain::chain;
use crate::clock::stopwatch;
use crate::config::Tls;

/// Time between two looks at the files.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Time in which a client must have shaken hands.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the listener shows and demands, as its files have it.
pub(super) struct Certificates {
    files: Tls,
    look_interval: Duration,
    state: Mutex<State>,
}

struct State {
    config: Arc<ServerConfig>,
    /// When its certificate expires, in seconds since 1970.
    expires_at: Option<i64>,
    /// What the files held when they were tried last.
    tried: Contents,
    looked_at: Instant,
    /// Why files that came later cannot be used, as it was said.
    complaint: Option<String>,
}

/// What the files hold.
#[derive(PartialEq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_authorities: Option<Vec<u8>>,
}

impl Certificates {
    /// Reads the files, and does so again when a connection comes, after each interval.
    pub fn open(files: &Tls, look_interval: Duration) -> Result<Self, ServeError> {
        let tried = Contents::read(files)?;
        let config = Arc::new(tried.config(files)?);
        let state =
            State { config, expires_at: tried.expires_at(), tried, looked_at: stopwatch(), complaint: None };
        Ok(Self { files: files.clone(), look_interval, state: Mutex::new(state) })
    }

    /// Returns the last second of the certificate that is shown, counted from 1970.
    pub fn expires_at(&self) -> Option<i64> {
        self.current();
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.expires_at
    }

    /// Returns what holds for a connection that comes now. Files that cannot be used leave it as it was.
    fn current(&self) -> Arc<ServerConfig> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked_at.elapsed() >= self.look_interval {
            state.looked_at = stopwatch();
            state.look(&self.files);
        }
        Arc::clone(&state.config)
    }
}

impl State {
    fn look(&mut self, files: &Tls) {
        let outcome = Contents::read(files).and_then(|contents| {
            if contents == self.tried {
                return Ok(None);
            }
            let config = contents.config(files);
            self.tried = contents;
            config.map(Some)
        });
        match outcome {
            Ok(None) => {}
            Ok(Some(config)) => {
                self.config = Arc::new(config);
                self.expires_at = self.tried.expires_at();
                self.complaint = None;
                tracing::info!(
                    "the certificates of the server were replaced: new connections see the new ones"
                );
            }
            Err(error) => {
                let complaint = Some(chain(&error));
                if self.complaint != complaint {
                    tracing::warn!(
                        error = complaint,
                        "new files of TLS cannot be used: the server goes on with those before"
                    );
                }
                self.complaint = complaint;
            }
        }
    }
}

impl Contents {
    fn read(files: &Tls) -> Result<Self, ServeError> {
        let authorities = files.client_ca_file.as_deref();
        Ok(Self {
            certificate: read("certificateFile", &files.certificate_file)?,
            key: read("keyFile", &files.key_file)?,
            client_authorities: authorities.map(|path| read("clientCaFile", path)).transpose()?,
        })
    }

    fn expires_at(&self) -> Option<i64> {
        let first = CertificateDer::pem_slice_iter(&self.certificate).next()?.ok()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&first).ok()?;
        Some(certificate.validity().not_after.timestamp())
    }

    fn config(&self, files: &Tls) -> Result<ServerConfig, ServeError> {
        let shown = certificates("certificateFile", &files.certificate_file, &self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| {
            refused("keyFile", &files.key_file, format!("it has no private key in PEM ({error})"))
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has cipher suites of both versions");
        let builder = match (&files.client_ca_file, &self.client_authorities) {
            (Some(path), Some(pem)) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(certificates("clientCaFile", path, pem)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
                builder.with_client_cert_verifier(
                    verifier.map_err(|error| refused("clientCaFile", path, chain(&error)))?,
                )
            }
            (None, _) | (_, None) => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(shown, key).map_err(|error| unfit(files, &error))?;
        config.alpn_protocols.push(b"h2".to_vec());
        Ok(config)
    }
}

/// Returns the connections that have shaken hands. Those that do not are left out.
pub(super) fn secured<Io>(
    incoming: impl Stream<Item = io::Result<Io>>,
    certificates: Arc<Certificates>,
) -> impl Stream<Item = io::Result<TlsStream<Io>>>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shake = move |stream: io::Result<Io>| {
        let certificates = Arc::clone(&certificates);
        async move {
            match stream {
                // A task of its own, so that many shake hands on many processors.
                Ok(stream) => tokio::spawn(shake_hands(stream, certificates)).await.ok().flatten().map(Ok),
                Err(error) => Some(Err(error)),
            }
        }
    };
    // A bound on how many shake hands at once would let those who say nothing keep everyone else waiting.
    incoming.map(shake).buffer_unordered(usize::MAX).filter_map(std::future::ready)
}

async fn shake_hands<Io>(stream: Io, certificates: Arc<Certificates>) -> Option<TlsStream<Io>>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = TlsAcceptor::from(certificates.current()).accept(stream);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(error = chain(&error), "a client did not shake hands");
            None
        }
        Err(_) => {
            tracing::debug!("a client did not shake hands in time");
            None
        }
    }
}

/// Returns the refusal of files that are sound one by one, but not together.
fn unfit(files: &Tls, error: &rustls::Error) -> ServeError {
    let problem = format!(
        "it does not go with the certificate in {}: {}",
        files.certificate_file.display(),
        chain(error)
    );
    refused("keyFile", &files.key_file, problem)
}

fn certificates(
    key: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, ServeError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(refused(key, path, "it has no certificate in PEM".to_owned())),
        Ok(found) => Ok(found),
        Err(error) => Err(refused(key, path, format!("it is not PEM ({error})"))),
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, ServeError> {
    std::fs::read(path).map_err(|error| refused(key, path, error.to_string()))
}

fn refused(key: &'static str, path: &Path, problem: String) -> ServeError {
    ServeError::Tls { key, path: path.to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::ClientConfig;
    use rustls::pki_types::ServerName;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio_rustls::{TlsConnector, client};

    use super::*;

    /// The files of a server, and an authority that it believes clients of and clients believe it of.
    struct Place {
        folder: tempfile::TempDir,
        files: Tls,
        roots: RootCertStore,
        client: (Vec<CertificateDer<'static>>, Vec<u8>),
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let files = Tls {
                certificate_file: folder.path().join("tls.crt"),
                key_file: folder.path().join("tls.key"),
                client_ca_file: Some(folder.path().join("ca.crt")),
            };
            let mut place =
                Self { folder, files, roots: RootCertStore::empty(), client: (Vec::new(), Vec::new()) };
            place.issue();
            place
        }

        /// Replaces every file by those of a new authority.
        fn issue(&mut self) {
            let mut parameters = CertificateParams::default();
            parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            let authority = parameters.self_signed(&key).unwrap();
            let issuer = Issuer::new(parameters, key);
            let signed = |name: &str| {
                let key = KeyPair::generate().unwrap();
                let parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
                (parameters.signed_by(&key, &issuer).unwrap(), key)
            };
            let (certificate, key) = signed("tms");
            std::fs::write(&self.files.certificate_file, certificate.pem()).unwrap();
            std::fs::write(&self.files.key_file, key.serialize_pem()).unwrap();
            std::fs::write(self.folder.path().join("ca.crt"), authority.pem()).unwrap();
            self.roots = RootCertStore::empty();
            self.roots.add(authority.der().clone()).unwrap();
            let (certificate, key) = signed("ada");
            self.client = (vec![certificate.der().clone()], key.serialize_der());
        }

        /// Shakes hands as the last authority has it; the two ends, or the client's failure.
        async fn connect(
            &self,
            certificates: &Arc<Certificates>,
        ) -> Result<(client::TlsStream<DuplexStream>, TlsStream<DuplexStream>), String> {
            let (near, far) = tokio::io::duplex(64 * 1024);
            let (client, server) = tokio::join!(self.dial(near), shake_hands(far, Arc::clone(certificates)));
            let client = client.map_err(|error| error.to_string())?;
            Ok((client, server.ok_or("the server refused")?))
        }

        async fn dial(&self, stream: DuplexStream) -> io::Result<client::TlsStream<DuplexStream>> {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let (shown, key) = &self.client;
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(self.roots.clone())
                .with_client_auth_cert(shown.clone(), PrivateKeyDer::try_from(key.clone()).unwrap())
                .unwrap();
            let name = ServerName::try_from("tms").unwrap();
            TlsConnector::from(Arc::new(config)).connect(name, stream).await
        }
    }

    #[tokio::test]
    async fn replaced_files_hold_for_new_connections_and_broken_ones_for_none() {
        let mut place = Place::new();
        let certificates = Arc::new(Certificates::open(&place.files, Duration::ZERO).unwrap());
        let (mut client, mut server) = place.connect(&certificates).await.unwrap();

        let good = std::fs::read(&place.files.certificate_file).unwrap();
        for broken in [&b"no certificate"[..], b""] {
            std::fs::write(&place.files.certificate_file, broken).unwrap();
            place.connect(&certificates).await.unwrap();
        }
        std::fs::remove_file(&place.files.certificate_file).unwrap();
        place.connect(&certificates).await.unwrap();
        std::fs::write(&place.files.certificate_file, &good).unwrap();
        place.connect(&certificates).await.unwrap();

        let key = std::fs::read(&place.files.key_file).unwrap();
        let other = KeyPair::generate().unwrap();
        std::fs::write(&place.files.key_file, other.serialize_pem()).unwrap();
        place.connect(&certificates).await.unwrap();
        std::fs::write(&place.files.key_file, key).unwrap();

        let (old_roots, old_client) = (place.roots.clone(), place.client.clone());
        place.issue();
        place.connect(&certificates).await.expect("the new authority is believed on both sides");
        let (new_roots, new_client) = (place.roots.clone(), place.client.clone());
        (place.roots, place.client) = (old_roots, new_client);
        assert!(place.connect(&certificates).await.is_err(), "the old certificate is shown no more");
        (place.roots, place.client) = (new_roots, old_client);
        assert!(place.connect(&certificates).await.is_err(), "clients of the old authority are strangers");

        // A connection of before lives on.
        client.write_all(b"still here").await.unwrap();
        client.flush().await.unwrap();
        let mut heard = [0; 10];
        server.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"still here");
    }

    #[tokio::test]
    async fn the_files_are_not_looked_at_for_each_connection() {
        let mut place = Place::new();
        let certificates = Arc::new(Certificates::open(&place.files, Duration::from_secs(3600)).unwrap());
        place.issue();
        assert!(place.connect(&certificates).await.is_err(), "the hour is not over");
    }

    #[tokio::test]
    async fn clients_that_say_nothing_keep_nobody_waiting() {
        let place = Place::new();
        let certificates = Arc::new(Certificates::open(&place.files, LOOK_INTERVAL).unwrap());
        let (_silent, mut incoming): (Vec<_>, Vec<_>) = (0..3000).map(|_| tokio::io::duplex(64)).unzip();
        let (near, far) = tokio::io::duplex(64 * 1024);
        incoming.push(far);
        let incoming = stream::iter(incoming).map(Ok).chain(stream::pending());
        let mut secured = std::pin::pin!(secured(incoming, certificates));
        let shaken = async { tokio::join!(place.dial(near), secured.next()) };
        let in_time = tokio::time::timeout(HANDSHAKE_TIMEOUT / 2, shaken).await;
        let (client, server) = in_time.expect("it is not the turn of those before");
        assert!(client.is_ok() && server.is_some_and(|server| server.is_ok()));
    }

    #[test]
    fn a_server_does_not_start_with_files_that_do_not_go_together() {
        let place = Place::new();
        let other = KeyPair::generate().unwrap();
        std::fs::write(&place.files.key_file, other.serialize_pem()).unwrap();
        let refusal = Certificates::open(&place.files, LOOK_INTERVAL).err().unwrap().to_string();
        assert!(refusal.contains("tls.key (server.tls.keyFile): it does not go with"), "{refusal}");
    }
}
