//! `tmsctl lease status LEASE`.

use serde::Serialize;
use tms_proto::v1::StatusRequest;

use super::{Global, lease_of};
use crate::failure::Failure;
use crate::{clock, output, text, view};

/// Show a lease, its models and what happened to it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
With -z: id, state, ready, desired, minimum and maximum replicas, end, owner, models (with commas).

Examples:
  tmsctl lease status 3f0a
  tmsctl lease status 3f0a -o json | jq -r .lease.endpoint.host")]
pub struct Arguments {
    /// Id of the lease, or a unique prefix of it
    lease: String,
}

#[derive(Serialize)]
struct Status {
    lease: view::Lease,
    events: Vec<view::Event>,
}

pub async fn run(global: &Global, arguments: Arguments) -> Result<(), Failure> {
    let form = global.form()?;
    let connection = global.connect().await?;
    let request = StatusRequest { lease_id: arguments.lease };
    let answer = connection.answer("Status", connection.leases().status(request)).await?;
    let status = Status {
        lease: view::Lease::from(&lease_of("Status", answer.lease)?),
        events: answer.events.iter().map(view::Event::from).collect(),
    };
    form.print(
        &status,
        || text::lease_page(&status.lease, &status.events, clock::now(), output::width()),
        || text::lease_line(&status.lease),
    )
}
