//! What becomes of the proposals: one sync of the controller. The largest proposal wins; windows, policies and bounds hold it.

use std::cmp::Ordering;

use jiff::Timestamp;
use serde::Serialize;

use super::effect::{Effect, Limit};
use super::history::History;
use super::metric::{Metric, Resource, Scale, Source};
use super::proposal::{Invalid, Outcome, Proposal, Tolerances, propose};
use super::{Direction, Options, pace};
use crate::domain::scaling::{Autoscaling, Behavior};

/// What an autoscaler was told.
#[derive(Clone, Debug, PartialEq)]
pub struct Autoscaler {
    /// Fewest replicas.
    pub minimum: i32,
    /// Most replicas.
    pub maximum: i32,
    /// Pace; without it the controller's own holds.
    pub behavior: Option<Behavior>,
}

impl From<&Autoscaling> for Autoscaler {
    fn from(granted: &Autoscaling) -> Self {
        let count = |replicas| i32::try_from(replicas).unwrap_or(i32::MAX);
        Self {
            // What sleeps and wakes is KEDA's affair.
            minimum: count(granted.minimum.max(1)),
            maximum: count(granted.maximum),
            behavior: Some(granted.behavior.clone()),
        }
    }
}

impl Autoscaler {
    /// What deviation from a target changes nothing.
    pub fn tolerances(&self, options: &Options) -> Tolerances {
        let behavior = self.behavior.as_ref().filter(|_| options.has_configurable_tolerance);
        let or_default =
            |milli: Option<u32>| milli.map_or(options.tolerance, |milli| f64::from(milli) * 0.001);
        Tolerances {
            up: or_default(behavior.and_then(|behavior| behavior.scale_up.tolerance_milli)),
            down: or_default(behavior.and_then(|behavior| behavior.scale_down.tolerance_milli)),
        }
    }
}

/// What an autoscaler finds at a sync.
#[derive(Clone, Debug, PartialEq)]
pub struct Situation {
    /// What is to be scaled.
    pub scale: Scale,
    /// Its metrics, at least one, in the order in which the autoscaler lists them.
    pub metrics: Vec<Metric>,
    /// Whether it was the autoscaler that scaled to zero: its condition ScaledToZero.
    pub was_scaled_to_zero: bool,
}

/// What was decided at a sync.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// Replicas before.
    pub current: i32,
    /// Replicas from now on.
    pub replicas: i32,
    /// What each metric proposes, in their order; empty where they were not asked.
    pub proposals: Vec<Result<Proposal, Invalid>>,
    /// Which of them won.
    pub winner: Option<usize>,
    /// Replicas that the metrics propose together; `None` where they were not asked or could not be used.
    pub proposed: Option<i32>,
    /// The conditions that were set, in the order in which they were first.
    pub conditions: Vec<Condition>,
    /// What held or clipped it, in the order in which it did.
    pub effects: Vec<Effect>,
}

/// A condition of the autoscaler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Its type.
    pub kind: ConditionKind,
    /// Whether it holds.
    pub status: bool,
    /// The reason, as the controller writes it.
    pub reason: &'static str,
}

/// Type of a condition, written as in Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum ConditionKind {
    /// It can read and change the replicas.
    AbleToScale,
    /// It can use its metrics.
    ScalingActive,
    /// The change was clipped.
    ScalingLimited,
    /// It scaled to zero itself.
    ScaledToZero,
}

/// Decides at one sync, and remembers what the next will need.
pub fn decide(
    autoscaler: &Autoscaler,
    situation: &Situation,
    history: &mut History,
    options: &Options,
    now: Timestamp,
) -> Decision {
    let current = situation.scale.wanted;
    let mut decision = Decision::staying(current);
    decision.set(ConditionKind::AbleToScale, true, "SucceededGetScale");
    history.begin(current, now);
    if current == 0 && !autoscaler.wakes(situation, options) {
        decision.effects.push(Effect::Disabled);
        decision.set(ConditionKind::ScalingActive, false, "ScalingDisabled");
        return decision;
    }
    if current != 0 && current > autoscaler.maximum {
        decision.replicas = autoscaler.maximum;
        decision.effects.push(Effect::AboveMaximum { current, maximum: autoscaler.maximum });
    } else if current != 0 && current < autoscaler.minimum {
        decision.replicas = autoscaler.minimum;
        decision.effects.push(Effect::BelowMinimum { current, minimum: autoscaler.minimum });
    } else if let Some(proposed) = decision.ask(autoscaler, situation, options, now) {
        decision.replicas = decision.normalized(autoscaler, proposed, history, options, now);
    } else {
        return decision;
    }
    decision.carry_out(autoscaler, situation, history, options, now);
    decision
}

