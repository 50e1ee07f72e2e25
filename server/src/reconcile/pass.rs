//! One pass: the steps of one lease, from a row and what is observed, until there is nothing to do.

use std::convert::Infallible;
use std::error::Error;

use jiff::{SignedDuration, Timestamp};

use super::Reconciler;
use crate::cluster::{ActError, Sight};
use crate::domain::decide::{Step, decide};
use crate::domain::lease::{Happening, Lease, LeaseId, Phase, Report, SERVER};
use crate::domain::observed::Observed;
use crate::domain::plan::{Kind, plan};
use crate::domain::start::cold_start;
use crate::store::{ChangeError, StoreError, Term};

/// Steps of one pass. A lease needs five at most, from the first apply to the report; more means that somebody else
/// changes it at the same time, and the next pass goes on.
const STEPS: usize = 12;

/// A pass could not be finished.
#[derive(Debug, thiserror::Error)]
pub(super) enum PassError {
    /// The database.
    #[error("the database failed")]
    Store(#[from] StoreError),
    /// The cluster.
    #[error("the cluster failed")]
    Act(#[from] ActError),
    /// Somebody else changes the lease all the time.
    #[error("the lease did not come to rest")]
    Restless,
    /// This server may lead no more. If it comes to lead on, the lease still needs its pass.
    #[error("this server is not sure to lead")]
    Lapsed,
    /// Something that it waited for never came.
    #[error("the pass hung")]
    Hung,
}

impl PassError {
    /// The word for it among the figures.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Store(_) => "database",
            // The lease goes on by itself as soon as what changed is seen.
            Self::Act(ActError::Conflict { .. } | ActError::Superseded { .. }) => "conflict",
            Self::Act(_) => "cluster",
            Self::Restless => "restless",
            Self::Lapsed => "lapsed",
            Self::Hung => "hung",
        }
    }

    /// Says what went wrong, unless the lease says it already.
    pub(super) fn log(&self, id: LeaseId) {
        match self {
            Self::Act(_) | Self::Lapsed => {
                tracing::debug!(lease.id = %id, error = self as &dyn Error, "a pass failed")
            }
            Self::Store(_) | Self::Restless | Self::Hung => {
                tracing::warn!(lease.id = %id, error = self as &dyn Error, "a pass failed");
            }
        }
    }
}

impl Reconciler {
    /// Takes the steps of one lease until it rests, which fails where this server may lead no more.
    pub(super) async fn pass(&self, id: LeaseId, term: &Term) -> Result<(), PassError> {
        for _ in 0..STEPS {
            if term.is_over() {
                return Err(PassError::Lapsed);
            }
            let Some(lease) = self.store.get(id).await?.filter(|lease| !lease.is_closed()) else {
                return self.remove_orphan(id).await;
            };
            if self.step(&lease).await? {
                return Ok(());
            }
        }
        Err(PassError::Restless)
    }

    /// Takes one step; `true` where that was to rest.
    async fn step(&self, lease: &Lease) -> Result<bool, PassError> {
        let now = self.clock.now();
        match self.cluster.sight() {
            Sight::Full => {}
            blind => return self.step_blindly(lease, blind, now).await,
        }
        let plan = plan(lease, &self.options.plan, &self.cluster.capabilities());
        let observed = self.cluster.observe(lease, &plan);
        match decide(lease, &observed, &self.options.deadlines, now) {
            Step::Rest => {
                self.correct_due(lease, now).await?;
                return Ok(true);
            }
            Step::Apply => match self.cluster.apply(lease, &plan).await {
                Ok(()) => {}
                // The row is read anew, and what changed is seen by then.
                Err(ActError::Conflict { .. } | ActError::Superseded { .. }) => {}
                Err(ActError::Invalid { kind: Kind::Deployment, message, .. }) if lease.is_loading() => {
                    let report = Report { message, ..lease.report.clone() };
                    self.change(lease.id, |lease| lease.invalidate(report.clone(), now)).await?;
                }
                Err(error) => return self.complain(lease, error).await,
            },
            Step::Delete => {
                if let Err(error) = self.cluster.delete(lease.id).await {
                    if matches!(error, ActError::Conflict { .. }) {
                        return Ok(false);
                    }
                    return self.complain(lease, error).await;
                }
                if self.cluster.observe(lease, &plan).objects == observed.objects {
                    // Accepted; the watch says when it is done.
                    return Ok(true);
                }
            }
            Step::Surpass(generation) => {
                // A server that has gone on has written its row before it touched an object.
                let row = self.store.get(lease.id).await?;
                if row.is_some_and(|row| row.generation < generation) {
                    self.change(lease.id, |lease| lease.surpass(generation)).await?;
                }
            }
            Step::Report(report) => {
                let is_written = self.change(lease.id, |lease| lease.observe(report.clone())).await?;
                if is_written && is_first_start(lease, &report) {
                    self.tell_cold_start(lease, &observed, now);
                }
            }
            Step::Awake => {
                self.change(lease.id, Lease::awake).await?;
            }
            Step::Expire => self.expire(lease, now).await?,
            Step::Notice => self.give_notice(lease.id, now).await?,
            Step::Invalidate(report) => {
                self.change(lease.id, |lease| lease.invalidate(report.clone(), now)).await?;
            }
            Step::Close => {
                self.change(lease.id, |lease| lease.close(now)).await?;
                self.cluster.forget(lease.id);
            }
        }
        Ok(false)
    }

