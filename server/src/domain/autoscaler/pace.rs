//! How fast it may go: the stabilization windows and policies of a behavior, and the limits that hold without one.

use jiff::Timestamp;

use super::effect::{Effect, Limit};
use super::history::{History, Recommendation, seconds};
use super::{Direction, Options, rounded_up};
use crate::domain::scaling::{Behavior, PolicyKind, ScalingPolicy, ScalingRules, SelectPolicy};

/// Replicas to which one may always go at once where there is no behavior.
const ALWAYS_ALLOWED: i32 = 4;

/// Returns the calmest number of replicas that the windows allow, records `proposed`, and says what held it.
pub(super) fn stabilize(
    behavior: Option<&Behavior>,
    current: i32,
    proposed: i32,
    history: &mut History,
    options: &Options,
    now: Timestamp,
) -> (i32, Option<Effect>) {
    match behavior {
        Some(behavior) => with_windows(behavior, current, proposed, history, now),
        None => with_largest(proposed, history, options, now),
    }
}

fn with_windows(
    behavior: &Behavior,
    current: i32,
    proposed: i32,
    history: &mut History,
    now: Timestamp,
) -> (i32, Option<Effect>) {
    let up_window = behavior.scale_up.stabilization_window_seconds;
    let down_window = behavior.scale_down.stabilization_window_seconds;
    let (up_cutoff, down_cutoff) = (now - seconds(up_window), now - seconds(down_window));
    let since = |cutoff| history.recommendations().iter().filter(move |past| past.at > cutoff).copied();
    // Of equal ones the latest, since it holds the longest.
    let lowest = since(up_cutoff).min_by_key(|past| (past.replicas, std::cmp::Reverse(past.at)));
    let highest = since(down_cutoff).max_by_key(|past| (past.replicas, past.at));
    let low = lowest.map_or(proposed, |past| past.replicas.min(proposed));
    let high = highest.map_or(proposed, |past| past.replicas.max(proposed));
    let stabilized = current.max(low).min(high);
    history.recommend(proposed, now, |at| at < up_cutoff && at < down_cutoff);

    // Either the window of the direction holds it back, or it stays where it is.
    let (direction, of, window) = if proposed >= current {
        (Direction::Up, lowest, up_window)
    } else {
        (Direction::Down, highest, down_window)
    };
    let effect = (stabilized != proposed).then(|| stabilization(direction, proposed, stabilized, of, window));
    (stabilized, effect)
}

fn with_largest(
    proposed: i32,
    history: &mut History,
    options: &Options,
    now: Timestamp,
) -> (i32, Option<Effect>) {
    let cutoff = now - options.downscale_stabilization;
    let past = history.recommendations().iter().filter(|past| past.at >= cutoff).copied();
    let highest = past.max_by_key(|past| (past.replicas, past.at));
    let stabilized = highest.map_or(proposed, |past| past.replicas.max(proposed));
    history.recommend(proposed, now, |at| at < cutoff);
    let window = u32::try_from(options.downscale_stabilization.as_secs()).unwrap_or(0);
    let effect = (stabilized != proposed)
        .then(|| stabilization(Direction::Down, proposed, stabilized, highest, window));
    (stabilized, effect)
}

fn stabilization(
    direction: Direction,
    proposed: i32,
    stabilized: i32,
    of: Option<Recommendation>,
    window: u32,
) -> Effect {
    let until = of.map(|past| past.at + seconds(window));
    Effect::Stabilized { direction, proposed, stabilized, window_seconds: window, of, until }
}

/// Returns how far one may go from `current` towards `asked`, and what limits it there.
pub(super) fn limit(
    behavior: Option<&Behavior>,
    current: i32,
    asked: i32,
    bounds: (i32, i32),
    history: &History,
    now: Timestamp,
) -> Option<(i32, Limit)> {
    let (minimum, maximum) = bounds;
    let Some(behavior) = behavior else {
        return default_limit(current, asked, bounds);
    };
    if asked > current {
        let (farthest, limit) = farthest(Direction::Up, &behavior.scale_up, current, history, now);
        let allowed = farthest.max(current);
        let (allowed, limit) = if maximum > allowed { (allowed, limit) } else { (maximum, Limit::Maximum) };
        return (asked > allowed).then_some((allowed, limit));
    }
    if asked < current {
        let (farthest, limit) = farthest(Direction::Down, &behavior.scale_down, current, history, now);
        let allowed = farthest.min(current);
        let (allowed, limit) = if minimum < allowed { (allowed, limit) } else { (minimum, Limit::Minimum) };
        return (asked < allowed).then_some((allowed, limit));
    }
    None
}

/// Twice the replicas there are, or a handful; downwards as far as it likes.
fn default_limit(current: i32, asked: i32, (minimum, maximum): (i32, i32)) -> Option<(i32, Limit)> {
    let rate = current.saturating_mul(2).max(ALWAYS_ALLOWED);
    let (allowed, limit) =
        if maximum > rate { (rate, Limit::DefaultRate) } else { (maximum, Limit::Maximum) };
    if asked < minimum {
        Some((minimum, Limit::Minimum))
    } else {
        (asked > allowed).then_some((allowed, limit))
    }
}

/// The replicas to which the policies of one direction allow to go, and the policy that says so.
fn farthest(
    direction: Direction,
    rules: &ScalingRules,
    current: i32,
    history: &History,
    now: Timestamp,
) -> (i32, Limit) {
    let each = rules.policies.iter().map(|policy| reach(direction, policy, current, history, now));
    let by_reach = |one: &(i32, Limit), other: &(i32, Limit)| one.0.cmp(&other.0);
    let selected = match (rules.select_policy, direction) {
        (SelectPolicy::Disabled, _) => None,
        (SelectPolicy::Max, Direction::Up) | (SelectPolicy::Min, Direction::Down) => each.max_by(by_reach),
        (SelectPolicy::Min, Direction::Up) | (SelectPolicy::Max, Direction::Down) => each.min_by(by_reach),
    };
    selected.unwrap_or((current, Limit::Disabled))
}

/// How far one policy reaches, counted from the replicas that there were when its period began.
fn reach(
    direction: Direction,
    policy: &ScalingPolicy,
    current: i32,
    history: &History,
    now: Timestamp,
) -> (i32, Limit) {
    let changes = |direction| history.within(direction, policy.period_seconds, now);
    let came: i32 = changes(Direction::Up).map(|change| change.by).sum();
    let went: i32 = changes(Direction::Down).map(|change| change.by).sum();
    let start = current - came + went;
    let (value, percent) = (policy.value as i32, f64::from(policy.value) / 100.0);
    let farthest = match (direction, policy.kind) {
        (Direction::Up, PolicyKind::Pods) => start.saturating_add(value),
        (Direction::Up, PolicyKind::Percent) => rounded_up(f64::from(start) * (1.0 + percent)),
        (Direction::Down, PolicyKind::Pods) => start.saturating_sub(value),
        (Direction::Down, PolicyKind::Percent) => (f64::from(start) * (1.0 - percent)) as i32,
    };
    let first = changes(direction).map(|change| change.at).min();
    let until = first.map(|at| at + seconds(policy.period_seconds));
    (farthest, Limit::Policy { policy: policy.clone(), start, came, went, until })
}
