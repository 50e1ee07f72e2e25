//! Watch: the events of one lease, or of all leases of a caller, each exactly once and in order. Events are read from the
//! database by the versions already told, and announcements only say when to read; so a slow reader, a resumed stream
//! and a change by another server cost nothing but time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tms_proto::v1;
use tokio::sync::broadcast;
use tokio::time::Interval;

use super::follow::{Follower, every, heard};
use super::status::{Refusal, violation};
use super::{Services, convert};
use crate::auth::Caller;
use crate::domain::lease::{Lease, LeaseId};
use crate::domain::life;
use crate::store::{Announcement, Changed, Filter, Page};

/// Events read at a time.
const BATCH: u32 = 100;
/// Leases read at a time.
const PAGE: u32 = 500;
/// How often all leases are read without an announcement, where another server may have changed them unheard.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// By how much a lease may seem older than it is: clocks of servers differ, and a commit takes its time.
const HINDSIGHT: SignedDuration = SignedDuration::from_secs(60);

impl Services {
    /// Begins to watch what the request names.
    pub(super) async fn watch(
        self: Arc<Self>,
        caller: Caller,
        request: v1::WatchRequest,
    ) -> Result<Watch, Refusal> {
        // Whoever asks the store for changes before it reads misses none of them.
        let changes = self.store.changes();
        if request.lease_id.is_empty() {
            if request.after_version != 0 {
                let rule = "only the watch of one lease can resume; without lease_id it must be 0";
                return Err(Refusal::Violations(vec![violation("after_version", rule)]));
            }
            return Ok(Watch::All(AllLeases::begin(self, caller, changes).await?));
        }
        if request.after_version < 0 {
            let rule = "a version is not negative";
            return Err(Refusal::Violations(vec![violation("after_version", rule)]));
        }
        let lease = self.find(&caller, &request.lease_id).await?;
        if request.after_version > lease.version {
            let rule = format!("lease {} is at version {} only", lease.id, lease.version);
            return Err(Refusal::Violations(vec![violation("after_version", rule)]));
        }
        Ok(Watch::One(OneLease::begin(self, &lease, request.after_version, changes)))
    }
}

/// A watch under way.
pub(super) enum Watch {
    One(OneLease),
    All(AllLeases),
}

impl Watch {
    /// Returns the next message, or `None` where there will be no more.
    pub async fn next(&mut self) -> Result<Option<v1::WatchResponse>, Refusal> {
        match self {
            Self::One(watch) => watch.next().await,
            Self::All(watch) => watch.next().await.map(Some),
        }
    }
}

/// The watch of one lease.
pub(super) struct OneLease {
    follower: Follower,
    /// Version up to which everything is told, or ready to be.
    told: i64,
    ready: VecDeque<v1::WatchResponse>,
    is_over: bool,
}

impl OneLease {
    fn begin(
        services: Arc<Services>,
        lease: &Lease,
        after_version: i64,
        changes: broadcast::Receiver<Announcement>,
    ) -> Self {
        let resumes = after_version > 0;
        let told = if resumes { after_version } else { lease.version };
        let started = v1::WatchResponse {
            event: None,
            lease: (!resumes).then(|| convert::lease(lease)),
            started: true,
        };
        Self {
            follower: Follower::new(services, lease.id, changes),
            told,
            ready: VecDeque::from([started]),
            is_over: lease.is_closed() && told >= lease.version,
        }
    }

    async fn next(&mut self) -> Result<Option<v1::WatchResponse>, Refusal> {
        while self.ready.is_empty() {
            if self.is_over {
                return Ok(None);
            }
            self.follower.changed_since(self.told).await?;
            let news = self.follower.services.news(self.follower.lease_id(), self.told).await?;
            self.told = news.told;
            self.is_over = news.lease.is_closed() && news.told >= news.lease.version;
            self.ready.extend(news.messages);
        }
        Ok(self.ready.pop_front())
    }
}

/// The watch of all leases of a caller.
pub(super) struct AllLeases {
    services: Arc<Services>,
    caller: Caller,
    changes: broadcast::Receiver<Announcement>,
    look_again: Interval,
    /// Version up to which each lease is told: at least of every lease that was open, or made since the horizon, at the
    /// last look. So a lease with news that is not here is new.
    told: BTreeMap<LeaseId, i64>,
    horizon: Timestamp,
    /// Leases in `told` that were closed at the last look.
    closed: BTreeSet<LeaseId>,
    /// Leases with news to read.
    pending: VecDeque<LeaseId>,
    ready: VecDeque<v1::WatchResponse>,
}

