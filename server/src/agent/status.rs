//! What the agent tells of its models: one board that the agent writes and its HTTP server reads.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::watch;

use super::download::Came;
use crate::clock;

/// Time between two news of how many bytes have come.
const BYTES_INTERVAL: Duration = Duration::from_secs(1);

/// Where a model is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its turn has not come.
    Pending,
    /// It is being fetched or unpacked.
    Downloading,
    /// It is laid out, and Triton loads it.
    Loading,
    /// Triton serves it.
    Ready,
    /// It cannot be had.
    Failed,
}

/// What is known of one model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Model {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub state: State,
    /// Bytes that have come, while it is being downloaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downloaded_bytes: Option<u64>,
    /// Bytes that are to come in all, where the server said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// Why it is not further, or nothing.
    pub message: String,
    /// Tries that failed since something went well last.
    #[serde(skip_serializing_if = "is_zero")]
    pub failed_tries: u32,
}

/// What is known of all models at one time.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// Rises with every change.
    pub revision: u64,
    /// The models, in the order in which they are loaded.
    pub models: Vec<Model>,
    /// Whether every model has been laid out.
    #[serde(skip)]
    pub is_fetched: bool,
}

impl Snapshot {
    /// Returns why the models cannot be used now, or nothing where they can.
    pub fn unready(&self) -> Option<String> {
        let model = self.models.iter().find(|model| model.state != State::Ready)?;
        let state = match model.state {
            State::Pending => "waits for its turn",
            State::Downloading => "is being fetched",
            State::Loading => "is being loaded",
            State::Ready | State::Failed => "cannot be loaded",
        };
        let reason = if model.message.is_empty() { String::new() } else { format!(": {}", model.message) };
        Some(format!("{} {state}{reason}", model.name))
    }
}

/// The board.
pub struct Board {
    snapshot: watch::Sender<Snapshot>,
    bytes_told: Mutex<Option<Instant>>,
}

impl Board {
    /// Returns a board on which every model is pending.
    pub fn new(names: impl Iterator<Item = String>) -> Self {
        let model = |name| Model {
            name,
            state: State::Pending,
            downloaded_bytes: None,
            total_bytes: None,
            message: String::new(),
            failed_tries: 0,
        };
        let models = names.map(model).collect();
        Self {
            snapshot: watch::Sender::new(Snapshot { revision: 1, models, is_fetched: false }),
            bytes_told: Mutex::default(),
        }
    }

    /// Returns what is on it.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.borrow().clone()
    }

    /// Returns what is on it once its revision is higher than `revision`.
    pub async fn after(&self, revision: u64) -> Snapshot {
        let mut changes = self.snapshot.subscribe();
        match changes.wait_for(|snapshot| snapshot.revision > revision).await {
            Ok(snapshot) => snapshot.clone(),
            // The sender lives in `self`.
            Err(_) => self.snapshot(),
        }
    }

    /// Says where a model is, and why it is not further.
    pub fn set(&self, index: usize, state: State, message: &str) {
        self.change(index, |model| moved(model, state, message));
    }

    /// Says that a try failed, and where that leaves the model.
    pub fn fail(&self, index: usize, state: State, message: &str) {
        self.change(index, |model| Model {
            failed_tries: model.failed_tries.saturating_add(1),
            ..moved(model, state, message)
        });
    }

    /// Says what is done with a model now, unless its last try failed: that one's reason stays until something goes well, so
    /// that it does not come and go with every try.
    pub fn begin(&self, index: usize, state: State, message: &str) {
        self.change(index, |model| match model.failed_tries {
            0 => moved(model, state, message),
            _ => model.clone(),
        });
    }

    /// Says how much of a model has come: at once where it is its first or last byte, otherwise once a second. A try of which
    /// nothing has come yet does not clear the reason of the one before.
    pub fn bytes(&self, index: usize, came: Came) {
        let Came { now, bytes: downloaded, total } = came;
        let is_notable = downloaded == 0 || Some(downloaded) == total;
        {
            let mut told = self.bytes_told.lock().expect("nobody panics while holding it");
            if !is_notable && told.is_some_and(|told| told.elapsed() < BYTES_INTERVAL) {
                return;
            }
            *told = Some(clock::stopwatch());
        }
        self.change(index, |model| {
            let failed_tries = if now == 0 { model.failed_tries } else { 0 };
            Model {
                name: model.name.clone(),
                state: State::Downloading,
                downloaded_bytes: Some(downloaded),
                total_bytes: total,
                message: if failed_tries > 0 { model.message.clone() } else { String::new() },
                failed_tries,
            }
        });
    }

    /// Says that every model is laid out.
    pub fn fetched(&self) {
        self.snapshot.send_modify(|snapshot| {
            snapshot.is_fetched = true;
            snapshot.revision += 1;
        });
    }

    fn change(&self, index: usize, change: impl FnOnce(&Model) -> Model) {
        self.snapshot.send_if_modified(|snapshot| {
            let Some(model) = snapshot.models.get_mut(index) else { return false };
            let changed = change(model);
            if changed == *model {
                return false;
            }
            *model = changed;
            snapshot.revision += 1;
            true
        });
    }
}

