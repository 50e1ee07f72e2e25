//! What a metric from outside the pods proposes.

use super::metric::{ExternalTarget, Phase, Pod, Scale};
use super::proposal::{Groups, Invalid, Outcome, Proposal, Tolerances, Usage};
use super::rounded_up;

/// Returns what the sum of `values` proposes, in thousandths as the target is.
pub(super) fn propose(
    target: ExternalTarget,
    values: &Result<Vec<i64>, String>,
    scale: &Scale,
    tolerances: Tolerances,
) -> Result<Proposal, Invalid> {
    let values = values.as_ref().map_err(|why| Invalid::Unavailable(why.clone()))?;
    if values.is_empty() {
        return Err(Invalid::NoValue);
    }
    let (usage, ratio, (replicas, outcome)) = match target {
        ExternalTarget::Value(milli) => {
            let total = values.iter().fold(0, |sum: i64, value| sum.saturating_add(*value));
            let ratio = total as f64 / milli as f64;
            (Usage::Total(total), ratio, of_value(ratio, scale, tolerances)?)
        }
        ExternalTarget::Average(milli) => of_average(total(values), milli, scale.existing, tolerances),
    };
    Ok(Proposal { replicas, usage, ratio, groups: Groups::default(), supposition: None, outcome })
}

/// From zero there is nothing to multiply, so the ratio itself is the number; otherwise it multiplies the ready pods.
fn of_value(ratio: f64, scale: &Scale, tolerances: Tolerances) -> Result<(i32, Outcome), Invalid> {
    if scale.wanted == 0 {
        return Ok((rounded_up(ratio), Outcome::Ratio));
    }
    if tolerances.include(ratio) {
        return Ok((scale.wanted, Outcome::WithinTolerance));
    }
    if scale.pods.is_empty() {
        return Err(Invalid::NoPods);
    }
    let ready = scale.pods.iter().filter(|pod| is_ready(pod)).count();
    Ok((rounded_up(ratio * ready as f64), Outcome::Ratio))
}

fn of_average(total: i64, milli: i64, existing: i32, tolerances: Tolerances) -> (Usage, f64, (i32, Outcome)) {
    let (total_float, target) = (total as f64, milli as f64);
    let ratio = total_float / (target * f64::from(existing));
    let proposed = if tolerances.include(ratio) {
        (existing, Outcome::WithinTolerance)
    } else {
        (rounded_up(total_float / target), Outcome::Ratio)
    };
    let is_overflown = total_float >= i64::MAX as f64;
    let average = if is_overflown { i64::MAX } else { (total_float / f64::from(existing)).ceil() as i64 };
    (Usage::Average(average), ratio, proposed)
}

/// The controller takes a negative sum for one that overflowed.
fn total(values: &[i64]) -> i64 {
    let sum = values.iter().try_fold(0_i64, |sum, value| {
        let sum = sum.wrapping_add(*value);
        (sum >= 0).then_some(sum)
    });
    sum.unwrap_or(i64::MAX)
}

fn is_ready(pod: &Pod) -> bool {
    pod.phase == Phase::Running && pod.ready.is_some_and(|ready| ready.is_ready == Some(true))
}
