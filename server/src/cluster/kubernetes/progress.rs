//! Follows the agents of pods that are not ready yet, so that their leases tell how far each model is. Each question waits
//! at the agent until there is news; where an agent cannot be reached, progress is coarser, and nothing else is lost. Only
//! the server that takes the passes asks.
//!
//! A question that waits costs a connection and little memory, so that hundreds may wait; what costs is the answer that is read.
//! Beyond as many as may wait, agents are asked in turns, one as often as the other, for what they have at the moment.

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
use crate::metrics::Metrics;

/// Questions that wait for news at once. Each is a connection, and a server may be left with 1,024 of those and of files.
const WAITING: usize = 512;
/// Questions at once that do not wait: the first to each agent, and those for which there is no place to wait.
const TURNS: usize = 32;
/// Answers to waiting questions that are read at once.
const READING: usize = 32;
/// Time between two questions to an agent for which there is no place to wait.
const TURN_INTERVAL: Duration = Duration::from_secs(5);
/// Time for an answer to a question that waits: an agent without news answers after 20 s.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Time for an answer to another.
const SHORT_TIMEOUT: Duration = Duration::from_secs(5);
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
    places: Arc<Places>,
    /// Nothing while no agent is to be asked.
    tasks: Mutex<Option<Tasks>>,
}

type Tasks = HashMap<Key, (Agent, JoinHandle<()>)>;

/// What bounds the questions under way.
struct Places {
    waiting: Semaphore,
    turns: Semaphore,
    reading: Semaphore,
    turn_interval: Duration,
    metrics: Arc<Metrics>,
}

impl Places {
    fn new(waiting: usize, turns: usize, turn_interval: Duration, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            waiting: Semaphore::new(waiting),
            turns: Semaphore::new(turns),
            reading: Semaphore::new(READING),
            turn_interval,
            metrics,
        })
    }
}

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
    #[serde(default)]
    failed_tries: u32,
}

impl Followers {
    pub fn new(cache: Arc<Cache>, wake: Wake, metrics: Arc<Metrics>) -> Self {
        Self::within(cache, wake, Places::new(WAITING, TURNS, TURN_INTERVAL, metrics))
    }

    fn within(cache: Arc<Cache>, wake: Wake, places: Arc<Places>) -> Self {
        Self { cache, wake, places, tasks: Mutex::default() }
    }

