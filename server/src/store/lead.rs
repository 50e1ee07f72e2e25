//! Which of the servers on one PostgreSQL leads: the one whose session holds an advisory lock. PostgreSQL itself ends a
//! session that asks nothing for 10 s, so that a server that is frozen or cut off loses the lock by the
//! database's hand; and a server trusts in its lock no longer than that after a question that was answered.

use std::error::Error;
use std::io;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgAdvisoryLock, PgConnectOptions, PgPool};
use sqlx::{ConnectOptions, Connection, Either, PgConnection};
use tokio::sync::watch;
use tokio::time::timeout;

use super::session::{self, BACK_OFF};
use super::sql::Pool;
use super::{Store, StoreError};
use crate::clock::stopwatch;

/// What PostgreSQL (14 and later) is asked to do with a leader's session: to end it when it asked nothing for 10 s, and to
/// notice that a server which waits for the lock has gone. Limits that an administrator gave the role must not end the wait.
const SETTINGS: [(&str, &str); 5] = [
    ("idle_session_timeout", "10s"),
    ("client_connection_check_interval", "2s"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("transaction_timeout", "0"),
];
/// For how long after it was sent a question that was answered makes sure of the lock: less than `idle_session_timeout`.
const TERM: Duration = Duration::from_secs(9);
/// Time between an answer and the next question.
const PACE: Duration = Duration::from_secs(3);
/// Time for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Time to connect.
const CONNECTING: Duration = Duration::from_secs(10);
/// How often PostgreSQL is asked whether it still knows the session that waits.
const LOOK_AFTER_WAITING: Duration = Duration::from_secs(60);

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

/// Waits for the lock in a session of its own.
async fn lead(pool: &PgPool, lock: &PgAdvisoryLock) -> Result<Leadership, sqlx::Error> {
    let options = pool.connect_options();
    let session = timeout(CONNECTING, open(&options)).await.map_err(too_late)??;
    let mut session = match timeout(PATIENCE, lock.try_acquire(session)).await.map_err(too_late)?? {
        Either::Left(held) => held.leak(),
        Either::Right(session) => {
            tracing::info!("another server leads; this one answers calls, and waits to lead");
            wait(pool, lock, session).await?
        }
    };
    // It may be long ago that the lock was granted, if this server stood still.
    let term = ask(&mut session).await?;
    Ok(Leadership(Hold::Lock { session, until: watch::Sender::new(Some(term)) }))
}

async fn open(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    // Else a wait of hours would be told as a slow statement.
    let options = options.clone().disable_statement_logging();
    let mut session = PgConnection::connect_with(&options).await?;
    session::set(&mut session, &SETTINGS).await?;
    Ok(session)
}

/// Waits for the lock in one statement. A connection that was cut off in silence would wait for ever: PostgreSQL is asked
/// now and then, on another one, whether it still knows this session.
async fn wait(
    pool: &PgPool,
    lock: &PgAdvisoryLock,
    mut session: PgConnection,
) -> Result<PgConnection, sqlx::Error> {
    let id: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut session).await?;
    let mut acquired = std::pin::pin!(lock.acquire(session));
    loop {
        if let Ok(held) = timeout(LOOK_AFTER_WAITING, &mut acquired).await {
            return Ok(held?.leak());
        }
        let known = sqlx::query("SELECT 1 FROM pg_stat_activity WHERE pid = $1").bind(id);
        // While PostgreSQL does not answer there is nothing better than to go on waiting.
        if matches!(known.fetch_optional(pool).await, Ok(None)) {
            return Err(io::Error::from(io::ErrorKind::ConnectionAborted).into());
        }
    }
}

/// Asks the session whether it is there, and returns until when that answer makes sure of its lock.
async fn ask(session: &mut PgConnection) -> Result<Instant, sqlx::Error> {
    let sent = stopwatch();
    timeout(PATIENCE, sqlx::query("SELECT 1").execute(session)).await.map_err(too_late)??;
    Ok(sent + TERM)
}

fn too_late(_: tokio::time::error::Elapsed) -> sqlx::Error {
    io::Error::from(io::ErrorKind::TimedOut).into()
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
