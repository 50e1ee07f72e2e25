//! `tmsctl lease release LEASE…`.

use serde::Serialize;
use tms_proto::v1::ReleaseRequest;

use super::{Global, lease_of};
use crate::connection::Connection;
use crate::failure::{Failure, Kind};
use crate::{text, view};

/// Give leases back: they end now, and their replicas are removed
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Releasing a lease that has ended already is no error. Of several leases each is tried; the exit code is that of the \
first failure. With -z: the id of each released lease.

Examples:
  tmsctl lease release 3f0a
  tmsctl lease release $(tmsctl lease list -z --label team=search | cut -f1)")]
pub struct Arguments {
    /// Ids of the leases, or unique prefixes of them
    #[arg(required = true, value_name = "LEASE")]
    leases: Vec<String>,
}

#[derive(Serialize)]
struct Released {
    leases: Vec<view::Lease>,
}

pub async fn run(global: &Global, arguments: Arguments) -> Result<(), Failure> {
    let form = global.form()?;
    let connection = global.connect().await?;
    let mut released = Released { leases: Vec::new() };
    let mut failures = Vec::new();
    for lease_id in arguments.leases {
        match release(&connection, lease_id).await {
            Ok(lease) => released.leases.push(lease),
            Err(failure) => {
                let is_away = failure.kind() == Kind::Away;
                failures.push(failure);
                if is_away {
                    break;
                }
            }
        }
    }
    form.print(
        &released,
        || released.leases.iter().map(sentence).collect(),
        || released.leases.iter().map(|lease| text::line(&[&lease.id])).collect(),
    )?;
    Failure::several(failures).map_or(Ok(()), Err)
}

async fn release(connection: &Connection, lease_id: String) -> Result<view::Lease, Failure> {
    let request = ReleaseRequest { lease_id };
    let answer = connection.answer("Release", connection.leases().release(request)).await?;
    Ok(view::Lease::from(&lease_of("Release", answer.lease)?))
}

fn sentence(lease: &view::Lease) -> String {
    let remains = if lease.closed_at.is_some() { "" } else { "; its objects are being removed" };
    match lease.state {
        "RELEASED" => format!("Lease {} is released{remains}\n", lease.id),
        state => format!("Lease {} had ended already, as {state}{remains}\n", lease.id),
    }
}
