//! `tmsctl lease activate LEASE`.

use serde::Serialize;
use tms_proto::v1::ActivateRequest;

use super::{Global, lease_of};
use crate::failure::Failure;
use crate::{output, text, view};

/// Wake a lease that sleeps, or keep it awake
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A lease with a minimum of 0 replicas falls asleep when nobody uses it. This wakes it: it gets a replica, and falls asleep \
again once it was ready and nobody used it for a cooldown (server.autoscaling.keda.cooldownPeriod). Waiting for it is \
`tmsctl lease watch`. With -z: id, state.

Examples:
  tmsctl lease activate 3f0a")]
pub struct Arguments {
    /// Id of the lease, or a unique prefix of it
    lease: String,
}

#[derive(Serialize)]
struct Activated {
    lease: view::Lease,
    warnings: Vec<String>,
}

pub async fn run(global: &Global, arguments: Arguments) -> Result<(), Failure> {
    let form = global.form()?;
    let connection = global.connect().await?;
    let request = ActivateRequest { lease_id: arguments.lease };
    let answer = connection.answer("Activate", connection.leases().activate(request)).await?;
    for warning in &answer.warnings {
        output::warn(warning);
    }
    let activated = Activated {
        lease: view::Lease::from(&lease_of("Activate", answer.lease)?),
        warnings: answer.warnings,
    };
    form.print(
        &activated,
        || sentence(&activated.lease),
        || text::line(&[activated.lease.id.as_str(), activated.lease.state]),
    )
}

fn sentence(lease: &view::Lease) -> String {
    match (lease.waking_since, lease.state) {
        (Some(_), "ASLEEP") => format!("Lease {} wakes\n", lease.id),
        (Some(_), state) => format!("Lease {} stays awake; it is {state}\n", lease.id),
        (None, state) => format!("Lease {} is {state}\n", lease.id),
    }
}
