//! Makes the cluster follow the rows, on the one server that leads. A set of lease ids that need a pass is fed by RPCs, by
//! other servers' changes, by the cluster's watches, by the clock and by a slow sweep; each pass reads one row, looks, and takes the next step until there is nothing to do.

mod keep;
mod lead;
mod pass;
mod queue;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::SignedDuration;
use tokio::sync::{Notify, Semaphore, broadcast};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::pass::PassError;
use self::queue::Queue;
use crate::clock::{Clock, stopwatch};
use crate::cluster::{Cluster, Sight};
use crate::domain::lease::LeaseId;
use crate::domain::life::Deadlines;
use crate::domain::plan::Settings;
use crate::domain::usage::Usage;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError, Term};

/// Leases read at a time by the sweep and by the clock.
const BATCH: u32 = 500;
/// Shortest time between two questions for what is due, so that a storm of changes does not become one of questions.
const SPACING: Duration = Duration::from_millis(200);

/// Time between two sweeps while not everything is seen, or other servers are not heard: leases expire all the same, and
/// say what is wrong.
const BLIND_INTERVAL: Duration = Duration::from_secs(10);

/// A pass that takes longer hangs, and is taken anew. Each call to the cluster has a bound of its own, and a failed one ends the pass.
const LONGEST_PASS: Duration = Duration::from_secs(5 * 60);

/// What the reconciler needs to know of the configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// What plans depend on.
    pub plan: Settings,
    /// What the clock does to leases besides ending them.
    pub deadlines: Deadlines,
    /// Renewal by use; `None` where use is not observed.
    pub renewal: Option<Renewal>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Passes under way at once.
    pub passes: usize,
    /// Time between two full sweeps.
    pub sweep_interval: Duration,
}

/// How use renews leases.
#[derive(Clone, Copy, Debug)]
pub struct Renewal {
    /// Time between two looks at the use of leases.
    pub look_interval: SignedDuration,
    /// For how long use keeps a lease alive at most, counted from its acceptance or its last renewal.
    pub maximum: SignedDuration,
}

/// Tells the reconciler that a lease needs a pass; while another server leads, nothing is kept of that. Cloning it is cheap.
#[derive(Clone, Default)]
pub struct Waker(Arc<Queue>);

impl Waker {
    /// Says that a lease needs a pass, now.
    pub fn wake(&self, id: LeaseId) {
        self.0.wake(id);
    }

    /// Whether no lease needs a pass.
    pub fn is_idle(&self) -> bool {
        self.0.is_idle()
    }
}

/// Makes the cluster follow the rows.
pub struct Reconciler {
    store: Store,
    cluster: Arc<dyn Cluster>,
    clock: Clock,
    waker: Waker,
    options: Options,
    /// What Tritons have counted since this server leads.
    usage: Mutex<Option<Usage>>,
}

impl Reconciler {
    /// Returns a reconciler that takes its work from `waker`.
    pub fn new(
        store: Store,
        cluster: Arc<dyn Cluster>,
        clock: Clock,
        waker: Waker,
        options: Options,
    ) -> Arc<Self> {
        Arc::new(Self { store, cluster, clock, waker, options, usage: Mutex::default() })
    }

