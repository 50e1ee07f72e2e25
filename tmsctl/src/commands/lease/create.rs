//! `tmsctl lease create`.

use std::time::Duration;

use serde::Serialize;
use tms_proto::v1::{self, AcquireRequest, LeaseState};

use super::{Global, plan};
use crate::arguments::{SpecArguments, duration};
use crate::connection::Connection;
use crate::failure::{Failure, Kind};
use crate::follow::{self, Audience, Follower, PATIENT};
use crate::output::{self, Form};
use crate::progress::Progress;
use crate::{clock, text, view, words};

const REQUEST: &str = "Request options";

/// Create a lease, and wait until it is ready
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The first line on standard output begins with `Lease <id>`, as soon as the lease exists; with -z it is the id alone. \
How the lease comes up is told on standard error. Where the server writes manifests instead of applying them, a lease \
is done once they are written. Ctrl-C and --timeout stop the waiting; the lease stays.

The flag of a metric turns it on, with the administrator's threshold or with the one after its equals sign; =off turns \
it off. A metric without a flag is as the administrator set it.

Examples:
  # a model for two hours on the administrator's default hardware
  tmsctl lease create -m name=resnet50,uri=https://models.example.com/resnet50.tar.gz --lifetime 2h

  # up to four replicas, more when requests wait for 200 ms or GPUs are busy at 80 %
  tmsctl lease create -m name=resnet50,uri=pvc://models/resnet50 --enable-autoscaling \\
      --autoscaling-max-replicas 4 --autoscaling-queue-time=200ms --autoscaling-gpu-utilization=80

  # an ensemble: its parts first
  tmsctl lease create -m name=tokenizer,uri=pvc://models/tok -m name=encoder,uri=pvc://models/enc \\
      -m name=ensemble,uri=pvc://models/ens --gpus 2 --memory 32Gi --label team=search

  # in a script: the id alone
  id=$(tmsctl lease create -z -m name=resnet50,uri=pvc://models/resnet50 --timeout 10m)

  # what it would mean in Kubernetes, without creating it
  tmsctl lease create -m name=resnet50,uri=pvc://models/resnet50 --dry-run")]
pub struct Arguments {
    #[command(flatten)]
    spec: SpecArguments,

    /// Name of this request: asked again with the same name and content, the server answers with the first lease
    /// [default: a random one]
    #[arg(long, value_name = "ID", help_heading = REQUEST)]
    request_id: Option<String>,

    /// Do not wait until the lease is ready
    #[arg(long, conflicts_with = "timeout", help_heading = REQUEST)]
    no_wait: bool,

    /// Stop waiting after this long, with exit code 4; the lease stays
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = REQUEST)]
    timeout: Option<Duration>,

    /// Create nothing; print the Kubernetes objects that the lease would mean
    #[arg(long, conflicts_with_all = ["no_wait", "timeout", "request_id"], help_heading = REQUEST)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Created {
    lease: view::Lease,
    warnings: Vec<String>,
}

/// How the waiting ended.
enum Outcome {
    Settled,
    Failed(Failure),
    TimedOut(Duration),
    Interrupted,
}

pub async fn run(global: &Global, arguments: Arguments) -> Result<(), Failure> {
    let form = global.form()?;
    let Arguments { spec, request_id, no_wait, timeout, dry_run } = arguments;
    let spec = spec.into_spec()?;
    let connection = global.connect().await?;
    if dry_run {
        return plan::show(&connection, form, spec).await;
    }
    let request_id = request_id.unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string());
    let request = AcquireRequest { spec: Some(spec), request_id, no_wait };
    create(&connection, form, request, timeout).await
}

