//! Status, List and Plan: what is, and what would be. Nothing here changes anything.

use std::sync::Arc;

use tms_proto::v1;

use super::status::{Refusal, violation};
use super::{Services, convert};
use crate::auth::Caller;
use crate::domain::bounds::{Accepted, Violation};
use crate::domain::lease::{Lease, State};
use crate::domain::plan;
use crate::store::{Cursor, Filter, Found, Page};

/// Events that Status returns.
const RECENT_EVENTS: u32 = 50;
/// Leases of a page that does not say.
const DEFAULT_PAGE: u32 = 100;
/// Most leases of a page.
const LARGEST_PAGE: u32 = 500;

impl Services {
    /// Returns one lease and what happened to it last.
    pub(super) async fn status(
        self: Arc<Self>,
        caller: Caller,
        request: v1::StatusRequest,
    ) -> Result<v1::StatusResponse, Refusal> {
        let lease = self.find(&caller, &request.lease_id).await?;
        let events = self.store.recent_events(lease.id, RECENT_EVENTS).await?;
        Ok(v1::StatusResponse {
            lease: Some(convert::lease(&lease)),
            events: events.into_iter().map(convert::event).collect(),
        })
    }

    /// Returns a page of the caller's leases.
    pub(super) async fn list(
        self: Arc<Self>,
        caller: Caller,
        request: v1::ListRequest,
    ) -> Result<v1::ListResponse, Refusal> {
        if !request.owner.is_empty() && request.owner != caller.as_str() {
            return Err(Refusal::NotYours { caller: caller.to_string(), owner: request.owner });
        }
        let (filter, page) = wanted(&caller, request).map_err(Refusal::Violations)?;
        let listed = self.store.list(&filter, &page).await?;
        Ok(v1::ListResponse {
            leases: listed.leases.iter().map(convert::lease).collect(),
            next_page_token: listed.next.map(|cursor| cursor.to_string()).unwrap_or_default(),
        })
    }

    /// Returns what Acquire would make of the same spec.
    pub(super) async fn plan(
        self: Arc<Self>,
        caller: Caller,
        request: v1::PlanRequest,
    ) -> Result<v1::PlanResponse, Refusal> {
        let Accepted { granted, warnings } = self.grant(request.spec.unwrap_or_default(), Vec::new())?;
        let lease = self.draft(&caller, granted);
        let plan = plan::plan(&lease, &self.settings, &(self.capabilities)());
        Ok(v1::PlanResponse {
            lease: Some(convert::lease(&lease)),
            manifests: plan.objects().map(|object| plan::to_yaml(&object.body)).collect(),
            warnings,
        })
    }

    /// Returns the caller's lease whose id begins with `prefix`.
    pub(super) async fn find(&self, caller: &Caller, prefix: &str) -> Result<Lease, Refusal> {
        if prefix.is_empty() {
            let rule = "a lease is named by its id or a unique prefix of it";
            return Err(Refusal::Violations(vec![violation("lease_id", rule)]));
        }
        match self.store.find(Some(caller.as_str()), prefix).await? {
            Found::One(lease) => Ok(*lease),
            Found::None => Err(Refusal::NotFound(prefix.to_owned())),
            Found::Many(candidates) => Err(Refusal::Ambiguous { prefix: prefix.to_owned(), candidates }),
        }
    }
}

fn wanted(caller: &Caller, request: v1::ListRequest) -> Result<(Filter, Page), Vec<Violation>> {
    let mut faults = Vec::new();
    let mut states = Vec::new();
    for (index, number) in request.states.into_iter().enumerate() {
        match convert::state(number) {
            Some(state) => states.push(state),
            None => faults
                .push(violation(&format!("states[{index}]"), format!("{number} is no state of a lease"))),
        }
    }
    if states.is_empty() {
        states.extend(State::ALL.into_iter().filter(|state| !state.is_end()));
    }
    let size = if request.page_size == 0 { DEFAULT_PAGE } else { request.page_size };
    if size > LARGEST_PAGE {
        let rule = format!("asked for {size} leases, and a page has at most {LARGEST_PAGE}");
        faults.push(violation("page_size", rule));
    }
    let after = match request.page_token.as_str() {
        "" => None,
        token => token
            .parse::<Cursor>()
            .map_err(|_| faults.push(violation("page_token", "this is not a token that a page ended with")))
            .ok(),
    };
    if !faults.is_empty() {
        return Err(faults);
    }
    let filter = Filter {
        owner: Some(caller.to_string()),
        states,
        labels: request.labels,
        id_prefix: (!request.id_prefix.is_empty()).then_some(request.id_prefix),
        ..Filter::default()
    };
    Ok((filter, Page { size, after }))
}
