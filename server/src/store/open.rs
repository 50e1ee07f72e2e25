//! Opening a database: its tables are brought up to date, and a SQLite file is kept to one server.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, SqlSafeStr};
use tokio::sync::broadcast;

use super::commit::{Committer, Writer};
use super::listen::Channel;
use super::sql::{Pool, sql};
use super::write::Rules;
use super::{Inner, Options, Store, StoreError, rows};
use crate::clock::{Clock, stopwatch, system_now};

/// Changes that a receiver may lag behind.
const CHANGES_KEPT: usize = 4096;
/// Connections to PostgreSQL of one server.
const POSTGRES_CONNECTIONS: u32 = 16;
/// Connections that read SQLite, beside the one that writes.
const SQLITE_READERS: u32 = 4;
/// How long a connection is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bounds how long a server that is frozen in the middle of a transaction keeps others waiting for the rows it has locked.
const END_OF_IDLE_TRANSACTIONS: &str = "SET idle_in_transaction_session_timeout = '3s'";
/// How often a locked SQLite file is tried, and the pause between: its last server may be about to end.
const LOCK_ATTEMPTS: u32 = 25;
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// Readings of the database's clock, of which the quickest counts.
const CLOCK_READINGS: u32 = 5;

impl Store {
    /// Opens a database, brings its tables up to date, makes the clock follow the database's, and has each lease due as the
    /// deadlines say now.
    pub async fn open(options: &Options, clock: &Clock) -> Result<Self, StoreError> {
        let rules =
            Rules { deadlines: options.deadlines.clone(), maximum_per_owner: options.maximum_per_owner };
        let store = match options.url.split(':').next() {
            Some("sqlite") => open_sqlite(&options.url, rules).await?,
            Some("postgres" | "postgresql") => open_postgres(options, rules).await?,
            _ => {
                let reason = "it begins with neither sqlite: nor postgres:";
                return Err(StoreError::Url(reason.to_owned()));
            }
        };
        store.follow_clock(clock).await?;
        store.correct_all_due().await?;
        Ok(store)
    }

    /// Makes the clock follow the database's, so that several servers agree on the time. SQLite has none of its own.
    pub async fn follow_clock(&self, clock: &Clock) -> Result<(), StoreError> {
        if let Pool::Sqlite(_) = self.0.read {
            return Ok(());
        }
        let mut quickest = None;
        for _ in 0..CLOCK_READINGS {
            let reading = self.read_clock().await?;
            quickest = quickest.into_iter().chain([reading]).min_by_key(|reading: &Reading| reading.took);
        }
        if let Some(reading) = quickest {
            clock.follow(reading.theirs, reading.ours);
        }
        Ok(())
    }

    async fn read_clock(&self) -> Result<Reading, StoreError> {
        let query = sql("SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT AS theirs");
        let (sent, started) = (system_now(), stopwatch());
        let row = self.0.read.fetch_optional(query).await?.ok_or(sqlx::Error::RowNotFound)?;
        let took = started.elapsed();
        let halfway = SignedDuration::try_from(took / 2).unwrap_or(SignedDuration::ZERO);
        Ok(Reading { theirs: rows::time(&row, "theirs")?, ours: sent + halfway, took })
    }
}

/// What the database's clock showed while ours showed something else.
struct Reading {
    theirs: Timestamp,
    ours: Timestamp,
    took: Duration,
}

async fn open_sqlite(url: &str, rules: Rules) -> Result<Store, StoreError> {
    let options = SqliteConnectOptions::from_str(url)
        .map_err(|error| StoreError::Url(error.to_string()))?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(PATIENCE);
    let lock = lock(options.get_filename()).await?;
    let write = write_sqlite(options.clone()).await?;
    sqlite_migrations().run(&write).await?;
    let read = Pool::Sqlite(read_sqlite(options).await?);
    start(read, Pool::Sqlite(write), rules, Some(lock)).await
}

async fn write_sqlite(options: SqliteConnectOptions) -> Result<SqlitePool, StoreError> {
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        // On a full disk SQLite itself undoes the transaction, and sqlx would count it as open for ever.
        .before_acquire(|connection, _| Box::pin(async { Ok(!connection.is_in_transaction()) }));
    Ok(pool.connect_with(options).await?)
}

async fn read_sqlite(options: SqliteConnectOptions) -> Result<SqlitePool, StoreError> {
    let options = options.read_only(true).create_if_missing(false);
    Ok(SqlitePoolOptions::new().max_connections(SQLITE_READERS).connect_with(options).await?)
}

