//! From the domain to messages.

use jiff::{SignedDuration, Timestamp};
use tms_proto::v1;

use crate::domain::bounds::{
    Allowed, AutoscalingBounds, Bounds, MetricBounds, Provider, Resources, TriggerBounds,
};
use crate::domain::capabilities::Capabilities;
use crate::domain::lease::{Event, Lease, Model, ModelReport, ModelState, Spec, State, Toleration, Triton};
use crate::domain::plan::{TRITON_GRPC, TRITON_HTTP};
use crate::domain::scaling::{Autoscaling, Behavior, PolicyKind, Scaling, ScalingRules, SelectPolicy};

/// Returns the lease as callers see it.
pub fn lease(lease: &Lease) -> v1::Lease {
    v1::Lease {
        id: lease.id.to_string(),
        owner: lease.owner.clone(),
        namespace: lease.namespace.clone(),
        spec: Some(lease_spec(&lease.spec)),
        state: state_of(lease.state()).into(),
        message: lease.report.message.clone(),
        created_at: Some(timestamp(lease.created_at)),
        expires_at: Some(timestamp(lease.expires_at)),
        ended_at: lease.end.map(|end| timestamp(end.at)),
        closed_at: lease.report.closed_at.map(timestamp),
        generation: lease.generation,
        version: lease.version,
        replicas: Some(replicas(lease)),
        models: models(&lease.report.models),
        endpoint: Some(v1::Endpoint {
            host: format!("{}.{}.svc", lease.id.object_name(), lease.namespace),
            http_port: TRITON_HTTP.into(),
            grpc_port: TRITON_GRPC.into(),
        }),
        active_metrics: active_metrics(&lease.spec.scaling),
        last_used_at: lease.tenure.last_used_at.map(timestamp),
        waking_since: lease.waking_since.map(timestamp),
    }
}

/// Returns what was granted, in the words of a request.
pub fn lease_spec(spec: &Spec) -> v1::LeaseSpec {
    let (replicas, autoscaling) = match &spec.scaling {
        Scaling::Fixed { replicas } => (Some(*replicas), None),
        Scaling::Auto(auto) => (None, Some(autoscaling(auto))),
    };
    let model = |model: &Model| v1::Model { name: model.name.clone(), uri: model.uri.clone() };
    v1::LeaseSpec {
        models: spec.models.iter().map(model).collect(),
        bespoke: Some(triton(&spec.triton)),
        replicas,
        autoscaling,
        lifetime: Some(duration(spec.lifetime)),
        labels: spec.labels.clone(),
        automatic_renewal: spec
            .automatic_renewal
            .map(|renewal| v1::AutomaticRenewal { idle_window: Some(duration(renewal.idle_window)) }),
    }
}

/// Returns the status of each model.
pub fn models(models: &[ModelReport]) -> Vec<v1::ModelStatus> {
    let status = |model: &ModelReport| v1::ModelStatus {
        name: model.name.clone(),
        state: model_state(model.state).into(),
        message: model.message.clone(),
        downloaded_bytes: model.downloaded_bytes,
        total_bytes: model.total_bytes,
        failed_tries: model.failed_tries,
    };
    models.iter().map(status).collect()
}

/// Returns the event as callers see it.
pub fn event(event: Event) -> v1::Event {
    v1::Event {
        lease_id: event.lease_id.to_string(),
        version: event.version,
        generation: event.generation,
        at: Some(timestamp(event.at)),
        actor: event.actor,
        reason: event.reason,
        message: event.message,
        state: state_of(event.state).into(),
    }
}

/// Returns the duration.
pub fn duration(duration: SignedDuration) -> prost_types::Duration {
    prost_types::Duration { seconds: duration.as_secs(), nanos: duration.subsec_nanos() }
}

