//! Reads from pods what keeps them from becoming ready, how far they are, and where they are reached.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use kube::api::DynamicObject;

use crate::domain::lease::{ModelReport, ModelState};
use crate::domain::observed::{PodSeen, Trouble, model_faults};
use crate::domain::plan::AGENT;
use crate::domain::progress::sparse;
use crate::domain::start::Start;

/// The pods of one lease that matter, by name.
#[derive(Default)]
pub(super) struct Pods(BTreeMap<String, Known>);

/// One pod.
struct Known {
    seen: PodSeen,
    uid: String,
    address: Option<IpAddr>,
    /// Whether its agent runs.
    has_agent: bool,
    /// Whether its Triton runs, ready or not.
    has_triton: bool,
    labels: BTreeMap<String, String>,
}

/// A pod as it is seen by whoever measures it.
pub(super) struct Measurable<'a> {
    pub name: &'a str,
    pub uid: &'a str,
    pub labels: &'a BTreeMap<String, String>,
    /// Where its Triton is reached, while that runs.
    pub address: Option<IpAddr>,
}

/// The agent of a pod that is not ready yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Agent {
    /// UID of the pod.
    pub uid: String,
    /// Address of the pod.
    pub address: IpAddr,
}

impl Pods {
    /// Keeps a pod that a watch showed, and returns whether a pass should look at its lease.
    pub fn keep(&mut self, name: &str, object: DynamicObject) -> bool {
        let Some(mut pod) = read(object) else {
            return self.forget(name);
        };
        let before = self.0.get(name).filter(|before| before.uid == pod.uid);
        if let Some(before) = before {
            pod.seen.start.loaded_at = before.seen.start.loaded_at;
            if pod.has_agent && !pod.seen.is_ready {
                pod.seen.models.clone_from(&before.seen.models);
            }
        }
        let is_news = before.is_none_or(|before| before.seen != pod.seen);
        self.0.insert(name.to_owned(), pod);
        is_news
    }

    /// Forgets a pod, and returns whether it was known.
    pub fn forget(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    /// Keeps what the agent of a pod tells of its models, and returns whether that is worth telling.
    pub fn keep_models(&mut self, name: &str, agent: &Agent, told: Vec<ModelReport>, now: Timestamp) -> bool {
        let Some(pod) = self.0.get_mut(name).filter(|pod| pod.uid == agent.uid && !pod.seen.is_ready) else {
            return false;
        };
        if pod.seen.start.loaded_at.is_none() && are_ready(&told) {
            pod.seen.start.loaded_at = Some(now);
        }
        let known = |model: &ModelReport| pod.seen.told().iter().find(|known| known.name == model.name);
        let models: Vec<_> = told
            .into_iter()
            .map(|model| match known(&model) {
                Some(known) => sparse(known, model),
                None => model,
            })
            .collect();
        let models = Some(models);
        let is_news = pod.seen.models != models;
        pod.seen.models = models;
        is_news
    }

    /// Forgets what agents have told of their models.
    pub fn forget_models(&mut self) {
        self.0.values_mut().for_each(|pod| pod.seen.models = None);
    }

    /// Returns the agent of a pod that is not ready yet, if it can be asked.
    pub fn agent(&self, name: &str) -> Option<Agent> {
        let pod = self.0.get(name).filter(|pod| pod.has_agent && !pod.seen.is_ready)?;
        Some(Agent { uid: pod.uid.clone(), address: pod.address? })
    }

    /// Returns the UID of each pod, and where it is reached if it serves.
    pub fn serving(&self) -> Vec<(String, Option<IpAddr>)> {
        let address = |pod: &Known| pod.address.filter(|_| pod.seen.is_ready);
        self.0.values().map(|pod| (pod.uid.clone(), address(pod))).collect()
    }

    /// Returns every pod for those who measure it.
    pub fn measurable(&self) -> impl Iterator<Item = Measurable<'_>> {
        self.0.iter().map(|(name, pod)| Measurable {
            name,
            uid: &pod.uid,
            labels: &pod.labels,
            address: pod.address.filter(|_| pod.has_triton),
        })
    }

