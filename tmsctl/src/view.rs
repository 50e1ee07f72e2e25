//! The answers of the server as they are printed with `-o json` and `-o yaml`: the messages of the interface field by
//! field, times in RFC 3339, durations in seconds (`3600s`), states without their prefix, absent values as null.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use tms_proto::v1::{self, LeaseState, ModelState};

/// A lease.
#[derive(Debug, Clone, Serialize)]
pub struct Lease {
    pub id: String,
    pub owner: String,
    pub namespace: String,
    pub spec: Spec,
    pub state: &'static str,
    pub message: String,
    pub created_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    pub closed_at: Option<Timestamp>,
    pub generation: i64,
    pub version: i64,
    pub replicas: Replicas,
    pub models: Vec<ModelStatus>,
    pub endpoint: Option<Endpoint>,
    pub active_metrics: BTreeMap<String, i64>,
    pub last_used_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waking_since: Option<Timestamp>,
}

/// What was granted.
#[derive(Debug, Clone, Serialize)]
pub struct Spec {
    pub models: Vec<Model>,
    pub bespoke: Option<Bespoke>,
    pub replicas: Option<u32>,
    pub autoscaling: Option<Autoscaling>,
    pub lifetime: Option<Seconds>,
    pub labels: BTreeMap<String, String>,
    pub automatic_renewal: Option<AutomaticRenewal>,
}

/// How use renews a lease.
#[derive(Debug, Clone, Serialize)]
pub struct AutomaticRenewal {
    pub idle_window: Option<Seconds>,
}

/// A model and where it is fetched from.
#[derive(Debug, Clone, Serialize)]
pub struct Model {
    pub name: String,
    pub uri: String,
}

/// The Triton of a lease.
#[derive(Debug, Clone, Serialize)]
pub struct Bespoke {
    pub image: String,
    pub gpus: Option<u32>,
    pub gpu_resource: String,
    pub cpu: String,
    pub memory: String,
    pub shared_memory: String,
    pub environment: BTreeMap<String, String>,
    pub node_selector: BTreeMap<String, String>,
    pub tolerations: Vec<Toleration>,
    pub affinity_json: String,
}

/// A tolerated taint.
#[derive(Debug, Clone, Serialize)]
pub struct Toleration {
    pub key: String,
    pub operator: String,
    pub value: String,
    pub effect: String,
    pub toleration_seconds: Option<i64>,
}

/// How a lease scales.
#[derive(Debug, Clone, Serialize)]
pub struct Autoscaling {
    pub min_replicas: Option<u32>,
    pub max_replicas: Option<u32>,
    pub metrics: BTreeMap<String, Metric>,
    pub behavior: Option<Behavior>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<Trigger>,
}

/// A signal from outside the pods.
#[derive(Debug, Clone, Serialize)]
pub struct Trigger {
    pub kind: String,
    pub metadata: BTreeMap<String, String>,
}

/// What a lease asked of a metric.
#[derive(Debug, Clone, Serialize)]
pub struct Metric {
    pub enable: Option<bool>,
    pub threshold: Option<i64>,
}

/// Pace of scaling.
#[derive(Debug, Clone, Serialize)]
pub struct Behavior {
    pub scale_up: Option<ScalingRules>,
    pub scale_down: Option<ScalingRules>,
}

/// Pace of scaling in one direction.
#[derive(Debug, Clone, Serialize)]
pub struct ScalingRules {
    pub stabilization_window_seconds: Option<u32>,
    pub select_policy: String,
    pub policies: Vec<ScalingPolicy>,
}

/// A bound on the change within a period.
#[derive(Debug, Clone, Serialize)]
pub struct ScalingPolicy {
    pub r#type: String,
    pub value: u32,
    pub period_seconds: u32,
}

/// Replicas of a lease.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Replicas {
    pub desired: u32,
    pub current: u32,
    pub ready: u32,
    pub minimum: u32,
    pub maximum: u32,
}

/// Where a model is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelStatus {
    pub name: String,
    pub state: &'static str,
    pub message: String,
    pub downloaded_bytes: Option<u64>,
    pub total_bytes: Option<u64>,
}

