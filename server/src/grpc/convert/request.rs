//! From messages to the domain.

use jiff::SignedDuration;
use tms_proto::v1;

use crate::domain::bounds::{
    AutomaticRenewalRequest, AutoscalingRequest, BehaviorRequest, MetricRequest, RenewalRequest, Request,
    ScalingRulesRequest, TriggerRequest, TritonRequest, UpdateRequest, Violation,
};
use crate::domain::lease::{State, Toleration};

/// Most seconds that a protobuf Duration may hold: 10,000 years.
const MOST_SECONDS: i64 = 315_576_000_000;

/// Returns what is asked for, and the faults of what the domain's types cannot hold.
pub fn request(spec: v1::LeaseSpec) -> (Request, Vec<Violation>) {
    let mut faults = Vec::new();
    let mut duration = |field, asked| {
        lifetime(field, asked).unwrap_or_else(|fault| {
            faults.push(fault);
            None
        })
    };
    let lifetime = duration("spec.lifetime", spec.lifetime);
    let automatic_renewal = spec.automatic_renewal.map(|wish| AutomaticRenewalRequest {
        idle_window: duration("spec.automatic_renewal.idle_window", wish.idle_window),
    });
    let request = Request {
        models: spec.models.into_iter().map(|model| (model.name, model.uri)).collect(),
        triton: spec.bespoke.map(triton).unwrap_or_default(),
        replicas: spec.replicas,
        autoscaling: spec.autoscaling.map(autoscaling),
        lifetime,
        labels: spec.labels,
        automatic_renewal,
    };
    (request, faults)
}

/// Returns the change that is asked for, or the fault of what the domain's types cannot hold.
pub fn update(request: v1::UpdateRequest) -> Result<UpdateRequest, Violation> {
    let renewal = |change: v1::RenewalChange| match change.automatic_renewal {
        Some(wish) => {
            let idle_window = lifetime("renewal.automatic_renewal.idle_window", wish.idle_window)?;
            Ok(RenewalRequest::On(AutomaticRenewalRequest { idle_window }))
        }
        None => Ok(RenewalRequest::Off),
    };
    Ok(UpdateRequest {
        autoscaling: request.autoscaling.map(autoscaling),
        replicas: request.replicas,
        labels: request.labels.map(|set| set.labels),
        renewal: request.renewal.map(renewal).transpose()?,
    })
}

/// Returns the wishes for autoscaling.
fn autoscaling(autoscaling: v1::Autoscaling) -> AutoscalingRequest {
    let metrics = autoscaling.metrics.into_iter().map(|(key, metric)| {
        let v1::Metric { enable, threshold } = metric;
        (key, MetricRequest { enable, threshold })
    });
    AutoscalingRequest {
        minimum: autoscaling.min_replicas,
        maximum: autoscaling.max_replicas,
        metrics: metrics.collect(),
        behavior: autoscaling.behavior.map(behavior).unwrap_or_default(),
        triggers: autoscaling.triggers.into_iter().map(trigger).collect(),
    }
}

fn trigger(trigger: v1::Trigger) -> TriggerRequest {
    TriggerRequest { kind: trigger.kind, metadata: trigger.metadata.into_iter().collect() }
}

/// Returns a lifetime to the microsecond, as the database can hold it. `field` names it where it is faulty.
pub fn lifetime(
    field: &str,
    duration: Option<prost_types::Duration>,
) -> Result<Option<SignedDuration>, Violation> {
    let Some(duration) = duration else { return Ok(None) };
    let prost_types::Duration { seconds, nanos } = duration;
    let refused = |message: String| {
        Err(Violation { field: field.to_owned(), message, key: None, is_precondition: false })
    };
    if seconds < 0 || nanos < 0 {
        return refused("a duration cannot be negative".to_owned());
    }
    if seconds > MOST_SECONDS || nanos > 999_999_999 {
        return refused(format!(
            "{seconds} seconds and {nanos} nanoseconds is not a duration: at most {MOST_SECONDS} seconds and \
             999999999 nanoseconds"
        ));
    }
    let whole_microseconds = nanos / 1_000 * 1_000;
    Ok(Some(SignedDuration::new(seconds, whole_microseconds)))
}