async fn create(
    connection: &Connection,
    form: Form,
    request: AcquireRequest,
    timeout: Option<Duration>,
) -> Result<(), Failure> {
    let request_id = request.request_id.clone();
    let no_wait = request.no_wait;
    let mut teller = Teller { form, progress: Progress::new(form == Form::Porcelain), warnings: Vec::new() };
    let mut follower = Follower::new(connection, &mut teller, PATIENT);
    let outcome = tokio::select! {
        result = follower.acquire(request) => result.map_or_else(Outcome::Failed, |()| Outcome::Settled),
        after = elapsed(timeout) => Outcome::TimedOut(after),
        _ = tokio::signal::ctrl_c() => Outcome::Interrupted,
    };
    let lease = follower.lease().cloned();
    teller.progress.clear();
    let Some(lease) = lease else { return Err(never_seen(outcome, &request_id)) };
    teller.finish(&lease, no_wait || matches!(outcome, Outcome::Settled))?;
    match outcome {
        Outcome::Settled => judge(&lease),
        Outcome::Failed(failure) => Err(how_to_go_on(failure, &lease)),
        Outcome::TimedOut(after) => {
            let (state, after) = (view::lease_state(lease.state()), words::duration(after));
            let fault = format!("lease {} is not ready after {after}: it is {state}", lease.id);
            Err(how_to_go_on(Failure::lease(fault), &lease))
        }
        Outcome::Interrupted => {
            let fault = format!("interrupted; lease {} exists and comes up without you", lease.id);
            Err(how_to_go_on(Failure::interrupted(fault), &lease))
        }
    }
}

/// Waits that long, or for ever.
async fn elapsed(timeout: Option<Duration>) -> Duration {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
    timeout.unwrap_or_default()
}

/// Judges a lease that needs no more waiting.
fn judge(lease: &v1::Lease) -> Result<(), Failure> {
    if !follow::is_ended(lease.state()) {
        return Ok(());
    }
    let fault = match lease.state() {
        LeaseState::Invalid => format!("lease {} failed", lease.id),
        state => format!("lease {} ended before it was ready: it is {}", lease.id, view::lease_state(state)),
    };
    let reason = if lease.message.is_empty() { String::new() } else { format!(": {}", lease.message) };
    // The message of a lease may have the reasons of its models already.
    let is_untold = |model: &&v1::ModelStatus| {
        model.state() == v1::ModelState::Failed && !lease.message.contains(&model.message)
    };
    let failed = lease.models.iter().filter(is_untold);
    let failed =
        failed.map(|model| Failure::lease(format!("model {} failed: {}", model.name, model.message)));
    let failures = std::iter::once(Failure::lease(fault + &reason)).chain(failed).collect();
    let failure = Failure::several(failures).expect("there is at least the lease's own failure");
    Err(failure.hint(format!("`tmsctl lease status {}` tells what happened", text::short(&lease.id))))
}

fn how_to_go_on(failure: Failure, lease: &v1::Lease) -> Failure {
    let id = text::short(&lease.id);
    failure.hint(format!("`tmsctl lease watch {id}` follows it, `tmsctl lease release {id}` gives it back"))
}

fn never_seen(outcome: Outcome, request_id: &str) -> Failure {
    let uncertain = |failure: Failure| {
        failure.hint(format!(
            "a lease may exist all the same: `tmsctl lease list` shows it, and the same command with --request-id \
             {request_id} finds it again"
        ))
    };
    match outcome {
        Outcome::Failed(failure) if failure.kind() == Kind::Away => uncertain(failure),
        Outcome::Failed(failure) => failure,
        Outcome::Settled => Failure::local("the server answered without a lease (@ Acquire)"),
        Outcome::TimedOut(after) => uncertain(Failure::away(format!(
            "the server has not answered for {} (@ Acquire)",
            words::duration(after)
        ))),
        Outcome::Interrupted => uncertain(Failure::interrupted("interrupted before the server answered")),
    }
}

/// Tells a person, or a script, how the lease comes up.
struct Teller {
    form: Form,
    progress: Progress,
    warnings: Vec<String>,
}

impl Teller {
    /// Prints what is left to print at the end of the waiting.
    fn finish(self, lease: &v1::Lease, is_settled: bool) -> Result<(), Failure> {
        let created = Created { lease: view::Lease::from(lease), warnings: self.warnings };
        let is_good = is_settled && follow::is_settled(lease.state()) && !follow::is_ended(lease.state());
        let last_line = match is_good {
            true => settled_lines(&created.lease),
            false => String::new(),
        };
        self.form.print(&created, || last_line, String::new)
    }
}

impl Audience for Teller {
    fn accepted(&mut self, lease: &v1::Lease, warnings: &[String]) -> Result<(), Failure> {
        self.warnings = warnings.to_vec();
        match self.form {
            Form::Table => output::print(&accepted_line(&view::Lease::from(lease)))?,
            Form::Porcelain => output::print(&text::line(&[&lease.id]))?,
            Form::Json | Form::Yaml => {}
        }
        for warning in warnings {
            self.progress.note(warning);
        }
        Ok(())
    }

