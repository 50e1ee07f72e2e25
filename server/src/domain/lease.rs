//! A lease and its life: what was granted, when it ends, what was seen of it, and the pure changes of all that.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::scaling::Scaling;
pub use super::state::{ModelState, Phase, State};
use super::uri::without_query;

/// Identity of a lease: a random UUID, printed as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct LeaseId(Uuid);

impl LeaseId {
    /// Returns a new random id.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// The name of every Kubernetes object of the lease.
    pub fn object_name(self) -> String {
        format!("tms-{self}")
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

impl fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

/// The text is not a lease id.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a lease id (32 hexadecimal digits)")]
pub struct NotALeaseId(String);

impl FromStr for LeaseId {
    type Err = NotALeaseId;

    fn from_str(text: &str) -> Result<Self, NotALeaseId> {
        let is_simple = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        is_simple
            .then(|| Uuid::try_parse(text).ok())
            .flatten()
            .map(Self)
            .ok_or_else(|| NotALeaseId(text.to_owned()))
    }
}

impl TryFrom<String> for LeaseId {
    type Error = NotALeaseId;

    fn try_from(text: String) -> Result<Self, NotALeaseId> {
        text.parse()
    }
}

impl From<LeaseId> for String {
    fn from(id: LeaseId) -> Self {
        id.to_string()
    }
}

/// A lease: intent (what should be) and report (what was seen).
#[derive(Clone, Debug, PartialEq)]
pub struct Lease {
    /// Its identity.
    pub id: LeaseId,
    /// Who acquired it.
    pub owner: String,
    /// Kubernetes namespace of its objects.
    pub namespace: String,
    /// Where its models are served.
    pub placement: Placement,
    /// What was granted.
    pub spec: Spec,
    /// Its Deployment as rendered at admission, without replicas and generation, as JSON. Never rendered again, so that
    /// no newer server or configuration restarts a running Triton.
    pub deployment: serde_json::Value,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it ends unless renewed.
    pub expires_at: Timestamp,
    /// What moves its end, and which notices of it were given.
    pub tenure: Tenure,
    /// How and when it ended.
    pub end: Option<End>,
    /// Since when a lease that may sleep is to wake, until a replica is ready. So it begins, too.
    pub waking_since: Option<Timestamp>,
    /// Raised with each change of intent.
    pub generation: i64,
    /// Raised with each change.
    pub version: i64,
    /// What was seen.
    pub report: Report,
}

/// What moves the end of a lease, and which notices of it were given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// When its owner last asked for its lifetime: its acceptance, or a renewal. Use keeps it alive for at most the longest
    /// lifetime from then.
    pub renewed_at: Timestamp,
    /// Notices that were due until then were given, or are not to be.
    pub noticed_until: Timestamp,
    /// When it was in use, as far as that moved its end.
    pub last_used_at: Option<Timestamp>,
}

impl Tenure {
    /// Returns that of a lease accepted at this moment.
    pub fn starting(accepted_at: Timestamp) -> Self {
        Self { renewed_at: accepted_at, noticed_until: accepted_at, last_used_at: None }
    }
}

/// Where the models of a lease are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// By Tritons of its own.
    Bespoke,
}

impl Placement {
    /// The word for it in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bespoke => "bespoke",
        }
    }
}

/// What was granted: within the bounds, every default filled in. Fields that only a newer server knows are passed over, so
/// that servers of two versions can share a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// Models in the order in which they are loaded; at least one, names unique.
    pub models: Vec<Model>,
    /// The Triton that serves them.
    pub triton: Triton,
    /// Replicas.
    pub scaling: Scaling,
    /// Lifetime granted last; renewal without a lifetime grants it again.
    pub lifetime: SignedDuration,
    /// Labels of the lease.
    pub labels: BTreeMap<String, String>,
    /// Renewal by use, where it was asked for. Not part of the stored document: servers that do not know it would lose it.
    #[serde(skip)]
    pub automatic_renewal: Option<AutomaticRenewal>,
}

/// How use renews a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AutomaticRenewal {
    /// How long the lease lives on after it was used.
    pub idle_window: SignedDuration,
}

/// One model.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Name under which Triton serves it.
    pub name: String,
    /// Where it is fetched from. Its query may be a signature: it is not for a log.
    pub uri: String,
}

/// Without the query of the uri.
impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("name", &self.name).field("uri", &without_query(&self.uri)).finish()
    }
}

