//! How many leases there are in which state, and what they hold together.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::lease::{Spec, State};

/// Times within which leases end that are counted by them, and their words. Those that end within the first are among those of
/// the second too.
pub const WINDOWS: [(&str, SignedDuration); 3] = [
    ("15m", SignedDuration::from_mins(15)),
    ("1h", SignedDuration::from_hours(1)),
    ("1d", SignedDuration::from_hours(24)),
];

/// What is counted of one lease that is not closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Its state.
    pub state: State,
    /// When its time is over.
    pub expires_at: Timestamp,
    /// Replicas that it should have.
    pub wanted: u32,
    /// Replicas that serve.
    pub ready: u32,
    /// What it may hold.
    pub size: Size,
}

/// What a lease may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// GPUs of one replica.
    pub gpus: u32,
    /// The most replicas that it may have.
    pub most_replicas: u32,
}

/// What all leases that are not closed come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// How many there are in each state that one is in.
    pub states: BTreeMap<&'static str, u32>,
    /// How many end within each of [`WINDOWS`].
    pub ending: [u32; WINDOWS.len()],
    /// Replicas that they should have.
    pub wanted: u32,
    /// Replicas that serve.
    pub ready: u32,
    /// GPUs of the replicas that they should have.
    pub gpus_held: u32,
    /// GPUs of the most replicas that they may have.
    pub gpus_reserved: u32,
}

impl Size {
    /// Returns what a lease may hold that asks for this.
    pub fn of(spec: &Spec) -> Self {
        Self { gpus: spec.triton.gpus, most_replicas: spec.scaling.maximum() }
    }
}

impl Census {
    /// Counts leases.
    pub fn count(leases: impl IntoIterator<Item = Counted>, now: Timestamp) -> Self {
        let mut census = Self::default();
        for lease in leases {
            *census.states.entry(lease.state.as_str()).or_default() += 1;
            // One that has ended holds what is left of it.
            if lease.state.is_end() {
                continue;
            }
            for (count, (_, window)) in census.ending.iter_mut().zip(WINDOWS) {
                *count += u32::from(lease.expires_at.duration_since(now) <= window);
            }
            let Size { gpus, most_replicas } = lease.size;
            let add = |sum: &mut u32, more: u32| *sum = sum.saturating_add(more);
            add(&mut census.wanted, lease.wanted);
            add(&mut census.ready, lease.ready);
            add(&mut census.gpus_held, gpus.saturating_mul(lease.wanted));
            add(&mut census.gpus_reserved, gpus.saturating_mul(most_replicas));
        }
        census
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_counted_by_state_end_replicas_and_gpus() {
        let now = Timestamp::UNIX_EPOCH;
        let lease = |state, minutes, wanted, ready, gpus, most_replicas| Counted {
            state,
            expires_at: now + SignedDuration::from_mins(minutes),
            wanted,
            ready,
            size: Size { gpus, most_replicas },
        };
        let leases = [
            lease(State::Ready, 10, 2, 2, 4, 5),
            lease(State::Ready, 60, 1, 0, 0, 1),
            lease(State::Degraded, 3000, 3, 1, 1, 3),
            lease(State::Expired, -5, 2, 2, 8, 2),
        ];
        let expected = Census {
            states: BTreeMap::from([("READY", 2), ("DEGRADED", 1), ("EXPIRED", 1)]),
            ending: [1, 2, 2],
            wanted: 6,
            ready: 3,
            gpus_held: 11,
            gpus_reserved: 23,
        };
        assert_eq!(Census::count(leases, now), expected);
    }
}
