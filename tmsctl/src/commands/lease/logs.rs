//! `tmsctl lease logs LEASE`.

use clap::ValueEnum;
use futures::future::try_join_all;
use futures::{AsyncBufRead, AsyncBufReadExt};
use kube::api::LogParams;
use tms_proto::v1;

use super::{Global, look};
use crate::failure::Failure;
use crate::kubernetes::{ClusterArguments, Replica, Replicas};
use crate::{output, text, view};

/// Show what the replicas of a lease log
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Needs a kubeconfig with the rights to list pods and to get pods/log in the namespace of the lease. Where there are \
several replicas, each line begins with the last part of its replica's name. --follow goes on with the replicas that \
there are now; Ctrl-C ends it.

Examples:
  tmsctl lease logs 3f0a --tail 100
  tmsctl lease logs 3f0a --container agent --follow   # how the models are fetched and loaded
  tmsctl lease logs 3f0a --replica x7k2p --previous   # why Triton was restarted")]
pub struct Arguments {
    /// Id of the lease, or a unique prefix of it
    lease: String,

    /// Whose log: Triton's, or that of the agent, which fetches and loads the models
    #[arg(short, long, value_enum, value_name = "CONTAINER", default_value = "triton")]
    container: Container,

    /// Go on with what is logged from now on
    #[arg(short, long)]
    follow: bool,

    /// Only this replica: the name of its pod, or the end of it [default: every replica]
    #[arg(long, value_name = "NAME")]
    replica: Option<String>,

    /// Only so many of the last lines of each replica [default: all]
    #[arg(long, value_name = "LINES")]
    tail: Option<u32>,

    /// The log of the container before its last restart
    #[arg(short, long, conflicts_with = "follow")]
    previous: bool,

    #[command(flatten)]
    cluster: ClusterArguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Container {
    Triton,
    Agent,
}

impl Container {
    fn as_str(self) -> &'static str {
        match self {
            Self::Triton => "triton",
            Self::Agent => "agent",
        }
    }
}

pub async fn run(global: &Global, arguments: Arguments) -> Result<(), Failure> {
    let lease = look(global, &arguments.lease).await?;
    let replicas = arguments.cluster.replicas(&lease.id, &lease.namespace).await?;
    let chosen = choose(&replicas.list().await?, arguments.replica.as_deref(), &lease)?;
    tokio::select! {
        shown = show(&replicas, &chosen, &arguments) => shown,
        _ = tokio::signal::ctrl_c() => Err(Failure::stopped()),
    }
}

/// Prints the logs of the replicas: one after the other, or all at once where they are followed. One that cannot be read
/// does not keep the others from being shown.
async fn show(replicas: &Replicas, chosen: &[String], arguments: &Arguments) -> Result<(), Failure> {
    let mut failures = Vec::new();
    let mut followed = Vec::new();
    for name in chosen {
        let mark = if chosen.len() > 1 { format!("{}  ", short(name)) } else { String::new() };
        match replicas.pods().log_stream(name, &params(arguments)).await {
            Ok(log) if arguments.follow => followed.push(print_lines(log, mark)),
            Ok(log) => print_lines(log, mark).await?,
            Err(error) => failures.push(unreadable(replicas, name, arguments.container, &error)),
        }
    }
    let failure = Failure::several(failures);
    if followed.is_empty() {
        return failure.map_or(Ok(()), Err);
    }
    // Following takes long: what cannot be read is told at once.
    output::say(&failure.map(|failure| failure.report()).unwrap_or_default());
    try_join_all(followed).await.map(drop)
}

fn params(arguments: &Arguments) -> LogParams {
    LogParams {
        container: Some(arguments.container.as_str().to_owned()),
        follow: arguments.follow,
        previous: arguments.previous,
        tail_lines: arguments.tail.map(i64::from),
        ..LogParams::default()
    }
}

async fn print_lines(log: impl AsyncBufRead, mark: String) -> Result<(), Failure> {
    let mut log = std::pin::pin!(log);
    let mut line = Vec::new();
    loop {
        line.clear();
        match log.read_until(b'\n', &mut line).await {
            Ok(0) => return Ok(()),
            Ok(_) => {
                output::print(&format!("{mark}{}\n", String::from_utf8_lossy(&line).trim_end_matches('\n')))?
            }
            Err(error) => {
                output::warn(&format!("{mark}the log breaks off: {error}"));
                return Ok(());
            }
        }
    }
}

fn unreadable(replicas: &Replicas, name: &str, container: Container, error: &kube::Error) -> Failure {
    match error {
        // The container has not started, or has not been started before.
        kube::Error::Api(status) if status.code == 400 => {
            let failure = Failure::local(format!("replica {name} has no such log: {}", status.message));
            match container {
                Container::Triton => {
                    failure.hint("`--container agent` shows how its models are fetched and loaded")
                }
                Container::Agent => failure,
            }
        }
        error => replicas.failure("show a log", "get pods/log", error),
    }
}

