//! Leases and settings for tests that stand in for the parts which usually make them.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use tms_server::domain::bounds::{GpuSource, Keda, Provider};
use tms_server::domain::lease::{Lease, LeaseId, Model, Placement, Report, Spec, Tenure, Triton};
use tms_server::domain::plan::{Settings, render};
use tms_server::domain::repositories::{AccessMode, Claim, Repositories};
use tms_server::domain::scaling::{
    Autoscaling, Behavior, MetricName, PolicyKind, Scaling, ScalingPolicy, ScalingRules, SelectPolicy,
};

/// Settings of an installation.
pub fn settings(installation: &str) -> Settings {
    Settings {
        installation: installation.to_owned(),
        server_image: "tms-server:test".to_owned(),
        pull_secrets: Vec::new(),
        part_of: None,
        custom_labels: BTreeMap::new(),
        custom_annotations: BTreeMap::new(),
        pod_monitor_labels: BTreeMap::from([("release".to_owned(), "prometheus".to_owned())]),
        rule_labels: BTreeMap::from([("release".to_owned(), "prometheus".to_owned())]),
        repositories: Repositories {
            claims: vec![Claim { name: "models".to_owned(), access: AccessMode::ReadOnlyMany }],
            credentials: Vec::new(),
            allows_http: false,
            trust_bundle: None,
            maximum_bytes: 100 << 30,
            maximum_total_bytes: 200 << 30,
        },
        provider: Provider::Adapter,
        keda: Keda {
            prometheus_url: Some("http://prometheus.monitoring.svc:9090".to_owned()),
            polling_interval_seconds: 15,
            cooldown_seconds: 300,
        },
        gpu_source: GpuSource::Triton,
        scrape_interval_seconds: 15,
        scrape_timeout_seconds: 10,
        window_seconds: 60,
        load_timeout_seconds: 1800,
        pre_stop_seconds: 10,
        exit_timeout_seconds: 60,
    }
}

/// Autoscaling between two numbers of replicas on queue time and GPU utilization.
pub fn autoscaled(minimum: u32, maximum: u32) -> Scaling {
    autoscaled_on([(MetricName::QueueTime, 10_000), (MetricName::GpuUtilization, 80)], minimum, maximum)
}

/// Autoscaling between two numbers of replicas on these metrics with their thresholds.
pub fn autoscaled_on<const N: usize>(metrics: [(MetricName, i64); N], minimum: u32, maximum: u32) -> Scaling {
    let rules = |window, pods, seconds| ScalingRules {
        stabilization_window_seconds: window,
        select_policy: SelectPolicy::Max,
        policies: vec![ScalingPolicy { kind: PolicyKind::Pods, value: pods, period_seconds: seconds }],
        tolerance_milli: None,
    };
    Scaling::Auto(Autoscaling {
        minimum,
        maximum,
        metrics: BTreeMap::from(metrics),
        behavior: Behavior { scale_up: rules(15, 2, 60), scale_down: rules(300, 1, 120) },
        triggers: Vec::new(),
    })
}

/// A lease that was just admitted, for one hour.
pub fn lease(namespace: &str, scaling: Scaling, settings: &Settings) -> Lease {
    let id = LeaseId::random();
    let model = Model { name: "bert".to_owned(), uri: "https://models.example.com/bert.tar.gz".to_owned() };
    let spec = Spec {
        models: vec![model],
        triton: Triton {
            image: "nvcr.io/nvidia/tritonserver:26.07-py3".to_owned(),
            gpus: 1,
            gpu_resource: "nvidia.com/gpu".to_owned(),
            cpu: "100m".to_owned(),
            memory: "256Mi".to_owned(),
            shared_memory: "64Mi".to_owned(),
            environment: BTreeMap::new(),
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            affinity: None,
        },
        scaling,
        lifetime: SignedDuration::from_hours(1),
        labels: BTreeMap::new(),
        automatic_renewal: None,
    };
    let now: Timestamp = tms_server::clock::system_now();
    Lease {
        id,
        owner: "ada".to_owned(),
        namespace: namespace.to_owned(),
        placement: Placement::Bespoke,
        deployment: render(id, namespace, &spec, settings),
        created_at: now,
        expires_at: now + spec.lifetime,
        tenure: Tenure::starting(now),
        waking_since: None,
        end: None,
        generation: 1,
        version: 1,
        report: Report::nothing_seen(spec.models.iter().map(|model| model.name.as_str())),
        spec,
    }
}
