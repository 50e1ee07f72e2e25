//! From messages to the domain.

use jiff::SignedDuration;
use tms_proto::v1;

use crate::domain::bounds::{
    AutoscalingRequest, BehaviorRequest, MetricRequest, Request, ScalingRulesRequest, TritonRequest,
    Violation,
};
use crate::domain::lease::{State, Toleration};

/// Most seconds that a protobuf Duration may hold: 10,000 years.
const MOST_SECONDS: i64 = 315_576_000_000;

/// Returns what is asked for, and the faults of what the domain's types cannot hold.
pub fn request(spec: v1::LeaseSpec) -> (Request, Vec<Violation>) {
    let (lifetime, faults) = match lifetime("spec.lifetime", spec.lifetime) {
        Ok(lifetime) => (lifetime, Vec::new()),
        Err(violation) => (None, vec![violation]),
    };
    let request = Request {
        models: spec.models.into_iter().map(|model| (model.name, model.uri)).collect(),
        triton: spec.bespoke.map(triton).unwrap_or_default(),
        replicas: spec.replicas,
        autoscaling: spec.autoscaling.map(autoscaling),
        lifetime,
        labels: spec.labels,
    };
    (request, faults)
}

/// Returns the wishes for autoscaling.
pub fn autoscaling(autoscaling: v1::Autoscaling) -> AutoscalingRequest {
    let metrics = autoscaling.metrics.into_iter().map(|(key, metric)| {
        let v1::Metric { enable, threshold } = metric;
        (key, MetricRequest { enable, threshold })
    });
    AutoscalingRequest {
        minimum: autoscaling.min_replicas,
        maximum: autoscaling.max_replicas,
        metrics: metrics.collect(),
        behavior: autoscaling.behavior.map(behavior).unwrap_or_default(),
    }
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
        return refused("a lifetime cannot be negative".to_owned());
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
