//! What held or clipped a decision, as data with its numbers, and a sentence for each.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use super::Direction;
use super::history::Recommendation;
use super::proposal::{MissingAs, Tolerances};
use crate::domain::scaling::{PolicyKind, ScalingPolicy};

/// Something that kept the replicas from what the metrics asked for. Its text is a sentence for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Effect {
    /// There are no replicas, and nothing that could wake the target.
    Disabled,
    /// There were more replicas than the maximum; no metric is asked then.
    AboveMaximum {
        /// Replicas.
        current: i32,
        /// Most replicas.
        maximum: i32,
    },
    /// There were fewer replicas than the minimum; no metric is asked then.
    BelowMinimum {
        /// Replicas.
        current: i32,
        /// Fewest replicas.
        minimum: i32,
    },
    /// A metric could not be used.
    Invalid {
        /// Its name.
        metric: String,
        /// Why.
        why: String,
    },
    /// A metric that could not be used might have held replicas that the others would remove, or none could be used.
    Blocked {
        /// Metrics that could not be used.
        invalid: usize,
        /// All metrics.
        of: usize,
        /// What the others propose, if there are any.
        proposed: Option<i32>,
        /// Replicas, which stay.
        current: i32,
    },
    /// Pods had no value.
    Missing {
        /// The metric.
        metric: String,
        /// Their names.
        pods: Vec<String>,
        /// What they count as.
        counted_as: MissingAs,
    },
    /// Pods were pending, or their CPU says nothing yet.
    Unready {
        /// The metric.
        metric: String,
        /// Their names.
        pods: Vec<String>,
        /// Whether they count as idle; otherwise they were left out.
        are_idle: bool,
    },
    /// The value was too close to the target.
    WithinTolerance {
        /// The metric.
        metric: String,
        /// The value by the target.
        ratio: f64,
        /// What is too close.
        tolerances: Tolerances,
    },
    /// With what is supposed of pods without a value, the change would have turned into its opposite.
    Uncertain {
        /// The metric.
        metric: String,
        /// The value by the target, of the pods that have one.
        ratio: f64,
        /// The same, of all pods.
        supposed: f64,
    },
    /// An earlier recommendation still counts.
    Stabilized {
        /// Direction of the proposal.
        direction: Direction,
        /// Replicas that the metrics propose.
        proposed: i32,
        /// Replicas that the window allows.
        stabilized: i32,
        /// Length of the window.
        window_seconds: u32,
        /// The recommendation that counts.
        of: Option<Recommendation>,
        /// When it counts no more.
        until: Option<Timestamp>,
    },
    /// The change was larger than allowed.
    Limited {
        /// Replicas asked for.
        asked: i32,
        /// Replicas allowed.
        allowed: i32,
        /// By what.
        by: Limit,
    },
}

/// What limits a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Limit {
    /// The most replicas that it may have.
    Maximum,
    /// The fewest replicas that it may have.
    Minimum,
    /// Twice the replicas there are, or four: what holds where there is no behavior.
    DefaultRate,
    /// The behavior allows no change in this direction.
    Disabled,
    /// A policy of the behavior.
    Policy {
        /// The policy.
        policy: ScalingPolicy,
        /// Replicas when its period began.
        start: i32,
        /// Replicas that came in its period.
        came: i32,
        /// Replicas that went in its period.
        went: i32,
        /// When the first of the changes in this direction counts no more; `None` where there was none.
        until: Option<Timestamp>,
    },
}

impl fmt::Display for Effect {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled => write!(text, "There are no replicas, so that the autoscaler is disabled."),
            Self::AboveMaximum { current, maximum } => {
                write!(text, "There are {current} replicas, above the maximum of {maximum}.")
            }
            Self::BelowMinimum { current, minimum } => {
                write!(text, "There are {current} replicas, below the minimum of {minimum}.")
            }
            Self::Invalid { metric, why } => write!(text, "{metric} cannot be used: {why}."),
            Self::Blocked { invalid, of, proposed: None, current } => {
                write!(text, "{invalid} of {of} metrics cannot be used, so that {current} stay.")
            }
            Self::Blocked { invalid, of, proposed: Some(proposed), current } => write!(
                text,
                "{invalid} of {of} metrics cannot be used, so that {current} stay, though the others propose {proposed}."
            ),
            Self::Missing { metric, pods, counted_as } => {
                write!(text, "{} no {metric} yet: {}.", have(pods), missing_as(*counted_as))
            }
            Self::Unready { metric, pods, are_idle } => {
                let counted = if *are_idle { "counted as idle" } else { "left out" };
                write!(text, "For {metric}, {} not ready: {counted}.", are(pods))
            }
            Self::WithinTolerance { metric, ratio, tolerances: Tolerances { up, down } } => write!(
                text,
                "{metric} is {ratio:.3} of its target; from {:.3} to {:.3} nothing changes.",
                1.0 - down,
                1.0 + up
            ),
            Self::Uncertain { metric, ratio, supposed } => write!(
                text,
                "{metric} is {ratio:.3} of its target, but with what is supposed of the other pods {supposed:.3}: \
                 too uncertain for a change."
            ),
            Self::Stabilized { proposed, stabilized, window_seconds, of, until, .. } => {
                write!(text, "{proposed} proposed, but {stabilized} hold for {window_seconds} s")?;
                if let (Some(of), Some(until)) = (of, until) {
                    write!(
                        text,
                        ": {} were recommended at {:.0}, which counts until {until:.0}",
                        of.replicas, of.at
                    )?;
                }
                write!(text, ".")
            }
            Self::Limited { asked, allowed, by } => write!(text, "{asked} asked, {allowed} allowed: {by}."),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Maximum => write!(text, "that is the maximum"),
            Self::Minimum => write!(text, "that is the minimum"),
            Self::DefaultRate => write!(text, "without a behavior, at most twice the replicas, or 4"),
            Self::Disabled => write!(text, "the behavior allows no change in this direction"),
            Self::Policy { policy, start, came, went, until } => {
                let unit = match policy.kind {
                    PolicyKind::Pods => " pods",
                    PolicyKind::Percent => " %",
                };
                let ScalingPolicy { value, period_seconds, .. } = policy;
                write!(text, "the policy of {value}{unit} in {period_seconds} s counts from {start}")?;
                if *came > 0 || *went > 0 {
                    write!(text, " ({came} came and {went} went since)")?;
                }
                until.map_or(Ok(()), |until| write!(text, ", and allows more at {until:.0}"))
            }
        }
    }
}

fn missing_as(counted_as: MissingAs) -> &'static str {
    match counted_as {
        MissingAs::LeftOut => "left out",
        MissingAs::Idle => "counted as idle, so that not too many are added",
        MissingAs::Target => "counted as busy, so that not too many are removed",
    }
}

fn have(pods: &[String]) -> String {
    if pods.len() == 1 { format!("1 pod ({}) has", pods[0]) } else { format!("{} pods have", pods.len()) }
}

fn are(pods: &[String]) -> String {
    if pods.len() == 1 { format!("1 pod ({}) is", pods[0]) } else { format!("{} pods are", pods.len()) }
}
