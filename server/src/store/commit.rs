//! How writes are committed. Those that wait while another commit is synced share the next one, so that many callers do
//! not wait for one sync of the disk each; none is answered before its commit.

use std::fmt;
use std::fs::File;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Mutex, broadcast, mpsc, oneshot};

use super::listen::Channel;
use super::sql::{Pool, Transaction};
use super::write::{Outcome, Rules, Write};
use super::{Announcement, StoreError};
use crate::clock::stopwatch;
use crate::domain::life::Deadlines;

/// How many writes share a commit at most, so that the first of them does not wait for long.
const LARGEST_BATCH: usize = 256;
/// How many batches are under way on PostgreSQL. Those of one owner wait for each other; others need not.
const POSTGRES_BATCHES: usize = 4;

/// Takes writes, and finishes them even if their callers stop waiting.
#[derive(Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<Job>,
    committer: Committer,
    timed: OnceLock<Timed>,
}

/// Is told how long a write took, and whether the database did its part.
struct Timed(Box<dyn Fn(Duration, bool) + Send + Sync>);

impl fmt::Debug for Timed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Timed")
    }
}

/// Commits batches of writes.
#[derive(Clone, Debug)]
pub(super) struct Committer {
    /// Connections that may write.
    pub pool: Pool,
    /// What every write obeys.
    pub rules: Rules,
    /// Who is told of what was committed.
    pub changes: broadcast::Sender<Announcement>,
    /// Where other servers are told; nothing where there are none.
    pub channel: Option<Channel>,
}

/// A write and who waits for it.
#[derive(Debug)]
struct Job {
    write: Write,
    answer: oneshot::Sender<Result<Outcome, StoreError>>,
}

/// Why a batch left nothing behind.
enum Failure {
    /// One of its writes failed; the others may succeed without it.
    OfOne { place: usize, error: StoreError },
    /// The transaction failed.
    OfAll(Arc<sqlx::Error>),
}

impl Writer {
    /// Starts the tasks that commit. They end, and release the lock, after the last write.
    pub fn start(committer: Committer, lock: Option<File>) -> Self {
        let (queue, jobs) = mpsc::channel(LARGEST_BATCH);
        let jobs = Arc::new(Mutex::new(jobs));
        match &committer.pool {
            Pool::Sqlite(_) => {
                let committer = committer.clone();
                tokio::spawn(async move {
                    committer.run(&jobs).await;
                    committer.pool.close().await;
                    drop(lock);
                });
            }
            Pool::Postgres(_) => {
                for _ in 0..POSTGRES_BATCHES {
                    let (committer, jobs) = (committer.clone(), Arc::clone(&jobs));
                    tokio::spawn(async move { committer.run(&jobs).await });
                }
            }
        }
        Self { queue, committer, timed: OnceLock::new() }
    }

    /// What makes a lease due besides its end.
    pub fn deadlines(&self) -> &Deadlines {
        &self.committer.rules.deadlines
    }

    /// Begins a transaction of its own, for what is written of no lease.
    pub async fn begin(&self) -> Result<Transaction, sqlx::Error> {
        self.committer.pool.begin().await
    }

    /// Tells from now on how long each write took.
    pub fn time_commits(&self, told: Box<dyn Fn(Duration, bool) + Send + Sync>) {
        // Whoever asks later is not told.
        let _ = self.timed.set(Timed(told));
    }

    /// Performs a write and returns once it is committed or left nothing behind.
    pub async fn write(&self, write: Write) -> Result<Outcome, StoreError> {
        let begun = stopwatch();
        let outcome = self.commit(write).await;
        if let Some(Timed(told)) = self.timed.get() {
            let has_failed = matches!(outcome, Err(StoreError::Database(_) | StoreError::Closed));
            told(begun.elapsed(), !has_failed);
        }
        outcome
    }

    async fn commit(&self, write: Write) -> Result<Outcome, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job = Job { write, answer };
        match (&self.committer.pool, &job.write) {
            // Changes lock their lease's row, then perhaps their owner's. Batches of them could wait for each other in a
            // circle.
            (Pool::Postgres(_), Write::Replace(_)) => {
                let committer = self.committer.clone();
                tokio::spawn(async move { committer.perform(vec![job]).await });
            }
            (Pool::Postgres(_), Write::Insert(_)) | (Pool::Sqlite(_), _) => {
                self.queue.send(job).await.map_err(|_| StoreError::Closed)?;
            }
        }
        answered.await.map_err(|_| StoreError::Closed)?
    }
}

impl Committer {
    async fn run(&self, jobs: &Mutex<mpsc::Receiver<Job>>) {
        loop {
            let mut batch = Vec::new();
            if jobs.lock().await.recv_many(&mut batch, LARGEST_BATCH).await == 0 {
                return;
            }
            // Batches that lock the rows of several owners do so in one order, and never wait for each other in a circle.
            batch.sort_by(|one, other| one.write.lease().owner.cmp(&other.write.lease().owner));
            self.perform(batch).await;
        }
    }

    async fn perform(&self, mut batch: Vec<Job>) {
        while !batch.is_empty() {
            match self.commit(&batch).await {
                Ok(outcomes) => {
                    for (job, outcome) in batch.drain(..).zip(outcomes) {
                        self.answer(job, Ok(outcome));
                    }
                }
                Err(Failure::OfOne { place, error }) => self.answer(batch.remove(place), Err(error)),
                Err(Failure::OfAll(error)) => {
                    for job in batch.drain(..) {
                        self.answer(job, Err(StoreError::Database(Arc::clone(&error))));
                    }
                }
            }
        }
    }

    async fn commit(&self, batch: &[Job]) -> Result<Vec<Outcome>, Failure> {
        let of_all = |error| Failure::OfAll(Arc::new(error));
        let mut transaction = self.pool.begin().await.map_err(of_all)?;
        let mut outcomes = Vec::with_capacity(batch.len());
        for (place, job) in batch.iter().enumerate() {
            match job.write.perform(&mut transaction, &self.rules).await {
                Ok(outcome) => outcomes.push(outcome),
                Err(error) => {
                    // The first error is the cause. On a full disk the database has undone everything by itself, and
                    // there is nothing left to roll back.
                    if let Err(error) = transaction.rollback().await {
                        tracing::debug!(%error, "a transaction that failed could not be rolled back either");
                    }
                    return Err(Failure::OfOne { place, error });
                }
            }
        }
        let written = batch.iter().zip(&outcomes).filter(|(_, outcome)| matches!(outcome, Outcome::Written));
        let changed: Vec<_> = written.map(|(job, _)| job.write.changed()).collect();
        if changed.is_empty() {
            transaction.rollback().await.map_err(of_all)?;
            return Ok(outcomes);
        }
        for notify in self.channel.iter().flat_map(|channel| channel.notify(&changed)) {
            transaction.execute(notify).await.map_err(of_all)?;
        }
        transaction.commit().await.map_err(of_all)?;
        Ok(outcomes)
    }

    fn answer(&self, job: Job, outcome: Result<Outcome, StoreError>) {
        if let Ok(Outcome::Written) = outcome {
            // Without a receiver nobody wants to know.
            let _ = self.changes.send(Announcement::Ours(job.write.changed()));
        }
        // A caller that has gone needs no answer.
        let _ = job.answer.send(outcome);
    }
}
