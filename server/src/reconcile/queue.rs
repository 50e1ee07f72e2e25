//! The set of leases that need a pass: each at most once, never two passes for one lease at a time, failures later.

use std::collections::{HashMap, HashSet, VecDeque};
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
    /// Failed: how often, and when to try again.
    failed: HashMap<LeaseId, (u32, Instant)>,
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
            let times = state.failed.get(&id).map_or(0, |(times, _)| *times);
            let pause = BACK_OFF.0.saturating_mul(1 << times.min(10)).min(BACK_OFF.1);
            state.failed.insert(id, (times + 1, stopwatch() + pause));
        } else {
            state.failed.remove(&id);
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
        state.waiting.is_empty() && state.running.is_empty() && state.failed.is_empty()
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

    fn wake_failed(&mut self) {
        let now = stopwatch();
        let is_due = |id: &LeaseId, at: Instant| at <= now && !self.running.contains_key(id);
        let due = self.failed.iter().filter(|(id, (_, at))| is_due(id, *at)).map(|(id, _)| *id);
        due.collect::<Vec<_>>().into_iter().for_each(|id| self.wake(id));
    }

    /// Returns how long until a failed pass is to be taken again.
    fn pause(&self) -> Option<Duration> {
        let idle = self.failed.iter().filter(|(id, _)| !self.running.contains_key(id));
        let now = stopwatch();
        idle.map(|(_, (_, at))| at.saturating_duration_since(now)).min()
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
