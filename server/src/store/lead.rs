//! Which of the servers on one PostgreSQL leads: the one whose session holds an advisory lock. PostgreSQL itself ends a
//! session that asks nothing for 10 s, so that a server that is frozen or cut off loses the lock by the
//! database's hand; and a server trusts in its lock no longer than that after a question that was answered.

use std::error::Error;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgAdvisoryLock, PgConnectOptions, PgPool};
use sqlx::{ConnectOptions, Connection, Either, PgConnection};
use tokio::sync::watch;
use tokio::time::timeout;

use super::session::{self, BACK_OFF};
use super::sql::{Pool, within};
use super::{Store, StoreError};
use crate::clock::stopwatch;

/// What PostgreSQL (14 and later) is asked to do with the session of a server that leads or waits to: to end it when it
/// asked nothing for 10 s.
const SETTINGS: [(&str, &str); 1] = [("idle_session_timeout", "10s")];
/// For how long after it was sent a question that was answered makes sure of the lock: less than `idle_session_timeout`.
const TERM: Duration = Duration::from_secs(9);
/// Time between an answer and the next question.
const PACE: Duration = Duration::from_secs(3);
/// Time for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Time to connect.
const CONNECTING: Duration = Duration::from_secs(10);
/// Time between two tries to get the lock. A statement that waits for it would hold back the horizon up to which PostgreSQL
/// removes dead rows, for as long as another server leads.
const TRY_INTERVAL: Duration = Duration::from_secs(1);

/// That this server leads. It ends when it is dropped, or when the database says so.
#[derive(Debug)]
pub struct Leadership(Hold);

#[derive(Debug)]
enum Hold {
    /// No other server uses the database.
    Alone,
    /// A session that holds the lock.
    Lock { session: PgConnection, until: watch::Sender<Option<Instant>> },
}

/// For how long a server leads, as far as it knows. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Term(Option<watch::Receiver<Option<Instant>>>);

impl Store {
    /// Waits until this server leads those of its database. On a SQLite file it does at once, for there is no other.
    pub async fn lead(&self) -> Leadership {
        let Pool::Postgres(pool) = &self.0.read else { return Leadership(Hold::Alone) };
        let lock = PgAdvisoryLock::new(format!("tms leader of {}", self.installation()));
        let mut pause = BACK_OFF.0;
        loop {
            match lead(pool, &lock).await {
                Ok(leadership) => return leadership,
                Err(error) => {
                    let error = &error as &dyn Error;
                    tracing::warn!(error, "cannot wait for the lead among the servers of the database");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACK_OFF.1);
        }
    }
}

impl Leadership {
    /// Returns for how long this lasts, which is prolonged by [`Leadership::keep`].
    pub fn term(&self) -> Term {
        match &self.0 {
            Hold::Alone => Term(None),
            Hold::Lock { until, .. } => Term(Some(until.subscribe())),
        }
    }

    /// Keeps it, and returns why that failed when it did. From then on it is over.
    pub async fn keep(&mut self) -> StoreError {
        let Hold::Lock { session, until } = &mut self.0 else { return std::future::pending().await };
        loop {
            tokio::time::sleep(PACE).await;
            match ask(session).await {
                Ok(term) => drop(until.send_replace(Some(term))),
                Err(error) => {
                    until.send_replace(None);
                    return error.into();
                }
            }
        }
    }

    /// Gives it up, so that another server leads at once.
    pub async fn resign(self) {
        let Hold::Lock { session, until } = self.0 else { return };
        until.send_replace(None);
        // A session that cannot be closed ends by the database's hand.
        let _ = timeout(PATIENCE, session.close()).await;
    }
}

impl Term {
    /// Returns a term that has ended.
    #[cfg(test)]
    pub fn lapsed() -> Self {
        Self(Some(watch::Sender::new(None).subscribe()))
    }

    /// Whether the server may lead no more.
    pub fn is_over(&self) -> bool {
        self.0.as_ref().is_some_and(|until| !is_ahead(&until.borrow()))
    }

    /// Waits until the server is sure to lead.
    pub async fn is_sure(&self) {
        if let Some(until) = &self.0
            && until.clone().wait_for(is_ahead).await.is_err()
        {
            // Nobody prolongs it any more.
            std::future::pending().await
        }
    }
}

fn is_ahead(until: &Option<Instant>) -> bool {
    until.is_some_and(|until| stopwatch() < until)
}

/// Tries to get the lock, in a session of its own, until that succeeds.
async fn lead(pool: &PgPool, lock: &PgAdvisoryLock) -> Result<Leadership, sqlx::Error> {
    let options = pool.connect_options();
    let mut session = within(CONNECTING, open(&options)).await?;
    let mut has_told = false;
    loop {
        let sent = stopwatch();
        session = match within(PATIENCE, lock.try_acquire(session)).await? {
            Either::Left(held) => {
                let until = watch::Sender::new(Some(sent + TERM));
                return Ok(Leadership(Hold::Lock { session: held.leak(), until }));
            }
            Either::Right(session) => session,
        };
        if !std::mem::replace(&mut has_told, true) {
            tracing::info!("another server leads; this one answers calls, and waits to lead");
        }
        tokio::time::sleep(TRY_INTERVAL).await;
    }
}

async fn open(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    // Else a log of every detail would tell of each try.
    let options = options.clone().disable_statement_logging();
    let mut session = PgConnection::connect_with(&options).await?;
    session::set(&mut session, &SETTINGS).await?;
    Ok(session)
}

/// Asks the session whether it is there, and returns until when that answer makes sure of its lock.
async fn ask(session: &mut PgConnection) -> Result<Instant, sqlx::Error> {
    let sent = stopwatch();
    within(PATIENCE, sqlx::query("SELECT 1").execute(session)).await?;
    Ok(sent + TERM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_term_is_sure_only_while_its_end_is_ahead() {
        let until = watch::Sender::new(Some(stopwatch()));
        let term = Term(Some(until.subscribe()));
        assert!(term.is_over());
        assert!(timeout(Duration::from_millis(20), term.is_sure()).await.is_err());
        until.send_replace(Some(stopwatch() + TERM));
        term.is_sure().await;
        assert!(!term.is_over());
        until.send_replace(None);
        assert!(term.is_over());
    }
}
