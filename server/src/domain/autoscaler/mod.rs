//! The algorithm of the HorizontalPodAutoscaler, over values and as the controller of Kubernetes 1.36 has it: what one metric
//! proposes (`proposal`), what becomes of the proposals (`decision`), which limits held it (`effect`) and what is remembered
//! until the next sync (`history`). `record` is what is seen of an autoscaler, and `explanation` says in words why it decides so.
//! `recording` is what the recording rules of a lease mean, and `simulation` plays all of it
//! over a trace of load.
//!
//! Where the controller leaves a number that is out of range to the machine (Go's conversion of a float to an integer), this
//! takes the nearest that fits.

pub mod decision;
pub mod effect;
pub mod explanation;
mod external;
pub mod history;
mod hold;
pub mod metric;
mod pace;
pub mod plain;
pub mod proposal;
pub mod record;
pub mod recording;
pub mod simulation;

#[cfg(test)]
mod tests;

use jiff::SignedDuration;

/// Flags of the controller, and what the cluster allows it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Time between two syncs.
    pub sync_period: SignedDuration,
    /// How long after a pod's start its CPU counts only while it is ready.
    pub cpu_initialization_period: SignedDuration,
    /// How long after a pod's start a change to unready still means that it never was ready.
    pub initial_readiness_delay: SignedDuration,
    /// How long the largest recommendation holds where there is no behavior.
    pub downscale_stabilization: SignedDuration,
    /// Relative deviation from the target that changes nothing, unless the behavior says otherwise.
    pub tolerance: f64,
    /// Whether a behavior may say otherwise: the gate HPAConfigurableTolerance.
    pub has_configurable_tolerance: bool,
    /// Whether it may scale to zero and back: the gate HPAScaleToZero.
    pub has_scale_to_zero: bool,
}

impl Default for Options {
    /// As Kubernetes 1.36 starts it.
    fn default() -> Self {
        Self {
            sync_period: SignedDuration::from_secs(15),
            cpu_initialization_period: SignedDuration::from_mins(5),
            initial_readiness_delay: SignedDuration::from_secs(30),
            downscale_stabilization: SignedDuration::from_mins(5),
            tolerance: 0.1,
            has_configurable_tolerance: true,
            has_scale_to_zero: false,
        }
    }
}

/// Direction of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Direction {
    /// More replicas.
    Up,
    /// Fewer replicas.
    Down,
}

/// The next whole number, within 32 bits.
fn rounded_up(replicas: f64) -> i32 {
    replicas.ceil() as i32
}
