//! Opens the database, and holds the configuration against what it knows of the leases in it.

use super::ServeError;
use crate::clock::Clock;
use crate::config::Config;
use crate::store::{self, Store};

/// Opens the database as configured.
pub(super) async fn open(config: &Config, clock: &Clock) -> Result<Store, ServeError> {
    let options = store::Options {
        url: config.database.url.clone(),
        password: config.database.password()?,
        deadlines: config.deadlines(),
        maximum_per_owner: config.leases.maximum_per_owner.unwrap_or(0),
    };
    Ok(Store::open(&options, clock).await?)
}

/// Refuses to leave the objects of leases behind in another namespace or another kind of cluster.
pub(super) async fn stay(store: &Store, namespace: &str, kind: &str) -> Result<(), ServeError> {
    let namespaces = store.open_namespaces().await?;
    if let Some(held) = namespaces.iter().find(|held| *held != namespace) {
        let (configured, held) = (namespace.to_owned(), held.clone());
        return Err(ServeError::Moved { key: "kubernetes.namespace", configured, held });
    }
    match store.cluster_kind().await? {
        Some(held) if held == kind => Ok(()),
        Some(held) if !namespaces.is_empty() => {
            Err(ServeError::Moved { key: "server.cluster.kind", configured: kind.to_owned(), held })
        }
        Some(_) | None => Ok(store.keep_cluster_kind(kind).await?),
    }
}
