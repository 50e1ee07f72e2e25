//! Update, Renew and Release: each is one change of one row, after which the reconciler is woken.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tms_proto::v1;

use super::status::{Refusal, violation};
use super::{Services, convert};
use crate::auth::Caller;
use crate::domain::bounds::{self, Accepted, Violation};
use crate::domain::lease::{Happening, Lease, LeaseId};
use crate::domain::life::Ended;
use crate::store::ChangeError;

impl Services {
    /// Changes autoscaling, replicas, labels or automatic renewal of a lease.
    pub(super) async fn update(
        self: Arc<Self>,
        caller: Caller,
        request: v1::UpdateRequest,
    ) -> Result<v1::UpdateResponse, Refusal> {
        let id = self.find(&caller, &request.lease_id).await?.id;
        let expected_version = request.expected_version;
        let wishes = convert::update(request).map_err(|fault| Refusal::Violations(vec![fault]))?;
        let now = self.clock.now();
        let (warnings, lease) = self
            .change(id, &caller, now, |lease| {
                refuse_stale(lease, expected_version)?;
                let Accepted { granted, warnings } =
                    bounds::grant_update(lease, &wishes, &self.bounds).map_err(Refusal::Violations)?;
                let happening = lease.update(&granted, now).map_err(|ended| refused(id, ended))?;
                Ok((warnings, happening))
            })
            .await?;
        Ok(v1::UpdateResponse { lease: Some(convert::lease(&lease)), warnings })
    }

    /// Moves the end of a lease.
    pub(super) async fn renew(
        self: Arc<Self>,
        caller: Caller,
        request: v1::RenewRequest,
    ) -> Result<v1::RenewResponse, Refusal> {
        let asked = convert::lifetime("lifetime", request.lifetime)
            .and_then(|asked| self.refuse_short(asked))
            .map_err(|fault| Refusal::Violations(vec![fault]))?;
        let id = self.find(&caller, &request.lease_id).await?.id;
        let now = self.clock.now();
        let (granted, lease) = self
            .change(id, &caller, now, |lease| {
                let renewed = lease.renew(asked, &self.bounds.lifetime, now);
                let (granted, happening) = renewed.map_err(|ended| refused(id, ended))?;
                Ok((granted, Some(happening)))
            })
            .await?;
        let cut = format!(
            "granted {:#}, which is the longest (server.leases.maximumLifetime)",
            self.bounds.lifetime.maximum
        );
        Ok(v1::RenewResponse {
            lease: Some(convert::lease(&lease)),
            granted: Some(convert::duration(granted.lifetime)),
            warnings: if granted.was_cut { vec![cut] } else { Vec::new() },
        })
    }

    /// Wakes a lease.
    pub(super) async fn activate(
        self: Arc<Self>,
        caller: Caller,
        request: v1::ActivateRequest,
    ) -> Result<v1::ActivateResponse, Refusal> {
        let id = self.find(&caller, &request.lease_id).await?.id;
        let now = self.clock.now();
        if !self.wakes_leases() {
            let why = "activation asked, but leases sleep and wake with server.autoscaling.provider keda and \
                       server.cluster.kind kubernetes alone";
            let fault = Violation { is_precondition: true, ..violation("lease_id", why.to_owned()) };
            return Err(Refusal::Violations(vec![fault]));
        }
        let ((), lease) = self
            .change(id, &caller, now, |lease| {
                Ok(((), lease.activate(now).map_err(|ended| refused(id, ended))?))
            })
            .await?;
        let minimum = lease.spec.scaling.minimum();
        let warnings = match minimum {
            0 => Vec::new(),
            _ => vec![format!("the lease never sleeps: its minimum is {minimum}")],
        };
        Ok(v1::ActivateResponse { lease: Some(convert::lease(&lease)), warnings })
    }

    /// Ends a lease.
    pub(super) async fn release(
        self: Arc<Self>,
        caller: Caller,
        request: v1::ReleaseRequest,
    ) -> Result<v1::ReleaseResponse, Refusal> {
        let id = self.find(&caller, &request.lease_id).await?.id;
        let now = self.clock.now();
        let ((), lease) = self.change(id, &caller, now, |lease| Ok(((), lease.release(now)))).await?;
        Ok(v1::ReleaseResponse { lease: Some(convert::lease(&lease)) })
    }

    /// Carries a change to the store and wakes the reconciler.
    async fn change<T>(
        &self,
        id: LeaseId,
        caller: &Caller,
        now: Timestamp,
        change: impl FnMut(&mut Lease) -> Result<(T, Option<Happening>), Refusal> + Send,
    ) -> Result<(T, Lease), Refusal> {
        let changed = self.store.change(id, caller.as_str(), now, change).await;
        let changed = changed.map_err(|error| match error {
            ChangeError::Refused(refusal) => refusal,
            ChangeError::NotFound => Refusal::NotFound(id.to_string()),
            ChangeError::Store(error) => error.into(),
        })?;
        self.wake.wake(id);
        Ok(changed)
    }

    fn refuse_short(&self, asked: Option<SignedDuration>) -> Result<Option<SignedDuration>, Violation> {
        let minimum = self.bounds.lifetime.minimum;
        match asked {
            Some(asked) if asked < minimum => Err(Violation {
                key: Some("server.leases.minimumLifetime".to_owned()),
                ..violation(
                    "lifetime",
                    format!("asked for {asked:#}, and the shortest lifetime is {minimum:#}"),
                )
            }),
            Some(_) | None => Ok(asked),
        }
    }
}

fn refuse_stale(lease: &Lease, expected_version: Option<i64>) -> Result<(), Refusal> {
    match expected_version {
        Some(expected) if expected != lease.version => {
            Err(Refusal::Stale { id: lease.id, expected, current: lease.version })
        }
        Some(_) | None => Ok(()),
    }
}

fn refused(id: LeaseId, Ended(end): Ended) -> Refusal {
    Refusal::Ended { id, end }
}