async fn open_postgres(options: &Options, rules: Rules) -> Result<Store, StoreError> {
    let mut connect = PgConnectOptions::from_str(&options.url)
        .map_err(|error| StoreError::Url(error.to_string()))?
        .application_name("tms-server");
    if let Some(password) = &options.password {
        connect = connect.password(password.expose_secret());
    }
    let pool = PgPoolOptions::new()
        .max_connections(POSTGRES_CONNECTIONS)
        .acquire_timeout(PATIENCE)
        .after_connect(|connection, _| {
            Box::pin(async move {
                sqlx::query(END_OF_IDLE_TRANSACTIONS).execute(connection).await?;
                Ok(())
            })
        })
        .connect_with(connect.clone())
        .await;
    let pool = match pool {
        // All that a pool says after trying for so long is that it took too long.
        Err(sqlx::Error::PoolTimedOut) => {
            return Err(connect.connect().await.err().unwrap_or(sqlx::Error::PoolTimedOut).into());
        }
        pool => pool?,
    };
    postgres_migrations().run(&pool).await?;
    start(Pool::Postgres(pool.clone()), Pool::Postgres(pool), rules, None).await
}

async fn start(read: Pool, write: Pool, rules: Rules, lock: Option<File>) -> Result<Store, StoreError> {
    let installation = installation(&write).await?;
    let changes = broadcast::Sender::new(CHANGES_KEPT);
    let (channel, listening) = match &read {
        Pool::Sqlite(_) => (None, None),
        Pool::Postgres(pool) => {
            let channel = Channel::new(&installation);
            let listening = channel.clone().listen((*pool.connect_options()).clone(), changes.clone());
            (Some(channel), Some(listening))
        }
    };
    let committer = Committer { pool: write, rules, changes: changes.clone(), channel };
    let writer = Writer::start(committer, lock);
    Ok(Store(Arc::new(Inner { read, writer, installation, changes, listening })))
}

/// Returns the installation's id, and makes one the first time.
async fn installation(pool: &Pool) -> Result<String, StoreError> {
    let insert = sql("INSERT INTO installation (one, id) VALUES (1, $1) ON CONFLICT (one) DO NOTHING");
    let mut transaction = pool.begin().await?;
    transaction.execute(insert.bind(uuid::Uuid::new_v4().simple().to_string())).await?;
    transaction.commit().await?;
    let row = pool.fetch_optional(sql("SELECT id FROM installation")).await?;
    Ok(row.ok_or(sqlx::Error::RowNotFound)?.get("id")?)
}

/// Locks a SQLite file for this server, until the lock is dropped or the process ends.
async fn lock(database: &Path) -> Result<File, StoreError> {
    let path = lock_path(database)?;
    let failed = |source| StoreError::File { path: path.clone(), source };
    let file = File::create(&path).map_err(failed)?;
    for _ in 0..LOCK_ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
    }
    Err(StoreError::InUse(database.to_owned()))
}

/// Returns where the lock of a SQLite file lies, whichever way the file is named. Its folder is made if need be.
fn lock_path(database: &Path) -> Result<PathBuf, StoreError> {
    let Some(name) = database.file_name().filter(|_| !is_in_memory(database)) else {
        return Err(StoreError::Url("it names no file".to_owned()));
    };
    let folder = match database.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let failed = |source| StoreError::File { path: folder.to_owned(), source };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let mut name = name.to_owned();
    name.push(".lock");
    Ok(folder.canonicalize().map_err(failed)?.join(name))
}

/// sqlx gives a database in memory a name of this kind.
fn is_in_memory(database: &Path) -> bool {
    database.to_str().is_some_and(|name| name.starts_with("file:sqlx-in-memory"))
}

macro_rules! migrations {
    ($folder:literal: $($version:literal $name:literal),+) => {{
        let mut migrator = Migrator::with_migrations(vec![$(Migration::new(
            $version,
            $name.into(),
            MigrationType::Simple,
            include_str!(concat!("../../../migrations/", $folder, "/", $name, ".sql")).into_sql_str(),
            false,
        )),+]);
        // A migration first adds, so a server can work on the tables of a newer one.
        migrator.set_ignore_missing(true);
        migrator
    }};
}

fn sqlite_migrations() -> Migrator {
    migrations!("sqlite": 1 "0001_leases", 2 "0002_use", 3 "0003_sleep")
}

fn postgres_migrations() -> Migrator {
    migrations!("postgres": 1 "0001_leases", 2 "0002_use", 3 "0003_sleep")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_transaction_that_sqlite_undid_by_itself_hinders_no_later_one() {
        let folder = tempfile::tempdir().unwrap();
        let options =
            SqliteConnectOptions::new().filename(folder.path().join("tms.db")).create_if_missing(true);
        let pool = Pool::Sqlite(write_sqlite(options).await.unwrap());
        let mut transaction = pool.begin().await.unwrap();
        transaction.execute("ROLLBACK").await.unwrap();
        assert!(transaction.commit().await.is_err());
        pool.begin().await.unwrap().commit().await.unwrap();
    }

    #[test]
    fn a_file_has_one_lock_however_it_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let plain = lock_path(&folder.path().join("tms.db")).unwrap();
        let roundabout = lock_path(&folder.path().join("new/../tms.db"));
        assert_eq!(roundabout.unwrap(), plain);
        assert_eq!(plain.file_name().unwrap(), "tms.db.lock");
    }
}
