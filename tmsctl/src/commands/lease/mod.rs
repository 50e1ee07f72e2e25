//! `tmsctl lease …`: the life of leases.

mod activate;
mod create;
mod explain;
mod list;
mod logs;
mod plan;
mod port_forward;
mod release;
mod renew;
mod simulate;
mod status;
mod update;
mod watch;

use clap::Subcommand;
use tms_proto::v1;

use super::Global;
use crate::failure::Failure;

/// Create, follow, change, keep and release leases
#[derive(Debug, Subcommand)]
#[command(after_help = "\
A LEASE is named by its id, or by as many of its first digits as make it unique.")]
pub enum Command {
    Create(Box<create::Arguments>),
    Plan(Box<plan::Arguments>),
    Simulate(Box<simulate::Arguments>),
    Status(status::Arguments),
    Explain(explain::Arguments),
    List(list::Arguments),
    Watch(watch::Arguments),
    PortForward(port_forward::Arguments),
    Logs(logs::Arguments),
    Update(Box<update::Arguments>),
    Renew(renew::Arguments),
    Activate(activate::Arguments),
    Release(release::Arguments),
}

pub async fn run(global: &Global, command: Command) -> Result<(), Failure> {
    match command {
        Command::Create(arguments) => create::run(global, *arguments).await,
        Command::Plan(arguments) => plan::run(global, *arguments).await,
        Command::Simulate(arguments) => simulate::run(global, *arguments).await,
        Command::Explain(arguments) => explain::run(global, arguments).await,
        Command::Status(arguments) => status::run(global, arguments).await,
        Command::List(arguments) => list::run(global, arguments).await,
        Command::Watch(arguments) => watch::run(global, arguments).await,
        Command::PortForward(arguments) => port_forward::run(global, arguments).await,
        Command::Logs(arguments) => logs::run(global, arguments).await,
        Command::Update(arguments) => update::run(global, *arguments).await,
        Command::Renew(arguments) => renew::run(global, arguments).await,
        Command::Activate(arguments) => activate::run(global, arguments).await,
        Command::Release(arguments) => release::run(global, arguments).await,
    }
}

/// Asks the server for a lease.
async fn look(global: &Global, lease: &str) -> Result<v1::Lease, Failure> {
    let connection = global.connect().await?;
    let request = v1::StatusRequest { lease_id: lease.to_owned() };
    let answer = connection.answer("Status", connection.leases().status(request)).await?;
    lease_of("Status", answer.lease)
}

/// Returns the lease of an answer, which every server sends.
fn lease_of(rpc: &str, lease: Option<v1::Lease>) -> Result<v1::Lease, Failure> {
    lease.ok_or_else(|| Failure::local(format!("the answer of the server holds no lease (@ {rpc})")))
}
