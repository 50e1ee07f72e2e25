//! Who is let in: the Kubernetes API server, known by the certificate of its front proxy, which says for whom it asks. It has
//! authenticated and authorised that user already.

use std::sync::Arc;

use axum::http::HeaderMap;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, crypto};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::cluster::kubernetes::aggregation::FrontProxy;

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Peer(Option<Arc<FrontProxy>>);

impl Peer {
    /// Tells who shows this certificate, which the handshake has verified; nobody where there is none.
    pub fn of(certificate: Option<&CertificateDer<'_>>, front_proxy: &Arc<FrontProxy>) -> Self {
        let is_front_proxy = certificate.is_some_and(|certificate| is_allowed(certificate, front_proxy));
        Self(is_front_proxy.then(|| Arc::clone(front_proxy)))
    }

    /// Whether a request with these headers is the Kubernetes API server's, for a user of its own.
    pub fn may_ask(&self, headers: &HeaderMap) -> bool {
        let names = self.0.iter().flat_map(|front_proxy| &front_proxy.username_headers);
        names.filter_map(|name| headers.get(name.as_str())).any(|user| !user.is_empty())
    }
}

fn is_allowed(certificate: &CertificateDer<'_>, front_proxy: &FrontProxy) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    let mut names = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let allowed = &front_proxy.allowed_names;
    allowed.is_empty() || names.any(|name| allowed.iter().any(|allowed| allowed == name))
}

/// Returns what verifies certificates of clients; those that show none go on, to health alone. `None` where the cluster
/// publishes no authority.
pub(super) fn verifier(front_proxy: &FrontProxy) -> Option<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    let authorities = CertificateDer::pem_slice_iter(front_proxy.authorities.as_bytes());
    let (added, _) = roots.add_parsable_certificates(authorities.filter_map(Result::ok));
    if added == 0 {
        return None;
    }
    let provider = Arc::new(crypto::ring::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()
        .ok()
}
