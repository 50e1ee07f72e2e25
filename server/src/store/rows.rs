//! Leases and events as rows: which column holds what.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;
use super::sql::{Column, Query, Row, sql};
use crate::domain::lease::{
    AutomaticRenewal, End, EndReason, Event, Lease, Phase, Placement, Replicas, Report, Spec, State, Tenure,
};

/// Every column of a lease, to be followed by conditions.
pub(super) const SELECT_LEASE: &str = "SELECT leases.id, owner, namespace, placement, created_at, spec, expires_at, \
     ended_at, end_reason, generation, phase, message, desired_replicas, current_replicas, ready_replicas, models, \
     first_ready_at, closed_at, version, idle_window, last_used_at, renewed_at, noticed_until, waking_since, due_at, \
     deployment \
     FROM leases JOIN deployments ON deployments.lease_id = leases.id";

/// Every column of an event, to be followed by conditions.
pub(super) const SELECT_EVENT: &str =
    "SELECT lease_id, version, generation, happened_at, actor, reason, message, state FROM events";

/// Returns the lease as both databases can hold it: times to the microsecond, no NUL in what people read.
pub(super) fn storable(mut lease: Lease) -> Lease {
    lease.created_at = to_the_microsecond(lease.created_at);
    lease.expires_at = to_the_microsecond(lease.expires_at);
    lease.tenure = Tenure {
        renewed_at: to_the_microsecond(lease.tenure.renewed_at),
        noticed_until: to_the_microsecond(lease.tenure.noticed_until),
        last_used_at: lease.tenure.last_used_at.map(to_the_microsecond),
    };
    lease.spec.automatic_renewal = lease.spec.automatic_renewal.map(|renewal| {
        let idle_window = SignedDuration::from_micros(microseconds(renewal.idle_window));
        AutomaticRenewal { idle_window }
    });
    lease.end = lease.end.map(|end| End { at: to_the_microsecond(end.at), ..end });
    lease.waking_since = lease.waking_since.map(to_the_microsecond);
    lease.report.first_ready_at = lease.report.first_ready_at.map(to_the_microsecond);
    lease.report.closed_at = lease.report.closed_at.map(to_the_microsecond);
    lease.report.message = without_nul(lease.report.message);
    lease
}

