//! Status, List and Plan: what is, and what would be. Nothing here changes anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message as _;
use tms_proto::v1;

use super::status::{Refusal, short, violation};
use super::{Services, convert};
use crate::auth::Caller;
use crate::domain::bounds::names::{label_key_fault, label_value_fault};
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
/// A page ends before it has more bytes, as clients read answers of at most 4 MiB unless told otherwise.
const MOST_PAGE_BYTES: usize = 2 * 1024 * 1024;
/// Leases read at a time, so that a page of large ones does not fill the memory.
const CHUNK: u32 = 50;
/// Most labels to list by: as many as a lease may have.
const MOST_LABELS: usize = 32;
/// Digits of a lease id.
const DIGITS: usize = 32;

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
            return Err(Refusal::NotYours { caller: caller.to_string(), owner: short(&request.owner) });
        }
        let (filter, page) = wanted(&caller, request).map_err(Refusal::Violations)?;
        let (leases, next) = self.page(&filter, page).await?;
        let next_page_token = next.map(|cursor| cursor.to_string()).unwrap_or_default();
        Ok(v1::ListResponse { leases, next_page_token })
    }

    /// Returns the leases of a page that an answer can hold, and where the next page begins.
    async fn page(
        &self,
        filter: &Filter,
        Page { size, mut after }: Page,
    ) -> Result<(Vec<v1::Lease>, Option<Cursor>), Refusal> {
        let (mut leases, mut bytes, mut left) = (Vec::new(), 0, size);
        loop {
            let listed = self.store.list(filter, &Page { size: left.min(CHUNK), after }).await?;
            for lease in &listed.leases {
                let message = convert::lease(lease);
                bytes += message.encoded_len();
                if bytes > MOST_PAGE_BYTES && !leases.is_empty() {
                    return Ok((leases, after));
                }
                leases.push(message);
                after = Some(Cursor::after(lease));
                left -= 1;
            }
            if listed.next.is_none() || left == 0 {
                return Ok((leases, listed.next));
            }
        }
    }

    /// Returns what Acquire would make of the same spec.
    pub(super) async fn plan(
        self: Arc<Self>,
        caller: Caller,
        request: v1::PlanRequest,
    ) -> Result<v1::PlanResponse, Refusal> {
        let Accepted { granted, mut warnings } = self.grant(request.spec.unwrap_or_default(), Vec::new())?;
        let lease = self.draft(&caller, granted)?;
        let capabilities = (self.capabilities)();
        if capabilities.kubernetes.is_none() {
            let warning =
                "the cluster has not answered yet: objects of kinds that it may serve are not in this plan";
            warnings.push(warning.to_owned());
        }
        let plan = plan::plan(&lease, &self.settings, &capabilities);
        Ok(v1::PlanResponse {
            lease: Some(convert::lease(&lease)),
            manifests: plan.objects().map(|object| plan::to_yaml(&object.body)).collect(),
            warnings,
        })
    }

    /// Returns the caller's lease whose id begins with `prefix`.
    pub(super) async fn find(&self, caller: &Caller, prefix: &str) -> Result<Lease, Refusal> {
        let fault = match prefix {
            "" => Some("a lease is named by its id or a unique prefix of it".to_owned()),
            _ => digits_fault(prefix),
        };
        if let Some(fault) = fault {
            return Err(Refusal::Violations(vec![violation("lease_id", fault)]));
        }
        match self.store.find(Some(caller.as_str()), prefix).await? {
            Found::One(lease) => Ok(*lease),
            Found::None => Err(Refusal::NotFound(prefix.to_owned())),
            Found::Many(candidates) => Err(Refusal::Ambiguous { prefix: prefix.to_owned(), candidates }),
        }
    }
}

/// What is wrong with the first digits of a lease id.
fn digits_fault(prefix: &str) -> Option<String> {
    let are_digits = prefix.len() <= DIGITS && prefix.bytes().all(|byte| byte.is_ascii_hexdigit());
    let fault =
        || format!("{:?} does not begin a lease id, which has {DIGITS} hexadecimal digits", short(prefix));
    (!are_digits).then(fault)
}

fn check_labels(labels: &BTreeMap<String, String>, faults: &mut Vec<Violation>) {
    if labels.len() > MOST_LABELS {
        let rule = format!("asked for {} labels, and a lease has at most {MOST_LABELS}", labels.len());
        faults.push(violation("labels", rule));
    }
    for (key, value) in labels.iter().take(MOST_LABELS) {
        for (text, fault) in [(key, label_key_fault(key)), (value, label_value_fault(value))] {
            if let Some(fault) = fault {
                let (field, text) = (format!("labels[{:?}]", short(key)), short(text));
                faults.push(violation(&field, format!("{text:?} {fault}")));
            }
        }
    }
}

fn wanted(caller: &Caller, request: v1::ListRequest) -> Result<(Filter, Page), Vec<Violation>> {
    let mut faults = Vec::new();
    let mut states = Vec::new();
    for (index, number) in request.states.into_iter().enumerate() {
        match convert::state(number) {
            Some(state) if states.contains(&state) => {}
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
    check_labels(&request.labels, &mut faults);
    faults.extend(digits_fault(&request.id_prefix).map(|fault| violation("id_prefix", fault)));
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
