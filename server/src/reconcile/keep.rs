//! Renewal by use: one look for all leases that asked for it, at intervals; each that was used lives on.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::error::Error;

use futures::StreamExt;
use futures::stream;

use super::{BATCH, Reconciler, Renewal};
use crate::domain::lease::{Lease, SERVER};
use crate::domain::life::later;
use crate::domain::usage::Usage;
use crate::store::{ChangeError, StoreError};

/// Leases that are looked at at once; the cluster bounds the questions themselves.
const LEASES_AT_ONCE: usize = 16;

impl Reconciler {
    /// Keeps leases alive that are used, for ever.
    pub(super) async fn follow_use(&self) {
        let Some(renewal) = self.options.renewal else {
            return std::future::pending().await;
        };
        self.cluster.listed().await;
        let mut usage = Usage::since(self.clock.now());
        loop {
            let next = later(self.clock.now(), renewal.look_interval);
            if let Err(error) = self.look_at_use(&renewal, &mut usage).await {
                tracing::warn!(error = &error as &dyn Error, "cannot read or keep which leases are used");
            }
            self.clock.sleep_until(next).await;
        }
    }

    async fn look_at_use(&self, renewal: &Renewal, usage: &mut Usage) -> Result<(), StoreError> {
        let mut looked_at = BTreeSet::new();
        let mut after = None;
        loop {
            let leases = self.store.renewed_by_use(after, BATCH).await?;
            let Some(last) = leases.last() else { break };
            after = Some(last.id);
            looked_at.extend(leases.iter().map(|lease| lease.id));
            let looks = leases.into_iter().map(async |lease| (self.cluster.served(lease.id).await, lease));
            let mut looks = std::pin::pin!(stream::iter(looks).buffer_unordered(LEASES_AT_ONCE));
            while let Some((served, lease)) = looks.next().await {
                if usage.look(&lease, &served) {
                    self.keep_alive(&lease, renewal).await?;
                }
            }
        }
        usage.keep(&looked_at);
        Ok(())
    }

    async fn keep_alive(&self, lease: &Lease, renewal: &Renewal) -> Result<(), StoreError> {
        let now = self.clock.now();
        let keep = |lease: &mut Lease| {
            let happening = lease.keep_alive(now, renewal.maximum, now);
            Ok::<_, Infallible>((happening.is_some(), happening))
        };
        match self.store.change(lease.id, SERVER, now, keep).await {
            Ok((true, lease)) => {
                let until = lease.expires_at;
                tracing::debug!(lease.id = %lease.id, lease.expires_at = %until, "a lease in use lives on");
                Ok(())
            }
            Ok((false, _)) | Err(ChangeError::NotFound) => Ok(()),
            Err(ChangeError::Refused(never)) => match never {},
            Err(ChangeError::Store(error)) => Err(error),
        }
    }
}
