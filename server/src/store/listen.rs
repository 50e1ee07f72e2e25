//! How the servers of one PostgreSQL hear of each other: each commit notifies, within its transaction, and each server
//! listens on a connection of its own. What is lost with that connection counts as missed; no write waits for a listener.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::broadcast;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::session::{self, BACK_OFF};
use super::sql::{Query, sql, within};
use super::{Announcement, Changed};
use crate::clock::stopwatch;
use crate::domain::lease::LeaseId;

/// PostgreSQL takes payloads shorter than 8000 bytes.
const LONGEST: usize = 7999;
/// After this long without a notification the connection is tried: one that was cut off says nothing either.
const QUIET: Duration = Duration::from_secs(30);
/// Time for an answer then.
const ANSWER: Duration = Duration::from_secs(5);
/// A connection that lasted longer was a good one. One that ends at once, as behind a proxy that cannot listen, is begun
/// anew less and less often: all leases are looked at each time.
const STEADY: Duration = Duration::from_secs(30);
/// Tries of the connection show PostgreSQL that the session lives; a role's own limit must not end it before.
const SETTINGS: [(&str, &str); 1] = [("idle_session_timeout", "0")];

/// Where the servers of an installation tell each other of their commits, and as whom this one does.
#[derive(Clone, Debug)]
pub(super) struct Channel {
    name: String,
    server: String,
}

/// What a server hears of others, as long as this lives.
#[derive(Debug)]
pub(super) struct Listening {
    is_listening: Arc<AtomicBool>,
    _task: AbortOnDropHandle<()>,
}

/// What a notification says.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Notification {
    /// The server that committed.
    from: String,
    /// Id, version and owner of each lease; empty where that was too much for one notification.
    changed: Vec<(LeaseId, i64, String)>,
}

impl Channel {
    /// Returns the channel of an installation, for a server that has just started.
    pub fn new(installation: &str) -> Self {
        let server = uuid::Uuid::new_v4().simple().to_string();
        Self { name: format!("tms_{installation}"), server }
    }

    /// Returns what tells others of these changes, to be run in the transaction that makes them.
    pub fn notify(&self, changed: &[Changed]) -> Vec<Query> {
        let notify = |payload| sql("SELECT pg_notify($1, $2)").bind(self.name.as_str()).bind(payload);
        self.payloads(changed).into_iter().map(notify).collect()
    }

    /// Listens until what is returned is dropped.
    pub fn listen(self, options: PgConnectOptions, news: broadcast::Sender<Announcement>) -> Listening {
        let is_listening = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(self.listen_on(options, news, Arc::clone(&is_listening)));
        Listening { is_listening, _task: AbortOnDropHandle::new(task) }
    }

    fn payloads(&self, changed: &[Changed]) -> Vec<String> {
        let payload = self.payload(changed);
        match changed {
            _ if payload.len() <= LONGEST => vec![payload],
            // The name of an owner may be of any length.
            [] | [_] => vec![self.payload(&[])],
            [..] => {
                let (one, other) = changed.split_at(changed.len() / 2);
                [self.payloads(one), self.payloads(other)].concat()
            }
        }
    }

    fn payload(&self, changed: &[Changed]) -> String {
        let changed = changed.iter().map(|change| (change.id, change.version, change.owner.clone()));
        let notification = Notification { from: self.server.clone(), changed: changed.collect() };
        serde_json::to_string(&notification).expect("text and numbers can be written as JSON")
    }

    async fn listen_on(
        self,
        options: PgConnectOptions,
        news: broadcast::Sender<Announcement>,
        is_listening: Arc<AtomicBool>,
    ) {
        let mut pause = BACK_OFF.0;
        loop {
            let begun = stopwatch();
            let Err(error) = self.hear(&options, &news, &is_listening).await;
            is_listening.store(false, Ordering::Relaxed);
            if begun.elapsed() > STEADY {
                pause = BACK_OFF.0;
            }
            // Only the first of several failures in a row is worth a warning.
            if pause == BACK_OFF.0 {
                let error = &error as &dyn Error;
                tracing::warn!(
                    error,
                    "cannot hear of what other servers change; leases are looked at instead"
                );
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACK_OFF.1);
        }
    }

