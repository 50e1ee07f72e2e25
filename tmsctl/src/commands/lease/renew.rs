//! `tmsctl lease renew LEASE`.

use std::time::Duration;

use serde::Serialize;
use tms_proto::v1::RenewRequest;

use super::{Global, lease_of};
use crate::arguments::{duration, proto_duration};
use crate::failure::Failure;
use crate::{clock, output, text, view, words};

/// Keep a lease for longer, counted from now
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The server may grant less than asked; what it granted is what is printed. A lease that has ended cannot be renewed.
With -z: id, new end.

Examples:
  tmsctl lease renew 3f0a
  tmsctl lease renew 3f0a --lifetime 12h")]
pub struct Arguments {
    /// Id of the lease, or a unique prefix of it
    lease: String,

    /// How long it lasts from now on, such as 90m, 1h 30m or 2d [default: what was granted last]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    lifetime: Option<Duration>,
}

#[derive(Serialize)]
struct Renewed {
    lease: view::Lease,
    granted: Option<view::Seconds>,
    warnings: Vec<String>,
}

pub async fn run(global: &Global, arguments: Arguments) -> Result<(), Failure> {
    let form = global.form()?;
    let lifetime = arguments.lifetime.map(proto_duration).transpose()?;
    let connection = global.connect().await?;
    let request = RenewRequest { lease_id: arguments.lease, lifetime };
    let answer = connection.answer("Renew", connection.leases().renew(request)).await?;
    for warning in &answer.warnings {
        output::warn(warning);
    }
    let renewed = Renewed {
        lease: view::Lease::from(&lease_of("Renew", answer.lease)?),
        granted: answer.granted.as_ref().map(view::Seconds::from),
        warnings: answer.warnings,
    };
    form.print(
        &renewed,
        || {
            let end = renewed.lease.expires_at.map(|at| words::moment(at, clock::now())).unwrap_or_default();
            format!("Lease {} ends {end}\n", renewed.lease.id)
        },
        || {
            let end = renewed.lease.expires_at.map(|at| at.to_string()).unwrap_or_default();
            text::line(&[renewed.lease.id.clone(), end])
        },
    )
}
