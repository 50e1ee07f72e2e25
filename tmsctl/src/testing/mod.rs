//! A sample lease, and a server that does as it is told, for tests.

pub mod server;

use std::collections::BTreeMap;

use tms_proto::v1::{
    Autoscaling, BespokeTriton, Endpoint, Lease, LeaseSpec, LeaseState, Metric, Model, ModelState,
    ModelStatus, Replicas,
};

use crate::view;

/// Seconds of 2026-11-22T16:00:00Z.
pub const NOON: i64 = 1_795_363_200;

/// Returns a time so many seconds after the sample's creation.
pub fn at(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: NOON + seconds, nanos: 0 })
}

/// Returns an autoscaled lease of two models that is READY.
pub fn lease() -> Lease {
    let model = |name: &str, uri: &str| Model { name: name.into(), uri: uri.into() };
    let ready = |name: &str| ModelStatus {
        name: name.into(),
        state: ModelState::Ready.into(),
        ..ModelStatus::default()
    };
    Lease {
        id: "3f0a9c2d4b5e46f7a8b9c0d1e2f30415".into(),
        owner: "ada".into(),
        namespace: "models".into(),
        spec: Some(LeaseSpec {
            models: vec![
                model("resnet50", "pvc://models/resnet50"),
                model("ensemble", "https://models.example.com/ensemble.zip"),
            ],
            bespoke: Some(BespokeTriton {
                image: "nvcr.io/nvidia/tritonserver:25.10-py3".into(),
                gpus: Some(1),
                gpu_resource: "nvidia.com/gpu".into(),
                cpu: "4".into(),
                memory: "16Gi".into(),
                shared_memory: "1Gi".into(),
                ..BespokeTriton::default()
            }),
            replicas: None,
            autoscaling: Some(Autoscaling {
                min_replicas: Some(1),
                max_replicas: Some(4),
                metrics: BTreeMap::from([(
                    "queueTime".into(),
                    Metric { enable: Some(true), threshold: Some(200_000) },
                )]),
                triggers: Vec::new(),
                behavior: None,
            }),
            lifetime: Some(prost_types::Duration { seconds: 7_200, nanos: 0 }),
            labels: BTreeMap::from([("team".into(), "search".into())]),
            automatic_renewal: None,
        }),
        state: LeaseState::Ready.into(),
        message: String::new(),
        created_at: at(0),
        expires_at: at(7_200),
        ended_at: None,
        closed_at: None,
        generation: 1,
        version: 5,
        replicas: Some(Replicas { desired: 2, current: 2, ready: 2, minimum: 1, maximum: 4 }),
        models: vec![ready("resnet50"), ready("ensemble")],
        endpoint: Some(Endpoint {
            host: "tms-3f0a9c2d4b5e46f7a8b9c0d1e2f30415.models.svc".into(),
            http_port: 8000,
            grpc_port: 8001,
        }),
        active_metrics: BTreeMap::from([("queueTime".into(), 200_000), ("gpuUtilization".into(), 80)]),
        last_used_at: None,
        waking_since: None,
    }
}

/// Returns the view of the sample.
pub fn lease_view() -> view::Lease {
    view::Lease::from(&lease())
}
