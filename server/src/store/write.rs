//! What is written: admissions and changes, each of which begins with its write.

use jiff::Timestamp;

use super::sql::{Transaction, sql};
use super::{Admission, Admitted, ChangeError, Changed, RequestKey, Store, StoreError, rows};
use crate::domain::lease::{Event, Happening, Lease, LeaseId};
use crate::domain::life::Deadlines;

/// How often a change is tried anew after another one came first.
const ATTEMPTS: u32 = 100;

impl Store {
    /// Stores a new lease, unless the same request was admitted before or its owner holds too many.
    pub async fn admit(&self, admission: &Admission) -> Result<Admitted, StoreError> {
        let Admission { lease, request, actor, event } = admission.clone();
        let lease = rows::storable(lease);
        let event = event_of(&lease, &actor, lease.created_at, event);
        let insertion = Insertion { lease: lease.clone(), request, event };
        match self.0.writer.write(Write::Insert(Box::new(insertion))).await? {
            Outcome::Written => Ok(Admitted::New(lease)),
            Outcome::AlreadyAdmitted(id) => {
                self.get(id).await?.map(Admitted::Existing).ok_or(StoreError::Contended(id))
            }
            Outcome::Refused(error) => Err(error),
            Outcome::Outrun => Err(StoreError::Contended(lease.id)),
        }
    }

    /// Keeps the kind of cluster that the objects of leases are in.
    pub async fn keep_cluster_kind(&self, kind: &str) -> Result<(), StoreError> {
        let mut transaction = self.0.writer.begin().await?;
        transaction.execute(sql("UPDATE installation SET cluster_kind = $1").bind(kind)).await?;
        Ok(transaction.commit().await?)
    }

    /// Changes a lease by a pure function, which is called again when another change came first, and says what happened.
    /// Where nothing happened, nothing is written.
    pub async fn change<T, E>(
        &self,
        id: LeaseId,
        actor: &str,
        now: Timestamp,
        mut change: impl FnMut(&mut Lease) -> Result<(T, Option<Happening>), E> + Send,
    ) -> Result<(T, Lease), ChangeError<E>> {
        for _ in 0..ATTEMPTS {
            let before = self.get(id).await?.ok_or(ChangeError::NotFound)?;
            let mut lease = before.clone();
            let (answer, happening) = change(&mut lease).map_err(ChangeError::Refused)?;
            let Some(happening) = happening else {
                return Ok((answer, before));
            };
            lease.version = before.version + 1;
            let lease = rows::storable(lease);
            let event = event_of(&lease, actor, now, happening);
            let replacement = Replacement { before, lease: lease.clone(), event };
            match self.0.writer.write(Write::Replace(Box::new(replacement))).await? {
                Outcome::Written => return Ok((answer, lease)),
                Outcome::Refused(error) => return Err(error.into()),
                Outcome::Outrun | Outcome::AlreadyAdmitted(_) => {}
            }
        }
        Err(StoreError::Contended(id).into())
    }
}

/// What every write obeys.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// What makes a lease due besides its end.
    pub deadlines: Deadlines,
    /// Leases that an owner may hold at once; 0 is no limit.
    pub maximum_per_owner: u32,
}

/// A write, complete in itself: it can be queued, and finished though its caller has gone.
#[derive(Debug)]
pub(super) enum Write {
    Insert(Box<Insertion>),
    Replace(Box<Replacement>),
}

/// A new lease.
#[derive(Debug)]
pub(super) struct Insertion {
    lease: Lease,
    request: Option<RequestKey>,
    event: Event,
}

/// A lease in place of its version before.
#[derive(Debug)]
pub(super) struct Replacement {
    before: Lease,
    lease: Lease,
    event: Event,
}

/// What became of a write. All but the first leave nothing behind.
#[derive(Debug)]
pub(super) enum Outcome {
    Written,
    /// The same request was admitted before, as this lease.
    AlreadyAdmitted(LeaseId),
    /// The lease may not be admitted.
    Refused(StoreError),
    /// Another change of the lease came first.
    Outrun,
}

impl Write {
    /// Writes within a transaction, which is spoiled by an error and must then be rolled back.
    pub async fn perform(&self, transaction: &mut Transaction, rules: &Rules) -> Result<Outcome, StoreError> {
        match self {
            Self::Insert(insertion) => insertion.perform(transaction, rules).await,
            Self::Replace(replacement) => replacement.perform(transaction, rules).await,
        }
    }

    /// Returns the lease as it is going to be.
    pub fn lease(&self) -> &Lease {
        match self {
            Self::Insert(insertion) => &insertion.lease,
            Self::Replace(replacement) => &replacement.lease,
        }
    }

    /// Returns what others are told once it is committed.
    pub fn changed(&self) -> Changed {
        let lease = self.lease();
        Changed { id: lease.id, owner: lease.owner.clone(), version: lease.version }
    }
}