/// Returns the administrator's bounds.
pub fn bounds(bounds: &Bounds) -> v1::BoundsResponse {
    let seconds = |duration: SignedDuration| u64::try_from(duration.as_secs()).unwrap_or(0);
    v1::BoundsResponse {
        autoscaling: Some(autoscaling_bounds(&bounds.autoscaling)),
        lifetime: Some(v1::LifetimeBounds {
            minimum_seconds: seconds(bounds.lifetime.minimum),
            default_seconds: seconds(bounds.lifetime.default),
            maximum_seconds: seconds(bounds.lifetime.maximum),
        }),
        resources: Some(v1::ResourceBounds {
            default: Some(resources(&bounds.resources.default)),
            maximum: Some(resources(&bounds.resources.maximum)),
            gpu_resource: bounds.resources.gpu_resource.clone(),
        }),
        default_image: bounds.default_image.clone(),
        repositories: Some(v1::RepositoryBounds {
            claims: bounds.repositories.claims.iter().map(|claim| claim.name.clone()).collect(),
            http_allowed: bounds.repositories.allows_http,
            maximum_bytes: bounds.repositories.maximum_bytes,
            maximum_total_bytes: bounds.repositories.maximum_total_bytes,
        }),
    }
}

/// Returns what the cluster was found to serve.
pub fn capabilities(cluster_kind: &str, found: &Capabilities) -> v1::CapabilitiesResponse {
    let kubernetes = found.kubernetes.map(|(major, minor)| format!("{major}.{minor}"));
    v1::CapabilitiesResponse {
        cluster_kind: cluster_kind.to_owned(),
        kubernetes_version: kubernetes.unwrap_or_default(),
        pod_monitor: found.pod_monitor,
        prometheus_rule: found.prometheus_rule,
        scaled_object: found.scaled_object,
        custom_metrics: found.custom_metrics,
        resource_metrics: found.resource_metrics,
        autoscaler_tolerance: found.autoscaler_tolerance(),
        custom_metrics_service: found.custom_metrics_service.clone().unwrap_or_default(),
    }
}

/// Returns the moment.
pub fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    let microseconds = at.as_microsecond();
    // At most 999999000, which fits.
    let nanos = i32::try_from(microseconds.rem_euclid(1_000_000) * 1_000).unwrap_or(0);
    prost_types::Timestamp { seconds: microseconds.div_euclid(1_000_000), nanos }
}

/// Returns the state.
pub fn state_of(state: State) -> v1::LeaseState {
    match state {
        State::Pending => v1::LeaseState::Pending,
        State::Provisioning => v1::LeaseState::Provisioning,
        State::Loading => v1::LeaseState::Loading,
        State::Ready => v1::LeaseState::Ready,
        State::Degraded => v1::LeaseState::Degraded,
        State::Asleep => v1::LeaseState::Asleep,
        State::Written => v1::LeaseState::Written,
        State::Released => v1::LeaseState::Released,
        State::Expired => v1::LeaseState::Expired,
        State::Invalid => v1::LeaseState::Invalid,
    }
}

fn model_state(state: ModelState) -> v1::ModelState {
    match state {
        ModelState::Pending => v1::ModelState::Pending,
        ModelState::Downloading => v1::ModelState::Downloading,
        ModelState::Loading => v1::ModelState::Loading,
        ModelState::Ready => v1::ModelState::Ready,
        ModelState::Failed => v1::ModelState::Failed,
        ModelState::Unloaded => v1::ModelState::Unloaded,
    }
}

/// Returns the replicas of a lease.
pub fn replicas(lease: &Lease) -> v1::Replicas {
    let seen = lease.report.replicas;
    v1::Replicas {
        desired: seen.desired,
        current: seen.current,
        ready: seen.ready,
        minimum: lease.spec.scaling.minimum(),
        maximum: lease.spec.scaling.maximum(),
    }
}

fn active_metrics(scaling: &Scaling) -> std::collections::BTreeMap<String, i64> {
    match scaling {
        Scaling::Fixed { .. } => Default::default(),
        Scaling::Auto(auto) => {
            auto.metrics.iter().map(|(name, threshold)| (name.key().to_owned(), *threshold)).collect()
        }
    }
}

