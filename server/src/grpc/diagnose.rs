//! Diagnose: which hop of the chain by which leases scale is broken. What could not be found out is part of the answer.

use std::sync::Arc;

use tms_proto::v1;

use super::status::Refusal;
use super::{Services, convert};
use crate::auth::Caller;
use crate::domain::doctor::{Finding, Outcome, Verdict};

impl Services {
    /// Names the first broken hop.
    pub(super) async fn diagnose(
        self: Arc<Self>,
        caller: Caller,
        request: v1::DiagnoseRequest,
    ) -> Result<v1::DiagnoseResponse, Refusal> {
        let lease = match request.lease_id.as_str() {
            "" => None,
            prefix => Some(self.find(&caller, prefix).await?),
        };
        let lease_id = lease.as_ref().map(|lease| lease.id.to_string()).unwrap_or_default();
        let diagnosis = (self.diagnose)(lease).await;
        let first = diagnosis.first_broken().map(|finding| finding.hop.key());
        Ok(v1::DiagnoseResponse {
            lease_id,
            provider: convert::provider(self.settings.provider).to_owned(),
            verdict: verdict(diagnosis.verdict()).into(),
            summary: diagnosis.summary(),
            first_broken: first.unwrap_or_default().to_owned(),
            hops: diagnosis.findings.into_iter().map(hop).collect(),
        })
    }
}

fn hop(finding: Finding) -> v1::Hop {
    let Finding { hop, outcome, expected, found, remedy } = finding;
    v1::Hop {
        name: hop.key().to_owned(),
        title: hop.title().to_owned(),
        outcome: self::outcome(outcome).into(),
        expected,
        found,
        remedy,
    }
}

fn outcome(outcome: Outcome) -> v1::HopOutcome {
    match outcome {
        Outcome::Healthy => v1::HopOutcome::Healthy,
        Outcome::Broken => v1::HopOutcome::Broken,
        Outcome::Unknown => v1::HopOutcome::Unknown,
        Outcome::Waits => v1::HopOutcome::Waits,
        Outcome::Skipped => v1::HopOutcome::Skipped,
    }
}

fn verdict(verdict: Verdict) -> v1::Verdict {
    match verdict {
        Verdict::Healthy => v1::Verdict::Healthy,
        Verdict::Broken => v1::Verdict::Broken,
        Verdict::Unknown => v1::Verdict::Unknown,
    }
}