impl Autoscaler {
    /// Whether it may bring back a target at zero: only one that it put there itself.
    fn wakes(&self, situation: &Situation, options: &Options) -> bool {
        let was_its_own = options.has_scale_to_zero && situation.was_scaled_to_zero;
        was_its_own && (self.minimum != 0 || has_external(situation))
    }
}

impl Decision {
    fn staying(current: i32) -> Self {
        Self {
            current,
            replicas: current,
            proposals: Vec::new(),
            winner: None,
            proposed: None,
            conditions: Vec::new(),
            effects: Vec::new(),
        }
    }

    fn set(&mut self, kind: ConditionKind, status: bool, reason: &'static str) {
        let condition = Condition { kind, status, reason };
        match self.conditions.iter_mut().find(|set| set.kind == kind) {
            Some(set) => *set = condition,
            None => self.conditions.push(condition),
        }
    }

    /// Asks every metric, and returns what they propose together.
    fn ask(
        &mut self,
        autoscaler: &Autoscaler,
        situation: &Situation,
        options: &Options,
        now: Timestamp,
    ) -> Option<i32> {
        let tolerances = autoscaler.tolerances(options);
        let each = situation.metrics.iter();
        self.proposals =
            each.clone().map(|metric| propose(metric, &situation.scale, tolerances, options, now)).collect();
        for (metric, proposal) in each.zip(&self.proposals) {
            self.effects.extend(effects_of(&metric.name, proposal, tolerances));
        }
        let (winner, proposed) = largest(&self.proposals);
        let first_invalid = self.proposals.iter().position(Result::is_err);
        if let Some(first_invalid) = first_invalid
            && (winner.is_none() || proposed < self.current)
        {
            let invalid = self.proposals.iter().filter(|proposal| proposal.is_err()).count();
            let (of, current) = (self.proposals.len(), self.current);
            let proposed = winner.map(|_| proposed);
            self.effects.push(Effect::Blocked { invalid, of, proposed, current });
            let reason = failure(&situation.metrics[first_invalid].source);
            self.set(ConditionKind::ScalingActive, false, reason);
            return None;
        }
        self.set(ConditionKind::ScalingActive, true, "ValidMetricFound");
        self.winner = winner;
        self.proposed = Some(proposed);
        Some(proposed.max(0))
    }

    /// What windows, policies and bounds leave of a proposal.
    fn normalized(
        &mut self,
        autoscaler: &Autoscaler,
        proposed: i32,
        history: &mut History,
        options: &Options,
        now: Timestamp,
    ) -> i32 {
        let (behavior, current) = (autoscaler.behavior.as_ref(), self.current);
        let (stabilized, effect) = pace::stabilize(behavior, current, proposed, history, options, now);
        let reason = match &effect {
            Some(Effect::Stabilized { direction: Direction::Up, .. }) => "ScaleUpStabilized",
            Some(_) => "ScaleDownStabilized",
            None => "ReadyForNewScale",
        };
        self.set(ConditionKind::AbleToScale, true, reason);
        self.effects.extend(effect);

        let bounds = (autoscaler.minimum, autoscaler.maximum);
        let Some((allowed, by)) = pace::limit(behavior, current, stabilized, bounds, history, now) else {
            self.set(ConditionKind::ScalingLimited, false, "DesiredWithinRange");
            return self.awake(autoscaler, stabilized);
        };
        self.set(ConditionKind::ScalingLimited, true, limited(&by, stabilized, current));
        self.effects.push(Effect::Limited { asked: stabilized, allowed, by });
        self.awake(autoscaler, allowed)
    }

