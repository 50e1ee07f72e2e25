//! What plans look like, and what holds for every one of them.

mod keda;
mod properties;
mod snapshots;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::domain::lease::{Lease, LeaseId, Model, Placement, Report, Spec, Tenure, Toleration, Triton};
use crate::domain::repositories::{AccessMode, Claim, Credential, Target};
use crate::domain::scaling::{
    Autoscaling, Behavior, MetricName, PolicyKind, ScalingPolicy, ScalingRules, SelectPolicy,
};

fn texts<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

pub(crate) fn settings() -> Settings {
    Settings {
        installation: "main".to_owned(),
        server_image: "tms-server:1.0.0".to_owned(),
        pull_secrets: vec!["ngc-pull".to_owned()],
        part_of: Some("inference".to_owned()),
        custom_labels: texts([("team", "vision")]),
        custom_annotations: texts([("example.com/contact", "vision@example.com")]),
        pod_monitor_labels: texts([("release", "prometheus")]),
        rule_labels: texts([("release", "prometheus")]),
        repositories: Repositories {
            claims: vec![
                Claim { name: "models".to_owned(), access: AccessMode::ReadOnlyMany },
                Claim { name: "disk".to_owned(), access: AccessMode::ReadWriteOnce },
            ],
            credentials: vec![Credential {
                target: Target::parse("models.example.com").unwrap(),
                secret: "model-credentials".to_owned(),
            }],
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

pub(crate) fn spec(gpus: u32, scaling: Scaling) -> Spec {
    let model = |name: &str, uri: &str| Model { name: name.to_owned(), uri: uri.to_owned() };
    Spec {
        models: vec![
            model("tokenizer", "pvc://models/tokenizer"),
            model("bert", "https://models.example.com/bert.tar.gz"),
        ],
        triton: Triton {
            image: "nvcr.io/nvidia/tritonserver:26.07-py3".to_owned(),
            gpus,
            gpu_resource: "nvidia.com/gpu".to_owned(),
            cpu: "4".to_owned(),
            memory: "16Gi".to_owned(),
            shared_memory: "2Gi".to_owned(),
            environment: BTreeMap::new(),
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            affinity: None,
        },
        scaling,
        lifetime: SignedDuration::from_hours(1),
        labels: texts([("experiment", "42")]),
        automatic_renewal: None,
    }
}

pub(crate) fn lease(spec: Spec, settings: &Settings) -> Lease {
    let id: LeaseId = "0123456789abcdef0123456789abcdef".parse().unwrap();
    Lease {
        id,
        owner: "ada".to_owned(),
        namespace: "tms".to_owned(),
        placement: Placement::Bespoke,
        deployment: render(id, "tms", &spec, settings),
        created_at: Timestamp::UNIX_EPOCH,
        expires_at: Timestamp::UNIX_EPOCH + spec.lifetime,
        tenure: Tenure::starting(Timestamp::UNIX_EPOCH),
        waking_since: None,
        end: None,
        generation: 1,
        version: 1,
        report: Report::nothing_seen(spec.models.iter().map(|model| model.name.as_str())),
        spec,
    }
}

pub(crate) fn auto<const N: usize>(metrics: [(MetricName, i64); N]) -> Scaling {
    let policy = |kind, value, period_seconds| ScalingPolicy { kind, value, period_seconds };
    Scaling::Auto(Autoscaling {
        minimum: 1,
        maximum: 5,
        metrics: BTreeMap::from(metrics),
        behavior: Behavior {
            scale_up: ScalingRules {
                stabilization_window_seconds: 15,
                select_policy: SelectPolicy::Max,
                policies: vec![policy(PolicyKind::Percent, 100, 60), policy(PolicyKind::Pods, 2, 60)],
                tolerance_milli: Some(50),
            },
            scale_down: ScalingRules {
                stabilization_window_seconds: 300,
                select_policy: SelectPolicy::Min,
                policies: vec![policy(PolicyKind::Pods, 1, 120)],
                tolerance_milli: None,
            },
        },
        triggers: Vec::new(),
    })
}

fn find(plan: &Plan, kind: Kind) -> Option<&Value> {
    plan.objects().find(|object| object.kind == kind).map(|object| &object.body)
}
