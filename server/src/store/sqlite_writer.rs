//! The one task that writes to SQLite. Writes that wait while another commit is synced share the next one, so that many
//! callers do not wait for one sync of the disk each.

use std::fs::File;
use std::sync::Arc;

use sqlx::sqlite::SqlitePool;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::sql::{Pool, Transaction};
use super::write::{Outcome, Rules, Write};
use super::{Changed, StoreError};

/// How many writes share a commit at most, so that the first of them does not wait for long.
const LARGEST_BATCH: usize = 256;

/// A write and who waits for it.
#[derive(Debug)]
pub(super) struct Job {
    pub write: Write,
    pub answer: oneshot::Sender<Result<Outcome, StoreError>>,
}

/// Starts the task, which ends and gives the file free when the last sender is dropped.
pub(super) fn start(
    pool: SqlitePool,
    lock: File,
    rules: Rules,
    changes: broadcast::Sender<Changed>,
) -> mpsc::Sender<Job> {
    let (sender, mut jobs) = mpsc::channel(LARGEST_BATCH);
    tokio::spawn(async move {
        let pool = Pool::Sqlite(pool);
        let mut batch = Vec::new();
        while jobs.recv_many(&mut batch, LARGEST_BATCH).await > 0 {
            perform(&pool, batch.drain(..), &rules, &changes).await;
        }
        pool.close().await;
        drop(lock);
    });
    sender
}

async fn perform(
    pool: &Pool,
    batch: impl Iterator<Item = Job>,
    rules: &Rules,
    changes: &broadcast::Sender<Changed>,
) {
    let (writes, answers): (Vec<_>, Vec<_>) = batch.map(|job| (job.write, job.answer)).unzip();
    match commit_together(pool, &writes, rules).await {
        Ok(outcomes) => {
            for ((write, answer), outcome) in writes.iter().zip(answers).zip(outcomes) {
                if matches!(outcome, Ok(Outcome::Written)) {
                    // Without a receiver nobody wants to know.
                    let _ = changes.send(write.changed());
                }
                // A caller that has gone needs no answer; nor does one below.
                let _ = answer.send(outcome);
            }
        }
        Err(error) => {
            let error = Arc::new(error);
            for answer in answers {
                let _ = answer.send(Err(StoreError::Commit(Arc::clone(&error))));
            }
        }
    }
}

/// Performs each write within a savepoint of its own, then commits those that succeeded. An error is that of them all.
async fn commit_together(
    pool: &Pool,
    writes: &[Write],
    rules: &Rules,
) -> Result<Vec<Result<Outcome, StoreError>>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let mut outcomes = Vec::with_capacity(writes.len());
    for write in writes {
        outcomes.push(within_savepoint(&mut transaction, write, rules).await?);
    }
    transaction.commit().await?;
    Ok(outcomes)
}

async fn within_savepoint(
    transaction: &mut Transaction,
    write: &Write,
    rules: &Rules,
) -> Result<Result<Outcome, StoreError>, sqlx::Error> {
    transaction.execute("SAVEPOINT one_write").await?;
    let outcome = write.perform(transaction, rules).await;
    if !matches!(outcome, Ok(Outcome::Written)) {
        transaction.execute("ROLLBACK TO one_write").await?;
    }
    transaction.execute("RELEASE one_write").await?;
    Ok(outcome)
}
