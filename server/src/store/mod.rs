//! Remembers leases and what happened to them, in SQLite or PostgreSQL. All SQL of the server is in this module; what a
//! change means is decided by `domain`.

mod census;
mod commit;
mod due;
mod lead;
mod listen;
mod open;
mod read;
mod rows;
mod session;
mod sql;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;
use tokio::sync::broadcast;

use crate::domain::lease::{Happening, Lease, LeaseId, State};
use crate::domain::life::Deadlines;
pub use census::Sizes;
use commit::Writer;
pub use lead::{Leadership, Term};
use listen::Listening;
use sql::Pool;

/// How the database is reached, and what it enforces.
#[derive(Clone, Debug)]
pub struct Options {
    /// `sqlite:PATH` or `postgres://…`.
    pub url: String,
    /// Password for PostgreSQL, where the URL has none.
    pub password: Option<SecretString>,
    /// What makes a lease due besides its end.
    pub deadlines: Deadlines,
    /// Leases that an owner may hold at once; 0 is no limit.
    pub maximum_per_owner: u32,
}

/// The database. Cloning it is cheap and gives the same database.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    read: Pool,
    writer: Writer,
    installation: String,
    changes: broadcast::Sender<Announcement>,
    /// Nothing where no other server uses the database.
    listening: Option<Listening>,
}

/// A lease to admit.
#[derive(Clone, Debug)]
pub struct Admission {
    /// The lease, at version 1 and generation 1.
    pub lease: Lease,
    /// The request as its caller names it, so that a repetition is recognised.
    pub request: Option<RequestKey>,
    /// Who asks.
    pub actor: String,
    /// The first event of the lease.
    pub event: Happening,
}

/// What tells a repeated request from another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestKey {
    /// Chosen by the caller, unique among the requests of one owner.
    pub id: String,
    /// Of the request's content.
    pub digest: String,
}

/// What became of an admission.
#[derive(Clone, Debug, PartialEq)]
pub enum Admitted {
    /// The lease was stored.
    New(Lease),
    /// The same request was admitted before, and this is its lease as it is now.
    Existing(Lease),
}

/// What a prefix of an id names.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// One lease.
    One(Box<Lease>),
    /// No lease.
    None,
    /// Several leases: the first of them, up to five.
    Many(Vec<LeaseId>),
}

/// Which leases to list. Every part must match; the default matches all leases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Owner of the lease.
    pub owner: Option<String>,
    /// States, one of which the lease is in; empty for any.
    pub states: Vec<State>,
    /// Labels, all of which the lease carries with these values.
    pub labels: BTreeMap<String, String>,
    /// First digits of the id.
    pub id_prefix: Option<String>,
    /// Made then or later.
    pub created_since: Option<Timestamp>,
    /// Only leases that are not closed.
    pub is_open: bool,
}

/// Which part of a list to return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// The most leases to return.
    pub size: u32,
    /// Where the page before ended.
    pub after: Option<Cursor>,
}

/// A place in a list, between the page that ended there and the next one. As text it serves as a page token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    created_at: Timestamp,
    id: LeaseId,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// Newest first.
    pub leases: Vec<Lease>,
    /// Where the next page begins, if there is one.
    pub next: Option<Cursor>,
}

/// What is announced of the leases of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announcement {
    /// This server has changed one.
    Ours(Changed),
    /// Another server has changed one.
    Theirs(Changed),
    /// Changes of other servers may have been missed.
    Missed,
}

/// A lease was admitted or changed, and this is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The lease.
    pub id: LeaseId,
    /// Its owner.
    pub owner: String,
    /// Its version now.
    pub version: i64,
}

/// The database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The request id was used before, for something else.
    #[error("request id {request_id:?} of {owner} was used before with other content, for lease {lease}")]
    RequestIdReused {
        /// Whose request it is.
        owner: String,
        /// The request's id.
        request_id: String,
        /// The lease that the first request got.
        lease: LeaseId,
    },
    /// The owner holds as many leases as one may.
    #[error("{owner} holds {limit} leases, the most that an owner may hold")]
    TooManyLeases {
        /// Who asked.
        owner: String,
        /// The most leases of an owner.
        limit: u32,
    },
    /// The lease kept changing under the change.
    #[error("lease {0} was changed by others at every attempt")]
    Contended(LeaseId),
    /// The database's URL cannot be used.
    #[error("the database's url is not usable: {0}")]
    Url(String),
    /// The SQLite file belongs to another server that runs.
    #[error("{} is in use by another server; several servers need PostgreSQL", .0.display())]
    InUse(PathBuf),
    /// The folder or lock of the SQLite file cannot be used.
    #[error("cannot use {}", path.display())]
    File {
        /// The folder or lock.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The tables could not be brought up to date.
    #[error("cannot bring the database's tables up to date")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A statement failed, or a commit: then all writes that shared it get this one error.
    #[error("the database failed")]
    Database(#[source] Arc<sqlx::Error>),
    /// A row holds what no server wrote.
    #[error("the row of lease {id} is corrupt: {what}")]
    Corrupt {
        /// The lease, as the row names it.
        id: String,
        /// What is wrong.
        what: String,
    },
    /// The store was closed.
    #[error("the database is closed")]
    Closed,
}

/// A lease was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError<E> {
    /// There is no such lease.
    #[error("no such lease")]
    NotFound,
    /// The change itself refused.
    #[error(transparent)]
    Refused(E),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The text is not a page token.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a page token")]
pub struct NotACursor(String);

impl Store {
    /// The random id of this installation, made when the database was first opened.
    pub fn installation(&self) -> &str {
        &self.0.installation
    }

    /// Whether other servers may use the same database.
    pub fn is_shared(&self) -> bool {
        match self.0.read {
            Pool::Sqlite(_) => false,
            Pool::Postgres(_) => true,
        }
    }

    /// Returns what is committed from now on, by this server and by others of the same database. A receiver that lags
    /// misses changes and is told so.
    pub fn changes(&self) -> broadcast::Receiver<Announcement> {
        self.0.changes.subscribe()
    }

    /// Tells from now on how long each write took to be committed, and whether the database did so. The first who asks is told.
    pub fn time_commits(&self, told: impl Fn(Duration, bool) + Send + Sync + 'static) {
        self.0.writer.time_commits(Box::new(told));
    }

    /// Whether what other servers change is heard of at the moment.
    pub fn hears_others(&self) -> bool {
        self.0.listening.as_ref().is_none_or(Listening::is_listening)
    }
}

impl StoreError {
    /// Whether the database cannot be reached at the moment, rather than refuses for good.
    pub fn is_away(&self) -> bool {
        match self {
            Self::Database(error) => sql::is_away(error),
            Self::Closed => true,
            Self::RequestIdReused { .. }
            | Self::TooManyLeases { .. }
            | Self::Contended(_)
            | Self::Url(_)
            | Self::InUse(_)
            | Self::File { .. }
            | Self::Migrate(_)
            | Self::Corrupt { .. } => false,
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}

impl Cursor {
    /// Returns the place right after this lease.
    pub fn after(lease: &Lease) -> Self {
        Self { created_at: lease.created_at, id: lease.id }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.created_at.as_microsecond(), self.id)
    }
}

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let parse = || {
            let (created_at, id) = text.rsplit_once('-')?;
            let created_at = rows::from_microseconds(created_at.parse().ok()?)?;
            Some(Self { created_at, id: id.parse().ok()? })
        };
        parse().ok_or_else(|| NotACursor(text.to_owned()))
    }
}
