//! Renewal by use: one look for all leases that asked for it, at intervals, and one at each that is about to end; each that was
//! used lives on.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::error::Error;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use jiff::Timestamp;

use super::{BATCH, Reconciler, Renewal};
use crate::domain::lease::{Lease, LeaseId, SERVER};
use crate::domain::life::later;
use crate::domain::usage::{Served, Usage};
use crate::store::{ChangeError, StoreError};

/// Leases that are looked at at once; the cluster bounds the questions themselves.
const LEASES_AT_ONCE: usize = 16;
/// Time for the last look at a lease. Tritons that do not answer keep nothing alive.
const LAST_LOOK_TIMEOUT: Duration = Duration::from_secs(5);

impl Reconciler {
    /// Forgets what was counted, since another server may have led meanwhile: looks begin now.
    pub(super) fn begin_looks(&self) {
        *self.usage() = self.options.renewal.map(|_| Usage::since(self.clock.now()));
    }

    /// Whether use may move the end of a lease, so that it is not ended before its pods could be seen and asked.
    pub(super) fn may_be_kept_alive(&self, lease: &Lease) -> bool {
        self.options.renewal.is_some() && lease.spec.automatic_renewal.is_some()
    }

    /// Keeps leases alive that are used, for ever.
    pub(super) async fn follow_use(&self) {
        let Some(renewal) = self.options.renewal else {
            return std::future::pending().await;
        };
        self.cluster.listed().await;
        loop {
            let next = later(self.clock.now(), renewal.look_interval);
            if let Err(error) = self.look_at_use(&renewal).await {
                tracing::warn!(error = &error as &dyn Error, "cannot read which leases use may renew");
            }
            self.clock.sleep_until(next).await;
        }
    }

    /// Takes a look at a lease whose time is over, so that what came after the last regular look counts.
    pub(super) async fn look_a_last_time(&self, lease: &Lease) -> Result<(), StoreError> {
        let Some(renewal) = self.options.renewal.filter(|_| lease.spec.automatic_renewal.is_some()) else {
            return Ok(());
        };
        let served = tokio::time::timeout(LAST_LOOK_TIMEOUT, self.cluster.served(lease.id)).await;
        self.keep_if_used(lease, &served.unwrap_or_default(), &renewal).await
    }

    async fn look_at_use(&self, renewal: &Renewal) -> Result<(), StoreError> {
        let begun = self.clock.now();
        let mut looked_at = BTreeSet::new();
        let mut after = None;
        loop {
            let ids = self.store.renewed_by_use(after, BATCH).await?;
            let Some(last) = ids.last() else { break };
            after = Some(*last);
            looked_at.extend(&ids);
            let looks = ids.into_iter().map(async |id| (id, self.look_at(id).await));
            let mut looks = std::pin::pin!(stream::iter(looks).buffer_unordered(LEASES_AT_ONCE));
            while let Some((id, look)) = looks.next().await {
                // What is wrong with one lease must not end others, and is tried again at the next look.
                let kept = match look {
                    Ok(Some((lease, served))) => self.keep_if_used(&lease, &served, renewal).await,
                    Ok(None) => Ok(()),
                    Err(error) => Err(error),
                };
                if let Err(error) = kept {
                    let error = &error as &dyn Error;
                    tracing::warn!(lease.id = %id, error, "cannot read or keep whether a lease is used");
                }
            }
        }
        if let Some(usage) = &mut *self.usage() {
            usage.keep(&looked_at, begun);
        }
        Ok(())
    }

    /// Returns a lease and what its pods have served.
    async fn look_at(&self, id: LeaseId) -> Result<Option<(Lease, Vec<Served>)>, StoreError> {
        match self.store.get(id).await? {
            Some(lease) => Ok(Some((lease, self.cluster.served(id).await))),
            None => Ok(None),
        }
    }

    async fn keep_if_used(
        &self,
        lease: &Lease,
        served: &[Served],
        renewal: &Renewal,
    ) -> Result<(), StoreError> {
        let now = self.clock.now();
        let used_at = self.usage().as_mut().and_then(|usage| usage.look(lease, served, now));
        let Some(used_at) = used_at else { return Ok(()) };
        self.keep_alive(lease, used_at, renewal).await?;
        if let Some(usage) = &mut *self.usage() {
            usage.settle(lease.id);
        }
        Ok(())
    }

    fn usage(&self) -> MutexGuard<'_, Option<Usage>> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn keep_alive(
        &self,
        lease: &Lease,
        used_at: Timestamp,
        renewal: &Renewal,
    ) -> Result<(), StoreError> {
        let now = self.clock.now();
        let keep = |lease: &mut Lease| {
            let happening = lease.keep_alive(used_at, renewal.maximum, now);
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