/// A model that has come to another state. How much of it came matters only while it comes.
fn moved(model: &Model, state: State, message: &str) -> Model {
    Model {
        name: model.name.clone(),
        state,
        downloaded_bytes: model.downloaded_bytes.filter(|_| state == State::Downloading),
        total_bytes: model.total_bytes.filter(|_| state == State::Downloading),
        message: message.to_owned(),
        failed_tries: 0,
    }
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(board: &Board) -> (State, String) {
        let model = &board.snapshot().models[0];
        (model.state, model.message.clone())
    }

    #[test]
    fn the_reason_of_a_failed_load_stays_until_one_succeeds() {
        let board = Board::new(["a".to_owned()].into_iter());
        board.begin(0, State::Loading, "Triton is not live");
        board.begin(0, State::Loading, "");
        assert_eq!(shown(&board), (State::Loading, String::new()));
        board.fail(0, State::Failed, "no GPU");
        let revision = board.snapshot().revision;
        board.begin(0, State::Loading, "");
        assert_eq!(board.snapshot().revision, revision, "trying again is no news");
        board.fail(0, State::Failed, "no GPU");
        assert_eq!(shown(&board), (State::Failed, "no GPU".to_owned()));
        assert_eq!(board.snapshot().models[0].failed_tries, 2);
        assert!(serde_json::to_string(&board.snapshot()).unwrap().contains(r#""failedTries":2"#));
        board.set(0, State::Ready, "");
        board.begin(0, State::Loading, "");
        assert_eq!(shown(&board), (State::Loading, String::new()));
    }

    #[test]
    fn the_reason_of_a_cut_download_stays_until_more_of_it_comes() {
        let board = Board::new(["a".to_owned()].into_iter());
        board.bytes(0, Came { now: 0, bytes: 0, total: Some(9) });
        board.fail(0, State::Downloading, "it was cut");
        board.bytes(0, Came { now: 0, bytes: 0, total: Some(9) });
        assert_eq!(shown(&board), (State::Downloading, "it was cut".to_owned()));
        board.bytes(0, Came { now: 9, bytes: 9, total: Some(9) });
        assert_eq!(shown(&board), (State::Downloading, String::new()));
    }

    #[tokio::test]
    async fn only_a_change_raises_the_revision() {
        let board = Board::new(["a".to_owned(), "b".to_owned()].into_iter());
        assert_eq!(board.snapshot().unready().as_deref(), Some("a waits for its turn"));
        for bytes in [0, 5, 9] {
            board.bytes(0, Came { now: bytes, bytes, total: Some(9) });
        }
        assert_eq!(board.after(2).await.revision, 3, "the five came within a second of the first");
        insta::assert_snapshot!(serde_json::to_string(&board.snapshot()).unwrap(), @r#"{"revision":3,"models":[{"name":"a","state":"downloading","downloadedBytes":9,"totalBytes":9,"message":""},{"name":"b","state":"pending","message":""}]}"#);
        board.set(0, State::Ready, "");
        board.set(0, State::Ready, "");
        assert_eq!(board.snapshot().revision, 4);
        board.set(1, State::Loading, "Triton does not answer");
        assert_eq!(board.snapshot().unready().as_deref(), Some("b is being loaded: Triton does not answer"));
        board.set(1, State::Ready, "");
        assert_eq!(board.snapshot().unready(), None);
        insta::assert_snapshot!(serde_json::to_string(&board.snapshot()).unwrap(), @r#"{"revision":6,"models":[{"name":"a","state":"ready","message":""},{"name":"b","state":"ready","message":""}]}"#);
    }
}