    /// Says that every lease which holds something, or seems to, needs a pass.
    pub async fn sweep(&self) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let ids = self.store.open_ids(after, BATCH).await?;
            let Some(last) = ids.last() else { break };
            after = Some(*last);
            ids.into_iter().for_each(|id| self.waker.0.remind(id));
        }
        // Objects of leases that are closed, or that nobody knows: a pass removes them.
        let seen: Vec<_> = self.cluster.seen().into_iter().collect();
        for ids in seen.chunks(BATCH as usize) {
            let open = self.store.is_open(ids).await?;
            ids.iter().filter(|id| !open.contains(id)).for_each(|id| self.waker.wake(*id));
        }
        Ok(())
    }

    /// Takes passes until `over`, and finishes those under way; they are given up where this is dropped.
    async fn take_passes(self: Arc<Self>, term: Term, over: CancellationToken) {
        let places = Arc::new(Semaphore::new(self.options.passes.max(1)));
        let passes = TaskTracker::new();
        let given_up = CancellationToken::new();
        let _guard = given_up.clone().drop_guard();
        let next = async || {
            let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
            let id = self.waker.0.next().await;
            let done = Done { waker: self.waker.clone(), id, has_failed: true };
            // This may have stood still while it waited.
            term.is_sure().await;
            (place, id, done)
        };
        while let Some((place, id, mut done)) = over.run_until_cancelled(next()).await {
            let (reconciler, term, given_up) = (Arc::clone(&self), term.clone(), given_up.clone());
            passes.spawn(async move {
                let pass = tokio::time::timeout(LONGEST_PASS, reconciler.pass(id, &term));
                let begun = stopwatch();
                let Some(outcome) = given_up.run_until_cancelled(pass).await else { return };
                let outcome = outcome.unwrap_or(Err(PassError::Hung));
                let word = outcome.as_ref().map_or_else(PassError::word, |()| "rested");
                reconciler.options.metrics.count_pass(word, begun.elapsed());
                done.has_failed = outcome.is_err();
                if let Err(error) = outcome {
                    error.log(id);
                }
                drop((done, place));
            });
        }
        passes.close();
        passes.wait().await;
    }

    /// Wakes leases when their time has come.
    async fn follow_clock(&self) {
        let mut changes = self.store.changes();
        loop {
            let next = match self.store.next_due().await {
                Ok(next) => next,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot read what is due");
                    tokio::time::sleep(SPACING * 10).await;
                    continue;
                }
            };
            if next.is_some_and(|next| next <= self.clock.now()) {
                match self.store.due(self.clock.now(), BATCH).await {
                    Ok(ids) => ids.into_iter().for_each(|id| self.waker.0.remind(id)),
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, "cannot read what is due");
                    }
                }
                // Their passes move what is due; a failing one must not make this loop spin.
                tokio::time::sleep(SPACING).await;
                continue;
            }
            let due = async {
                match next {
                    Some(next) => self.clock.sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = any_change(&mut changes) => tokio::time::sleep(SPACING).await,
            }
        }
    }

    /// Sweeps at intervals, and once more where changes of other servers may have been missed.
    async fn sweep_at_intervals(&self, missed: &Notify) {
        loop {
            // A pass that was taken before everything was seen did not do much: a sweep that begins later makes up for it.
            let sight = self.cluster.sight();
            let spacing = tokio::time::sleep(SPACING * 10);
            if let Err(error) = self.sweep().await {
                tracing::warn!(error = &error as &dyn std::error::Error, "the sweep failed");
                tokio::time::sleep(SPACING * 10).await;
                continue;
            }
            if sight != Sight::Full {
                // What could not be done blindly is done as soon as everything is seen.
                let _ = tokio::time::timeout(BLIND_INTERVAL, self.cluster.listed()).await;
                continue;
            }
            let interval = match self.store.hears_others() {
                true => self.options.sweep_interval,
                false => self.options.sweep_interval.min(BLIND_INTERVAL),
            };
            if tokio::time::timeout(interval, missed.notified()).await.is_err() {
                self.look_around().await;
            }
            // Much that may have been missed is looked for at once.
            spacing.await;
        }
    }

    /// Finds out again what the cluster serves.
    async fn look_around(&self) {
        match self.cluster.refresh().await {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!(capabilities = ?self.cluster.capabilities(), "the cluster serves something else")
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot find out what the cluster serves"
                );
            }
        }
    }
}

/// Says that a pass is over, also where it panics.
struct Done {
    waker: Waker,
    id: LeaseId,
    has_failed: bool,
}

impl Drop for Done {
    fn drop(&mut self) {
        self.waker.0.done(self.id, self.has_failed);
    }
}

async fn any_change<T: Clone>(changes: &mut broadcast::Receiver<T>) {
    match changes.recv().await {
        Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {
            while !matches!(
                changes.try_recv(),
                Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed)
            ) {}
        }
        Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
    }
}
