//! What one metric proposes: the controller's replica calculator. Amounts are in thousandths and whole numbers, divided and
//! rounded as the controller does.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;
use thiserror::Error;

use super::metric::{Metric, Phase, Pod, Resource, Sample, Samples, Scale, Source};
use super::{Options, external, rounded_up};

/// Relative deviations from the target that change nothing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Tolerances {
    /// Above the target.
    pub up: f64,
    /// Below the target.
    pub down: f64,
}

impl Tolerances {
    pub(super) fn include(self, ratio: f64) -> bool {
        1.0 - self.down <= ratio && ratio <= 1.0 + self.up
    }
}

/// What a metric proposes, and how that came about.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proposal {
    /// Replicas.
    pub replicas: i32,
    /// The value that was compared with the target.
    pub usage: Usage,
    /// That value by the target, over the pods that have one.
    pub ratio: f64,
    /// How each pod counted.
    pub groups: Groups,
    /// What was supposed of the pods without a usable value, where that mattered.
    pub supposition: Option<Supposition>,
    /// What the proposal follows from.
    pub outcome: Outcome,
}

/// The value of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Usage {
    /// Of what the pods request.
    Percent {
        /// Percent, rounded down.
        percent: i32,
        /// Mean of the pods in thousandths.
        average_milli: i64,
    },
    /// Mean of the pods, or of the replicas, in thousandths.
    Average(i64),
    /// Sum in thousandths.
    Total(i64),
}

/// How the pods counted; by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Groups {
    /// Those with a value that counted.
    pub counted: BTreeSet<String>,
    /// Pending ones, and for CPU those that start: nothing on the way up, left out on the way down.
    pub unready: BTreeSet<String>,
    /// Those without a value: at the target on the way down, nothing on the way up.
    pub missing: BTreeSet<String>,
    /// Failed ones and those being deleted: left out.
    pub ignored: BTreeSet<String>,
}

/// What was supposed of pods whose value is not known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Supposition {
    /// What missing pods count as.
    pub missing: MissingAs,
    /// Whether unready pods count as idle.
    pub unready_are_idle: bool,
    /// The ratio that follows.
    pub ratio: f64,
    /// Pods that this ratio is about.
    pub pods: usize,
}

/// What a pod without a value counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum MissingAs {
    /// There is none, or the rest is exactly at the target.
    LeftOut,
    /// Nothing, so that a scale-up is not too large.
    Idle,
    /// The target, or all that it requests, so that a scale-down is not too large.
    Target,
}

/// What a proposal follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The ratio.
    Ratio,
    /// The ratio is too close to 1: no change.
    WithinTolerance,
    /// With what is supposed of the other pods, the change would turn into its opposite: no change.
    Uncertain,
}

/// Why a metric proposes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Invalid {
    /// Its source gave no answer.
    #[error("{0}")]
    Unavailable(String),
    /// Its source knows no value.
    #[error("the metrics API returned no value")]
    NoValue,
    /// There are no pods.
    #[error("the selector of the target finds no pod")]
    NoPods,
    /// No pod that counts has a value.
    #[error(
        "none of the pods that count has a value: {unready} unready, {missing} missing, {ignored} ignored"
    )]
    NoUsableValue {
        /// Pods that are not ready.
        unready: usize,
        /// Pods without a value.
        missing: usize,
        /// Pods that are failed or being deleted.
        ignored: usize,
    },
    /// A percentage is asked of a pod that requests nothing.
    #[error("pod {pod} does not request the resource, so that there is no percentage of it")]
    NoRequest {
        /// Its name.
        pod: String,
    },
    /// The pods with values request nothing in total.
    #[error("the pods that have a value request nothing")]
    NothingRequested,
}

