//! Waiting for a lease to change, so that no change is missed: whoever follows has subscribed before it read.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Interval, MissedTickBehavior};

use super::Services;
use super::status::Refusal;
use crate::domain::lease::{Lease, LeaseId};
use crate::store::{Announcement, Changed};

/// How often a lease is read without an announcement, where another server may have changed it unheard.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Follows one lease.
pub(super) struct Follower {
    pub services: Arc<Services>,
    id: LeaseId,
    changes: broadcast::Receiver<Announcement>,
    look_again: Interval,
}

impl Follower {
    /// Returns a follower of this lease, which misses nothing that `changes` announces.
    pub fn new(services: Arc<Services>, id: LeaseId, changes: broadcast::Receiver<Announcement>) -> Self {
        Self { services, id, changes, look_again: every(LOOK_AGAIN) }
    }

    /// The lease that it follows.
    pub fn lease_id(&self) -> LeaseId {
        self.id
    }

    /// Waits until the lease is newer than `version`, and returns it.
    pub async fn changed_since(&mut self, version: i64) -> Result<Lease, Refusal> {
        loop {
            let lease = self.look().await?;
            if lease.version > version {
                return Ok(lease);
            }
            let id = self.id;
            let is_newer = |change: &Changed| change.id == id && change.version > version;
            heard(&self.services, &mut self.changes, &mut self.look_again, is_newer).await?;
        }
    }

    async fn look(&self) -> Result<Lease, Refusal> {
        let found = self.services.store.get(self.id).await?;
        found.ok_or_else(|| Refusal::NotFound(self.id.to_string()))
    }
}

/// Returns what says again and again that it is time to look, first after one period.
pub(super) fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval.reset();
    interval
}

/// Waits for the announcement of a change that `matters`. Returns `None` where one may have been missed: announcements
/// came too fast, or others could not be heard, or it is time to look again where other servers share the database.
pub(super) async fn heard(
    services: &Services,
    changes: &mut broadcast::Receiver<Announcement>,
    look_again: &mut Interval,
    matters: impl Fn(&Changed) -> bool,
) -> Result<Option<Changed>, Refusal> {
    let is_shared = services.store.is_shared();
    loop {
        tokio::select! {
            () = services.stop.cancelled() => return Err(Refusal::Stopping),
            _ = look_again.tick(), if is_shared => return Ok(None),
            received = changes.recv() => match received {
                Ok(Announcement::Ours(change) | Announcement::Theirs(change)) if matters(&change) => return Ok(Some(change)),
                Ok(Announcement::Ours(_) | Announcement::Theirs(_)) => {}
                Ok(Announcement::Missed) | Err(RecvError::Lagged(_)) => return Ok(None),
                Err(RecvError::Closed) => return Err(Refusal::Stopping),
            },
        }
    }
}
