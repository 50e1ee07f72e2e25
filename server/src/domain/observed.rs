//! What was seen of the objects of a lease, in words of the domain.

use jiff::Timestamp;
use serde::Deserialize;

use super::lease::{ModelReport, ModelState, Replicas};
use super::start::Start;

/// Everything that was seen of one lease.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// Its objects.
    pub objects: Objects,
    /// Replicas of its Deployment.
    pub replicas: Replicas,
    /// Why the Deployment cannot create pods, where it says so.
    pub deployment_fault: Option<String>,
    /// Its pods that are not being deleted.
    pub pods: Vec<PodSeen>,
    /// When KEDA last took it for active; a cooldown counts from then.
    pub active_at: Option<Timestamp>,
}

/// The objects of a lease, all together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objects {
    /// There are none.
    Absent,
    /// There are some, but not exactly those of the plan.
    Differ,
    /// They are those of the plan.
    Match,
    /// They carry this generation, newer than that of the lease that was read.
    Superseded(i64),
    /// They are being deleted.
    Deleting,
    /// They are files that hold the plan; what becomes of them is not observed.
    Written,
}

/// One pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSeen {
    /// Whether its containers run.
    pub is_running: bool,
    /// Whether it is ready to serve.
    pub is_ready: bool,
    /// What keeps it from becoming ready.
    pub trouble: Option<Trouble>,
    /// What its agent tells of the models; `None` where it was not asked yet, or does not answer.
    pub models: Option<Vec<ModelReport>>,
    /// The moments of its start.
    pub start: Start,
}

/// What keeps a pod from becoming ready. The order is that of how much a person can do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// The agent found that models cannot be loaded, ever.
    Models(Vec<ModelFault>),
    /// An image cannot be pulled.
    Image {
        /// The image.
        image: String,
        /// What the kubelet says about it; may be empty.
        detail: String,
    },
    /// A container cannot be created.
    Container {
        /// Its name.
        container: String,
        /// What the kubelet says about it.
        detail: String,
    },
    /// A container ends again and again.
    Crashing {
        /// Its name.
        container: String,
        /// Its last exit code.
        exit_code: i32,
        /// The reason that Kubernetes gives, such as OOMKilled.
        reason: String,
        /// Its termination message.
        message: String,
    },
    /// No node can take the pod.
    Unschedulable {
        /// What the scheduler says.
        detail: String,
    },
}

impl PodSeen {
    /// Whether it is known that it cannot load a model, as it stands.
    pub fn cannot_load(&self) -> bool {
        let is_failed = |model: &ModelReport| model.state == ModelState::Failed;
        !self.is_ready
            && (matches!(self.trouble, Some(Trouble::Models(_))) || self.told().iter().any(is_failed))
    }

    /// Whether its agent may know more of the models than was heard.
    pub fn is_unheard(&self) -> bool {
        self.is_running && !self.is_ready && self.models.is_none()
    }

    /// Returns what its agent has told of the models.
    pub fn told(&self) -> &[ModelReport] {
        self.models.as_deref().unwrap_or_default()
    }
}

/// Why one model cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct ModelFault {
    /// Its name.
    pub name: String,
    /// Why, in plain words.
    pub message: String,
}

/// The termination message that the agent writes when models cannot be loaded, ever.
#[derive(Debug, Deserialize)]
struct AgentTermination {
    failed: Vec<ModelFault>,
}

/// Returns the faults that the agent's termination message names, if it is one.
pub fn model_faults(termination_message: &str) -> Option<Vec<ModelFault>> {
    let termination: AgentTermination = serde_json::from_str(termination_message).ok()?;
    (!termination.failed.is_empty()).then_some(termination.failed)
}

impl Trouble {
    /// Returns the trouble in words a person can act on.
    pub fn sentence(&self) -> String {
        match self {
            Self::Models(faults) => {
                let faults: Vec<_> =
                    faults.iter().map(|fault| format!("{}: {}", fault.name, fault.message)).collect();
                format!("models cannot be loaded: {}", faults.join("; "))
            }
            Self::Image { image, detail } if detail.is_empty() => {
                format!(
                    "image {image} cannot be pulled; check its name and the pull secrets (images.secrets)"
                )
            }
            Self::Image { image, detail } => {
                format!(
                    "image {image} cannot be pulled; check its name and the pull secrets (images.secrets): {detail}"
                )
            }
            Self::Container { container, detail } => {
                format!("container {container} cannot be created: {detail}")
            }
            Self::Crashing { container, exit_code, reason, message } => {
                let reason = if reason.is_empty() || reason == "Error" {
                    String::new()
                } else {
                    format!(", {reason}")
                };
                let message =
                    if message.is_empty() { String::new() } else { format!(": {}", message.trim()) };
                format!("container {container} keeps ending (exit code {exit_code}{reason}){message}")
            }
            Self::Unschedulable { detail } => {
                format!("no node can take a replica; ask for less or wait for capacity: {detail}")
            }
        }
    }
}
