//! Keeps what serving behind the Kubernetes API server takes: by what that is recognised, the certificate that all servers
//! share, and the registration.

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::sign::SingleCertAndKey;
use tokio::sync::watch;

use super::caller;
use super::certificate::Identity;
use crate::chain::chain;
use crate::clock::system_now;
use crate::cluster::ActError;
use crate::cluster::kubernetes::aggregation::{Aggregation, FrontProxy, Registration};

/// Time between two looks once all is well. Other servers replace the certificate, and clusters their authorities, long before
/// the old ones end.
const INTERVAL: Duration = Duration::from_secs(30);
/// Time between two looks while something is wrong.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// How often servers that make a certificate at once try to agree, in one look.
const TRIES: usize = 5;

/// By what both ends of a connection are recognised.
#[derive(Clone)]
pub(super) struct Trust {
    /// Certificate, and authorities of clients.
    pub tls: Arc<ServerConfig>,
    /// The client.
    pub front_proxy: Arc<FrontProxy>,
}

/// What a look found.
#[derive(PartialEq)]
struct Known {
    front_proxy: FrontProxy,
    identity: Identity,
}

/// Why there is nothing to serve by.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Cluster(#[from] ActError),
    #[error(transparent)]
    Certificate(#[from] super::certificate::CannotMake),
    #[error("other servers change the Secret of the certificate again and again")]
    Rivals,
    #[error(
        "the cluster does not say by which certificate its API server passes requests on (--requestheader-client-ca-file, in \
         ConfigMap kube-system/extension-apiserver-authentication)"
    )]
    NoFrontProxy,
    #[error("the certificate cannot be used")]
    Tls(#[from] rustls::Error),
}

/// Looks for ever, and says through `trust` what to serve by.
pub(super) async fn keep(aggregation: &Aggregation, trust: &watch::Sender<Option<Trust>>) {
    let mut known = None;
    let mut said = None;
    loop {
        let (trouble, pause) = match look(aggregation, &mut known, trust).await {
            Ok(Registration::Ours) => (None, INTERVAL),
            Ok(Registration::HeldBy(holder)) => (Some(held_by(&holder)), INTERVAL),
            Err(trouble) => (Some(chain(&trouble)), RETRY_INTERVAL),
        };
        let news = Some(trouble);
        if said != news {
            match news.as_ref().and_then(Option::as_ref) {
                None => tracing::info!("serves custom.metrics.k8s.io of this cluster"),
                Some(trouble) => {
                    tracing::error!("custom.metrics.k8s.io is not served by this server: {trouble}")
                }
            }
            said = news;
        }
        tokio::time::sleep(pause).await;
    }
}

fn held_by(holder: &str) -> String {
    format!(
        "{holder} serves it already, and is left alone; leases that scale by metrics of Triton keep their replicas. Remove that \
         one's APIServices, or set server.autoscaling.provider to adapter"
    )
}

async fn look(
    aggregation: &Aggregation,
    known: &mut Option<Known>,
    trust: &watch::Sender<Option<Trust>>,
) -> Result<Registration, Trouble> {
    let front_proxy = aggregation.front_proxy().await?;
    let identity = identity(aggregation).await?;
    // First the API server believes the new certificate, then it is shown.
    let registration = aggregation.register(&identity.authorities).await;
    let found = Known { front_proxy, identity };
    let may_show = registration.is_ok() || known.is_none();
    if may_show && known.as_ref() != Some(&found) {
        trust.send_replace(Some(trusting(&found.front_proxy, &found.identity)?));
        *known = Some(found);
    }
    Ok(registration?)
}

/// Returns the certificate that the Secret holds, made anew where that is none, or not for long.
async fn identity(aggregation: &Aggregation) -> Result<Identity, Trouble> {
    let host = aggregation.host();
    for _ in 0..TRIES {
        let now = system_now();
        let kept = aggregation.kept().await?;
        if let Some(identity) = kept.as_ref().and_then(|kept| Identity::read(&kept.data, &host, now)) {
            return Ok(identity);
        }
        let made = Identity::make(&host, now, kept.as_ref().map(|kept| &kept.data))?;
        match aggregation.keep(made, kept.as_ref()).await {
            // What is there now is read again, whoever wrote it.
            Ok(()) | Err(ActError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Trouble::Rivals)
}

/// Returns what to serve by.
pub(super) fn trusting(front_proxy: &FrontProxy, identity: &Identity) -> Result<Trust, Trouble> {
    let verifier = caller::verifier(front_proxy).ok_or(Trouble::NoFrontProxy)?;
    let mut tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&identity.certified))));
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Trust { tls: Arc::new(tls), front_proxy: Arc::new(front_proxy.clone()) })
}
