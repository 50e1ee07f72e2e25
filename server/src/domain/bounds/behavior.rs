//! The pace of scaling that a lease asks for, within the ranges of autoscaling/v2.

use super::findings::{Findings, quoted};
use super::{BehaviorRequest, ScalingRulesRequest};
use crate::domain::scaling::{Behavior, PolicyKind, ScalingPolicy, ScalingRules, SelectPolicy};

/// Longest stabilization window in seconds.
const LONGEST_WINDOW: u32 = 3600;
/// Longest period of a policy in seconds.
const LONGEST_PERIOD: u32 = 1800;
/// Largest value of a policy: Kubernetes counts in 32 bits with a sign.
const LARGEST_VALUE: u32 = i32::MAX.unsigned_abs();
/// Most policies of one direction.
const MOST_POLICIES: usize = 16;

/// Returns the pace asked for, with the administrator's for what is absent.
pub(super) fn granted(
    field: &str,
    request: &BehaviorRequest,
    default: &Behavior,
    findings: &mut Findings,
) -> Behavior {
    let mut rules = |name: &str, request: &Option<ScalingRulesRequest>, default: &ScalingRules| match request
    {
        Some(request) => scaling_rules(&format!("{field}.{name}"), request, default, findings),
        None => default.clone(),
    };
    Behavior {
        scale_up: rules("scale_up", &request.scale_up, &default.scale_up),
        scale_down: rules("scale_down", &request.scale_down, &default.scale_down),
    }
}

fn scaling_rules(
    field: &str,
    request: &ScalingRulesRequest,
    default: &ScalingRules,
    findings: &mut Findings,
) -> ScalingRules {
    let window = request.stabilization_window_seconds.unwrap_or(default.stabilization_window_seconds);
    if window > LONGEST_WINDOW {
        findings.refuse(
            format!("{field}.stabilization_window_seconds"),
            format!("{window} seconds asked, 0 to {LONGEST_WINDOW} are allowed"),
        );
    }
    ScalingRules {
        stabilization_window_seconds: window,
        select_policy: select_policy(field, &request.select_policy, findings)
            .unwrap_or(default.select_policy),
        policies: if request.policies.is_empty() {
            default.policies.clone()
        } else {
            policies(&format!("{field}.policies"), &request.policies, findings)
        },
        tolerance_milli: default.tolerance_milli,
    }
}

fn select_policy(field: &str, word: &str, findings: &mut Findings) -> Option<SelectPolicy> {
    match word {
        "" => None,
        "Max" => Some(SelectPolicy::Max),
        "Min" => Some(SelectPolicy::Min),
        "Disabled" => Some(SelectPolicy::Disabled),
        other => {
            findings.refuse(
                format!("{field}.select_policy"),
                format!("{} does not select a policy: Max, Min and Disabled do", quoted(other)),
            );
            None
        }
    }
}

fn policies(field: &str, asked: &[(String, u32, u32)], findings: &mut Findings) -> Vec<ScalingPolicy> {
    if asked.len() > MOST_POLICIES {
        findings
            .refuse(field, format!("{} policies asked, at most {MOST_POLICIES} are allowed", asked.len()));
    }
    let policies = asked.iter().take(MOST_POLICIES).enumerate();
    policies.filter_map(|(index, asked)| policy(&format!("{field}[{index}]"), asked, findings)).collect()
}

fn policy(
    field: &str,
    (kind, value, period): &(String, u32, u32),
    findings: &mut Findings,
) -> Option<ScalingPolicy> {
    if !(1..=LARGEST_VALUE).contains(value) {
        findings.refuse(format!("{field}.value"), format!("{value} asked, 1 to {LARGEST_VALUE} are allowed"));
    }
    if !(1..=LONGEST_PERIOD).contains(period) {
        findings.refuse(
            format!("{field}.period_seconds"),
            format!("{period} seconds asked, 1 to {LONGEST_PERIOD} are allowed"),
        );
    }
    let kind = match kind.as_str() {
        "Pods" => PolicyKind::Pods,
        "Percent" => PolicyKind::Percent,
        other => {
            findings.refuse(
                format!("{field}.type"),
                format!("{} is not a type of policy: Pods and Percent are", quoted(other)),
            );
            return None;
        }
    };
    Some(ScalingPolicy { kind, value: *value, period_seconds: *period })
}
