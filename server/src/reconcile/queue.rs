//! The set of leases that need a pass: each at most once, never two passes for one lease at a time, failures later. While
//! it is closed it takes no lease; whoever opens it sweeps.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::clock::stopwatch;
use crate::domain::lease::LeaseId;

/// First and longest pause before a failed pass is taken again.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// Leases that need a pass.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    is_open: bool,
    waiting: VecDeque<LeaseId>,
    /// The members of `waiting`.
    is_waiting: HashSet<LeaseId>,
    /// Being looked at; `true` where something happened meanwhile.
    running: HashMap<LeaseId, bool>,
    /// How often the pass of a lease failed in a row.
    failures: HashMap<LeaseId, u32>,
    /// When failed passes are to be taken again, and the same by lease.
    retries: BTreeSet<(Instant, LeaseId)>,
    retry_at: HashMap<LeaseId, Instant>,
}

impl Queue {
    /// Opens the set, or closes and empties it. Passes under way stay known.
    pub fn open(&self, is_open: bool) {
        let mut state = self.lock();
        let running = std::mem::take(&mut state.running);
        *state = State { is_open, running, ..State::default() };
        drop(state);
        self.changed.notify_one();
    }

    /// Says that a lease needs a pass, now.
    pub fn wake(&self, id: LeaseId) {
        self.lock().wake(id);
        self.changed.notify_one();
    }

    /// Says that a lease needs a pass, unless its last one failed and it waits to be tried again.
    pub fn remind(&self, id: LeaseId) {
        let mut state = self.lock();
        if !state.retry_at.contains_key(&id) {
            state.wake(id);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Waits for the next lease that needs a pass. [`Queue::done`] must follow.
    pub async fn next(&self) -> LeaseId {
        loop {
            let pause = {
                let mut state = self.lock();
                state.wake_failed();
                if let Some(id) = state.take() {
                    return id;
                }
                state.pause()
            };
            let changed = self.changed.notified();
            match pause {
                Some(pause) => {
                    // Either way the loop looks again.
                    let _ = tokio::time::timeout(pause, changed).await;
                }
                None => changed.await,
            }
        }
    }

    /// Says that the pass of a lease is over. A failed one is taken again after a pause that grows.
    pub fn done(&self, id: LeaseId, has_failed: bool) {
        let mut state = self.lock();
        let is_woken = state.running.remove(&id).unwrap_or(false);
        if !state.is_open {
            return;
        }
        if has_failed {
            let failures = state.failures.entry(id).or_insert(0);
            // What happened meanwhile may be what the pass needs; its own writes may be all that happened.
            let times = if is_woken { (*failures).min(2) } else { (*failures).min(10) };
            *failures += 1;
            let at = stopwatch() + BACK_OFF.0.saturating_mul(1 << times).min(BACK_OFF.1);
            state.retry(id, at);
        } else {
            state.failures.remove(&id);
            if is_woken {
                state.wake(id);
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Whether nothing waits, runs or is to be tried again.
    pub fn is_idle(&self) -> bool {
        let state = self.lock();
        state.waiting.is_empty() && state.running.is_empty() && state.retries.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake(&mut self, id: LeaseId) {
        if !self.is_open {
            return;
        }
        match self.running.get_mut(&id) {
            Some(is_woken) => *is_woken = true,
            None if self.is_waiting.insert(id) => self.waiting.push_back(id),
            None => {}
        }
    }

    fn take(&mut self) -> Option<LeaseId> {
        let id = self.waiting.pop_front()?;
        self.is_waiting.remove(&id);
        if let Some(at) = self.retry_at.remove(&id) {
            self.retries.remove(&(at, id));
        }
        self.running.insert(id, false);
        Some(id)
    }

    /// Has a pass taken again at a time, and only then.
    fn retry(&mut self, id: LeaseId, at: Instant) {
        if let Some(before) = self.retry_at.insert(id, at) {
            self.retries.remove(&(before, id));
        }
        self.retries.insert((at, id));
    }

    /// Puts the failed passes whose pause is over among those that wait.
    fn wake_failed(&mut self) {
        let now = stopwatch();
        while let Some((_, id)) = self.retries.first().copied().filter(|(at, _)| *at <= now) {
            self.retries.pop_first();
            self.retry_at.remove(&id);
            self.wake(id);
        }
    }

    /// Returns how long until a failed pass is to be taken again.
    fn pause(&self) -> Option<Duration> {
        self.retries.first().map(|(at, _)| at.saturating_duration_since(stopwatch()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> Queue {
        let queue = Queue::default();
        queue.open(true);
        queue
    }

    #[tokio::test]
    async fn a_lease_waits_only_once_and_never_runs_twice_at_a_time() {
        let queue = opened();
        let id = LeaseId::random();
        queue.wake(id);
        queue.wake(id);
        assert_eq!(queue.next().await, id);
        assert!(tokio::time::timeout(Duration::from_millis(20), queue.next()).await.is_err());
        queue.done(id, false);
        assert!(queue.is_idle());
    }

    #[tokio::test]
    async fn what_happens_during_a_pass_leads_to_another() {
        let queue = opened();
        let id = LeaseId::random();
        queue.wake(id);
        queue.next().await;
        queue.wake(id);
        queue.done(id, false);
        assert_eq!(queue.next().await, id);
    }

    #[tokio::test]
    async fn a_failed_pass_is_tried_once_however_often_it_is_woken_and_not_for_a_reminder() {
        let queue = opened();
        let id = LeaseId::random();
        for _ in 0..3 {
            queue.wake(id);
            queue.next().await;
            queue.done(id, true);
        }
        queue.remind(id);
        let state = queue.lock();
        assert_eq!((state.waiting.len(), state.retries.len(), state.retry_at.len()), (0, 1, 1));
    }

    #[tokio::test]
    async fn a_failed_pass_is_taken_again_and_does_not_hold_others_up() {
        let queue = opened();
        let (failing, other) = (LeaseId::random(), LeaseId::random());
        queue.wake(failing);
        queue.next().await;
        queue.done(failing, true);
        queue.wake(other);
        assert_eq!(queue.next().await, other);
        queue.done(other, false);
        assert_eq!(queue.next().await, failing);
    }

    #[tokio::test]
    async fn a_closed_set_takes_no_lease_and_forgets_what_waited_failed_or_runs() {
        let queue = opened();
        let (waiting, failed, running) = (LeaseId::random(), LeaseId::random(), LeaseId::random());
        queue.wake(failed);
        queue.next().await;
        queue.done(failed, true);
        queue.wake(running);
        queue.next().await;
        queue.wake(waiting);
        queue.wake(running);
        queue.open(false);
        queue.wake(LeaseId::random());
        queue.remind(LeaseId::random());
        queue.done(running, true);
        assert!(queue.is_idle());
        queue.open(true);
        assert!(tokio::time::timeout(Duration::from_millis(20), queue.next()).await.is_err());
        queue.wake(waiting);
        assert_eq!(queue.next().await, waiting);
    }
}
