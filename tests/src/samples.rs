//! Leases and settings of an everyday kind, for tests that need one and do not care which.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use tms_server::domain::bounds::{GpuSource, Provider};
use tms_server::domain::lease::{Lease, LeaseId, Model, Placement, Report, Spec, Triton};
use tms_server::domain::plan::{self, Settings};
use tms_server::domain::scaling::{
    Autoscaling, Behavior, MetricName, PolicyKind, Scaling, ScalingPolicy, ScalingRules, SelectPolicy,
};

/// Returns an administrator's settings.
pub fn settings() -> Settings {
    Settings {
        installation: "main".to_owned(),
        server_image: "tms-server:1.0.0".to_owned(),
        pull_secrets: vec!["ngc-pull".to_owned()],
        part_of: Some("inference".to_owned()),
        custom_labels: BTreeMap::from([("team".to_owned(), "vision".to_owned())]),
        custom_annotations: BTreeMap::from([("example.com/contact".to_owned(), "vision".to_owned())]),
        pod_monitor_labels: BTreeMap::from([("release".to_owned(), "prometheus".to_owned())]),
        rule_labels: BTreeMap::from([("release".to_owned(), "prometheus".to_owned())]),
        provider: Provider::Adapter,
        gpu_source: GpuSource::Triton,
        scrape_interval_seconds: 15,
        scrape_timeout_seconds: 10,
        window_seconds: 60,
        load_timeout_seconds: 1800,
        pre_stop_seconds: 10,
        exit_timeout_seconds: 60,
    }
}

/// Returns what a lease with one GPU asks for that scales on every metric.
pub fn autoscaled_on_everything() -> Spec {
    let rules = |stabilization_window_seconds| ScalingRules {
        stabilization_window_seconds,
        select_policy: SelectPolicy::Max,
        policies: vec![ScalingPolicy { kind: PolicyKind::Pods, value: 1, period_seconds: 60 }],
        tolerance_milli: Some(50),
    };
    let threshold = |metric: MetricName| (metric, if metric.is_percent() { 80 } else { 10_000 });
    Spec {
        triton: Triton { gpus: 1, ..fixed(1).triton },
        scaling: Scaling::Auto(Autoscaling {
            minimum: 1,
            maximum: 4,
            metrics: MetricName::ALL.map(threshold).into(),
            behavior: Behavior { scale_up: rules(0), scale_down: rules(300) },
        }),
        ..fixed(1)
    }
}

/// Returns what a lease without GPU asks for that has so many replicas.
pub fn fixed(replicas: u32) -> Spec {
    Spec {
        models: vec![Model { name: "bert".to_owned(), uri: "s3://models/bert".to_owned() }],
        triton: Triton {
            image: "nvcr.io/nvidia/tritonserver:26.07-py3".to_owned(),
            gpus: 0,
            gpu_resource: "nvidia.com/gpu".to_owned(),
            cpu: "1".to_owned(),
            memory: "1Gi".to_owned(),
            shared_memory: "64Mi".to_owned(),
            environment: BTreeMap::new(),
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            affinity: None,
        },
        scaling: Scaling::Fixed { replicas },
        lifetime: SignedDuration::from_hours(1),
        labels: BTreeMap::from([("experiment".to_owned(), "42".to_owned())]),
    }
}

/// Returns a lease in the namespace `tms` to which `spec` was granted.
pub fn lease(id: LeaseId, spec: Spec, settings: &Settings) -> Lease {
    let namespace = "tms".to_owned();
    Lease {
        id,
        owner: "ada".to_owned(),
        placement: Placement::Bespoke,
        deployment: plan::render(id, &namespace, &spec, settings),
        namespace,
        created_at: Timestamp::UNIX_EPOCH,
        expires_at: Timestamp::UNIX_EPOCH + spec.lifetime,
        end: None,
        generation: 1,
        version: 1,
        report: Report::nothing_seen(spec.models.iter().map(|model| model.name.as_str())),
        spec,
    }
}
