//! The way to a server: TLS, deadlines, and what is said where there is no way.

use std::path::Path;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tms_proto::v1::lease_service_client::LeaseServiceClient;
use tms_proto::v1::server_service_client::ServerServiceClient;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Response, Status};

use crate::failure::{self, Failure};
use crate::output;
use crate::targets::{self, Target};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to a server, which is made anew where it breaks.
#[derive(Debug, Clone)]
pub struct Connection {
    channel: Channel,
    url: String,
}

impl Connection {
    /// Connects to a server.
    pub async fn open(target: &Target) -> Result<Self, Failure> {
        if targets::is_exposed(&target.url) {
            output::warn(&format!(
                "{} is not encrypted: others on the way can read and change leases",
                target.url
            ));
        }
        let channel = endpoint(target)?.connect().await.map_err(|error| {
            let cause = failure::root_cause(&error);
            let words = failure::in_words(&cause);
            let failure = Failure::away(format!("{} cannot be reached: {words}", target.url));
            failure::add_away_hints(failure, &target.url, &cause)
        })?;
        Ok(Self { channel, url: target.url.clone() })
    }

    /// Returns the address of the server.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns a client of the leases.
    pub fn leases(&self) -> LeaseServiceClient<Channel> {
        LeaseServiceClient::new(self.channel.clone())
    }

    /// Returns a client of the server itself.
    pub fn server(&self) -> ServerServiceClient<Channel> {
        ServerServiceClient::new(self.channel.clone())
    }

    /// Awaits the answer to a call, but not for ever.
    pub async fn answer<T>(
        &self,
        rpc: &'static str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(ANSWER_TIMEOUT, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Failure::from_status(rpc, &self.url, &status)),
            Err(_) => Err(Failure::away(format!(
                "{} has not answered for {} s (@ {rpc})",
                self.url,
                ANSWER_TIMEOUT.as_secs()
            ))),
        }
    }
}

fn endpoint(target: &Target) -> Result<Endpoint, Failure> {
    let unusable = |error: tonic::transport::Error| {
        let cause = failure::root_cause(&error);
        Failure::usage(format!("{} cannot be used: {}", target.url, failure::in_words(&cause)))
    };
    let endpoint = Endpoint::from_shared(target.url.clone())
        .map_err(unusable)?
        .user_agent(concat!("tmsctl/", env!("CARGO_PKG_VERSION")))
        .map_err(unusable)?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    if target.url.starts_with("https:") {
        return endpoint.tls_config(tls(target)?).map_err(unusable);
    }
    if target.ca.is_some() || target.certificate.is_some() {
        return Err(
            Failure::usage(format!("certificates mean nothing to {}", target.url)).hint("use https://")
        );
    }
    Ok(endpoint)
}

fn tls(target: &Target) -> Result<ClientTlsConfig, Failure> {
    let mut tls = ClientTlsConfig::new();
    tls = match &target.ca {
        Some(ca) => tls.ca_certificate(Certificate::from_pem(read_certificates(ca)?)),
        None => tls.with_native_roots(),
    };
    match (&target.certificate, &target.key) {
        (Some(certificate), Some(key)) => {
            Ok(tls.identity(Identity::from_pem(read_certificates(certificate)?, read_key(key)?)))
        }
        (None, None) => Ok(tls),
        (Some(_), None) | (None, Some(_)) => Err(Failure::usage("a certificate and its key belong together")
            .hint("give both --certificate and --key")),
    }
}

/// The TLS library takes a file without certificates for an authority that signed nothing.
fn read_certificates(path: &Path) -> Result<Vec<u8>, Failure> {
    let text = read(path)?;
    match CertificateDer::pem_slice_iter(&text).next() {
        Some(Ok(_)) => Ok(text),
        Some(Err(_)) | None => Err(Failure::usage(format!("{} has no certificate in PEM", path.display()))),
    }
}

fn read_key(path: &Path) -> Result<Vec<u8>, Failure> {
    let text = read(path)?;
    match PrivateKeyDer::from_pem_slice(&text) {
        Ok(_) => Ok(text),
        Err(_) => Err(Failure::usage(format!("{} has no private key in PEM", path.display()))),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::usage(format!("{} cannot be read: {error}", path.display())))
}