fn triton(triton: &Triton) -> v1::BespokeTriton {
    v1::BespokeTriton {
        image: triton.image.clone(),
        gpus: Some(triton.gpus),
        gpu_resource: triton.gpu_resource.clone(),
        cpu: triton.cpu.clone(),
        memory: triton.memory.clone(),
        shared_memory: triton.shared_memory.clone(),
        environment: triton.environment.clone(),
        node_selector: triton.node_selector.clone(),
        tolerations: triton.tolerations.iter().map(toleration).collect(),
        affinity_json: triton.affinity.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

fn toleration(toleration: &Toleration) -> v1::Toleration {
    v1::Toleration {
        key: toleration.key.clone(),
        operator: toleration.operator.clone(),
        value: toleration.value.clone(),
        effect: toleration.effect.clone(),
        toleration_seconds: toleration.toleration_seconds,
    }
}

/// Returns the autoscaling that was granted, in the words of a request.
pub fn autoscaling(auto: &Autoscaling) -> v1::Autoscaling {
    let metrics = auto.metrics.iter().map(|(name, threshold)| {
        (name.key().to_owned(), v1::Metric { enable: Some(true), threshold: Some(*threshold) })
    });
    v1::Autoscaling {
        min_replicas: Some(auto.minimum),
        max_replicas: Some(auto.maximum),
        metrics: metrics.collect(),
        behavior: Some(behavior(&auto.behavior)),
        triggers: auto
            .triggers
            .iter()
            .map(|trigger| v1::Trigger {
                kind: trigger.kind.clone(),
                metadata: trigger.metadata.clone().into_iter().collect(),
            })
            .collect(),
    }
}

fn behavior(behavior: &Behavior) -> v1::Behavior {
    v1::Behavior {
        scale_up: Some(scaling_rules(&behavior.scale_up)),
        scale_down: Some(scaling_rules(&behavior.scale_down)),
    }
}

fn scaling_rules(rules: &ScalingRules) -> v1::ScalingRules {
    let select_policy = match rules.select_policy {
        SelectPolicy::Max => "Max",
        SelectPolicy::Min => "Min",
        SelectPolicy::Disabled => "Disabled",
    };
    let policies = rules.policies.iter().map(|policy| {
        let kind = match policy.kind {
            PolicyKind::Pods => "Pods",
            PolicyKind::Percent => "Percent",
        };
        v1::ScalingPolicy {
            r#type: kind.to_owned(),
            value: policy.value,
            period_seconds: policy.period_seconds,
        }
    });
    v1::ScalingRules {
        stabilization_window_seconds: Some(rules.stabilization_window_seconds),
        select_policy: select_policy.to_owned(),
        policies: policies.collect(),
    }
}

/// Returns the word by which values.yaml names where an autoscaler gets its numbers.
pub fn provider(provider: Provider) -> &'static str {
    match provider {
        Provider::Adapter => "adapter",
        Provider::Builtin => "builtin",
        Provider::Keda => "keda",
    }
}

fn autoscaling_bounds(bounds: &AutoscalingBounds) -> v1::AutoscalingBounds {
    let metric = |bounds: &MetricBounds| v1::MetricBounds {
        allowed: bounds.allowed,
        enabled: bounds.enabled,
        threshold_default: bounds.default,
        threshold_minimum: bounds.minimum,
        threshold_maximum: bounds.maximum,
    };
    v1::AutoscalingBounds {
        enabled: bounds.enabled,
        provider: provider(bounds.provider).to_owned(),
        default_minimum: bounds.default_minimum,
        default_maximum: bounds.default_maximum,
        minimum_lower_bound: bounds.minimum_lower_bound,
        minimum_upper_bound: bounds.minimum_upper_bound,
        maximum: bounds.maximum,
        metrics: bounds
            .metrics
            .iter()
            .map(|(name, bounds)| (name.key().to_owned(), metric(bounds)))
            .collect(),
        triggers: bounds.triggers.iter().map(trigger_bounds).collect(),
    }
}

fn trigger_bounds(bounds: &TriggerBounds) -> v1::TriggerBounds {
    let in_words = |(key, allowed): (&String, &Allowed)| (key.clone(), allowed.to_string());
    v1::TriggerBounds {
        kind: bounds.kind.clone(),
        r#type: bounds.trigger_type.clone(),
        metadata: bounds.settable.iter().map(in_words).collect(),
    }
}

fn resources(resources: &Resources) -> v1::Resources {
    v1::Resources { gpus: resources.gpus, cpu: resources.cpu.clone(), memory: resources.memory.clone() }
}
