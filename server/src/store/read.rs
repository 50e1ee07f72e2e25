//! What is read of leases and their events. Nothing here writes.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::rows::{SELECT_EVENT, SELECT_LEASE};
use super::sql::{Query, Row, sql};
use super::{Cursor, Filter, Found, Listed, Page, RequestKey, Store, StoreError, rows};
use crate::domain::lease::{Event, Lease, LeaseId};

/// How many ids an ambiguous prefix is answered with.
const AMBIGUOUS: u32 = 5;
/// How many ids one statement asks for.
const IDS_AT_ONCE: usize = 500;

impl Store {
    /// Returns the lease with this id.
    pub async fn get(&self, id: LeaseId) -> Result<Option<Lease>, StoreError> {
        let mut query = sql(SELECT_LEASE);
        query.push(" WHERE leases.id = ").push_bind(id);
        self.0.read.fetch_optional(query).await?.as_ref().map(rows::lease).transpose()
    }

    /// Returns the lease that this very request of the owner got before.
    pub async fn admitted(&self, owner: &str, request: &RequestKey) -> Result<Option<Lease>, StoreError> {
        let mut query = sql(SELECT_LEASE);
        query.push(" WHERE leases.owner = ").push_bind(owner);
        query.push(" AND leases.request_id = ").push_bind(request.id.as_str());
        query.push(" AND leases.request_digest = ").push_bind(request.digest.as_str());
        self.0.read.fetch_optional(query).await?.as_ref().map(rows::lease).transpose()
    }

    /// Returns the lease whose id begins with `prefix`, among those of `owner` if one is given.
    pub async fn find(&self, owner: Option<&str>, prefix: &str) -> Result<Found, StoreError> {
        let mut query = sql("SELECT id FROM leases");
        let mut condition = Conditions::of(&mut query);
        condition.id_begins_with(prefix);
        if let Some(owner) = owner {
            condition.next("owner = ").push_bind(owner);
        }
        query.push(" ORDER BY id LIMIT ").push_bind(AMBIGUOUS);
        let ids = self.ids(query).await?;
        Ok(match ids[..] {
            [] => Found::None,
            [id] => self.get(id).await?.map_or(Found::None, |lease| Found::One(Box::new(lease))),
            [..] => Found::Many(ids),
        })
    }

    /// Returns the leases that match `filter`, newest first. A lease that exists throughout is on exactly one page.
    pub async fn list(&self, filter: &Filter, page: &Page) -> Result<Listed, StoreError> {
        let rows = self.0.read.fetch_all(list_query(filter, page)).await?;
        let is_last = rows.len() <= page.size as usize;
        let leases: Vec<Lease> =
            rows.iter().take(page.size as usize).map(rows::lease).collect::<Result<_, _>>()?;
        let next = if is_last { None } else { leases.last().map(Cursor::after) };
        Ok(Listed { leases, next })
    }

    /// Returns leases to which the clock has given something to do, the longest due first.
    pub async fn due(&self, now: Timestamp, limit: u32) -> Result<Vec<LeaseId>, StoreError> {
        let query = sql("SELECT id FROM leases WHERE due_at <= $1 ORDER BY due_at, id LIMIT $2");
        self.ids(query.bind(now).bind(limit)).await
    }

