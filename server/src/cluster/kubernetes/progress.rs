//! Follows the agents of pods that are not ready yet, so that their leases tell how far each model is. Each question waits
//! at the agent until there is news; where an agent cannot be reached, progress is coarser, and nothing else is lost. Only
//! the server that takes the passes asks.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::cache::{Cache, Key, Subject};
use super::http::{self, GetError};
use super::pods::{Agent, are_ready, plain};
use super::watch::Wake;
use crate::clock::system_now;
use crate::domain::lease::{ModelReport, ModelState};
use crate::domain::plan::AGENT_PORT;

/// Questions under way at once; further ones take turns.
const PLACES: usize = 64;
/// Time for an answer: an agent without news answers after 20 s.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes of an answer: 64 models with their messages fit.
const LARGEST: usize = 256 * 1024;
/// Models of an answer that are kept; a lease has no more.
const MODELS: usize = 64;
/// Characters of a model's name that are kept.
const NAME: usize = 256;
/// Time between an answer and the next question.
const SPACING: Duration = Duration::from_millis(250);
/// First and longest pause after a failure.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// Follows agents, one task each, while that is wanted.
pub(super) struct Followers {
    cache: Arc<Cache>,
    wake: Wake,
    places: Arc<Semaphore>,
    /// Nothing while no agent is to be asked.
    tasks: Mutex<Option<Tasks>>,
}

type Tasks = HashMap<Key, (Agent, JoinHandle<()>)>;

/// What an agent answers.
#[derive(Deserialize)]
struct Status {
    revision: u64,
    models: Vec<Model>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Model {
    name: String,
    state: String,
    #[serde(default)]
    message: String,
    downloaded_bytes: Option<u64>,
    total_bytes: Option<u64>,
}

impl Followers {
    pub fn new(cache: Arc<Cache>, wake: Wake) -> Self {
        Self { cache, wake, places: Arc::new(Semaphore::new(PLACES)), tasks: Mutex::default() }
    }

    /// Follows agents from now on, or none any more.
    pub fn follow(&self, is_wanted: bool) {
        let before = std::mem::replace(&mut *self.tasks(), is_wanted.then(Tasks::new));
        before.iter().for_each(abort);
        for key in self.cache.keys(Subject::Pods) {
            self.look(&key);
        }
    }

    /// Follows the agent of a pod from now on, or does so no more, as the cache shows the pod.
    pub fn look(&self, key: &Key) {
        let agent = self.cache.agent(key);
        let mut tasks = self.tasks();
        let Some(tasks) = tasks.as_mut() else { return };
        let is_followed =
            |(known, task): &(Agent, JoinHandle<()>)| agent.as_ref() == Some(known) && !task.is_finished();
        if tasks.get(key).is_some_and(is_followed) {
            return;
        }
        if let Some((_, task)) = tasks.remove(key) {
            task.abort();
        }
        if let Some(agent) = agent {
            let follow = follow(
                key.clone(),
                agent.clone(),
                Arc::clone(&self.cache),
                Arc::clone(&self.wake),
                Arc::clone(&self.places),
            );
            tasks.insert(key.clone(), (agent, tokio::spawn(follow)));
        }
    }

    fn tasks(&self) -> MutexGuard<'_, Option<Tasks>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Followers {
    fn drop(&mut self) {
        self.tasks().iter().for_each(abort);
    }
}

fn abort(tasks: &Tasks) {
    tasks.values().for_each(|(_, task)| task.abort());
}

/// Asks an agent again and again, until all its models are loaded.
async fn follow(key: Key, agent: Agent, cache: Arc<Cache>, wake: Wake, places: Arc<Semaphore>) {
    let mut after = None;
    let mut pause = BACK_OFF.0;
    let mut has_told = false;
    loop {
        let answer = match places.acquire().await {
            Ok(_place) => ask(&agent, after).await,
            Err(_) => return,
        };
        match answer {
            Ok(status) => {
                after = Some(status.revision);
                pause = BACK_OFF.0;
                let models = reports(status);
                let is_over = are_ready(&models);
                if cache.keep_models(&key, &agent, models, system_now()) {
                    wake(key.0);
                }
                if is_over {
                    return;
                }
                tokio::time::sleep(SPACING).await;
            }
            Err(error) => {
                if !std::mem::replace(&mut has_told, true) {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(lease.id = %key.0, pod = key.2, error, "an agent does not tell its progress");
                }
                // It may be another agent by then, which counts anew.
                after = None;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(BACK_OFF.1);
            }
        }
    }
}

/// Asks for the status after a revision, or for the one that there is.
async fn ask(agent: &Agent, after: Option<u64>) -> Result<Status, GetError> {
    let address = SocketAddr::new(agent.address, AGENT_PORT);
    let path = after.map_or("/status".to_owned(), |revision| format!("/status?after={revision}"));
    let body = http::get(address, &path, TIMEOUT, LARGEST).await?;
    serde_json::from_slice(&body).map_err(|error| GetError::Body(error.to_string()))
}

/// Returns what is kept of a status: within bounds, whoever answers.
fn reports(status: Status) -> Vec<ModelReport> {
    status.models.into_iter().take(MODELS).map(ModelReport::from).collect()
}

impl From<Model> for ModelReport {
    fn from(model: Model) -> Self {
        let state = match model.state.as_str() {
            "downloading" => ModelState::Downloading,
            "loading" => ModelState::Loading,
            "ready" => ModelState::Ready,
            "failed" => ModelState::Failed,
            // "pending", and whatever a newer agent may say.
            _ => ModelState::Pending,
        };
        let name: String = model.name.chars().take(NAME).collect();
        Self {
            downloaded_bytes: model.downloaded_bytes,
            total_bytes: model.total_bytes,
            ..Self::new(&name, state, &plain(&model.message))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::lease::LeaseId;
    use crate::domain::plan::{INSTALLATION_LABEL, LEASE_LABEL};

    #[test]
    fn what_an_agent_tells_is_kept_within_bounds() {
        let model = json!({ "name": "ä".repeat(1000), "state": "new word", "message": "ö ".repeat(2000) });
        let models: Vec<_> = std::iter::repeat_n(model, 100).collect();
        let status = serde_json::from_value(json!({ "revision": 1, "models": models }));
        let kept = reports(status.expect("it is a status"));
        assert_eq!(kept.len(), 64);
        assert_eq!(kept[0].name, "ä".repeat(256));
        assert_eq!((kept[0].message.chars().count(), kept[0].state), (500, ModelState::Pending));
    }

    #[tokio::test]
    async fn agents_are_followed_only_while_that_is_wanted() {
        let (cache, id) = (Arc::new(Cache::new("tms")), LeaseId::random());
        let followers = Followers::new(Arc::clone(&cache), Arc::new(|_| {}));
        let followed = || followers.tasks().as_ref().map(HashMap::len);
        let pod = json!({
            "metadata": {
                "name": "one", "uid": "one", "resourceVersion": "1",
                "labels": { LEASE_LABEL: id.to_string(), INSTALLATION_LABEL: "tms" },
            },
            "status": {
                "podIP": "127.0.0.1",
                "initContainerStatuses": [{
                    "name": "agent", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": { "running": {} },
                }],
            },
        });
        let pod = serde_json::from_value(pod).expect("it is an object");
        let (key, _) = cache.keep(Subject::Pods, pod).expect("it is ours");
        followers.look(&key);
        assert_eq!(followed(), None);
        // Those that were seen before are followed too.
        followers.follow(true);
        assert_eq!(followed(), Some(1));
        followers.follow(false);
        followers.look(&key);
        assert_eq!(followed(), None);
    }
}
