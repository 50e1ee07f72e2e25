//! A thin layer under which SQLite and PostgreSQL look the same: one text with `$1` placeholders, values and columns that
//! are TEXT or BIGINT.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::postgres::{PgPool, PgRow, Postgres};
use sqlx::sqlite::{Sqlite, SqlitePool, SqliteRow};
use sqlx::{AssertSqlSafe, Error, Row as _};

use crate::domain::lease::LeaseId;

/// Time for an answer of PostgreSQL to a question that writes nothing, with the wait for a connection.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connections of one database.
#[derive(Clone, Debug)]
pub(super) enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// A transaction, rolled back unless committed.
#[derive(Debug)]
pub(super) enum Transaction {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    Postgres(sqlx::Transaction<'static, Postgres>),
}

/// A statement and the values of its placeholders.
#[derive(Debug)]
pub(super) struct Query {
    text: Cow<'static, str>,
    values: Vec<Value>,
}

/// A value that both databases know.
#[derive(Debug)]
pub(super) enum Value {
    Text(Option<String>),
    Integer(Option<i64>),
}

/// A row of an answer.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// What a column can be read as on both databases.
pub(super) trait Column:
    for<'r> sqlx::Decode<'r, Sqlite>
    + for<'r> sqlx::Decode<'r, Postgres>
    + sqlx::Type<Sqlite>
    + sqlx::Type<Postgres>
{
}

impl Column for String {}
impl Column for Option<String> {}
impl Column for i64 {}
impl Column for Option<i64> {}

/// Hands a query to sqlx, for whichever database the place of use infers.
macro_rules! prepared {
    ($query:expr) => {{
        let Query { text, values } = $query;
        values.into_iter().fold(sqlx::query(AssertSqlSafe(text)), |statement, value| match value {
            Value::Text(text) => statement.bind(text),
            Value::Integer(integer) => statement.bind(integer),
        })
    }};
}

/// Whether the database cannot be reached at the moment.
pub(super) fn is_away(error: &Error) -> bool {
    match error {
        Error::Io(_) | Error::Tls(_) | Error::PoolTimedOut | Error::PoolClosed | Error::WorkerCrashed => true,
        // PostgreSQL: connection exceptions, out of resources, stopping or starting, and a transaction that was idle for
        // too long because the server stood still.
        Error::Database(error) => error
            .code()
            .is_some_and(|code| ["08", "53", "57P", "25P03"].iter().any(|class| code.starts_with(class))),
        _ => false,
    }
}

/// Bounds how long PostgreSQL is waited for: a connection that was cut off in silence says nothing.
pub(super) async fn within<T>(
    time: Duration,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let in_time = tokio::time::timeout(time, answer).await;
    in_time.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
}

impl Pool {
    /// Returns every row of the answer.
    pub async fn fetch_all(&self, query: Query) -> Result<Vec<Row>, Error> {
        Ok(match self {
            Self::Sqlite(pool) => {
                prepared!(query).fetch_all(pool).await?.into_iter().map(Row::Sqlite).collect()
            }
            Self::Postgres(pool) => within(PATIENCE, prepared!(query).fetch_all(pool))
                .await?
                .into_iter()
                .map(Row::Postgres)
                .collect(),
        })
    }

    /// Returns the first row of the answer.
    pub async fn fetch_optional(&self, query: Query) -> Result<Option<Row>, Error> {
        Ok(match self {
            Self::Sqlite(pool) => prepared!(query).fetch_optional(pool).await?.map(Row::Sqlite),
            Self::Postgres(pool) => {
                within(PATIENCE, prepared!(query).fetch_optional(pool)).await?.map(Row::Postgres)
            }
        })
    }

    /// Begins a transaction that is going to write.
    pub async fn begin(&self) -> Result<Transaction, Error> {
        Ok(match self {
            // A deferred transaction that reads first could not become a writing one while another writes.
            Self::Sqlite(pool) => Transaction::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await?),
            Self::Postgres(pool) => Transaction::Postgres(pool.begin().await?),
        })
    }