    /// Returns when the clock next gives a lease something to do.
    pub async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        let query = sql("SELECT due_at FROM leases WHERE due_at IS NOT NULL ORDER BY due_at LIMIT 1");
        let row = self.0.read.fetch_optional(query).await?;
        row.map(|row| rows::time(&row, "due_at")).transpose()
    }

    /// Returns leases that are not closed, by id, from the one after `after`.
    pub async fn open_ids(&self, after: Option<LeaseId>, limit: u32) -> Result<Vec<LeaseId>, StoreError> {
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        let query = sql("SELECT id FROM leases WHERE closed_at IS NULL AND id > $1 ORDER BY id LIMIT $2");
        self.ids(query.bind(after).bind(limit)).await
    }

    /// Returns leases that asked for renewal by use and have not ended, by id, from the one after `after`.
    pub async fn renewed_by_use(
        &self,
        after: Option<LeaseId>,
        limit: u32,
    ) -> Result<Vec<LeaseId>, StoreError> {
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        let query =
            sql("SELECT id FROM leases WHERE idle_window IS NOT NULL AND ended_at IS NULL AND id > $1 \
             ORDER BY id LIMIT $2");
        self.ids(query.bind(after).bind(limit)).await
    }

    /// Returns the namespaces of leases that are not closed.
    pub async fn open_namespaces(&self) -> Result<BTreeSet<String>, StoreError> {
        let query = sql("SELECT DISTINCT namespace FROM leases WHERE closed_at IS NULL");
        let rows = self.0.read.fetch_all(query).await?;
        Ok(rows.iter().map(|row| row.get("namespace")).collect::<Result<_, _>>()?)
    }

    /// Returns the kind of cluster that was kept last.
    pub async fn cluster_kind(&self) -> Result<Option<String>, StoreError> {
        let row = self.0.read.fetch_optional(sql("SELECT cluster_kind FROM installation")).await?;
        Ok(row.ok_or(sqlx::Error::RowNotFound)?.get("cluster_kind")?)
    }

    /// Returns which of these are known and not closed.
    pub async fn is_open(&self, ids: &[LeaseId]) -> Result<BTreeSet<LeaseId>, StoreError> {
        let mut open = BTreeSet::new();
        for ids in ids.chunks(IDS_AT_ONCE) {
            let mut query = sql("SELECT id FROM leases WHERE closed_at IS NULL AND id IN ");
            query.push_list(ids.iter().copied());
            open.extend(self.ids(query).await?);
        }
        Ok(open)
    }

    /// Returns what happened to a lease after one of its versions (0 for all), oldest first.
    pub async fn events(
        &self,
        id: LeaseId,
        after_version: i64,
        limit: u32,
    ) -> Result<Vec<Event>, StoreError> {
        let mut query = sql(SELECT_EVENT);
        query.push(" WHERE lease_id = ").push_bind(id);
        query.push(" AND version > ").push_bind(after_version);
        query.push(" ORDER BY version LIMIT ").push_bind(limit);
        self.0.read.fetch_all(query).await?.iter().map(rows::event).collect()
    }

    /// Returns what happened to a lease last, oldest first.
    pub async fn recent_events(&self, id: LeaseId, limit: u32) -> Result<Vec<Event>, StoreError> {
        let mut query = sql(SELECT_EVENT);
        query.push(" WHERE lease_id = ").push_bind(id);
        query.push(" ORDER BY version DESC LIMIT ").push_bind(limit);
        self.0.read.fetch_all(query).await?.iter().rev().map(rows::event).collect()
    }

    async fn ids(&self, query: Query) -> Result<Vec<LeaseId>, StoreError> {
        let id = |row: &Row| rows::lease_id(row, "id");
        self.0.read.fetch_all(query).await?.iter().map(id).collect()
    }
}

fn list_query(filter: &Filter, page: &Page) -> Query {
    let mut query = sql(SELECT_LEASE);
    let mut condition = Conditions::of(&mut query);
    if let Some(owner) = &filter.owner {
        condition.next("owner = ").push_bind(owner.as_str());
    }
    if !filter.states.is_empty() {
        condition.next("state IN ").push_list(filter.states.iter().map(|state| state.as_str()));
    }
    if let Some(prefix) = &filter.id_prefix {
        condition.id_begins_with(prefix);
    }
    if let Some(since) = filter.created_since {
        condition.next("created_at >= ").push_bind(since);
    }
    if filter.is_open {
        condition.next("closed_at IS NULL");
    }
    for (key, value) in &filter.labels {
        let labelled = condition.next("leases.id IN (SELECT lease_id FROM lease_labels WHERE key = ");
        labelled.push_bind(key.as_str()).push(" AND value = ").push_bind(value.as_str()).push(")");
    }
    if let Some(Cursor { created_at, id }) = page.after {
        let older = condition.next("(created_at, leases.id) < (");
        older.push_bind(created_at).push(", ").push_bind(id).push(")");
    }
    // One more than the page holds tells whether there is a next one.
    let limit = i64::from(page.size) + 1;
    query.push(" ORDER BY created_at DESC, leases.id DESC LIMIT ").push_bind(limit);
    query
}

/// The conditions of a query, all of which must hold.
struct Conditions<'q> {
    query: &'q mut Query,
    keyword: &'static str,
}

impl<'q> Conditions<'q> {
    fn of(query: &'q mut Query) -> Self {
        Self { query, keyword: " WHERE " }
    }

    fn next(&mut self, condition: &'static str) -> &mut Query {
        self.query.push(std::mem::replace(&mut self.keyword, " AND ")).push(condition)
    }

    /// A range, which the primary key serves, where `LIKE` would read every row. Ids are hexadecimal digits, and `g`
    /// follows the last of them.
    fn id_begins_with(&mut self, prefix: &str) {
        let is_hexadecimal = prefix.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hexadecimal {
            let prefix = prefix.to_ascii_lowercase();
            self.next("leases.id >= ").push_bind(prefix.as_str());
            self.next("leases.id < ").push_bind(format!("{prefix}g"));
        } else {
            self.next("1 = 0");
        }
    }
}
