//! The set of leases that need a pass: each at most once, never two passes for one lease at a time, failures later.

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
    waiting: VecDeque<LeaseId>,
    /// The members of `waiting`.
    is_waiting: HashSet<LeaseId>,
    /// Being looked at; `true` where something happened meanwhile.
    running: HashMap<LeaseId, bool>,
    /// How often the pass of a lease failed in a row.
    failures: HashMap<LeaseId, u32>,
    /// When failed passes are to be taken again.
    retries: BTreeSet<(Instant, LeaseId)>,
}

impl Queue {
    /// Says that a lease needs a pass, now.
    pub fn wake(&self, id: LeaseId) {
        self.lock().wake(id);
        self.changed.notify_one();
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
        if has_failed {
            let failures = state.failures.entry(id).or_insert(0);
            let pause = BACK_OFF.0.saturating_mul(1 << (*failures).min(10)).min(BACK_OFF.1);
            *failures += 1;
            state.retries.insert((stopwatch() + pause, id));
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
        match self.running.get_mut(&id) {
            Some(is_woken) => *is_woken = true,
            None if self.is_waiting.insert(id) => self.waiting.push_back(id),
            None => {}
        }
    }

    fn take(&mut self) -> Option<LeaseId> {
        let id = self.waiting.pop_front()?;
        self.is_waiting.remove(&id);
        self.running.insert(id, false);
        Some(id)
    }

    /// Puts the failed passes whose pause is over among those that wait.
    fn wake_failed(&mut self) {
        let now = stopwatch();
        while let Some((_, id)) = self.retries.first().copied().filter(|(at, _)| *at <= now) {
            self.retries.pop_first();
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

    #[tokio::test]
    async fn a_lease_waits_only_once_and_never_runs_twice_at_a_time() {
        let queue = Queue::default();
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
        let queue = Queue::default();
        let id = LeaseId::random();
        queue.wake(id);
        queue.next().await;
        queue.wake(id);
        queue.done(id, false);
        assert_eq!(queue.next().await, id);
    }

    #[tokio::test]
    async fn a_failed_pass_is_taken_again_and_does_not_hold_others_up() {
        let queue = Queue::default();
        let (failing, other) = (LeaseId::random(), LeaseId::random());
        queue.wake(failing);
        queue.next().await;
        queue.done(failing, true);
        queue.wake(other);
        assert_eq!(queue.next().await, other);
        queue.done(other, false);
        assert_eq!(queue.next().await, failing);
    }
}