    /// A target that is brought back from zero has its minimum at once.
    fn awake(&self, autoscaler: &Autoscaler, replicas: i32) -> i32 {
        if self.current == 0 { replicas.max(autoscaler.minimum) } else { replicas }
    }

    fn carry_out(
        &mut self,
        autoscaler: &Autoscaler,
        situation: &Situation,
        history: &mut History,
        options: &Options,
        now: Timestamp,
    ) {
        let rules = |behavior: &Behavior| match self.replicas.cmp(&self.current) {
            Ordering::Greater => Some(behavior.scale_up.clone()),
            Ordering::Less => Some(behavior.scale_down.clone()),
            Ordering::Equal => None,
        };
        if self.replicas == self.current {
            return;
        }
        if let Some(rules) = autoscaler.behavior.as_ref().and_then(rules) {
            history.change(self.current, self.replicas, &rules, now);
        }
        self.set(ConditionKind::AbleToScale, true, "SucceededRescale");
        if options.has_scale_to_zero {
            let to_zero = self.replicas == 0 && autoscaler.minimum == 0 && has_external(situation);
            let reason = if to_zero { "ScaledToZero" } else { "NotScaledToZero" };
            self.set(ConditionKind::ScaledToZero, to_zero, reason);
        }
    }
}

/// The largest proposal. Zero gives way to any other, be it zero too.
fn largest(proposals: &[Result<Proposal, Invalid>]) -> (Option<usize>, i32) {
    let valid = proposals.iter().enumerate().filter_map(|(place, it)| Some((place, it.as_ref().ok()?)));
    valid.fold((None, 0), |(winner, most), (place, proposal)| {
        let wins = most == 0 || proposal.replicas > most;
        if wins { (Some(place), proposal.replicas) } else { (winner, most) }
    })
}

fn effects_of(name: &str, proposal: &Result<Proposal, Invalid>, tolerances: Tolerances) -> Vec<Effect> {
    let metric = name.to_owned();
    let proposal = match proposal {
        Ok(proposal) => proposal,
        Err(invalid) => return vec![Effect::Invalid { metric, why: invalid.to_string() }],
    };
    let (groups, supposition) = (&proposal.groups, proposal.supposition.as_ref());
    let pods = |names: &std::collections::BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>();
    let mut effects = Vec::new();
    if let Some(supposition) = supposition.filter(|_| !groups.missing.is_empty()) {
        let counted_as = supposition.missing;
        effects.push(Effect::Missing { metric: metric.clone(), pods: pods(&groups.missing), counted_as });
    }
    if !groups.unready.is_empty() {
        let are_idle = supposition.is_some_and(|supposition| supposition.unready_are_idle);
        effects.push(Effect::Unready { metric: metric.clone(), pods: pods(&groups.unready), are_idle });
    }
    let last = supposition.map_or(proposal.ratio, |supposition| supposition.ratio);
    match proposal.outcome {
        Outcome::Ratio => {}
        Outcome::WithinTolerance => effects.push(Effect::WithinTolerance { metric, ratio: last, tolerances }),
        Outcome::Uncertain => {
            effects.push(Effect::Uncertain { metric, ratio: proposal.ratio, supposed: last });
        }
    }
    effects
}

/// The reason that the controller gives for a metric that it could not use. TMS asks for resources by container.
fn failure(source: &Source) -> &'static str {
    match source {
        Source::Resource { resource: Resource::Cpu | Resource::Memory, .. } => {
            "FailedGetContainerResourceMetric"
        }
        Source::Pods { .. } => "FailedGetPodsMetric",
        Source::External { .. } => "FailedGetExternalMetric",
    }
}

fn limited(by: &Limit, asked: i32, current: i32) -> &'static str {
    match by {
        Limit::Maximum => "TooManyReplicas",
        Limit::Minimum => "TooFewReplicas",
        Limit::DefaultRate => "ScaleUpLimit",
        Limit::Disabled | Limit::Policy { .. } if asked > current => "ScaleUpLimit",
        Limit::Disabled | Limit::Policy { .. } => "ScaleDownLimit",
    }
}

fn has_external(situation: &Situation) -> bool {
    situation.metrics.iter().any(|metric| matches!(metric.source, Source::External { .. }))
}
