//! `tmsctl version`.

use serde::Serialize;
use tms_proto::v1::VersionRequest;

use super::Global;
use crate::failure::Failure;
use crate::{output, text};

const CLIENT: &str = env!("CARGO_PKG_VERSION");

/// Show the versions of tmsctl and of the server, and who you are to it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
With -z: the version of tmsctl, the version of the server, its URL, and who you are to it.
Without a target only the version of tmsctl is shown.")]
pub struct Arguments {}

#[derive(Serialize)]
struct Versions {
    client: &'static str,
    server: Option<Server>,
}

#[derive(Serialize)]
struct Server {
    version: String,
    url: String,
    caller: String,
}

pub async fn run(global: &Global) -> Result<(), Failure> {
    let form = global.form()?;
    let (server, failure) = match server(global).await {
        Ok(server) => (server, None),
        Err(failure) => (None, Some(failure)),
    };
    let versions = Versions { client: CLIENT, server };
    form.print(&versions, || page(&versions), || line(&versions))?;
    failure.map_or(Ok(()), Err)
}

async fn server(global: &Global) -> Result<Option<Server>, Failure> {
    if !global.has_target()? {
        output::say("no target is named, so no server is asked\n");
        return Ok(None);
    }
    let connection = global.connect().await?;
    let version = connection.answer("Version", connection.server().version(VersionRequest {})).await?;
    Ok(Some(Server { version: version.version, url: connection.url().to_owned(), caller: version.caller }))
}

fn page(versions: &Versions) -> String {
    let server = versions.server.as_ref();
    text::facts(&[
        ("tmsctl", versions.client.to_owned()),
        ("Server", server.map(|server| server.version.clone()).unwrap_or_default()),
        ("URL", server.map(|server| server.url.clone()).unwrap_or_default()),
        ("You are", server.map(|server| server.caller.clone()).unwrap_or_default()),
    ])
}

fn line(versions: &Versions) -> String {
    let server = versions.server.as_ref();
    text::line(&[
        versions.client,
        server.map_or("", |server| &server.version),
        server.map_or("", |server| &server.url),
        server.map_or("", |server| &server.caller),
    ])
}
