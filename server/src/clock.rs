//! The only place that asks for the time. Everything else receives `now`, or this clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

/// A clock that every part of one server shares. Cloning it is cheap and gives the same clock.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    /// The system's clock plus a measured offset (to the database's clock) in microseconds.
    System(Arc<AtomicI64>),
    /// A clock that stands still until it is advanced.
    Manual(watch::Sender<Timestamp>),
}

impl Clock {
    /// Returns the system's clock.
    pub fn system() -> Self {
        Self(Source::System(Arc::default()))
    }

    /// Returns a clock that stands at `start` until [`Clock::advance`] moves it.
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(watch::Sender::new(start)))
    }

    /// The time, to the microsecond, as the database can hold it.
    pub fn now(&self) -> Timestamp {
        let now = match &self.0 {
            Source::System(offset) => {
                let offset = SignedDuration::from_micros(offset.load(Ordering::Relaxed));
                system_now().checked_add(offset).unwrap_or(Timestamp::MAX)
            }
            Source::Manual(time) => *time.borrow(),
        };
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }

    /// Makes a system clock agree with another clock that showed `theirs` while this machine showed `ours`.
    pub fn follow(&self, theirs: Timestamp, ours: Timestamp) {
        match &self.0 {
            Source::System(offset) => {
                offset.store(theirs.as_microsecond() - ours.as_microsecond(), Ordering::Relaxed);
            }
            Source::Manual(_) => {}
        }
    }

    /// Moves a manual clock forward and wakes whoever sleeps until then. A system clock is left alone.
    pub fn advance(&self, by: SignedDuration) {
        match &self.0 {
            Source::System(_) => {}
            Source::Manual(time) => {
                time.send_modify(|now| *now = now.checked_add(by).unwrap_or(Timestamp::MAX));
            }
        }
    }

    /// Sleeps until the clock shows `deadline`.
    pub async fn sleep_until(&self, deadline: Timestamp) {
        match &self.0 {
            Source::System(_) => {
                let left = self.now().duration_until(deadline);
                if let Ok(left) = Duration::try_from(left) {
                    tokio::time::sleep(left).await;
                }
            }
            Source::Manual(time) => {
                let mut time = time.subscribe();
                // The sender lives in `self`, so waiting cannot fail.
                let _ = time.wait_for(|now| *now >= deadline).await;
            }
        }
    }
}

/// Returns the system's time without any offset: for measuring an offset, and for certificates.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the system's clock")]
pub fn system_now() -> Timestamp {
    Timestamp::now()
}

/// Returns a reading for measuring how long something takes.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the monotonic clock")]
pub fn stopwatch() -> Instant {
    Instant::now()
}
