//! What one hop is judged to be, and what is judged alike everywhere: what could not be found out, and which replicas count.

use std::collections::BTreeSet;

use jiff::SignedDuration;

use super::evidence::Missing;
use super::{Chain, Finding, Hop, Outcome};
use crate::domain::autoscaler::metric::{Phase, Pod};

/// Time in which Prometheus Operator and kubelet carry a new target to Prometheus.
const CARRIED: SignedDuration = SignedDuration::from_secs(60);

/// What one hop is judged to be.
pub(super) struct Judgement {
    outcome: Outcome,
    expected: String,
    found: String,
    remedy: String,
}

impl Judgement {
    pub fn healthy(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Healthy,
            expected: expected.into(),
            found: found.into(),
            remedy: String::new(),
        }
    }

    pub fn broken(expected: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Broken,
            expected: expected.into(),
            found: found.into(),
            remedy: remedy.into(),
        }
    }

    pub fn waits(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { outcome: Outcome::Waits, ..Self::healthy(expected, found) }
    }

    pub fn skipped(why: &str) -> Self {
        Self { outcome: Outcome::Skipped, ..Self::healthy("", why) }
    }

    /// What nobody here can see.
    pub fn unobserved() -> Self {
        Self {
            outcome: Outcome::Unknown,
            expected: String::new(),
            found: "not looked at: manifests are written for a cluster that this server does not see".to_owned(),
            remedy: "look at the cluster that the manifests reach (kubectl describe hpa), or set server.cluster.kind: kubernetes"
                .to_owned(),
        }
    }

    /// What could not be found out; `right` is what the server would have to be allowed.
    pub fn unknown(expected: impl Into<String>, missing: &Missing, right: &str) -> Self {
        let (found, remedy) = match missing {
            Missing::NoRights => (
                "not looked at: the server may not look outside the namespace of the leases".to_owned(),
                format!(
                    "set server.doctor.clusterRights: true, with which the chart allows the server to {right}"
                ),
            ),
            Missing::NoAddress => (
                "not looked at: no Prometheus is named".to_owned(),
                "set server.autoscaling.prometheus.url, such as http://prometheus.monitoring.svc:9090"
                    .to_owned(),
            ),
            Missing::Refused(words) => (
                format!("not looked at: {words}"),
                format!("allow the server's account to {right} (docs/install.md, Rights)"),
            ),
            Missing::Away(words) => {
                (format!("not looked at: {words}"), "ask again once it answers".to_owned())
            }
        };
        Self { outcome: Outcome::Unknown, expected: expected.into(), found, remedy }
    }

    /// Returns the one that matters most: broken before unknown before waiting before healthy, and of equals the first.
    pub fn worst(judgements: impl Iterator<Item = Self>) -> Option<Self> {
        judgements.min_by_key(|judgement| match judgement.outcome {
            Outcome::Broken => 0,
            Outcome::Unknown => 1,
            Outcome::Waits => 2,
            Outcome::Healthy => 3,
            Outcome::Skipped => 4,
        })
    }

    pub fn into_finding(self, hop: Hop) -> Finding {
        let Self { outcome, expected, found, remedy } = self;
        Finding { hop, outcome, expected, found, remedy }
    }
}

/// Replicas, by what can be asked of them.
pub(super) struct Replicas {
    /// Those that serve for so long that everything must know them.
    pub grown: BTreeSet<String>,
    /// Those that are too young, or do not serve.
    pub young: BTreeSet<String>,
}

impl Chain<'_> {
    /// Returns the replicas of the lease; an error is why they are not known.
    pub fn replicas(&self) -> Result<Replicas, Missing> {
        let Some(evidence) = &self.evidence.lease else {
            return Ok(Replicas { grown: BTreeSet::new(), young: BTreeSet::new() });
        };
        let pods = evidence.seen.pods.as_ref().map_err(|words| Missing::Refused(words.clone()))?;
        let window = SignedDuration::from_secs(self.settings.window_seconds.into());
        let age = window + CARRIED;
        let is_grown = |pod: &&Pod| {
            let since = pod.ready.filter(|ready| ready.is_ready == Some(true)).map(|ready| ready.since);
            since.is_some_and(|since| evidence.seen.at.duration_since(since) >= age)
        };
        let alive = pods.iter().filter(|pod| !pod.is_deleting && !is_over(pod.phase));
        let (grown, young): (Vec<_>, Vec<_>) = alive.partition(is_grown);
        let names = |pods: Vec<&Pod>| pods.into_iter().map(|pod| pod.name.clone()).collect();
        Ok(Replicas { grown: names(grown), young: names(young) })
    }

    /// Judges what every replica should have: `has` are those that do. Without a replica that must have it, one that has proves it.
    pub fn for_each(
        &self,
        expected: &str,
        has: &BTreeSet<String>,
        lacking: impl FnOnce(&[&str]) -> (String, String),
    ) -> Judgement {
        let replicas = match self.replicas() {
            Ok(replicas) => replicas,
            Err(missing) => return Judgement::unknown(expected, &missing, "list pods"),
        };
        let lack: Vec<_> = replicas.grown.difference(has).map(String::as_str).collect();
        if !lack.is_empty() {
            let (found, remedy) = lacking(&lack);
            return Judgement::broken(expected, found, remedy);
        }
        let young: Vec<_> = replicas.young.difference(has).map(String::as_str).collect();
        let ours = has.iter().filter(|pod| replicas.grown.contains(*pod) || replicas.young.contains(*pod));
        match (ours.count(), young.as_slice()) {
            (0, []) => Judgement::waits(expected, "the lease has no replica"),
            (0, young) => {
                Judgement::waits(expected, format!("too young, or not ready: {}", young.join(", ")))
            }
            (count, _) => Judgement::healthy(expected, format!("{count} of {count}")),
        }
    }
}

fn is_over(phase: Phase) -> bool {
    match phase {
        Phase::Succeeded | Phase::Failed => true,
        Phase::Pending | Phase::Running | Phase::Unknown => false,
    }
}