    pub fn seen(&self) -> Vec<PodSeen> {
        self.0.values().map(|pod| pod.seen.clone()).collect()
    }

    #[cfg(test)]
    pub fn downloaded(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.seen.told().first()?.downloaded_bytes
    }

    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether models are there and all of them are loaded.
pub(super) fn are_ready(models: &[ModelReport]) -> bool {
    !models.is_empty() && models.iter().all(|model| model.state == ModelState::Ready)
}

/// Returns what matters of a pod; `None` where it is on its way out and matters no more.
fn read(object: DynamicObject) -> Option<Known> {
    let pod: Pod = object.try_parse().ok()?;
    let status = pod.status.unwrap_or_default();
    let is_over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if pod.metadata.deletion_timestamp.is_some() || is_over {
        return None;
    }
    let is_running = status.phase.as_deref() == Some("Running") || containers(&status).any(runs);
    let start = Start {
        scheduled_at: since(&status, "PodScheduled"),
        fetched_at: since(&status, "Initialized"),
        loaded_at: None,
        ready_at: since(&status, "Ready"),
    };
    let is_ready = start.ready_at.is_some();
    // What ended a container before does not matter to one that serves again.
    let trouble = if is_ready { None } else { trouble(&status) };
    Some(Known {
        seen: PodSeen { is_running, is_ready, trouble, models: None, start },
        uid: pod.metadata.uid.unwrap_or_default(),
        address: status.pod_ip.as_deref().and_then(|address| address.parse().ok()),
        has_agent: status.init_container_statuses.iter().flatten().any(runs),
        has_triton: status.container_statuses.iter().flatten().any(runs),
        labels: pod.metadata.labels.unwrap_or_default(),
    })
}

fn runs(container: &ContainerStatus) -> bool {
    container.state.as_ref().is_some_and(|state| state.running.is_some())
}

/// Returns since when a condition holds; `None` where it does not. One that does not say since when holds since ever.
fn since(status: &PodStatus, condition: &str) -> Option<Timestamp> {
    let mut conditions = status.conditions.iter().flatten();
    let found = conditions.find(|found| found.type_ == condition && found.status == "True")?;
    Some(found.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0))
}

fn trouble(status: &PodStatus) -> Option<Trouble> {
    // Other containers end with words of their own, which may look like the agent's.
    let agent = status.init_container_statuses.iter().flatten().filter_map(faults).min();
    let of_containers = agent.or_else(|| containers(status).filter_map(container_trouble).min());
    of_containers.or_else(|| unschedulable(status))
}

pub(super) fn unschedulable(status: &PodStatus) -> Option<Trouble> {
    let mut conditions = status.conditions.iter().flatten();
    let condition =
        conditions.find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    let detail = condition.message.clone().unwrap_or_default();
    (condition.reason.as_deref() == Some("Unschedulable")).then_some(Trouble::Unschedulable { detail })
}

fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    status.init_container_statuses.iter().chain(&status.container_statuses).flatten()
}

/// Returns why the agent ended, unless it has loaded every model since.
fn faults(status: &ContainerStatus) -> Option<Trouble> {
    if status.name != AGENT || status.ready {
        return None;
    }
    let mut ends = [&status.state, &status.last_state].into_iter().flatten();
    let end = ends.find_map(|state| state.terminated.as_ref())?;
    model_faults(end.message.as_deref()?).map(Trouble::Models)
}