/// Returns the text without the one character that PostgreSQL cannot hold.
pub(super) fn without_nul(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// Returns the statement that inserts a lease, except for its deployment and labels.
pub(super) fn insert_lease(lease: &Lease, request: Option<(&str, &str)>, due_at: Option<Timestamp>) -> Query {
    let insert = sql(
        "INSERT INTO leases (spec, expires_at, ended_at, end_reason, generation, phase, message, desired_replicas, \
         current_replicas, ready_replicas, models, first_ready_at, closed_at, version, state, due_at, idle_window, \
         last_used_at, renewed_at, noticed_until, waking_since, id, owner, namespace, placement, created_at, request_id, \
         request_digest) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, \
         $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28)",
    );
    bind_changing(insert, lease, due_at)
        .bind(lease.id)
        .bind(lease.owner.as_str())
        .bind(lease.namespace.as_str())
        .bind(lease.placement.as_str())
        .bind(lease.created_at)
        .bind(request.map(|(id, _)| id))
        .bind(request.map(|(_, digest)| digest))
}

/// Returns the statement that puts a lease in the place of its version `before`, except for its deployment and labels.
pub(super) fn update_lease(lease: &Lease, before: i64, due_at: Option<Timestamp>) -> Query {
    let update = sql(
        "UPDATE leases SET spec = $1, expires_at = $2, ended_at = $3, end_reason = $4, generation = $5, phase = $6, \
         message = $7, desired_replicas = $8, current_replicas = $9, ready_replicas = $10, models = $11, \
         first_ready_at = $12, closed_at = $13, version = $14, state = $15, due_at = $16, idle_window = $17, \
         last_used_at = $18, renewed_at = $19, noticed_until = $20, waking_since = $21 \
         WHERE id = $22 AND version = $23",
    );
    bind_changing(update, lease, due_at).bind(lease.id).bind(before)
}

/// Returns the statement that appends an event.
pub(super) fn insert_event(event: &Event) -> Query {
    sql("INSERT INTO events (lease_id, version, generation, happened_at, actor, reason, message, state) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)")
    .bind(event.lease_id)
    .bind(event.version)
    .bind(event.generation)
    .bind(event.at)
    .bind(event.actor.as_str())
    .bind(event.reason.as_str())
    .bind(event.message.as_str())
    .bind(event.state.as_str())
}

/// Reads a row of [`SELECT_LEASE`].
pub(super) fn lease(row: &Row) -> Result<Lease, StoreError> {
    let fields = Fields { row, id: row.get("id")? };
    let created_at = fields.time("created_at")?;
    let mut spec: Spec = fields.json("spec")?;
    spec.automatic_renewal = fields.automatic_renewal()?;
    Ok(Lease {
        id: fields.parsed("id", |text| text.parse().ok())?,
        owner: row.get("owner")?,
        namespace: row.get("namespace")?,
        placement: fields.parsed("placement", placement)?,
        spec,
        deployment: fields.json("deployment")?,
        created_at,
        expires_at: fields.time("expires_at")?,
        tenure: Tenure {
            renewed_at: fields.optional_time("renewed_at")?.unwrap_or(created_at),
            noticed_until: fields.optional_time("noticed_until")?.unwrap_or(created_at),
            last_used_at: fields.optional_time("last_used_at")?,
        },
        end: fields.end()?,
        waking_since: fields.optional_time("waking_since")?,
        generation: row.get("generation")?,
        version: row.get("version")?,
        report: Report {
            phase: fields.parsed("phase", phase)?,
            message: row.get("message")?,
            replicas: Replicas {
                desired: fields.number("desired_replicas")?,
                current: fields.number("current_replicas")?,
                ready: fields.number("ready_replicas")?,
            },
            models: fields.json("models")?,
            first_ready_at: fields.optional_time("first_ready_at")?,
            closed_at: fields.optional_time("closed_at")?,
        },
    })
}

/// Reads a row of [`SELECT_EVENT`].
pub(super) fn event(row: &Row) -> Result<Event, StoreError> {
    let fields = Fields { row, id: row.get("lease_id")? };
    Ok(Event {
        lease_id: fields.parsed("lease_id", |text| text.parse().ok())?,
        version: row.get("version")?,
        generation: row.get("generation")?,
        at: fields.time("happened_at")?,
        actor: row.get("actor")?,
        reason: row.get("reason")?,
        message: row.get("message")?,
        state: fields.parsed("state", State::from_word)?,
    })
}

/// Reads a column that holds a lease's id.
pub(super) fn lease_id(row: &Row, column: &str) -> Result<crate::domain::lease::LeaseId, StoreError> {
    Fields { row, id: row.get(column)? }.parsed(column, |text| text.parse().ok())
}

/// Reads a column that holds a time.
pub(super) fn time(row: &Row, column: &str) -> Result<Timestamp, StoreError> {
    Fields { row, id: String::new() }.time(column)
}

/// Returns a document as it is stored.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("every map of a lease has strings for keys")
}

/// Returns the time that was stored as this number. `Timestamp::from_microsecond` refuses the last second there is.
pub(super) fn from_microseconds(microseconds: i64) -> Option<Timestamp> {
    Timestamp::from_nanosecond(i128::from(microseconds) * 1000).ok()
}

fn bind_changing(query: Query, lease: &Lease, due_at: Option<Timestamp>) -> Query {
    let report = &lease.report;
    query
        .bind(json(&lease.spec))
        .bind(lease.expires_at)
        .bind(lease.end.map(|end| end.at))
        .bind(lease.end.map(|end| end_word(end.reason)))
        .bind(lease.generation)
        .bind(phase_word(report.phase))
        .bind(report.message.as_str())
        .bind(report.replicas.desired)
        .bind(report.replicas.current)
        .bind(report.replicas.ready)
        .bind(json(&report.models))
        .bind(report.first_ready_at)
        .bind(report.closed_at)
        .bind(lease.version)
        .bind(lease.state().as_str())
        .bind(due_at.map(to_the_microsecond))
        .bind(lease.spec.automatic_renewal.map(|renewal| microseconds(renewal.idle_window)))
        .bind(lease.tenure.last_used_at)
        .bind(lease.tenure.renewed_at)
        .bind(lease.tenure.noticed_until)
        .bind(lease.waking_since)
}

