//! Bounds and requests that the tests of this module begin with.

mod properties;
mod refusals;
mod updates;

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::*;
use crate::domain::lease::Spec;
use crate::domain::repositories::{AccessMode, Claim, Credential, Target};
use crate::domain::scaling::{Autoscaling, PolicyKind, Scaling, ScalingPolicy, ScalingRules, SelectPolicy};

/// The example of TMS's guide with autoscaling and every metric allowed, cpuUtilization enabled.
pub(super) fn bounds() -> Bounds {
    let percent =
        MetricBounds { allowed: true, enabled: false, default: 90, minimum: 50, maximum: Some(100) };
    let metrics = MetricName::ALL.map(|name| {
        let bounds = match name {
            MetricName::CpuUtilization => MetricBounds { enabled: true, ..percent },
            MetricName::QueueTime => {
                MetricBounds { default: 10_000, minimum: 10_000, maximum: None, ..percent }
            }
            MetricName::MemoryUtilization | MetricName::GpuUtilization | MetricName::GpuMemoryUtilization => {
                percent
            }
        };
        (name, bounds)
    });
    let rules = ScalingRules {
        stabilization_window_seconds: 300,
        select_policy: SelectPolicy::Min,
        policies: vec![ScalingPolicy { kind: PolicyKind::Pods, value: 1, period_seconds: 60 }],
        tolerance_milli: None,
    };
    Bounds {
        autoscaling: AutoscalingBounds {
            enabled: true,
            provider: Provider::Adapter,
            gpu_source: GpuSource::Triton,
            default_minimum: 1,
            default_maximum: 5,
            minimum_lower_bound: 1,
            minimum_upper_bound: 2,
            maximum: 10,
            metrics: metrics.into_iter().collect(),
            behavior: Behavior { scale_up: rules.clone(), scale_down: rules },
            triggers: Vec::new(),
        },
        lifetime: LifetimeBounds {
            minimum: SignedDuration::from_mins(1),
            default: SignedDuration::from_hours(1),
            maximum: SignedDuration::from_hours(24),
        },
        resources: ResourceBounds {
            default: Resources {
                gpus: 1,
                cpu: "4".to_owned(),
                memory: "16Gi".to_owned(),
                shared_memory: "1Gi".to_owned(),
            },
            maximum: Resources {
                gpus: 8,
                cpu: "64".to_owned(),
                memory: "512Gi".to_owned(),
                shared_memory: "512Gi".to_owned(),
            },
            gpu_resource: "nvidia.com/gpu".to_owned(),
        },
        repositories: Repositories {
            claims: vec![claim("models", AccessMode::ReadOnlyMany), claim("disk", AccessMode::ReadWriteOnce)],
            credentials: vec![Credential {
                target: Target::parse("models.example.com/internal").unwrap(),
                secret: "model-credentials".to_owned(),
            }],
            allows_http: false,
            trust_bundle: None,
            maximum_bytes: 1 << 30,
            maximum_total_bytes: 2 << 30,
        },
        default_image: "nvcr.io/nvidia/tritonserver:25.06-py3".to_owned(),
        automatic_renewal: Some(RenewalBounds {
            default_idle_window: SignedDuration::from_mins(30),
            look_interval: SignedDuration::from_mins(1),
        }),
    }
}

fn claim(name: &str, access: AccessMode) -> Claim {
    Claim { name: name.to_owned(), access }
}

/// A request for one model and nothing else.
pub(super) fn request() -> Request {
    Request {
        models: vec![("resnet".to_owned(), "https://models.example.com/resnet".to_owned())],
        ..Request::default()
    }
}

/// The request that asks for exactly what was granted.
pub(super) fn request_of(spec: &Spec) -> Request {
    let triton = &spec.triton;
    Request {
        models: spec.models.iter().map(|model| (model.name.clone(), model.uri.clone())).collect(),
        triton: TritonRequest {
            image: triton.image.clone(),
            gpus: Some(triton.gpus),
            gpu_resource: triton.gpu_resource.clone(),
            cpu: triton.cpu.clone(),
            memory: triton.memory.clone(),
            shared_memory: triton.shared_memory.clone(),
            environment: triton.environment.clone(),
            node_selector: triton.node_selector.clone(),
            tolerations: triton.tolerations.clone(),
            affinity_json: triton.affinity.as_ref().map(ToString::to_string).unwrap_or_default(),
        },
        replicas: match &spec.scaling {
            Scaling::Fixed { replicas } => Some(*replicas),
            Scaling::Auto(_) => None,
        },
        autoscaling: match &spec.scaling {
            Scaling::Fixed { .. } => None,
            Scaling::Auto(autoscaling) => Some(autoscaling_request_of(autoscaling)),
        },
        lifetime: Some(spec.lifetime),
        labels: spec.labels.clone(),
        automatic_renewal: spec
            .automatic_renewal
            .map(|renewal| AutomaticRenewalRequest { idle_window: Some(renewal.idle_window) }),
    }
}

fn autoscaling_request_of(autoscaling: &Autoscaling) -> AutoscalingRequest {
    let metric = |name: MetricName| {
        let threshold = autoscaling.metrics.get(&name).copied();
        (name.key().to_owned(), MetricRequest { enable: Some(threshold.is_some()), threshold })
    };
    let rules = |rules: &ScalingRules| {
        let policies = rules.policies.iter();
        Some(ScalingRulesRequest {
            stabilization_window_seconds: Some(rules.stabilization_window_seconds),
            select_policy: format!("{:?}", rules.select_policy),
            policies: policies
                .map(|policy| (format!("{:?}", policy.kind), policy.value, policy.period_seconds))
                .collect(),
        })
    };
    AutoscalingRequest {
        minimum: Some(autoscaling.minimum),
        maximum: Some(autoscaling.maximum),
        metrics: MetricName::ALL.map(metric).into_iter().collect(),
        behavior: BehaviorRequest {
            scale_up: rules(&autoscaling.behavior.scale_up),
            scale_down: rules(&autoscaling.behavior.scale_down),
        },
        triggers: autoscaling
            .triggers
            .iter()
            .map(|trigger| TriggerRequest { kind: trigger.kind.clone(), metadata: trigger.metadata.clone() })
            .collect(),
    }
}

/// The autoscaling part of a request, which begins to exist by being looked at.
pub(super) fn scaling(request: &mut Request) -> &mut AutoscalingRequest {
    request.autoscaling.get_or_insert_default()
}

/// Asks for a metric.
pub(super) fn ask(request: &mut Request, key: &str, enable: Option<bool>, threshold: Option<i64>) {
    scaling(request).metrics.insert(key.to_owned(), MetricRequest { enable, threshold });
}

/// The administrator's bounds on one metric.
pub(super) fn metric(bounds: &mut Bounds, name: MetricName) -> &mut MetricBounds {
    bounds.autoscaling.metrics.get_mut(&name).unwrap()
}

/// Field and key of each fault, one a line.
pub(super) fn faults(violations: &[Violation]) -> String {
    let line = |violation: &Violation| {
        let word = if violation.is_precondition { " until " } else { " by " };
        let key = violation.key.as_ref().map(|key| format!("{word}{key}")).unwrap_or_default();
        format!("{}{key}", violation.field)
    };
    violations.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Field and message of each fault, one a line.
pub(super) fn messages(violations: &[Violation]) -> String {
    let line = |violation: &Violation| format!("{}: {}", violation.field, violation.message);
    violations.iter().map(line).collect::<Vec<_>>().join("\n")
}

pub(super) fn map<const N: usize>(entries: [(&str, &str); N]) -> BTreeMap<String, String> {
    entries.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}
