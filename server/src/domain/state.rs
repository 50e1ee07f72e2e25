//! The words for where a lease and its models are.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a lease is in its life: the one word for end and phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Nothing has been applied.
    Pending,
    /// Applied; no replica runs.
    Provisioning,
    /// Replicas run and load the models.
    Loading,
    /// Enough replicas are ready.
    Ready,
    /// Was ready, and has too few ready replicas.
    Degraded,
    /// Scaled to zero.
    Asleep,
    /// Manifests written.
    Written,
    /// Ended by its owner.
    Released,
    /// Ended by the clock.
    Expired,
    /// Ended because its models could not be loaded.
    Invalid,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 10] = [
        Self::Pending,
        Self::Provisioning,
        Self::Loading,
        Self::Ready,
        Self::Degraded,
        Self::Asleep,
        Self::Written,
        Self::Released,
        Self::Expired,
        Self::Invalid,
    ];

    /// The word for it, as people and the database read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Provisioning => "PROVISIONING",
            Self::Loading => "LOADING",
            Self::Ready => "READY",
            Self::Degraded => "DEGRADED",
            Self::Asleep => "ASLEEP",
            Self::Written => "WRITTEN",
            Self::Released => "RELEASED",
            Self::Expired => "EXPIRED",
            Self::Invalid => "INVALID",
        }
    }

    /// The state of this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether a lease in this state has ended.
    pub fn is_end(self) -> bool {
        match self {
            Self::Released | Self::Expired | Self::Invalid => true,
            Self::Pending
            | Self::Provisioning
            | Self::Loading
            | Self::Ready
            | Self::Degraded
            | Self::Asleep
            | Self::Written => false,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a lease that has not ended is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Nothing has been applied.
    Pending,
    /// Applied; no replica runs.
    Provisioning,
    /// Replicas run and load the models.
    Loading,
    /// Enough replicas are ready.
    Ready,
    /// Was ready, and has too few ready replicas.
    Degraded,
    /// Scaled to zero.
    Asleep,
    /// Manifests written; nothing is observed.
    Written,
}

/// Where a model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModelState {
    /// Nothing has been done.
    Pending,
    /// Being fetched.
    Downloading,
    /// Being loaded.
    Loading,
    /// Loaded in every ready replica.
    Ready,
    /// Cannot be loaded.
    Failed,
    /// Unloaded because the lease ended.
    Unloaded,
}