fn container_trouble(status: &ContainerStatus) -> Option<Trouble> {
    let state = status.state.clone().unwrap_or_default();
    let last_end = status.last_state.clone().and_then(|state| state.terminated);
    let end = state.terminated.or(last_end);
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
pub(super) fn plain(message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(500).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A pod whose agent runs, and which is ready or not.
    fn pod(uid: &str, is_ready: bool) -> DynamicObject {
        object(uid, is_ready, &json!({ "running": {} }))
    }

    fn object(uid: &str, is_ready: bool, agent: &Value) -> DynamicObject {
        let ready = if is_ready { "True" } else { "False" };
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a", "uid": uid },
            "status": {
                "phase": "Pending", "podIP": "10.0.0.7",
                "conditions": [
                    { "type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:01Z" },
                    { "type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:09Z" },
                ],
                "initContainerStatuses": [{
                    "name": "agent", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": agent,
                }],
            },
        }))
        .expect("it is an object")
    }

    fn model(state: ModelState) -> Vec<ModelReport> {
        vec![ModelReport::new("bert", state, "")]
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a moment")
    }

    #[test]
    fn the_agent_is_asked_while_it_runs_and_the_pod_is_not_ready() {
        let mut pods = Pods::default();
        assert!(pods.keep("a", object("1", false, &json!({ "waiting": {} }))));
        assert_eq!(pods.agent("a"), None, "it does not run yet");
        assert!(pods.keep("a", pod("1", false)));
        let agent = pods.agent("a").expect("it runs");
        assert_eq!((agent.uid.as_str(), agent.address.to_string().as_str()), ("1", "10.0.0.7"));
        assert_eq!(pods.serving(), [("1".to_owned(), None)]);
        assert!(pods.keep("a", pod("1", true)));
        assert_eq!(pods.agent("a"), None, "it is ready");
        assert_eq!(pods.serving(), [("1".to_owned(), Some(agent.address))]);
        assert!(pods.forget("a") && pods.is_empty());
    }

    #[test]
    fn what_an_agent_tells_is_kept_until_its_pod_is_ready_or_another() {
        let mut pods = Pods::default();
        pods.keep("a", pod("1", false));
        let agent = pods.agent("a").expect("it runs");
        assert!(pods.keep_models("a", &agent, model(ModelState::Loading), at(5)));
        assert!(!pods.keep_models("a", &agent, model(ModelState::Loading), at(6)), "no news");
        assert!(pods.keep_models("a", &agent, model(ModelState::Ready), at(7)));
        assert!(!pods.keep("a", pod("1", false)), "the same pod, and its models are still known");
        pods.keep("a", pod("1", true));
        let seen = pods.seen().remove(0);
        assert_eq!(seen.models, None);
        let start =
            [seen.start.scheduled_at, seen.start.fetched_at, seen.start.loaded_at, seen.start.ready_at];
        let second = |second: i64| Some(at(1_767_225_600 + second));
        assert_eq!(start, [second(1), None, Some(at(7)), second(9)]);

        pods.keep("a", pod("2", false));
        assert!(
            !pods.keep_models("a", &agent, model(ModelState::Ready), at(8)),
            "the agent of the former pod"
        );
        assert_eq!(pods.seen()[0].models, None);
    }

    /// A pod that is not ready, with a container that ended like an agent and runs again.
    fn crashed(container: &str, is_ready: bool) -> DynamicObject {
        let end = json!({ "exitCode": 3, "message": r#"{"failed":[{"name":"bert","message":"corrupt"}]}"# });
        let mut object = pod("1", false);
        let status = &mut object.data["status"]["initContainerStatuses"][0];
        status["name"] = json!(container);
        status["ready"] = json!(is_ready);
        status["lastState"] = json!({ "terminated": end });
        object
    }

    fn trouble_of(object: DynamicObject) -> Option<Trouble> {
        read(object).expect("it matters").seen.trouble
    }

    #[test]
    fn what_ended_an_agent_before_is_no_trouble_once_it_or_its_pod_is_ready() {
        let trouble = trouble_of(crashed("agent", false));
        assert!(matches!(trouble, Some(Trouble::Models(faults)) if faults[0].message == "corrupt"));
        assert_eq!(trouble_of(crashed("agent", true)), None, "it has loaded them since");
        let mut ready = pod("1", true);
        let status = &crashed("agent", false).data["status"]["initContainerStatuses"];
        ready.data["status"]["initContainerStatuses"].clone_from(status);
        assert_eq!(trouble_of(ready), None);
    }

    #[test]
    fn the_agent_alone_tells_what_models_cannot_be_loaded() {
        assert_eq!(trouble_of(crashed("triton", false)), None);
        let mut object = crashed("agent", false);
        let status = object.data["status"]["initContainerStatuses"].take();
        object.data["status"]["containerStatuses"] = status;
        assert_eq!(trouble_of(object), None, "only a container of its name");
    }
}