/// Where Triton is reached.
#[derive(Debug, Clone, Serialize)]
pub struct Endpoint {
    pub host: String,
    pub http_port: u32,
    pub grpc_port: u32,
}

/// Something that happened to a lease.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    pub lease_id: String,
    pub version: i64,
    pub generation: i64,
    pub at: Option<Timestamp>,
    pub actor: String,
    pub reason: String,
    pub message: String,
    pub state: &'static str,
}

/// Returns the name of a lease's state without its prefix, such as `READY`.
pub fn lease_state(state: LeaseState) -> &'static str {
    state.as_str_name().trim_start_matches("LEASE_STATE_")
}

/// Returns the name of a model's state without its prefix, such as `LOADING`.
pub fn model_state(state: ModelState) -> &'static str {
    state.as_str_name().trim_start_matches("MODEL_STATE_")
}

/// Returns a time of the interface.
pub fn timestamp(time: &prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(time.seconds, time.nanos).ok()
}

/// Returns a duration of the interface; one below zero counts as none.
pub fn duration(duration: &prost_types::Duration) -> Duration {
    Duration::try_from(*duration).unwrap_or_default()
}

/// A duration, written in seconds as JSON has it for the interface, such as `3600s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub Duration);

impl From<&prost_types::Duration> for Seconds {
    fn from(duration: &prost_types::Duration) -> Self {
        Self(self::duration(duration))
    }
}

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0.as_secs_f64())
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl From<&v1::Lease> for Lease {
    fn from(lease: &v1::Lease) -> Self {
        Self {
            id: lease.id.clone(),
            owner: lease.owner.clone(),
            namespace: lease.namespace.clone(),
            spec: lease.spec.as_ref().map_or_else(|| Spec::from(&v1::LeaseSpec::default()), Spec::from),
            state: lease_state(lease.state()),
            message: lease.message.clone(),
            created_at: lease.created_at.as_ref().and_then(timestamp),
            expires_at: lease.expires_at.as_ref().and_then(timestamp),
            ended_at: lease.ended_at.as_ref().and_then(timestamp),
            closed_at: lease.closed_at.as_ref().and_then(timestamp),
            generation: lease.generation,
            version: lease.version,
            replicas: lease.replicas.as_ref().map(Replicas::from).unwrap_or_default(),
            models: lease.models.iter().map(ModelStatus::from).collect(),
            endpoint: lease.endpoint.as_ref().map(Endpoint::from),
            active_metrics: lease.active_metrics.clone(),
            last_used_at: lease.last_used_at.as_ref().and_then(timestamp),
            waking_since: lease.waking_since.as_ref().and_then(timestamp),
        }
    }
}

impl From<&v1::LeaseSpec> for Spec {
    fn from(spec: &v1::LeaseSpec) -> Self {
        Self {
            models: spec
                .models
                .iter()
                .map(|model| Model { name: model.name.clone(), uri: model.uri.clone() })
                .collect(),
            bespoke: spec.bespoke.as_ref().map(Bespoke::from),
            replicas: spec.replicas,
            autoscaling: spec.autoscaling.as_ref().map(Autoscaling::from),
            lifetime: spec.lifetime.as_ref().map(Seconds::from),
            labels: spec.labels.clone(),
            automatic_renewal: spec.automatic_renewal.as_ref().map(|renewal| AutomaticRenewal {
                idle_window: renewal.idle_window.as_ref().map(Seconds::from),
            }),
        }
    }
}

impl From<&v1::BespokeTriton> for Bespoke {
    fn from(triton: &v1::BespokeTriton) -> Self {
        Self {
            image: triton.image.clone(),
            gpus: triton.gpus,
            gpu_resource: triton.gpu_resource.clone(),
            cpu: triton.cpu.clone(),
            memory: triton.memory.clone(),
            shared_memory: triton.shared_memory.clone(),
            environment: triton.environment.clone(),
            node_selector: triton.node_selector.clone(),
            tolerations: triton.tolerations.iter().map(Toleration::from).collect(),
            affinity_json: triton.affinity_json.clone(),
        }
    }
}