    /// Follows agents from now on, or none any more.
    pub fn follow(&self, is_wanted: bool) {
        let before = std::mem::replace(&mut *self.tasks(), is_wanted.then(Tasks::new));
        before.iter().for_each(abort);
        if is_wanted {
            self.cache.forget_models();
        }
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
async fn follow(key: Key, agent: Agent, cache: Arc<Cache>, wake: Wake, places: Arc<Places>) {
    let mut after = None;
    let mut pause = BACK_OFF.0;
    let mut has_told = false;
    loop {
        let place = after.and_then(|_| places.waiting.try_acquire().ok());
        let spacing = if after.is_some() && place.is_none() { places.turn_interval } else { SPACING };
        let answer = match (after, &place) {
            (Some(after), Some(_)) => ask_later(&agent, after, &places.reading).await,
            (Some(_), None) | (None, _) => ask_now(&agent, &places.turns).await,
        };
        drop(place);
        places.metrics.count_agent_answer(answer.is_ok());
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
                tokio::time::sleep(spacing).await;
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

/// Asks for the status after a revision, and reads it once there is a place among those that are read.
async fn ask_later(agent: &Agent, after: u64, reading: &Semaphore) -> Result<Status, GetError> {
    let path = format!("/status?after={after}");
    ask(agent, &path, TIMEOUT, reading.acquire()).await
}

/// Asks for the status that there is, once it is this agent's turn.
async fn ask_now(agent: &Agent, turns: &Semaphore) -> Result<Status, GetError> {
    let _turn = turns.acquire().await;
    ask(agent, "/status", SHORT_TIMEOUT, std::future::ready(())).await
}

async fn ask<T>(
    agent: &Agent,
    path: &str,
    timeout: Duration,
    turn: impl Future<Output = T>,
) -> Result<Status, GetError> {
    let address = SocketAddr::new(agent.address, AGENT_PORT);
    let body = http::get(address, path, timeout, LARGEST, turn).await?;
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
            failed_tries: model.failed_tries,
            ..Self::new(&name, state, &plain(&model.message))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use kube::api::DynamicObject;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::watch;
    use tokio::task::JoinSet;

    use super::*;
    use crate::domain::lease::LeaseId;
    use crate::domain::plan::{INSTALLATION_LABEL, LEASE_LABEL};

    /// A pod of a lease, whose agent runs.
    fn pod(lease: LeaseId, uid: &str, address: IpAddr) -> DynamicObject {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "a", "uid": uid, "resourceVersion": "1",
                "labels": { LEASE_LABEL: lease.to_string(), INSTALLATION_LABEL: "tms" },
            },
            "status": {
                "podIP": address.to_string(),
                "initContainerStatuses": [{
                    "name": "agent", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": { "running": {} },
                }],
            },
        });
        serde_json::from_value(pod).expect("it is an object")
    }

    /// Agents of a lease each, on addresses of their own, that all tell one revision, and as many bytes of their model.
    struct Agents {
        cache: Arc<Cache>,
        followers: Followers,
        keys: Vec<Key>,
        revision: watch::Sender<u64>,
        _tasks: JoinSet<()>,
    }

    impl Agents {
        async fn start(count: u8, places: Arc<Places>) -> Self {
            // Addresses that nobody else on this machine has.
            let [one, two, ..] = *uuid::Uuid::new_v4().as_bytes();
            let cache = Arc::new(Cache::new("tms"));
            let followers = Followers::within(Arc::clone(&cache), Arc::new(|_| {}), places);
            let revision = watch::Sender::new(1);
            let (mut tasks, mut keys) = (JoinSet::new(), Vec::new());
            for index in 1..=count {
                let address = IpAddr::V4(Ipv4Addr::new(127, one | 128, two, index));
                let listener = TcpListener::bind((address, AGENT_PORT)).await.unwrap();
                tasks.spawn(serve(listener, revision.subscribe()));
                let pod = pod(LeaseId::random(), &index.to_string(), address);
                let (key, _) = cache.keep(Subject::Pods, pod).expect("it is ours");
                keys.push(key);
            }
            followers.follow(true);
            Self { cache, followers, keys, revision, _tasks: tasks }
        }

        /// Waits until every agent was heard to tell this revision.
        async fn until_heard(&self, revision: u64) {
            let is_heard = |key: &Key| self.cache.downloaded(key) == Some(revision);
            let heard = async {
                while !self.keys.iter().all(is_heard) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            let in_time = tokio::time::timeout(Duration::from_secs(15), heard).await;
            let count = self.keys.iter().filter(|key| is_heard(key)).count();
            in_time.unwrap_or_else(|_| panic!("{count} of {} were heard", self.keys.len()));
        }
    }

    async fn serve(listener: TcpListener, revision: watch::Receiver<u64>) {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(answer(stream, revision.clone()));
        }
    }

    async fn answer(mut stream: TcpStream, mut revision: watch::Receiver<u64>) {
        let mut head = [0; 1024];
        let read = stream.read(&mut head).await.unwrap_or(0);
        let head = String::from_utf8_lossy(&head[..read]).into_owned();
        let after = head.split_once("after=").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        if let Some(after) = after {
            let later = revision.wait_for(|revision| *revision > after);
            let _ = tokio::time::timeout(Duration::from_secs(20), later).await;
        }
        let revision = *revision.borrow();
        let model =
            json!({ "name": "bert", "state": "downloading", "downloadedBytes": revision, "totalBytes": 5 });
        let body = json!({ "revision": revision, "models": [model] }).to_string();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        // One that goes away is no fault.
        let _ = stream.write_all(answer.as_bytes()).await;
    }

    #[tokio::test]
    async fn every_agent_is_heard_while_a_hundred_of_them_wait() {
        let agents = Agents::start(100, Places::new(WAITING, TURNS, TURN_INTERVAL, Arc::default())).await;
        for revision in 1..4 {
            agents.revision.send_replace(revision);
            agents.until_heard(revision).await;
        }
        assert_eq!(agents.followers.tasks().as_ref().map(HashMap::len), Some(100));
    }

    #[tokio::test]
    async fn agents_without_a_place_to_wait_are_heard_in_turns() {
        let agents = Agents::start(20, Places::new(3, 2, Duration::from_millis(100), Arc::default())).await;
        for revision in 1..4 {
            agents.revision.send_replace(revision);
            agents.until_heard(revision).await;
        }
    }

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
    async fn agents_are_followed_only_while_that_is_wanted_and_asked_anew_each_time() {
        let (cache, id) = (Arc::new(Cache::new("tms")), LeaseId::random());
        let followers = Followers::new(Arc::clone(&cache), Arc::new(|_| {}), Arc::default());
        let followed = || followers.tasks().as_ref().map(HashMap::len);
        let pod = pod(id, "one", IpAddr::V4(Ipv4Addr::LOCALHOST));
        let (key, _) = cache.keep(Subject::Pods, pod).expect("it is ours");
        followers.look(&key);
        assert_eq!(followed(), None);
        // Those that were seen before are followed too.
        followers.follow(true);
        assert_eq!(followed(), Some(1));
        let agent = cache.agent(&key).expect("it can be asked");
        let model =
            ModelReport { downloaded_bytes: Some(5), ..ModelReport::new("a", ModelState::Downloading, "") };
        assert!(cache.keep_models(&key, &agent, vec![model], system_now()));
        followers.follow(false);
        followers.look(&key);
        assert_eq!((followed(), cache.downloaded(&key)), (None, Some(5)));
        // Another server may have been told more meanwhile.
        followers.follow(true);
        assert_eq!((followed(), cache.downloaded(&key)), (Some(1), None));
    }
}