    /// Closes every connection once it is idle.
    pub async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

impl Transaction {
    /// Returns the first row of the answer.
    pub async fn fetch_optional(&mut self, query: Query) -> Result<Option<Row>, Error> {
        Ok(match self {
            Self::Sqlite(transaction) => {
                prepared!(query).fetch_optional(&mut **transaction).await?.map(Row::Sqlite)
            }
            Self::Postgres(transaction) => {
                prepared!(query).fetch_optional(&mut **transaction).await?.map(Row::Postgres)
            }
        })
    }

    /// Runs a statement and returns how many rows it wrote.
    pub async fn execute(&mut self, query: impl Into<Query>) -> Result<u64, Error> {
        let query = query.into();
        Ok(match self {
            Self::Sqlite(transaction) => prepared!(query).execute(&mut **transaction).await?.rows_affected(),
            Self::Postgres(transaction) => {
                prepared!(query).execute(&mut **transaction).await?.rows_affected()
            }
        })
    }

    /// Makes what was written last.
    pub async fn commit(self) -> Result<(), Error> {
        match self {
            Self::Sqlite(transaction) => transaction.commit().await,
            Self::Postgres(transaction) => transaction.commit().await,
        }
    }

    /// Undoes what was written.
    pub async fn rollback(self) -> Result<(), Error> {
        match self {
            Self::Sqlite(transaction) => transaction.rollback().await,
            Self::Postgres(transaction) => transaction.rollback().await,
        }
    }
}

/// Returns a query of this text, which names its placeholders `$1`, `$2` … in the order of [`Query::bind`].
pub(super) fn sql(text: &'static str) -> Query {
    Query { text: Cow::Borrowed(text), values: Vec::new() }
}

impl From<&'static str> for Query {
    fn from(text: &'static str) -> Self {
        sql(text)
    }
}

impl Query {
    /// Gives the next placeholder of the text its value.
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Appends to the text.
    pub fn push(&mut self, text: &'static str) -> &mut Self {
        self.text.to_mut().push_str(text);
        self
    }

    /// Appends a placeholder to the text and gives it its value.
    pub fn push_bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.values.push(value.into());
        let number = self.values.len();
        write!(self.text.to_mut(), "${number}").expect("writing to a string succeeds");
        self
    }

    /// Appends a list in parentheses: `($4, $5)`. It must not be empty.
    pub fn push_list<V: Into<Value>>(&mut self, values: impl IntoIterator<Item = V>) -> &mut Self {
        let mut separator = "(";
        for value in values {
            self.push(separator).push_bind(value);
            separator = ", ";
        }
        self.push(")")
    }
}

impl Row {
    /// Reads a column.
    pub fn get<T: Column>(&self, column: &str) -> Result<T, Error> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<Option<&str>> for Value {
    fn from(text: Option<&str>) -> Self {
        Self::Text(text.map(str::to_owned))
    }
}

impl From<LeaseId> for Value {
    fn from(id: LeaseId) -> Self {
        Self::Text(Some(id.to_string()))
    }
}

impl From<i64> for Value {
    fn from(integer: i64) -> Self {
        Self::Integer(Some(integer))
    }
}

impl From<Option<i64>> for Value {
    fn from(integer: Option<i64>) -> Self {
        Self::Integer(integer)
    }
}

impl From<u32> for Value {
    fn from(integer: u32) -> Self {
        Self::Integer(Some(integer.into()))
    }
}

impl From<Timestamp> for Value {
    fn from(time: Timestamp) -> Self {
        Self::Integer(Some(time.as_microsecond()))
    }
}

impl From<Option<Timestamp>> for Value {
    fn from(time: Option<Timestamp>) -> Self {
        Self::Integer(time.map(Timestamp::as_microsecond))
    }
}
