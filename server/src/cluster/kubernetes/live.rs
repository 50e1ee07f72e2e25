//! Reads from an object what a pass and an apply have to know of it.

use kube::api::DynamicObject;
use serde_json::Value;

use crate::domain::lease::Replicas;
use crate::domain::plan::GENERATION_ANNOTATION;

/// What an apply has to know of the object that it changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Stamp {
    /// UID.
    pub uid: String,
    /// Version of the object itself.
    pub resource_version: String,
    /// Generation of the lease for which it was applied.
    pub generation: i64,
    /// Whether it is being deleted.
    pub is_deleting: bool,
    /// `spec.replicas`; of a Deployment only.
    pub replicas: Option<u32>,
    /// Whether our field manager owns `spec.replicas`.
    pub owns_replicas: bool,
}

/// What the status of a Deployment says.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct DeploymentStatus {
    /// Its replicas.
    pub replicas: Replicas,
    /// Why it cannot create pods, where it says so.
    pub fault: Option<String>,
}

impl Stamp {
    /// Reads the stamp of an object, whose managed fields must still be there.
    pub fn read(object: &DynamicObject) -> Self {
        let metadata = &object.metadata;
        let generation = metadata.annotations.as_ref().and_then(|all| all.get(GENERATION_ANNOTATION));
        let owns_replicas = metadata.managed_fields.iter().flatten().any(|entry| {
            entry.manager.as_deref() == Some(super::FIELD_MANAGER)
                && entry.subresource.is_none()
                && entry
                    .fields_v1
                    .as_ref()
                    .is_some_and(|fields| fields.0.pointer("/f:spec/f:replicas").is_some())
        });
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            generation: generation.and_then(|text| text.parse().ok()).unwrap_or(0),
            is_deleting: metadata.deletion_timestamp.is_some(),
            replicas: object.data.pointer("/spec/replicas").and_then(number),
            owns_replicas,
        }
    }

    /// Whether `other` is an older sight of the object of this name. Kubernetes' versions count up, across objects too.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        let version = |stamp: &Self| stamp.resource_version.parse::<u64>().ok();
        version(self) > version(other)
    }
}

impl DeploymentStatus {
    pub fn read(object: &DynamicObject, stamp: &Stamp) -> Self {
        let status = |field: &str| object.data.get("status").and_then(|status| status.get(field));
        let desired = stamp.replicas.unwrap_or(0);
        let current = status("replicas").and_then(number).unwrap_or(0);
        let ready = status("readyReplicas").and_then(number).unwrap_or(0);
        let conditions = status("conditions").and_then(Value::as_array).into_iter().flatten();
        let fault = conditions
            .filter(|condition| condition["type"] == "ReplicaFailure" && condition["status"] == "True")
            .find_map(|condition| condition["message"].as_str().map(str::to_owned));
        Self { replicas: Replicas { desired, current, ready }, fault }
    }
}

fn number(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|number| u32::try_from(number).ok())
}
