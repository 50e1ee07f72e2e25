//! `tmsctl lease list`.

use clap::ValueEnum;
use serde::Serialize;
use tms_proto::v1::{Lease, LeaseState, ListRequest};

use super::Global;
use crate::arguments::{key_value, labels};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::output::Form;
use crate::{clock, output, text, view};

const PAGE_SIZE: u32 = 500;

/// List your leases, the newest first
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without --state and --all only leases that have not ended are listed.
With -z: id, state, ready, desired, minimum and maximum replicas, end, owner, models (with commas).

Examples:
  tmsctl lease list --label team=search
  tmsctl lease list --state ready --state degraded
  tmsctl lease list --all -o json | jq -r '.leases[] | select(.state == \"INVALID\") | .id'")]
pub struct Arguments {
    /// Only leases in this state; repeat it for more
    #[arg(long = "state", value_name = "STATE", value_enum, ignore_case = true)]
    states: Vec<State>,

    /// Only leases with this label; repeat it for more, all of which a lease must have
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
    labels: Vec<(String, String)>,

    /// Leases of somebody else, which takes the right to see them
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,

    /// Leases that have ended, too
    #[arg(short, long, conflicts_with = "states")]
    all: bool,
}

/// A state to ask for.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum State {
    Pending,
    Provisioning,
    Loading,
    Ready,
    Degraded,
    Asleep,
    Written,
    Released,
    Expired,
    Invalid,
}

#[derive(Serialize)]
struct LeaseList {
    leases: Vec<view::Lease>,
}

impl Arguments {
    /// Returns what is said where no lease is found.
    fn nothing(&self) -> &'static str {
        let is_narrowed = !self.states.is_empty() || !self.labels.is_empty() || self.owner.is_some();
        match (is_narrowed, self.all) {
            (true, _) => "There are no such leases\n",
            (false, true) => "You have had no leases\n",
            (false, false) => "You have no leases; --all shows those that have ended, too\n",
        }
    }

    fn into_request(self) -> Result<ListRequest, Failure> {
        let states = if self.all { State::value_variants().to_vec() } else { self.states };
        Ok(ListRequest {
            states: states.into_iter().map(|state| LeaseState::from(state).into()).collect(),
            labels: labels(self.labels)?,
            owner: self.owner.unwrap_or_default(),
            page_size: PAGE_SIZE,
            ..ListRequest::default()
        })
    }
}

pub async fn run(global: &Global, arguments: Arguments) -> Result<(), Failure> {
    let form = global.form()?;
    let nothing = arguments.nothing();
    let request = arguments.into_request()?;
    let leases = fetch(&global.connect().await?, request).await?;
    let list = LeaseList { leases: leases.iter().map(view::Lease::from).collect() };
    if list.leases.is_empty() && form == Form::Table {
        output::say(nothing);
    }
    form.print(
        &list,
        || match list.leases.as_slice() {
            [] => String::new(),
            leases => text::lease_table(leases, clock::now(), output::width()),
        },
        || list.leases.iter().map(text::lease_line).collect(),
    )
}

/// Fetches all pages.
pub async fn fetch(connection: &Connection, mut request: ListRequest) -> Result<Vec<Lease>, Failure> {
    let mut leases = Vec::new();
    loop {
        let page = connection.answer("List", connection.leases().list(request.clone())).await?;
        leases.extend(page.leases);
        if page.next_page_token.is_empty() {
            return Ok(leases);
        }
        request.page_token = page.next_page_token;
    }
}

/// Returns a request for the caller's leases, those that have ended too if `all`.
pub fn everything(all: bool) -> ListRequest {
    let states = if all { State::value_variants() } else { &[] };
    ListRequest {
        states: states.iter().map(|state| LeaseState::from(*state).into()).collect(),
        page_size: PAGE_SIZE,
        ..ListRequest::default()
    }
}

impl From<State> for LeaseState {
    fn from(state: State) -> Self {
        match state {
            State::Pending => Self::Pending,
            State::Provisioning => Self::Provisioning,
            State::Loading => Self::Loading,
            State::Ready => Self::Ready,
            State::Degraded => Self::Degraded,
            State::Asleep => Self::Asleep,
            State::Written => Self::Written,
            State::Released => Self::Released,
            State::Expired => Self::Expired,
            State::Invalid => Self::Invalid,
        }
    }
}
