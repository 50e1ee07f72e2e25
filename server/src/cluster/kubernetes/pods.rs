//! Reads from a pod what keeps it from becoming ready.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use kube::api::DynamicObject;

use crate::domain::observed::{PodSeen, Trouble, model_faults};

/// Returns what matters of a pod; `None` where it is on its way out and matters no more.
pub(super) fn read(object: DynamicObject) -> Option<PodSeen> {
    let pod: Pod = object.try_parse().ok()?;
    let status = pod.status.unwrap_or_default();
    let is_over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if pod.metadata.deletion_timestamp.is_some() || is_over {
        return None;
    }
    let is_running = status.phase.as_deref() == Some("Running")
        || containers(&status)
            .any(|container| container.state.as_ref().is_some_and(|state| state.running.is_some()));
    Some(PodSeen { is_running, trouble: trouble(&status) })
}

fn trouble(status: &PodStatus) -> Option<Trouble> {
    let of_containers = containers(status).filter_map(container_trouble).min();
    of_containers.or_else(|| unschedulable(status))
}

fn unschedulable(status: &PodStatus) -> Option<Trouble> {
    let mut conditions = status.conditions.iter().flatten();
    let condition =
        conditions.find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    let detail = condition.message.clone().unwrap_or_default();
    (condition.reason.as_deref() == Some("Unschedulable")).then_some(Trouble::Unschedulable { detail })
}

fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    status.init_container_statuses.iter().chain(&status.container_statuses).flatten()
}

fn container_trouble(status: &ContainerStatus) -> Option<Trouble> {
    let state = status.state.clone().unwrap_or_default();
    let last_end = status.last_state.clone().and_then(|state| state.terminated);
    let end = state.terminated.or(last_end);
    if let Some(faults) =
        end.as_ref().and_then(|end| model_faults(end.message.as_deref().unwrap_or_default()))
    {
        return Some(Trouble::Models(faults));
    }
    let waiting = state.waiting?;
    let detail = waiting.message.unwrap_or_default();
    match waiting.reason.as_deref().unwrap_or_default() {
        "ErrImagePull" | "ErrImageNeverPull" | "InvalidImageName" | "RegistryUnavailable" => {
            Some(Trouble::Image { image: status.image.clone(), detail: plain(&detail) })
        }
        "ImagePullBackOff" => {
            Some(Trouble::Image { image: status.image.clone(), detail: cause_of_back_off(&detail) })
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            Some(Trouble::Container { container: status.name.clone(), detail: plain(&detail) })
        }
        "CrashLoopBackOff" => {
            let end = end.unwrap_or_default();
            Some(Trouble::Crashing {
                container: status.name.clone(),
                exit_code: end.exit_code,
                reason: end.reason.unwrap_or_default(),
                message: plain(&end.message.unwrap_or_default()),
            })
        }
        _ => None,
    }
}

/// Returns the cause that newer kubelets add to `Back-off pulling image "…": ErrImagePull: cause`.
fn cause_of_back_off(message: &str) -> String {
    message.split_once("ErrImagePull: ").map(|(_, cause)| plain(cause)).unwrap_or_default()
}

/// Returns one line of at most 500 characters.
fn plain(message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(500).collect()
}