    fn changed(&mut self, lease: &v1::Lease) {
        self.progress.show(&view::Lease::from(lease));
    }

    fn interrupted(&mut self, cause: &str) {
        self.progress.note(&format!("the connection broke ({cause}); trying again until the server answers"));
    }
}

fn accepted_line(lease: &view::Lease) -> String {
    let end = lease
        .expires_at
        .map(|at| format!(" and ends {}", words::moment(at, clock::now())))
        .unwrap_or_default();
    format!("Lease {} is created{end}\n", lease.id)
}

fn settled_lines(lease: &view::Lease) -> String {
    let words = match (text::endpoint(lease), lease.message.as_str()) {
        (_, message) if !message.is_empty() => format!(": {message}"),
        (Some(endpoint), _) => format!(" at {endpoint}"),
        (None, _) => String::new(),
    };
    let call = text::call_inside(lease)
        .map(|call| format!("Inside the cluster:  {call}\nFrom here:           {}\n", text::forward(lease)));
    format!("Lease {} is {}{words}\n{}", lease.id, text::state(lease.state), call.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    fn in_state(state: LeaseState) -> v1::Lease {
        v1::Lease { state: state.into(), ..testing::lease() }
    }

    #[test]
    fn a_lease_that_serves_sleeps_or_is_written_is_a_success() {
        for state in [LeaseState::Ready, LeaseState::Degraded, LeaseState::Asleep, LeaseState::Written] {
            assert!(judge(&in_state(state)).is_ok(), "{state:?}");
        }
        for state in [LeaseState::Invalid, LeaseState::Expired, LeaseState::Released] {
            assert_eq!(judge(&in_state(state)).unwrap_err().exit_code(), 4, "{state:?}");
        }
    }

    #[test]
    fn a_lease_that_failed_names_each_model_that_did_once() {
        let mut lease = in_state(LeaseState::Invalid);
        lease.message = "a model cannot be loaded".into();
        lease.models[0].state = v1::ModelState::Failed.into();
        lease.models[0].message = "pvc://models/resnet50 holds no config.pbtxt".into();
        insta::assert_snapshot!(plain(&judge(&lease).unwrap_err().report()), @r"
        fatal: lease 3f0a9c2d4b5e46f7a8b9c0d1e2f30415 failed: a model cannot be loaded
        fatal: model resnet50 failed: pvc://models/resnet50 holds no config.pbtxt
        hint: `tmsctl lease status 3f0a9c2d4b5e` tells what happened
        ");
        lease.message = format!("models cannot be loaded: resnet50: {}", lease.models[0].message);
        insta::assert_snapshot!(plain(&judge(&lease).unwrap_err().report()), @r"
        fatal: lease 3f0a9c2d4b5e46f7a8b9c0d1e2f30415 failed: models cannot be loaded: resnet50: pvc://models/resnet50 holds no config.pbtxt
        hint: `tmsctl lease status 3f0a9c2d4b5e` tells what happened
        ");
    }

    #[test]
    fn a_lease_that_may_exist_is_told_with_the_request_id_that_finds_it() {
        for outcome in [
            Outcome::Interrupted,
            Outcome::TimedOut(Duration::from_secs(60)),
            Outcome::Failed(Failure::away("gone")),
        ] {
            let report = never_seen(outcome, "r-1").report();
            assert!(report.contains("--request-id r-1"), "{report}");
        }
        let refused = never_seen(Outcome::Failed(Failure::local("too many replicas")), "r-1");
        assert!(!refused.report().contains("r-1"));
    }

    #[test]
    fn the_lines_for_people_begin_with_the_lease() {
        let lease = testing::lease_view();
        assert!(
            accepted_line(&lease).starts_with("Lease 3f0a9c2d4b5e46f7a8b9c0d1e2f30415 is created and ends ")
        );
        insta::assert_snapshot!(plain(&settled_lines(&lease)), @r"
        Lease 3f0a9c2d4b5e46f7a8b9c0d1e2f30415 is READY at tms-3f0a9c2d4b5e46f7a8b9c0d1e2f30415.models.svc (HTTP 8000, gRPC 8001)
        Inside the cluster:  curl -i http://tms-3f0a9c2d4b5e46f7a8b9c0d1e2f30415.models.svc:8000/v2/models/resnet50/ready
        From here:           tmsctl lease port-forward 3f0a9c2d4b5e
        ");
    }
}