/// Returns the names of the replicas that are meant.
fn choose(replicas: &[Replica], asked: Option<&str>, lease: &v1::Lease) -> Result<Vec<String>, Failure> {
    let names: Vec<_> = replicas.iter().map(|replica| replica.name.clone()).collect();
    if names.is_empty() {
        let state = view::lease_state(lease.state());
        return Err(Failure::local(format!("lease {} has no replica here; it is {state}", lease.id)).hint(format!(
            "`tmsctl lease status {}` tells why; is the kubeconfig that of its cluster? --context chooses another",
            text::short(&lease.id)
        )));
    }
    let Some(asked) = asked else { return Ok(names) };
    let meant: Vec<_> =
        names.iter().filter(|name| *name == asked || name.ends_with(asked)).cloned().collect();
    match meant.len() {
        1 => Ok(meant),
        0 => Err(Failure::local(format!("lease {} has no replica {asked:?}", lease.id))
            .hint(format!("there are {}", names.join(", ")))),
        _ => Err(Failure::local(format!("{asked:?} is the end of several replicas' names"))
            .hint(format!("write more of one of {}", meant.join(", ")))),
    }
}

/// Returns the part of a pod's name that tells it from others of its lease.
fn short(name: &str) -> &str {
    name.rsplit('-').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::testing::replicas as testing_replicas;
    use crate::testing;

    fn replicas(names: &[&str]) -> Vec<Replica> {
        let replica = |name: &&str| Replica { name: (*name).to_owned(), is_ready: true, is_ending: false };
        names.iter().map(replica).collect()
    }

    #[test]
    fn a_replica_is_named_by_the_end_of_its_name() {
        let all = replicas(&["tms-3f0a-6c9d-x7k2p", "tms-3f0a-6c9d-m2k2p"]);
        let lease = testing::lease();
        let chosen = |asked| choose(&all, asked, &lease);
        assert_eq!(chosen(None).unwrap().len(), 2);
        assert_eq!(chosen(Some("x7k2p")).unwrap(), ["tms-3f0a-6c9d-x7k2p"]);
        assert_eq!(chosen(Some("tms-3f0a-6c9d-m2k2p")).unwrap(), ["tms-3f0a-6c9d-m2k2p"]);
        for (asked, words) in
            [("k2p", "several"), ("zzzzz", "there are tms-3f0a-6c9d-x7k2p, tms-3f0a-6c9d-m2k2p")]
        {
            let report = chosen(Some(asked)).unwrap_err().report();
            assert!(report.contains(words), "{report}");
        }
        assert_eq!(short("tms-3f0a-6c9d-x7k2p"), "x7k2p");
    }

    #[test]
    fn a_lease_without_replicas_says_where_it_is() {
        let report = choose(&[], None, &testing::lease()).unwrap_err().report();
        insta::assert_snapshot!(anstream::adapter::strip_str(&report).to_string(), @r"
        fatal: lease 3f0a9c2d4b5e46f7a8b9c0d1e2f30415 has no replica here; it is READY
        hint: `tmsctl lease status 3f0a9c2d4b5e` tells why; is the kubeconfig that of its cluster? --context chooses another
        ");
    }

    fn arguments(line: &str) -> Arguments {
        use clap::Parser;
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            arguments: Arguments,
        }
        Line::try_parse_from(["logs", "3f0a"].into_iter().chain(line.split_whitespace())).unwrap().arguments
    }

    #[tokio::test]
    async fn a_replica_without_a_log_is_told_and_the_others_are_shown() {
        let waiting = r#"{"kind":"Status","metadata":{},"status":"Failure","reason":"BadRequest","code":400,
            "message":"container \"triton\" in pod \"x-b\" is waiting to start: PodInitializing"}"#;
        let replicas = testing_replicas(vec![
            (
                "/api/v1/namespaces/models/pods/x-a/log?&container=triton&tailLines=2",
                200,
                "one\ntwo".to_owned(),
            ),
            ("/api/v1/namespaces/models/pods/x-b/log", 400, waiting.to_owned()),
        ])
        .await;
        let names = ["x-a".to_owned(), "x-b".to_owned()];
        let failure = show(&replicas, &names, &arguments("--tail 2")).await.unwrap_err();
        assert_eq!(failure.exit_code(), 1);
        insta::assert_snapshot!(anstream::adapter::strip_str(&failure.report()).to_string(), @r#"
        fatal: replica x-b has no such log: container "triton" in pod "x-b" is waiting to start: PodInitializing
        hint: `--container agent` shows how its models are fetched and loaded
        "#);
        assert!(show(&replicas, &names[..1], &arguments("--tail 2")).await.is_ok());
    }
}