/// A Triton and what it runs on. Quantities are in Kubernetes' canonical form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Triton {
    /// Container image.
    pub image: String,
    /// GPUs of a replica; 0 is CPU-only.
    pub gpus: u32,
    /// Extended resource that stands for a GPU.
    pub gpu_resource: String,
    /// CPU of a replica.
    pub cpu: String,
    /// Main memory of a replica.
    pub memory: String,
    /// Size of /dev/shm.
    pub shared_memory: String,
    /// Environment of the container.
    pub environment: BTreeMap<String, String>,
    /// Labels that a node must carry.
    pub node_selector: BTreeMap<String, String>,
    /// Taints tolerated besides the GPU's.
    pub tolerations: Vec<Toleration>,
    /// Kubernetes Affinity as JSON.
    pub affinity: Option<serde_json::Value>,
}

/// A toleration of a node's taint, as in Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// Key of the taint; empty with `Exists` for every taint.
    pub key: String,
    /// `Equal` or `Exists`.
    pub operator: String,
    /// Value of the taint.
    pub value: String,
    /// Effect of the taint; empty for all.
    pub effect: String,
    /// Seconds for which a NoExecute taint is tolerated.
    pub toleration_seconds: Option<i64>,
}

/// How and when a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// When.
    pub at: Timestamp,
    /// How.
    pub reason: EndReason,
}

/// How a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// By its owner.
    Released,
    /// By the clock.
    Expired,
    /// Its models could not be loaded.
    Invalid,
}

/// What was seen of a lease.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Where it is in its life, as far as it can be seen.
    pub phase: Phase,
    /// Why, in words a person can act on.
    pub message: String,
    /// Replicas.
    pub replicas: Replicas,
    /// Status of each model, in the order of the spec.
    pub models: Vec<ModelReport>,
    /// When it was first READY (or ASLEEP).
    pub first_ready_at: Option<Timestamp>,
    /// When the last object of an ended lease was seen gone.
    pub closed_at: Option<Timestamp>,
}

/// Replicas that were seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replicas {
    /// Wanted by the lease or the autoscaler.
    pub desired: u32,
    /// Existing.
    pub current: u32,
    /// Ready.
    pub ready: u32,
}

/// What was seen of one model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelReport {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub state: ModelState,
    /// Why.
    pub message: String,
    /// Bytes fetched so far, while it is fetched and as far as is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downloaded_bytes: Option<u64>,
    /// Bytes to fetch, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// Tries that failed since something went well last, told in steps: it may be some more.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failed_tries: u32,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl ModelReport {
    /// Returns the report of a model that is not being fetched.
    pub fn new(name: &str, state: ModelState, message: &str) -> Self {
        let (name, message) = (name.to_owned(), message.to_owned());
        Self { name, state, message, downloaded_bytes: None, total_bytes: None, failed_tries: 0 }
    }
}

/// What happened to a lease in one change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// One word in CamelCase.
    pub reason: &'static str,
    /// In words.
    pub message: String,
}

/// An event as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Lease that it happened to.
    pub lease_id: LeaseId,
    /// Version of the lease after it.
    pub version: i64,
    /// Generation of the lease after it.
    pub generation: i64,
    /// When.
    pub at: Timestamp,
    /// Who: a caller's name, or [`SERVER`].
    pub actor: String,
    /// One word in CamelCase.
    pub reason: String,
    /// In words.
    pub message: String,
    /// State after it.
    pub state: State,
}

/// The actor of what the server does by itself.
pub const SERVER: &str = "tms";

/// Longest and shortest lifetimes that are granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LifetimeBounds {
    /// Shortest that may be asked for.
    pub minimum: SignedDuration,
    /// Of a lease that does not say.
    pub default: SignedDuration,
    /// Longest, counted from acceptance or from a renewal.
    pub maximum: SignedDuration,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_newer_server_stored_can_be_read() {
        let rules = json!({
            "stabilizationWindowSeconds": 0, "selectPolicy": "Max", "new": 1,
            "policies": [{ "type": "Pods", "value": 1, "periodSeconds": 60, "new": 1 }],
        });
        let spec = json!({
            "models": [{ "name": "a", "uri": "https://models.example.com/a", "new": 1 }],
            "triton": {
                "image": "triton", "gpus": 0, "gpuResource": "nvidia.com/gpu", "cpu": "1", "memory": "1Gi",
                "sharedMemory": "64Mi", "environment": {}, "nodeSelector": {}, "affinity": null, "new": 1,
                "tolerations": [{
                    "key": "", "operator": "Exists", "value": "", "effect": "", "tolerationSeconds": null, "new": 1,
                }],
            },
            "scaling": { "auto": {
                "minimum": 1, "maximum": 2, "metrics": { "queueTime": 1 }, "new": 1,
                "behavior": { "scaleUp": rules, "scaleDown": rules, "new": 1 },
            } },
            "lifetime": "PT1H", "labels": {}, "new": 1,
        });
        let spec: Spec = serde_json::from_value(spec).unwrap();
        assert_eq!(spec.scaling.maximum(), 2);
    }
}