impl From<&v1::Toleration> for Toleration {
    fn from(toleration: &v1::Toleration) -> Self {
        Self {
            key: toleration.key.clone(),
            operator: toleration.operator.clone(),
            value: toleration.value.clone(),
            effect: toleration.effect.clone(),
            toleration_seconds: toleration.toleration_seconds,
        }
    }
}

impl From<&v1::Autoscaling> for Autoscaling {
    fn from(autoscaling: &v1::Autoscaling) -> Self {
        let metric = |metric: &v1::Metric| Metric { enable: metric.enable, threshold: metric.threshold };
        Self {
            min_replicas: autoscaling.min_replicas,
            max_replicas: autoscaling.max_replicas,
            metrics: autoscaling.metrics.iter().map(|(name, wish)| (name.clone(), metric(wish))).collect(),
            behavior: autoscaling.behavior.as_ref().map(|behavior| Behavior {
                scale_up: behavior.scale_up.as_ref().map(ScalingRules::from),
                scale_down: behavior.scale_down.as_ref().map(ScalingRules::from),
            }),
            triggers: autoscaling
                .triggers
                .iter()
                .map(|trigger| Trigger {
                    kind: trigger.kind.clone(),
                    metadata: trigger.metadata.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
                })
                .collect(),
        }
    }
}

impl From<&v1::ScalingRules> for ScalingRules {
    fn from(rules: &v1::ScalingRules) -> Self {
        let policy = |policy: &v1::ScalingPolicy| ScalingPolicy {
            r#type: policy.r#type.clone(),
            value: policy.value,
            period_seconds: policy.period_seconds,
        };
        Self {
            stabilization_window_seconds: rules.stabilization_window_seconds,
            select_policy: rules.select_policy.clone(),
            policies: rules.policies.iter().map(policy).collect(),
        }
    }
}

impl From<&v1::Replicas> for Replicas {
    fn from(replicas: &v1::Replicas) -> Self {
        Self {
            desired: replicas.desired,
            current: replicas.current,
            ready: replicas.ready,
            minimum: replicas.minimum,
            maximum: replicas.maximum,
        }
    }
}

impl From<&v1::ModelStatus> for ModelStatus {
    fn from(model: &v1::ModelStatus) -> Self {
        Self {
            name: model.name.clone(),
            state: model_state(model.state()),
            message: model.message.clone(),
            downloaded_bytes: model.downloaded_bytes,
            total_bytes: model.total_bytes,
        }
    }
}

impl From<&v1::Endpoint> for Endpoint {
    fn from(endpoint: &v1::Endpoint) -> Self {
        Self { host: endpoint.host.clone(), http_port: endpoint.http_port, grpc_port: endpoint.grpc_port }
    }
}

