//! When the clock gives leases something to do. It is written with each change of a lease and depends on the configuration
//! too; what was written under another configuration is put right here, which is no change of the lease.

use std::error::Error;

use jiff::Timestamp;

use super::rows::SELECT_LEASE;
use super::sql::{Query, Row, sql};
use super::{Store, StoreError, rows};
use crate::domain::lease::Lease;
use crate::domain::life::Deadlines;

/// Leases that are put right in one transaction.
const PAGE: u32 = 500;

impl Store {
    /// Puts right when the leases that have not ended are due. One that cannot be read stays as it is.
    pub(super) async fn correct_all_due(&self) -> Result<(), StoreError> {
        let mut after = String::new();
        loop {
            let mut query = sql(SELECT_LEASE);
            query.push(" WHERE closed_at IS NULL AND ended_at IS NULL AND leases.id > ");
            query.push_bind(after.as_str()).push(" ORDER BY leases.id LIMIT ").push_bind(PAGE);
            let rows = self.0.read.fetch_all(query).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.get("id")?;
            let corrections = rows.iter().filter_map(|row| {
                correction(row, self.0.writer.deadlines()).unwrap_or_else(|error| {
                    tracing::warn!(error = &error as &dyn Error, "cannot find out when a lease is due");
                    None
                })
            });
            self.correct(corrections.collect()).await?;
        }
    }

    /// Puts right when a lease is due that is stored as due by `now` and to which the clock gives nothing to do yet.
    pub async fn correct_due(&self, lease: &Lease, now: Timestamp) -> Result<(), StoreError> {
        let due_at = lease.due_at(self.0.writer.deadlines());
        if due_at.is_some_and(|due_at| due_at <= now) {
            return Ok(());
        }
        let select = sql("SELECT id FROM leases WHERE id = $1 AND version = $2 AND due_at <= $3");
        let select = select.bind(lease.id).bind(lease.version).bind(now);
        match self.0.read.fetch_optional(select).await? {
            Some(_) => self.correct(vec![update(lease, due_at)]).await,
            None => Ok(()),
        }
    }

    async fn correct(&self, corrections: Vec<Query>) -> Result<(), StoreError> {
        if corrections.is_empty() {
            return Ok(());
        }
        let mut transaction = self.0.writer.begin().await?;
        for correction in corrections {
            transaction.execute(correction).await?;
        }
        Ok(transaction.commit().await?)
    }
}

/// Returns the statement that puts a row right, if it is wrong.
fn correction(row: &Row, deadlines: &Deadlines) -> Result<Option<Query>, StoreError> {
    let lease = rows::lease(row)?;
    let stored: Option<i64> = row.get("due_at")?;
    let due_at = lease.due_at(deadlines);
    let is_right = stored == due_at.map(Timestamp::as_microsecond);
    Ok((!is_right).then(|| update(&lease, due_at)))
}

/// A change that comes first has written it by itself.
fn update(lease: &Lease, due_at: Option<Timestamp>) -> Query {
    let update = sql("UPDATE leases SET due_at = $1 WHERE id = $2 AND version = $3");
    update.bind(due_at).bind(lease.id).bind(lease.version)
}