/// Returns what `metric` proposes for `scale`.
///
/// # Errors
///
/// The metric may not be usable now.
pub fn propose(
    metric: &Metric,
    scale: &Scale,
    tolerances: Tolerances,
    options: &Options,
    now: Timestamp,
) -> Result<Proposal, Invalid> {
    match &metric.source {
        Source::Resource { resource, percent, samples } => {
            let pods = Counted::new(samples, scale, Some(*resource), options, now)?;
            let target = Target::Percent { percent: *percent, requests: requests(&scale.pods, *resource)? };
            pods.propose(&target, scale.wanted, tolerances)
        }
        Source::Pods { average_milli, samples } => {
            let pods = Counted::new(samples, scale, None, options, now)?;
            pods.propose(&Target::Average(*average_milli), scale.wanted, tolerances)
        }
        Source::External { target, values } => external::propose(*target, values, scale, tolerances),
    }
}

enum Target {
    Percent { percent: i32, requests: BTreeMap<String, i64> },
    Average(i64),
}

impl Target {
    /// The value that a pod is taken to have on the way down: all that it requests, or exactly the target.
    fn supposed(&self, pod: &str) -> i64 {
        match self {
            Self::Percent { percent, requests } => {
                let request = requests.get(pod).copied().unwrap_or(0);
                request.wrapping_mul(i64::from((*percent).max(100))) / 100
            }
            Self::Average(milli) => *milli,
        }
    }

    /// The value by the target, and the value.
    fn ratio(&self, values: &BTreeMap<String, i64>) -> Result<(f64, Usage), Invalid> {
        match self {
            Self::Percent { percent, requests } => {
                let known = || values.iter().filter_map(|(pod, value)| Some((value, requests.get(pod)?)));
                let used = sum(known().map(|(value, _)| value));
                let requested = sum(known().map(|(_, request)| request));
                if requested == 0 {
                    return Err(Invalid::NothingRequested);
                }
                let usage = used.wrapping_mul(100).wrapping_div(requested) as i32;
                let average_milli = used.wrapping_div(known().count() as i64);
                Ok((f64::from(usage) / f64::from(*percent), Usage::Percent { percent: usage, average_milli }))
            }
            Self::Average(milli) => {
                let average = sum(values.values()).wrapping_div(values.len() as i64);
                Ok((average as f64 / *milli as f64, Usage::Average(average)))
            }
        }
    }
}

/// Pods in their groups, with the values that count.
struct Counted {
    values: BTreeMap<String, i64>,
    groups: Groups,
}

impl Counted {
    fn new(
        samples: &Result<Samples, String>,
        scale: &Scale,
        resource: Option<Resource>,
        options: &Options,
        now: Timestamp,
    ) -> Result<Self, Invalid> {
        let samples = samples.as_ref().map_err(|why| Invalid::Unavailable(why.clone()))?;
        if samples.is_empty() {
            return Err(Invalid::NoValue);
        }
        if scale.pods.is_empty() {
            return Err(Invalid::NoPods);
        }
        let groups = grouped(&scale.pods, samples, resource, options, now);
        // A value of a pod that is in no group counts too: that pod is gone from one list and not yet from the other.
        let counts = |pod: &String| !groups.ignored.contains(pod) && !groups.unready.contains(pod);
        let counted = samples.iter().filter(|(pod, _)| counts(pod));
        let values: BTreeMap<_, _> = counted.map(|(pod, sample)| (pod.clone(), sample.milli)).collect();
        if values.is_empty() {
            let (unready, missing) = (groups.unready.len(), groups.missing.len());
            return Err(Invalid::NoUsableValue { unready, missing, ignored: groups.ignored.len() });
        }
        Ok(Self { values, groups })
    }

    fn propose(mut self, target: &Target, current: i32, tolerances: Tolerances) -> Result<Proposal, Invalid> {
        let (ratio, usage) = target.ratio(&self.values)?;
        let unready_are_idle = !self.groups.unready.is_empty() && ratio > 1.0;
        if !unready_are_idle && self.groups.missing.is_empty() {
            let (replicas, outcome) = if tolerances.include(ratio) {
                (current, Outcome::WithinTolerance)
            } else {
                (rounded_up(ratio * self.groups.counted.len() as f64), Outcome::Ratio)
            };
            return Ok(Proposal { replicas, usage, ratio, groups: self.groups, supposition: None, outcome });
        }
        let missing = missing_as(ratio, &self.groups);
        self.suppose(missing, unready_are_idle, target);
        let (new_ratio, _) = target.ratio(&self.values)?;
        let pods = self.values.len();
        let supposition = Some(Supposition { missing, unready_are_idle, ratio: new_ratio, pods });
        let (replicas, outcome) = adjusted(ratio, new_ratio, pods, current, tolerances);
        Ok(Proposal { replicas, usage, ratio, groups: self.groups, supposition, outcome })
    }