/// Returns the state of this number, `None` for an unknown one.
pub fn state(number: i32) -> Option<State> {
    match v1::LeaseState::try_from(number).ok()? {
        v1::LeaseState::Unspecified => None,
        v1::LeaseState::Pending => Some(State::Pending),
        v1::LeaseState::Provisioning => Some(State::Provisioning),
        v1::LeaseState::Loading => Some(State::Loading),
        v1::LeaseState::Ready => Some(State::Ready),
        v1::LeaseState::Degraded => Some(State::Degraded),
        v1::LeaseState::Asleep => Some(State::Asleep),
        v1::LeaseState::Written => Some(State::Written),
        v1::LeaseState::Released => Some(State::Released),
        v1::LeaseState::Expired => Some(State::Expired),
        v1::LeaseState::Invalid => Some(State::Invalid),
    }
}

fn triton(triton: v1::BespokeTriton) -> TritonRequest {
    TritonRequest {
        image: triton.image,
        gpus: triton.gpus,
        gpu_resource: triton.gpu_resource,
        cpu: triton.cpu,
        memory: triton.memory,
        shared_memory: triton.shared_memory,
        environment: triton.environment,
        node_selector: triton.node_selector,
        tolerations: triton.tolerations.into_iter().map(toleration).collect(),
        affinity_json: triton.affinity_json,
    }
}

fn toleration(toleration: v1::Toleration) -> Toleration {
    Toleration {
        key: toleration.key,
        operator: toleration.operator,
        value: toleration.value,
        effect: toleration.effect,
        toleration_seconds: toleration.toleration_seconds,
    }
}

fn behavior(behavior: v1::Behavior) -> BehaviorRequest {
    BehaviorRequest {
        scale_up: behavior.scale_up.map(scaling_rules),
        scale_down: behavior.scale_down.map(scaling_rules),
    }
}

fn scaling_rules(rules: v1::ScalingRules) -> ScalingRulesRequest {
    let policies =
        rules.policies.into_iter().map(|policy| (policy.r#type, policy.value, policy.period_seconds));
    ScalingRulesRequest {
        stabilization_window_seconds: rules.stabilization_window_seconds,
        select_policy: rules.select_policy,
        policies: policies.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_taken_to_the_microsecond() {
        for (seconds, nanos, wanted) in [
            (0, 0, SignedDuration::ZERO),
            (60, 0, SignedDuration::from_mins(1)),
            (1, 1_999, SignedDuration::new(1, 1_000)),
            (MOST_SECONDS, 0, SignedDuration::from_secs(MOST_SECONDS)),
        ] {
            let duration = prost_types::Duration { seconds, nanos };
            assert_eq!(lifetime("lifetime", Some(duration)), Ok(Some(wanted)));
        }
        assert_eq!(lifetime("lifetime", None), Ok(None));
    }

    #[test]
    fn a_lifetime_that_is_no_duration_is_refused_by_its_field() {
        for (seconds, nanos) in [
            (-1, 0),
            (0, -1),
            (1, -1),
            (0, 1_000_000_000),
            (MOST_SECONDS + 1, 0),
            (i64::MAX, i32::MAX),
            (i64::MIN, 0),
        ] {
            let spec = v1::LeaseSpec {
                lifetime: Some(prost_types::Duration { seconds, nanos }),
                ..Default::default()
            };
            let (request, faults) = request(spec);
            assert_eq!(request.lifetime, None);
            assert_eq!(faults.len(), 1, "{seconds} {nanos}");
            assert_eq!(faults[0].field, "spec.lifetime");
        }
    }

    #[test]
    fn every_state_has_a_number_and_no_other_number_is_a_state() {
        let known = (0..100).filter_map(state).collect::<Vec<_>>();
        assert_eq!(known, State::ALL);
        assert_eq!(state(-1), None);
    }
}
