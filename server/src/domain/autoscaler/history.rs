//! What the controller remembers between two syncs, in its memory only: what it recommended and how it scaled. A controller
//! that starts begins with nothing.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::Direction;
use crate::domain::scaling::ScalingRules;

/// Recommendations and changes of one autoscaler. What is too old to count is overwritten, so that it does not grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    recommendations: Vec<Recommendation>,
    ups: Vec<Change>,
    downs: Vec<Change>,
}

/// What was recommended at a sync, before anything held it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Recommendation {
    /// Replicas.
    pub replicas: i32,
    /// The moment.
    pub at: Timestamp,
}

/// A change that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Replicas that came or went, at least 1.
    pub by: i32,
    /// The moment.
    pub at: Timestamp,
}

impl History {
    /// Returns a history of which this much is known, the oldest first.
    pub(super) fn known(recommendations: Vec<Recommendation>, ups: Vec<Change>, downs: Vec<Change>) -> Self {
        Self { recommendations, ups, downs }
    }

    /// Takes the replicas there are for a recommendation, where nothing is remembered.
    pub(super) fn begin(&mut self, current: i32, now: Timestamp) {
        if self.recommendations.is_empty() {
            self.recommendations.push(Recommendation { replicas: current, at: now });
        }
    }

    pub(super) fn recommendations(&self) -> &[Recommendation] {
        &self.recommendations
    }

    /// Records a recommendation in place of one that is `outdated`.
    pub(super) fn recommend(&mut self, replicas: i32, now: Timestamp, outdated: impl Fn(Timestamp) -> bool) {
        let new = Recommendation { replicas, at: now };
        match self.recommendations.iter().rposition(|old| outdated(old.at)) {
            Some(place) => self.recommendations[place] = new,
            None => self.recommendations.push(new),
        }
    }

    /// Records a change in place of one that is older than any period of `rules`.
    pub(super) fn change(&mut self, from: i32, to: i32, rules: &ScalingRules, now: Timestamp) {
        let longest = rules.policies.iter().map(|policy| policy.period_seconds).max().unwrap_or(0);
        let cutoff = now - seconds(longest);
        let changes = if to > from { &mut self.ups } else { &mut self.downs };
        let new = Change { by: (to - from).abs(), at: now };
        match changes.iter().rposition(|old| old.at < cutoff) {
            Some(place) => changes[place] = new,
            None => changes.push(new),
        }
    }

    /// The changes of the last `period` in one direction.
    pub(super) fn within(
        &self,
        direction: Direction,
        period: u32,
        now: Timestamp,
    ) -> impl Iterator<Item = &Change> {
        let changes = match direction {
            Direction::Up => &self.ups,
            Direction::Down => &self.downs,
        };
        let cutoff = now - seconds(period);
        changes.iter().filter(move |change| change.at > cutoff)
    }
}

/// So many seconds.
pub(super) fn seconds(seconds: u32) -> SignedDuration {
    SignedDuration::from_secs(seconds.into())
}