    /// Does what needs no look at the cluster, while there is none.
    async fn step_blindly(&self, lease: &Lease, sight: Sight, now: Timestamp) -> Result<bool, PassError> {
        let is_over = lease.end.is_none() && now >= lease.expires_at;
        if is_over && !self.may_be_kept_alive(lease) {
            self.expire(lease, now).await?;
            return Ok(false);
        }
        if lease.owes_notice(&self.options.deadlines.notices, now) {
            self.give_notice(lease.id, now).await?;
        } else {
            self.correct_due(lease, now).await?;
        }
        match sight {
            Sight::Full | Sight::NotYet => Ok(true),
            Sight::Failing(cause) => self.complain(lease, ActError::Away(Some(cause))).await,
        }
    }

    /// Ends a lease whose time is over, unless it was used since the last look at its use, and so lives on.
    async fn expire(&self, lease: &Lease, now: Timestamp) -> Result<(), PassError> {
        self.look_a_last_time(lease).await?;
        // The row says whether that has moved the end.
        self.change(lease.id, |lease| lease.expire(now)).await.map(drop)
    }

    /// Keeps a lease that a server with other deadlines has written from being due again and again.
    async fn correct_due(&self, lease: &Lease, now: Timestamp) -> Result<(), StoreError> {
        if lease.end.is_none() { self.store.correct_due(lease, now).await } else { Ok(()) }
    }

    /// Deletes what is there of a lease that is closed or unknown.
    async fn remove_orphan(&self, id: LeaseId) -> Result<(), PassError> {
        if !self.cluster.has_objects(id) {
            self.cluster.forget(id);
        } else if self.cluster.sight() == Sight::Full {
            tracing::info!(lease.id = %id, "removes objects of a lease that holds none");
            self.cluster.delete(id).await?;
        }
        Ok(())
    }

    /// Makes a failure of the cluster the lease's message, and passes it on.
    async fn complain(&self, lease: &Lease, error: ActError) -> Result<bool, PassError> {
        let cause = match &error {
            ActError::File { source, .. } => format!("{error}: {source}"),
            _ => error.to_string(),
        };
        let message = match lease.end {
            Some(_) => lease.message_of_remains(&cause),
            None => cause,
        };
        if lease.report.message != message {
            tracing::warn!(lease.id = %lease.id, error = &error as &dyn std::error::Error, "a lease cannot follow");
            let complain = |lease: &mut Lease| {
                let report = Report { message: message.clone(), ..lease.report.clone() };
                lease.observe(report)
            };
            self.change(lease.id, complain).await?;
        }
        Err(error.into())
    }

    /// Tells where the first start of a lease went.
    fn tell_cold_start(&self, lease: &Lease, observed: &Observed, now: Timestamp) {
        let Some(start) = cold_start(lease, observed, now) else { return };
        self.options.metrics.count_cold_start(&start);
        let ms = |part: Option<SignedDuration>| part.and_then(|part| i64::try_from(part.as_millis()).ok());
        tracing::info!(
            lease.id = %lease.id,
            cold_start.scheduled_ms = ms(start.scheduled),
            cold_start.fetched_ms = ms(start.fetched),
            cold_start.loaded_ms = ms(start.loaded),
            cold_start.ready_ms = ms(start.ready),
            duration_ms = ms(Some(start.total)),
            "the first start is over"
        );
    }

    async fn give_notice(&self, id: LeaseId, now: Timestamp) -> Result<(), PassError> {
        self.change(id, |lease| lease.notice(&self.options.deadlines.notices, now)).await.map(drop)
    }

    /// Carries a change to the store and tells of it. Returns whether anything changed.
    async fn change(
        &self,
        id: LeaseId,
        mut change: impl FnMut(&mut Lease) -> Option<Happening> + Send,
    ) -> Result<bool, PassError> {
        let now = self.clock.now();
        let change = |lease: &mut Lease| {
            let happening = change(lease);
            Ok::<_, Infallible>((happening.clone(), happening))
        };
        match self.store.change(id, SERVER, now, change).await {
            Ok((Some(happening), lease)) => {
                if happening.reason != "Reported" {
                    // An end by time needs no more words than its reason.
                    let words =
                        if happening.message.is_empty() { happening.reason } else { &happening.message };
                    tracing::info!(
                        lease.id = %id, lease.owner = lease.owner, lease.state = %lease.state(),
                        reason = happening.reason, "{words}"
                    );
                    self.cluster.announce(&lease, &happening);
                }
                Ok(true)
            }
            Ok((None, _)) | Err(ChangeError::NotFound) => Ok(false),
            Err(ChangeError::Refused(never)) => match never {},
            Err(ChangeError::Store(error)) => Err(error.into()),
        }
    }
}

fn is_first_start(lease: &Lease, report: &Report) -> bool {
    lease.report.first_ready_at.is_none() && report.first_ready_at.is_some() && report.phase == Phase::Ready
}