    fn suppose(&mut self, missing_as: MissingAs, unready_are_idle: bool, target: &Target) {
        let missing = self.groups.missing.iter();
        match missing_as {
            MissingAs::LeftOut => {}
            MissingAs::Idle => self.values.extend(missing.map(|pod| (pod.clone(), 0))),
            MissingAs::Target => {
                self.values.extend(missing.map(|pod| (pod.clone(), target.supposed(pod))));
            }
        }
        if unready_are_idle {
            self.values.extend(self.groups.unready.iter().map(|pod| (pod.clone(), 0)));
        }
    }
}

fn missing_as(ratio: f64, groups: &Groups) -> MissingAs {
    if groups.missing.is_empty() || ratio == 1.0 {
        MissingAs::LeftOut
    } else if ratio < 1.0 {
        MissingAs::Target
    } else {
        MissingAs::Idle
    }
}

fn adjusted(ratio: f64, new_ratio: f64, pods: usize, current: i32, tolerances: Tolerances) -> (i32, Outcome) {
    if tolerances.include(new_ratio) {
        return (current, Outcome::WithinTolerance);
    }
    if (ratio < 1.0 && new_ratio > 1.0) || (ratio > 1.0 && new_ratio < 1.0) {
        return (current, Outcome::Uncertain);
    }
    let replicas = rounded_up(new_ratio * pods as f64);
    if (new_ratio < 1.0 && replicas > current) || (new_ratio > 1.0 && replicas < current) {
        return (current, Outcome::Uncertain);
    }
    (replicas, Outcome::Ratio)
}

fn grouped(
    pods: &[Pod],
    samples: &Samples,
    resource: Option<Resource>,
    options: &Options,
    now: Timestamp,
) -> Groups {
    let mut groups = Groups::default();
    for pod in pods {
        let group = match samples.get(&pod.name) {
            _ if pod.is_deleting || pod.phase == Phase::Failed => &mut groups.ignored,
            _ if pod.phase == Phase::Pending => &mut groups.unready,
            None => &mut groups.missing,
            Some(sample) if resource == Some(Resource::Cpu) && is_starting(pod, sample, options, now) => {
                &mut groups.unready
            }
            Some(_) => &mut groups.counted,
        };
        group.insert(pod.name.clone());
    }
    groups
}

/// Whether the CPU of a pod says nothing yet, since it starts.
fn is_starting(pod: &Pod, sample: &Sample, options: &Options, now: Timestamp) -> bool {
    let (Some(ready), Some(started_at)) = (pod.ready, pod.started_at) else {
        return true;
    };
    let is_unready = ready.is_ready == Some(false);
    if started_at + options.cpu_initialization_period > now {
        // Whatever was measured before it became ready was measured while it started.
        return is_unready || sample.at < ready.since + sample.window;
    }
    is_unready && started_at + options.initial_readiness_delay > ready.since
}

/// What each pod requests. The controller asks all of them, those that do not count included.
fn requests(pods: &[Pod], resource: Resource) -> Result<BTreeMap<String, i64>, Invalid> {
    let request = |pod: &Pod| match pod.requests.of(resource) {
        Some(milli) => Ok((pod.name.clone(), milli)),
        None => Err(Invalid::NoRequest { pod: pod.name.clone() }),
    };
    pods.iter().map(request).collect()
}

/// Wraps as the controller's sum does.
fn sum<'a>(values: impl Iterator<Item = &'a i64>) -> i64 {
    values.fold(0_i64, |sum, value| sum.wrapping_add(*value))
}