impl Insertion {
    async fn perform(&self, transaction: &mut Transaction, rules: &Rules) -> Result<Outcome, StoreError> {
        let Self { lease, request, event } = self;
        // The owner's row first: until the end of the transaction it keeps the owner's other admissions waiting, so
        // that what follows is decided on what holds then.
        let leases = raise_count(transaction, &lease.owner).await?;
        if let Some(refusal) = self.refusal(leases, transaction, rules).await? {
            lower_count(transaction, lease).await?;
            return Ok(refusal);
        }
        let request = request.as_ref().map(|request| (request.id.as_str(), request.digest.as_str()));
        let insert = rows::insert_lease(lease, request, lease.due_at(&rules.deadlines));
        transaction.execute(insert).await?;
        let insert = sql("INSERT INTO deployments (lease_id, deployment) VALUES ($1, $2)");
        transaction.execute(insert.bind(lease.id).bind(rows::json(&lease.deployment))).await?;
        insert_labels(transaction, lease).await?;
        transaction.execute(rows::insert_event(event)).await?;
        Ok(Outcome::Written)
    }

    /// Returns why the lease is not written, if it is to be the owner's lease number `leases`.
    async fn refusal(
        &self,
        leases: i64,
        transaction: &mut Transaction,
        rules: &Rules,
    ) -> Result<Option<Outcome>, StoreError> {
        let Self { lease: Lease { owner, .. }, request, .. } = self;
        if let Some(request) = request
            && let Some((id, digest)) = admitted_before(transaction, owner, request).await?
        {
            return Ok(Some(if digest.as_ref() == Some(&request.digest) {
                Outcome::AlreadyAdmitted(id)
            } else {
                let (owner, request_id) = (owner.clone(), request.id.clone());
                Outcome::Refused(StoreError::RequestIdReused { owner, request_id, lease: id })
            }));
        }
        let limit = rules.maximum_per_owner;
        let is_too_many = limit != 0 && leases > i64::from(limit);
        Ok(is_too_many.then(|| Outcome::Refused(StoreError::TooManyLeases { owner: owner.clone(), limit })))
    }
}

impl Replacement {
    async fn perform(&self, transaction: &mut Transaction, rules: &Rules) -> Result<Outcome, StoreError> {
        let Self { before, lease, event } = self;
        let update = rows::update_lease(lease, before.version, lease.due_at(&rules.deadlines));
        if transaction.execute(update).await? == 0 {
            return Ok(Outcome::Outrun);
        }
        if lease.deployment != before.deployment {
            let update = sql("UPDATE deployments SET deployment = $1 WHERE lease_id = $2");
            transaction.execute(update.bind(rows::json(&lease.deployment)).bind(lease.id)).await?;
        }
        if lease.spec.labels != before.spec.labels {
            let delete = sql("DELETE FROM lease_labels WHERE lease_id = $1");
            transaction.execute(delete.bind(lease.id)).await?;
            insert_labels(transaction, lease).await?;
        }
        transaction.execute(rows::insert_event(event)).await?;
        if before.end.is_none() && lease.end.is_some() {
            lower_count(transaction, lease).await?;
        }
        Ok(Outcome::Written)
    }
}

async fn raise_count(transaction: &mut Transaction, owner: &str) -> Result<i64, StoreError> {
    let upsert = sql("INSERT INTO owners (owner, leases) VALUES ($1, 1) \
         ON CONFLICT (owner) DO UPDATE SET leases = owners.leases + 1 RETURNING leases");
    let row = transaction.fetch_optional(upsert.bind(owner)).await?.ok_or(sqlx::Error::RowNotFound)?;
    Ok(row.get("leases")?)
}

async fn lower_count(transaction: &mut Transaction, lease: &Lease) -> Result<(), StoreError> {
    let update = sql("UPDATE owners SET leases = leases - 1 WHERE owner = $1");
    match transaction.execute(update.bind(lease.owner.as_str())).await? {
        1 => Ok(()),
        _ => Err(StoreError::Corrupt {
            id: lease.id.to_string(),
            what: format!("its owner {:?} is not counted", lease.owner),
        }),
    }
}

/// Returns the lease that a request of the same id got, and that request's digest.
async fn admitted_before(
    transaction: &mut Transaction,
    owner: &str,
    request: &RequestKey,
) -> Result<Option<(LeaseId, Option<String>)>, StoreError> {
    let select = sql("SELECT id, request_digest FROM leases WHERE owner = $1 AND request_id = $2");
    let select = select.bind(owner).bind(request.id.as_str());
    let row = transaction.fetch_optional(select).await?;
    row.map(|row| Ok((rows::lease_id(&row, "id")?, row.get("request_digest")?))).transpose()
}

async fn insert_labels(transaction: &mut Transaction, lease: &Lease) -> Result<(), StoreError> {
    if lease.spec.labels.is_empty() {
        return Ok(());
    }
    let mut insert = sql("INSERT INTO lease_labels (lease_id, key, value) VALUES ");
    let mut separator = "";
    for (key, value) in &lease.spec.labels {
        insert.push(separator).push_list([lease.id.to_string().as_str(), key, value]);
        separator = ", ";
    }
    transaction.execute(insert).await?;
    Ok(())
}

fn event_of(lease: &Lease, actor: &str, at: Timestamp, happening: Happening) -> Event {
    Event {
        lease_id: lease.id,
        version: lease.version,
        generation: lease.generation,
        at,
        actor: actor.to_owned(),
        reason: happening.reason.to_owned(),
        message: rows::without_nul(happening.message),
        state: lease.state(),
    }
}