impl From<&v1::Event> for Event {
    fn from(event: &v1::Event) -> Self {
        Self {
            lease_id: event.lease_id.clone(),
            version: event.version,
            generation: event.generation,
            at: event.at.as_ref().and_then(timestamp),
            actor: event.actor.clone(),
            reason: event.reason.clone(),
            message: event.message.clone(),
            state: lease_state(event.state()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{output, testing};

    #[test]
    fn a_lease_is_stable_json() {
        insta::assert_snapshot!(output::json(&testing::lease_view()).unwrap(), @r#"
        {
          "id": "3f0a9c2d4b5e46f7a8b9c0d1e2f30415",
          "owner": "ada",
          "namespace": "models",
          "spec": {
            "models": [
              {
                "name": "resnet50",
                "uri": "pvc://models/resnet50"
              },
              {
                "name": "ensemble",
                "uri": "https://models.example.com/ensemble.zip"
              }
            ],
            "bespoke": {
              "image": "nvcr.io/nvidia/tritonserver:25.10-py3",
              "gpus": 1,
              "gpu_resource": "nvidia.com/gpu",
              "cpu": "4",
              "memory": "16Gi",
              "shared_memory": "1Gi",
              "environment": {},
              "node_selector": {},
              "tolerations": [],
              "affinity_json": ""
            },
            "replicas": null,
            "autoscaling": {
              "min_replicas": 1,
              "max_replicas": 4,
              "metrics": {
                "queueTime": {
                  "enable": true,
                  "threshold": 200000
                }
              },
              "behavior": null
            },
            "lifetime": "7200s",
            "labels": {
              "team": "search"
            },
            "automatic_renewal": null
          },
          "state": "READY",
          "message": "",
          "created_at": "2026-11-22T16:00:00Z",
          "expires_at": "2026-11-22T18:00:00Z",
          "ended_at": null,
          "closed_at": null,
          "generation": 1,
          "version": 5,
          "replicas": {
            "desired": 2,
            "current": 2,
            "ready": 2,
            "minimum": 1,
            "maximum": 4
          },
          "models": [
            {
              "name": "resnet50",
              "state": "READY",
              "message": "",
              "downloaded_bytes": null,
              "total_bytes": null
            },
            {
              "name": "ensemble",
              "state": "READY",
              "message": "",
              "downloaded_bytes": null,
              "total_bytes": null
            }
          ],
          "endpoint": {
            "host": "tms-3f0a9c2d4b5e46f7a8b9c0d1e2f30415.models.svc",
            "http_port": 8000,
            "grpc_port": 8001
          },
          "active_metrics": {
            "gpuUtilization": 80,
            "queueTime": 200000
          },
          "last_used_at": null
        }
        "#);
    }

    #[test]
    fn a_lease_is_stable_yaml() {
        insta::assert_snapshot!(output::yaml(&testing::lease_view()).unwrap(), @r#"
        id: 3f0a9c2d4b5e46f7a8b9c0d1e2f30415
        owner: ada
        namespace: models
        spec:
          models:
          - name: resnet50
            uri: pvc://models/resnet50
          - name: ensemble
            uri: https://models.example.com/ensemble.zip
          bespoke:
            image: nvcr.io/nvidia/tritonserver:25.10-py3
            gpus: 1
            gpu_resource: nvidia.com/gpu
            cpu: "4"
            memory: 16Gi
            shared_memory: 1Gi
            environment: {}
            node_selector: {}
            tolerations: []
            affinity_json: ""
          replicas: null
          autoscaling:
            min_replicas: 1
            max_replicas: 4
            metrics:
              queueTime:
                enable: true
                threshold: 200000
            behavior: null
          lifetime: 7200s
          labels:
            team: search
          automatic_renewal: null
        state: READY
        message: ""
        created_at: "2026-11-22T16:00:00Z"
        expires_at: "2026-11-22T18:00:00Z"
        ended_at: null
        closed_at: null
        generation: 1
        version: 5
        replicas:
          desired: 2
          current: 2
          ready: 2
          minimum: 1
          maximum: 4
        models:
        - name: resnet50
          state: READY
          message: ""
          downloaded_bytes: null
          total_bytes: null
        - name: ensemble
          state: READY
          message: ""
          downloaded_bytes: null
          total_bytes: null
        endpoint:
          host: tms-3f0a9c2d4b5e46f7a8b9c0d1e2f30415.models.svc
          http_port: 8000
          grpc_port: 8001
        active_metrics:
          gpuUtilization: 80
          queueTime: 200000
        last_used_at: null
        "#);
    }

    #[test]
    fn an_id_that_looks_like_a_number_is_quoted_in_yaml() {
        for id in [
            "12345678901234567890123456789012",
            "1e300000000000000000000000000000",
            "00000000000000000000000000000017",
        ] {
            let text = output::yaml(&std::collections::BTreeMap::from([("id", id)])).unwrap();
            assert_eq!(text, format!("id: \"{id}\"\n"));
        }
    }

    #[test]
    fn a_duration_is_told_in_seconds() {
        for (seconds, nanos, text) in [(3_600, 0, "3600s"), (1, 500_000_000, "1.5s"), (-1, 0, "0s")] {
            assert_eq!(super::Seconds::from(&prost_types::Duration { seconds, nanos }).to_string(), text);
        }
    }
}
