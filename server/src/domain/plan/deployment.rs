//! The Deployment: rendered once, at admission, and from then on only stamped with what may change while it runs.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    LocalObjectReference, PodSecurityContext, PodSpec, PodTemplateSpec, SeccompProfile, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::storage::Storage;
use super::{GENERATION_ANNOTATION, Kind, Object, Settings, containers, int, labels, non_empty};
use crate::domain::lease::{self, Lease, LeaseId, Spec};
use crate::domain::scaling::Scaling;

/// Taint that usually keeps other pods away from nodes with GPUs.
const GPU_TAINT: &str = "nvidia.com/gpu";
/// Time for scheduling and the image pull, on top of the load timeout: what Kubernetes gives a whole rollout by default.
const START_SECONDS: u32 = 600;
/// Time between Triton's own exit and the kill.
const SPARE_SECONDS: u32 = 15;
/// User and group that Triton's image brings along.
const TRITON_USER: i64 = 1000;

/// Returns the Deployment that is stored with a lease: everything but its replicas, its generation and the lease's labels.
pub fn render(id: LeaseId, namespace: &str, spec: &Spec, settings: &Settings) -> Value {
    let storage = Storage::of(&spec.models, &settings.repositories);
    let deployment = Deployment {
        metadata: ObjectMeta {
            name: Some(id.object_name()),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels::stored(id, settings)),
            annotations: annotations(settings),
            ..ObjectMeta::default()
        },
        spec: Some(DeploymentSpec {
            progress_deadline_seconds: Some(int(settings.load_timeout_seconds.saturating_add(START_SECONDS))),
            selector: labels::selector(id),
            strategy: Some(strategy(spec, &storage)),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels::stored(id, settings)),
                    annotations: annotations(settings),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(id, spec, &storage, settings)),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    };
    let mut body = Object::new(Kind::Deployment, &deployment).body;
    if let Some(affinity) = &spec.triton.affinity {
        body["spec"]["template"]["spec"]["affinity"] = affinity.clone();
    }
    body
}

/// Returns the stored Deployment with what the lease says today.
pub(super) fn stamp(lease: &Lease) -> Object {
    let mut body = lease.deployment.clone();
    let metadata = &mut body["metadata"];
    metadata["annotations"][GENERATION_ANNOTATION] = json!(lease.generation.to_string());
    for (key, value) in &lease.spec.labels {
        let label = &mut metadata["labels"][key];
        if label.is_null() {
            *label = json!(value);
        }
    }
    if let Scaling::Fixed { replicas } = lease.spec.scaling {
        body["spec"]["replicas"] = json!(replicas);
    }
    Object { kind: Kind::Deployment, body }
}

fn annotations(settings: &Settings) -> Option<BTreeMap<String, String>> {
    Some(settings.custom_annotations.clone()).filter(|annotations| !annotations.is_empty())
}

fn strategy(spec: &Spec, storage: &Storage<'_>) -> DeploymentStrategy {
    // A pod beyond the replicas needs a GPU that nobody uses, or a claim that another node holds: the rollout would hang.
    let is_scarce = spec.triton.gpus > 0 || storage.is_for_one_node;
    let (max_surge, max_unavailable) = if is_scarce { (0, 1) } else { (1, 0) };
    DeploymentStrategy {
        type_: Some("RollingUpdate".to_owned()),
        rolling_update: Some(RollingUpdateDeployment {
            max_surge: Some(IntOrString::Int(max_surge)),
            max_unavailable: Some(IntOrString::Int(max_unavailable)),
        }),
    }
}

fn pod(id: LeaseId, spec: &Spec, storage: &Storage<'_>, settings: &Settings) -> PodSpec {
    PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        image_pull_secrets: non_empty(
            settings.pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() }).collect(),
        ),
        init_containers: Some(vec![containers::agent(id, storage, settings)]),
        containers: vec![containers::triton(spec, storage, settings)],
        node_selector: Some(spec.triton.node_selector.clone()).filter(|labels| !labels.is_empty()),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(TRITON_USER),
            run_as_group: Some(TRITON_USER),
            fs_group: Some(TRITON_USER),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        termination_grace_period_seconds: Some(grace_period(settings)),
        tolerations: non_empty(tolerations(spec)),
        volumes: Some(storage.volumes(&spec.triton)),
        ..PodSpec::default()
    }
}

/// The countdown to the kill begins with the preStop hook, so it covers both that and Triton's exit.
fn grace_period(settings: &Settings) -> i64 {
    [settings.pre_stop_seconds, settings.exit_timeout_seconds, SPARE_SECONDS].into_iter().map(i64::from).sum()
}

fn tolerations(spec: &Spec) -> Vec<Toleration> {
    let gpu = (spec.triton.gpus > 0).then(|| Toleration {
        key: Some(GPU_TAINT.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some("NoSchedule".to_owned()),
        ..Toleration::default()
    });
    gpu.into_iter().chain(spec.triton.tolerations.iter().map(toleration)).collect()
}

fn toleration(asked: &lease::Toleration) -> Toleration {
    let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    Toleration {
        key: given(&asked.key),
        operator: given(&asked.operator),
        value: given(&asked.value),
        effect: given(&asked.effect),
        toleration_seconds: asked.toleration_seconds,
    }
}
