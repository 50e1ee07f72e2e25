//! Work only while this server leads those of its database. Until then it sees the cluster and takes no pass, so that
//! what one server does is not done, or undone, by another.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

use super::Reconciler;
use crate::store::{Announcement, Leadership, Term};

/// For how long the lead is kept at a stop for the passes under way. Later ones overlap with those of the next leader,
/// which costs a conflict and spoils nothing.
const HANDOVER: Duration = Duration::from_millis(500);

/// For how long the passes under way are waited for after the lead was lost. Then they are given up as in a crash: one that hangs
/// must not keep this server from leading again.
const STRAGGLING: Duration = Duration::from_secs(5);

impl Reconciler {
    /// Works until `stop`, whenever this server leads; passes under way at `stop` are finished.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        while let Some(leadership) = stop.run_until_cancelled(self.follow()).await {
            Arc::clone(&self).lead(leadership, &stop).await;
        }
    }

    /// Waits until this server leads. Meanwhile it keeps knowing what the cluster serves.
    async fn follow(&self) -> Leadership {
        tokio::select! {
            leadership = self.store.lead() => leadership,
            never = self.look_around_at_intervals() => match never {},
        }
    }

    async fn look_around_at_intervals(&self) -> Infallible {
        loop {
            tokio::time::sleep(self.options.sweep_interval).await;
            self.look_around().await;
        }
    }

    /// Works as long as that lasts, and until `stop`.
    async fn lead(self: Arc<Self>, mut leadership: Leadership, stop: &CancellationToken) {
        tracing::info!("this server leads: it takes the passes");
        self.begin_looks();
        self.take_over(true);
        let (over, finished) = (CancellationToken::new(), CancellationToken::new());
        let term = leadership.term();
        let work = async || -> Infallible {
            Arc::clone(&self).work(term, over.clone()).await;
            finished.cancel();
            std::future::pending().await
        };
        let rule = async {
            let is_lost = tokio::select! {
                error = leadership.keep() => {
                    let error = &error as &dyn Error;
                    tracing::warn!(error, "the database does not answer the leader, which must lead no more");
                    true
                }
                () = stop.cancelled() => false,
            };
            self.take_over(false);
            over.cancel();
            let _ = tokio::time::timeout(HANDOVER, finished.cancelled()).await;
            leadership.resign().await;
            tracing::info!("this server leads no more");
            let patience = if is_lost { STRAGGLING } else { Duration::MAX };
            if tokio::time::timeout(patience, finished.cancelled()).await.is_err() {
                tracing::warn!("passes that hang are given up");
            }
        };
        tokio::select! {
            never = work() => match never {},
            () = rule => {}
        }
    }

    /// Begins or ceases to do what one server does for all.
    fn take_over(&self, is_leading: bool) {
        self.options.metrics.lead(is_leading);
        self.waker.0.open(is_leading);
        self.cluster.follow_progress(is_leading);
    }

    /// Works until `over`; then only the passes under way are finished.
    async fn work(self: Arc<Self>, term: Term, over: CancellationToken) {
        // Before the first sweep: what others change from now on is heard.
        let news = self.store.changes();
        let missed = Notify::new();
        let wake = async {
            tokio::select! {
                () = self.follow_clock() => {}
                () = self.sweep_at_intervals(&missed) => {}
                () = self.follow_use() => {}
                () = self.follow_others(news, &missed) => {}
            }
        };
        tokio::join!(over.run_until_cancelled(wake), Arc::clone(&self).take_passes(term, over.clone()));
    }

    /// Wakes leases that other servers have changed, and says when that may have been missed.
    async fn follow_others(&self, mut news: broadcast::Receiver<Announcement>, missed: &Notify) {
        loop {
            match news.recv().await {
                Ok(Announcement::Theirs(change)) => self.waker.wake(change.id),
                Ok(Announcement::Ours(_)) => {}
                Ok(Announcement::Missed) | Err(RecvError::Lagged(_)) => missed.notify_one(),
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}