/// Returns a duration as it is stored; one that is longer than the column can hold as the longest that it can.
fn microseconds(duration: SignedDuration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn to_the_microsecond(time: Timestamp) -> Timestamp {
    from_microseconds(time.as_microsecond()).unwrap_or(time)
}

/// The columns of one row, for which errors name the lease.
pub(super) struct Fields<'r> {
    row: &'r Row,
    id: String,
}

impl<'r> Fields<'r> {
    /// The columns of a row that has the id of its lease.
    pub fn of(row: &'r Row) -> Result<Self, StoreError> {
        Ok(Self { row, id: row.get("id")? })
    }

    pub fn parsed<T>(&self, column: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, StoreError> {
        let text: String = self.row.get(column)?;
        parse(&text).ok_or_else(|| self.corrupt(format!("{column} is {text:?}")))
    }

    pub fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T, StoreError> {
        let text: String = self.row.get(column)?;
        serde_json::from_str(&text).map_err(|error| self.corrupt(format!("{column}: {error}")))
    }

    pub fn number<T: TryFrom<i64>>(&self, column: &str) -> Result<T, StoreError> {
        let number: i64 = self.row.get(column)?;
        T::try_from(number).map_err(|_| self.corrupt(format!("{column} is {number}")))
    }

    pub fn time(&self, column: &str) -> Result<Timestamp, StoreError> {
        self.to_time(column, self.row.get(column)?)
    }

    fn optional_time(&self, column: &str) -> Result<Option<Timestamp>, StoreError> {
        self.optional(column)?.map(|time| self.to_time(column, time)).transpose()
    }

    fn automatic_renewal(&self) -> Result<Option<AutomaticRenewal>, StoreError> {
        let idle_window = self.optional::<i64>("idle_window")?.map(SignedDuration::from_micros);
        Ok(idle_window.map(|idle_window| AutomaticRenewal { idle_window }))
    }

    fn end(&self) -> Result<Option<End>, StoreError> {
        match (self.optional_time("ended_at")?, self.optional::<String>("end_reason")?) {
            (None, None) => Ok(None),
            (Some(at), Some(word)) => {
                let reason =
                    end_reason(&word).ok_or_else(|| self.corrupt(format!("end_reason is {word:?}")))?;
                Ok(Some(End { at, reason }))
            }
            (Some(_), None) | (None, Some(_)) => {
                Err(self.corrupt("ended_at and end_reason disagree".to_owned()))
            }
        }
    }

    fn optional<T>(&self, column: &str) -> Result<Option<T>, StoreError>
    where
        Option<T>: Column,
    {
        Ok(self.row.get(column)?)
    }

    fn to_time(&self, column: &str, microseconds: i64) -> Result<Timestamp, StoreError> {
        from_microseconds(microseconds).ok_or_else(|| self.corrupt(format!("{column} is {microseconds}")))
    }

    fn corrupt(&self, what: String) -> StoreError {
        StoreError::Corrupt { id: self.id.clone(), what }
    }
}

fn placement(word: &str) -> Option<Placement> {
    [Placement::Bespoke].into_iter().find(|placement| placement.as_str() == word)
}

fn end_word(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Released => State::Released.as_str(),
        EndReason::Expired => State::Expired.as_str(),
        EndReason::Invalid => State::Invalid.as_str(),
    }
}

fn end_reason(word: &str) -> Option<EndReason> {
    [EndReason::Released, EndReason::Expired, EndReason::Invalid]
        .into_iter()
        .find(|reason| end_word(*reason) == word)
}

fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => State::Pending.as_str(),
        Phase::Provisioning => State::Provisioning.as_str(),
        Phase::Loading => State::Loading.as_str(),
        Phase::Ready => State::Ready.as_str(),
        Phase::Degraded => State::Degraded.as_str(),
        Phase::Asleep => State::Asleep.as_str(),
        Phase::Written => State::Written.as_str(),
    }
}

fn phase(word: &str) -> Option<Phase> {
    match State::from_word(word)? {
        State::Pending => Some(Phase::Pending),
        State::Provisioning => Some(Phase::Provisioning),
        State::Loading => Some(Phase::Loading),
        State::Ready => Some(Phase::Ready),
        State::Degraded => Some(Phase::Degraded),
        State::Asleep => Some(Phase::Asleep),
        State::Written => Some(Phase::Written),
        State::Released | State::Expired | State::Invalid => None,
    }
}