impl AllLeases {
    async fn begin(
        services: Arc<Services>,
        caller: Caller,
        changes: broadcast::Receiver<Announcement>,
    ) -> Result<Self, Refusal> {
        let horizon = life::later(services.clock.now(), -HINDSIGHT);
        let started = v1::WatchResponse { event: None, lease: None, started: true };
        let mut watch = Self {
            services,
            caller,
            changes,
            look_again: every(LOOK_AGAIN),
            told: BTreeMap::new(),
            horizon,
            closed: BTreeSet::new(),
            pending: VecDeque::new(),
            ready: VecDeque::from([started]),
        };
        watch.told = watch.look().await?;
        Ok(watch)
    }

    async fn next(&mut self) -> Result<v1::WatchResponse, Refusal> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Ok(message);
            }
            if let Some(id) = self.pending.pop_front() {
                self.read(id).await?;
                continue;
            }
            let (caller, told) = (self.caller.as_str(), &self.told);
            let is_news = |change: &Changed| {
                let is_told = told.get(&change.id).is_some_and(|told| *told >= change.version);
                change.owner == caller && !is_told
            };
            match heard(&self.services, &mut self.changes, &mut self.look_again, is_news).await? {
                Some(change) => self.pending.push_back(change.id),
                None => self.look_around().await?,
            }
        }
    }

    /// Reads what is not told of a lease yet, a batch at a time.
    async fn read(&mut self, id: LeaseId) -> Result<(), Refusal> {
        let told = self.told.get(&id).copied().unwrap_or(0);
        let news = self.services.news(id, told).await?;
        self.ready.extend(news.messages);
        if news.told < news.lease.version {
            self.pending.push_front(id);
        }
        self.told.insert(id, news.told);
        Ok(())
    }

    /// Finds every lease with news, announced or not.
    async fn look_around(&mut self) -> Result<(), Refusal> {
        let horizon = life::later(self.services.clock.now(), -HINDSIGHT);
        let seen = self.look().await?;
        self.horizon = self.horizon.max(horizon);
        let has_news = |(id, version): &(&LeaseId, &i64)| self.told.get(id).is_none_or(|told| told < version);
        self.pending = seen.iter().filter(has_news).map(|(id, _)| *id).collect();
        // What is neither open nor recent any more was closed. It is read once more, and forgotten only at the next look:
        // until then late announcements of it may come, which must not make it look new.
        let unseen = |id: &LeaseId| !seen.contains_key(id);
        let closed = std::mem::take(&mut self.closed);
        self.told.retain(|id, _| !(unseen(id) && closed.contains(id)));
        self.closed = self.told.keys().copied().filter(unseen).collect();
        self.pending.extend(&self.closed);
        Ok(())
    }

    /// Returns the version of each lease that is open or was made since the horizon.
    async fn look(&self) -> Result<BTreeMap<LeaseId, i64>, Refusal> {
        let owner = Some(self.caller.to_string());
        let mut seen = BTreeMap::new();
        for filter in [
            Filter { owner: owner.clone(), is_open: true, ..Filter::default() },
            Filter { owner, created_since: Some(self.horizon), ..Filter::default() },
        ] {
            let mut after = None;
            loop {
                let listed = self.services.store.list(&filter, &Page { size: PAGE, after }).await?;
                seen.extend(listed.leases.iter().map(|lease| (lease.id, lease.version)));
                after = listed.next;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(seen)
    }
}

/// What there is to tell of a lease.
struct News {
    messages: Vec<v1::WatchResponse>,
    /// Version up to which the messages tell it.
    told: i64,
    lease: Lease,
}

impl Services {
    /// Reads the next events of a lease after the version `told`.
    async fn news(&self, id: LeaseId, told: i64) -> Result<News, Refusal> {
        let events = self.store.events(id, told, BATCH).await?;
        // Read after the events, so that it is never older than one of them.
        let lease = self.store.get(id).await?.ok_or_else(|| Refusal::NotFound(id.to_string()))?;
        let told = events.last().map_or(lease.version, |event| event.version);
        let message = |event| v1::WatchResponse {
            event: Some(convert::event(event)),
            lease: Some(convert::lease(&lease)),
            started: false,
        };
        Ok(News { messages: events.into_iter().map(message).collect(), told, lease })
    }
}
