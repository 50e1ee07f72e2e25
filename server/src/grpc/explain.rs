//! Explain: why a lease has the replicas that it has. It asks the cluster, and still never fails because of it: what could not
//! be found out is part of the answer.

use std::sync::Arc;

use tms_proto::v1;

use super::status::Refusal;
use super::{Services, convert};
use crate::auth::Caller;
use crate::domain::autoscaler::{Options, explanation};
use crate::domain::capabilities::Capabilities;
use crate::domain::lease::{Lease, State};
use crate::domain::scaling::{Autoscaling, Scaling};

impl Services {
    /// Says why a lease has the replicas that it has.
    pub(super) async fn explain(
        self: Arc<Self>,
        caller: Caller,
        request: v1::ExplainRequest,
    ) -> Result<v1::ExplainResponse, Refusal> {
        let lease = self.find(&caller, &request.lease_id).await?;
        let mut answer = v1::ExplainResponse {
            lease_id: lease.id.to_string(),
            state: convert::state_of(lease.state()).into(),
            replicas: Some(convert::replicas(&lease)),
            at: Some(convert::timestamp(self.clock.now())),
            ..v1::ExplainResponse::default()
        };
        let Scaling::Auto(autoscaling) = &lease.spec.scaling else {
            answer.set_scaled_by(v1::ScaledBy::Nothing);
            answer.summary = unscaled(&lease);
            return Ok(answer);
        };
        if lease.end.is_some() {
            answer.set_scaled_by(v1::ScaledBy::AbsentAutoscaler);
            answer.summary = ended(&lease);
            return Ok(answer);
        }
        let Some(evidence) = (self.inspect)(lease.clone()).await else {
            answer.set_scaled_by(v1::ScaledBy::Unobserved);
            answer.summary = "Its manifests are written to a folder, and what becomes of them is not observed \
                              (server.cluster.kind: manifests): ask the cluster that they reach, with `kubectl describe hpa`."
                .to_owned();
            return Ok(answer);
        };
        if lease.state() == State::Asleep {
            answer.set_scaled_by(v1::ScaledBy::Autoscaler);
            answer.summary = asleep(&lease, autoscaling);
            return Ok(answer);
        }
        let options = options(&(self.capabilities)());
        let explained = explanation::explain(autoscaling, &evidence, &options);
        convert::explanation(explained, &evidence, &mut answer);
        if evidence.record.is_some() {
            answer.set_scaled_by(v1::ScaledBy::Autoscaler);
        } else {
            answer.set_scaled_by(v1::ScaledBy::AbsentAutoscaler);
            answer.summary = unborn(&lease);
        }
        Ok(answer)
    }
}

/// The controller as Kubernetes starts it, and what the cluster allows it. Its flags are told to nobody.
pub(super) fn options(capabilities: &Capabilities) -> Options {
    Options { has_configurable_tolerance: capabilities.autoscaler_tolerance(), ..Options::default() }
}

fn unscaled(lease: &Lease) -> String {
    if lease.end.is_some() {
        return ended(lease);
    }
    let asked = lease.spec.scaling.minimum();
    let asked = if asked == 1 { "1 replica".to_owned() } else { format!("{asked} replicas") };
    let message = with_message(lease);
    format!(
        "The lease asked for {asked}, and nothing scales it; `tmsctl lease update --enable-autoscaling` would.{message}"
    )
}

fn ended(lease: &Lease) -> String {
    let at = lease.end.map(|end| format!(" at {:.0}", end.at)).unwrap_or_default();
    format!("The lease has ended{at}: it has no replicas, or its last ones are going.")
}

fn asleep(lease: &Lease, autoscaling: &Autoscaling) -> String {
    let triggers: Vec<_> = autoscaling.triggers.iter().map(|trigger| trigger.kind.as_str()).collect();
    format!(
        "The lease sleeps: its minimum is 0, and nothing was active for a cooldown (server.autoscaling.keda.cooldownPeriod). Work \
         for its triggers ({}) wakes it, and so does `tmsctl lease activate {}`.",
        triggers.join(", "),
        lease.id
    )
}

fn unborn(lease: &Lease) -> String {
    format!(
        "Its HorizontalPodAutoscaler has not decided anything yet: it is not there, or its controller has not looked at it \
         (every 15 s, commonly).{}",
        with_message(lease)
    )
}

/// What the lease itself says, which names what is in the way.
fn with_message(lease: &Lease) -> String {
    match lease.report.message.as_str() {
        "" => String::new(),
        message => format!(" The lease says: {message}"),
    }
}
