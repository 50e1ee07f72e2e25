//! TLS of the listener, from PEM files that are tried one by one so that a refusal names the one to mend.

use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use super::ServeError;
use crate::config::Tls;
use crate::grpc::chain;

/// Returns the configuration of TLS that the files hold.
pub(super) fn config(files: &Tls) -> Result<ServerTlsConfig, ServeError> {
    let certificate = certificates("certificateFile", &files.certificate_file)?;
    let key = read("keyFile", &files.key_file)?;
    if let Err(error) = PrivateKeyDer::from_pem_slice(&key) {
        return Err(refused("keyFile", &files.key_file, format!("it has no private key in PEM ({error})")));
    }
    let config = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
    match &files.client_ca_file {
        None => Ok(config),
        Some(path) => {
            let authorities = certificates("clientCaFile", path)?;
            Ok(config.client_ca_root(Certificate::from_pem(authorities)))
        }
    }
}

/// Returns the refusal of files that are sound one by one, but not together.
pub(super) fn unfit(files: &Tls, error: &tonic::transport::Error) -> ServeError {
    let problem = format!(
        "it does not go with the certificate in {}: {}",
        files.certificate_file.display(),
        chain(error)
    );
    refused("keyFile", &files.key_file, problem)
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<u8>, ServeError> {
    let text = read(key, path)?;
    let mut found = CertificateDer::pem_slice_iter(&text).peekable();
    if found.peek().is_none() {
        return Err(refused(key, path, "it has no certificate in PEM".to_owned()));
    }
    match found.find_map(Result::err) {
        Some(error) => Err(refused(key, path, format!("it is not PEM ({error})"))),
        None => Ok(text),
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, ServeError> {
    std::fs::read(path).map_err(|error| refused(key, path, error.to_string()))
}

fn refused(key: &'static str, path: &Path, problem: String) -> ServeError {
    ServeError::Tls { key, path: path.to_owned(), problem }
}