    /// Passes on what is heard, until the connection fails.
    async fn hear(
        &self,
        options: &PgConnectOptions,
        news: &broadcast::Sender<Announcement>,
        is_listening: &AtomicBool,
    ) -> Result<Infallible, sqlx::Error> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .after_connect(|connection, _| Box::pin(session::set(connection, &SETTINGS)))
            .connect_lazy_with(options.clone());
        let mut listener = within(ANSWER * 2, PgListener::connect_with(&pool)).await?;
        listener.eager_reconnect(false);
        within(ANSWER, listener.listen(&self.name)).await?;
        is_listening.store(true, Ordering::Relaxed);
        tell(news, Announcement::Missed);
        loop {
            match timeout(QUIET, listener.try_recv()).await {
                Ok(Ok(Some(notification))) => self.pass_on(notification.payload(), news),
                Ok(Ok(None)) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    let answer = sqlx::query("SELECT 1").execute(&mut listener);
                    within(ANSWER, answer).await?;
                }
            }
        }
    }

    fn pass_on(&self, payload: &str, news: &broadcast::Sender<Announcement>) {
        let Ok(notification) = serde_json::from_str::<Notification>(payload) else {
            // A newer server may have other words.
            return tell(news, Announcement::Missed);
        };
        if notification.from == self.server {
            return;
        }
        if notification.changed.is_empty() {
            tell(news, Announcement::Missed);
        }
        for (id, version, owner) in notification.changed {
            tell(news, Announcement::Theirs(Changed { id, owner, version }));
        }
    }
}

impl Listening {
    /// Whether the changes of others are heard at the moment.
    pub fn is_listening(&self) -> bool {
        self.is_listening.load(Ordering::Relaxed)
    }
}

fn tell(news: &broadcast::Sender<Announcement>, heard: Announcement) {
    // Without a receiver nobody wants to know.
    let _ = news.send(heard);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(owner: &str) -> Changed {
        Changed { id: LeaseId::random(), owner: owner.to_owned(), version: 7 }
    }

    /// What another server hears of these payloads.
    fn heard(payloads: &[String]) -> Vec<Announcement> {
        let (news, mut receiver) = broadcast::channel(1000);
        let other = Channel::new("one");
        payloads.iter().for_each(|payload| other.pass_on(payload, &news));
        std::iter::from_fn(|| receiver.try_recv().ok()).collect()
    }

    #[test]
    fn a_commit_of_many_leases_is_told_in_payloads_that_postgresql_takes() {
        let changes: Vec<_> = (0..256).map(|number| changed(&format!("müller-{number}"))).collect();
        let payloads = Channel::new("one").payloads(&changes);
        assert!(payloads.len() < 5 && payloads.iter().all(|payload| payload.len() < 8000));
        let expected: Vec<_> = changes.into_iter().map(Announcement::Theirs).collect();
        assert_eq!(heard(&payloads), expected);
    }

    #[test]
    fn what_is_too_long_or_not_understood_counts_as_missed() {
        let short = changed("alice");
        let payloads = Channel::new("one").payloads(&[changed(&"o".repeat(8000)), short.clone()]);
        assert_eq!(heard(&payloads), [Announcement::Missed, Announcement::Theirs(short)]);
        assert_eq!(heard(&["a newer word".to_owned()]), [Announcement::Missed]);
    }

    #[test]
    fn a_server_does_not_hear_itself() {
        let (news, mut receiver) = broadcast::channel(10);
        let channel = Channel::new("one");
        channel.payloads(&[changed("alice")]).iter().for_each(|payload| channel.pass_on(payload, &news));
        assert!(receiver.try_recv().is_err());
    }
}
