//! What holds or clips the replicas of a lease, as an explanation tells it.

use jiff::Timestamp;

/// Something that holds or clips the replicas.
#[derive(Clone, Debug, PartialEq)]
pub struct Hold {
    /// What kind.
    pub kind: HoldKind,
    /// In words.
    pub message: String,
    /// Whether it was computed; otherwise the cluster says so.
    pub is_computed: bool,
    /// The metric that it is about.
    pub metric: Option<String>,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
}

/// What holds or clips replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldKind {
    /// A metric cannot be used.
    Invalid,
    /// What cannot be used holds what the others propose.
    Blocked,
    /// Pods without a value.
    Missing,
    /// Pods that are pending or start.
    Unready,
    /// The value is close to the target.
    Tolerance,
    /// What is supposed of pods without a value would turn the change around.
    Uncertain,
    /// An earlier recommendation.
    Stabilization,
    /// A policy of the behavior.
    Policy,
    /// The most replicas.
    Maximum,
    /// The fewest replicas.
    Minimum,
    /// The rate that holds without a behavior.
    Rate,
    /// No scaling, or none in this direction.
    Disabled,
    /// Replicas that are wanted are not there.
    Pods,
    /// The autoscaler cannot read or change the replicas.
    Api,
}

impl HoldKind {
    /// Its name in the gRPC interface.
    pub fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Blocked => "blocked",
            Self::Missing => "missing",
            Self::Unready => "unready",
            Self::Tolerance => "tolerance",
            Self::Uncertain => "uncertain",
            Self::Stabilization => "stabilization",
            Self::Policy => "policy",
            Self::Maximum => "maximum",
            Self::Minimum => "minimum",
            Self::Rate => "rate",
            Self::Disabled => "disabled",
            Self::Pods => "pods",
            Self::Api => "api",
        }
    }
}
