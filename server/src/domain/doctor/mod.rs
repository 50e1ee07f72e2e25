//! Names the first broken hop of the chain by which leases scale: from Prometheus that finds what TMS emits to the autoscaler
//! that reads it. What hangs on a broken hop waits for it and is not called broken; what could not be looked at is not called
//! healthy, unless a hop behind it works and so proves it.

mod apis;
pub mod evidence;
mod hop;
mod judgement;
mod lease;
mod measured;
mod monitoring;
pub mod selector;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use self::evidence::{Evidence, Expectation};
pub use self::hop::Hop;
use self::judgement::Judgement;
use crate::domain::bounds::Provider;
use crate::domain::lease::{Lease, Phase};
use crate::domain::plan::{Settings, series};
use crate::domain::scaling::{MetricName, Scaling};

/// How a hop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It works.
    Healthy,
    /// It does not.
    Broken,
    /// It could not be looked at.
    Unknown,
    /// It cannot work before another hop does, or is too young to tell.
    Waits,
    /// Nothing depends on it, or only a lease could tell.
    Skipped,
}

/// What was found of a hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The hop.
    pub hop: Hop,
    /// How it is.
    pub outcome: Outcome,
    /// What should be.
    pub expected: String,
    /// What is.
    pub found: String,
    /// The command or the key of values.yaml that mends it; empty where nothing is to be mended.
    pub remedy: String,
}

/// What was found of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// Every hop, in order.
    pub findings: Vec<Finding>,
}

/// How the chain is as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything works.
    Healthy,
    /// A hop is broken.
    Broken,
    /// None is, as far as could be looked at; something could not, or is too young.
    Unknown,
}

/// What a diagnosis is about.
#[derive(Clone, Copy)]
struct Chain<'a> {
    lease: Option<&'a Lease>,
    settings: &'a Settings,
    expectation: &'a Expectation,
    evidence: &'a Evidence,
}

/// Judges every hop, for a lease or for any.
pub fn diagnose(
    lease: Option<&Lease>,
    settings: &Settings,
    expectation: &Expectation,
    evidence: &Evidence,
) -> Diagnosis {
    let chain = Chain { lease, settings, expectation, evidence };
    let mut findings: Vec<_> = Hop::ALL.into_iter().map(|hop| chain.judge(hop).into_finding(hop)).collect();
    vouch(&mut findings, &chain);
    wait(&mut findings, &chain);
    Diagnosis { findings }
}

impl Diagnosis {
    /// Returns the first broken hop.
    pub fn first_broken(&self) -> Option<&Finding> {
        self.with(Outcome::Broken).next()
    }

    /// Returns how the chain is as a whole.
    pub fn verdict(&self) -> Verdict {
        let has = |outcome| self.with(outcome).next().is_some();
        if has(Outcome::Broken) {
            Verdict::Broken
        } else if has(Outcome::Unknown) || has(Outcome::Waits) {
            Verdict::Unknown
        } else {
            Verdict::Healthy
        }
    }

    /// Returns one sentence for people.
    pub fn summary(&self) -> String {
        let count = |outcome| self.with(outcome).count();
        let blind: Vec<_> = self
            .with(Outcome::Unknown)
            .filter(|finding| self.first_broken().is_none_or(|first| finding.hop < first.hop))
            .map(|finding| finding.hop.title())
            .collect();
        match (self.first_broken(), blind.as_slice()) {
            (Some(first), []) => format!("The first broken hop is: {}.", first.hop.title()),
            (Some(first), blind) => format!(
                "The first broken hop that could be seen is: {}. Before it could not be looked at: {}.",
                first.hop.title(),
                blind.join(", ")
            ),
            (None, []) if count(Outcome::Waits) > 0 => {
                "Nothing is broken as far as can be told yet: replicas are missing or too young.".to_owned()
            }
            (None, []) if count(Outcome::Healthy) == 0 => "There is nothing to look at.".to_owned(),
            (None, []) => "Every hop works.".to_owned(),
            (None, blind) => format!(
                "Nothing is broken as far as could be looked at, which these could not: {}.",
                blind.join(", ")
            ),
        }
    }

    /// Returns the findings of one outcome.
    pub fn with(&self, outcome: Outcome) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.outcome == outcome)
    }
}

/// A hop that works proves what it hangs on, though nobody could look at that.
fn vouch(findings: &mut [Finding], chain: &Chain<'_>) {
    let healthy: Vec<_> =
        findings.iter().filter(|it| it.outcome == Outcome::Healthy).map(|it| it.hop).collect();
    for finding in findings.iter_mut().filter(|finding| finding.outcome == Outcome::Unknown) {
        if let Some(proof) = healthy.iter().find(|hop| chain.ancestors(**hop).contains(&finding.hop)) {
            finding.outcome = Outcome::Healthy;
            finding.found = format!("not looked at, but proven by what hangs on it: {}", proof.title());
            finding.remedy = String::new();
        }
    }
}

/// What hangs on a broken hop waits for the first of those.
fn wait(findings: &mut [Finding], chain: &Chain<'_>) {
    let broken: Vec<_> =
        findings.iter().filter(|it| it.outcome == Outcome::Broken).map(|it| it.hop).collect();
    for finding in findings {
        if !matches!(finding.outcome, Outcome::Broken | Outcome::Unknown) {
            continue;
        }
        let ancestors = chain.ancestors(finding.hop);
        if let Some(first) = broken.iter().find(|hop| ancestors.contains(hop)) {
            finding.outcome = Outcome::Waits;
            finding.found = format!("waits for: {}", first.title());
            finding.remedy = String::new();
        }
    }
}

impl Chain<'_> {
    fn judge(&self, hop: Hop) -> Judgement {
        if let Some(why) = self.why_not(hop) {
            return Judgement::skipped(why);
        }
        if !self.expectation.is_observed {
            return Judgement::unobserved();
        }
        match hop {
            Hop::MonitoringKinds => monitoring::kinds(self),
            Hop::Prometheus => monitoring::prometheus(self),
            Hop::PodMonitorLabels => monitoring::pod_monitor_labels(self),
            Hop::PodMonitorNamespace => monitoring::pod_monitor_namespace(self),
            Hop::RuleLabels => monitoring::rule_labels(self),
            Hop::RuleNamespace => monitoring::rule_namespace(self),
            Hop::PrometheusApi => measured::api(self),
            Hop::Target => measured::target(self),
            Hop::Series => measured::series(self),
            Hop::Rule => measured::rule(self),
            Hop::CustomMetricsApi => apis::custom_metrics(self),
            Hop::CustomMetric => apis::custom_metric(self),
            Hop::ResourceMetrics => apis::resource_metrics(self),
            Hop::Requests => lease::requests(self),
            Hop::Autoscaler => lease::autoscaler(self),
            Hop::AmbiguousSelector => lease::ambiguous_selector(self),
            Hop::Scheduling => lease::scheduling(self),
            Hop::Keda => apis::keda(self),
        }
    }

    /// Returns why nothing depends on a hop, where that is so.
    fn why_not(&self, hop: Hop) -> Option<&'static str> {
        if !self.expectation.is_enabled {
            return Some("no lease may scale: server.autoscaling.enable is false");
        }
        if self.lease.is_some_and(|lease| lease.end.is_some()) {
            return Some("the lease has ended");
        }
        if hop.is_of_lease() && self.lease.is_none() {
            return Some("only a lease can tell: `tmsctl doctor LEASE`");
        }
        if hop.is_of_lease() && self.sleeps() {
            return Some("the lease sleeps: it has no replica");
        }
        let is_scaled = self.lease.is_none_or(|lease| matches!(lease.spec.scaling, Scaling::Auto(_)));
        if !is_scaled && hop != Hop::Scheduling {
            return Some("the lease has a fixed number of replicas");
        }
        let (provider, recorded) = (self.settings.provider, self.metrics().any(is_recorded));
        let reads_prometheus = match provider {
            Provider::Adapter | Provider::Keda => true,
            Provider::Builtin => self.expectation.serves_from_prometheus,
        };
        let resources = self.metrics().any(|metric| !is_recorded(metric));
        if hop.is_of_prometheus() && !reads_prometheus {
            return Some("TMS asks the Tritons itself");
        }
        let is_recorded_only = hop.is_of_prometheus() || hop.is_of_custom_metrics();
        if hop.is_of_custom_metrics() && provider == Provider::Keda {
            return Some("KEDA asks Prometheus itself");
        }
        if is_recorded_only && !recorded {
            return Some("no metric of Triton scales it");
        }
        if matches!(hop, Hop::ResourceMetrics | Hop::Requests) && !resources {
            return Some("neither CPU nor memory scales it");
        }
        (hop == Hop::Keda && provider != Provider::Keda).then_some("server.autoscaling.provider is another")
    }

    /// Whether the lease is to have no replica at the moment.
    fn sleeps(&self) -> bool {
        self.lease.is_some_and(|lease| lease.report.phase == Phase::Asleep)
    }

    /// Returns the metrics that matter: those of the lease, or all by which leases may scale.
    fn metrics(&self) -> impl Iterator<Item = MetricName> {
        let of_lease = self.lease.map(|lease| match &lease.spec.scaling {
            Scaling::Auto(autoscaling) => autoscaling.metrics.keys().copied().collect(),
            Scaling::Fixed { .. } => BTreeSet::new(),
        });
        of_lease.unwrap_or_else(|| self.expectation.metrics.clone()).into_iter()
    }

    /// Returns every hop that this one hangs on, whether directly or not.
    fn ancestors(&self, hop: Hop) -> BTreeSet<Hop> {
        let mut all = BTreeSet::new();
        let mut open = vec![hop];
        while let Some(next) = open.pop() {
            open.extend(next.needs().iter().filter(|needed| self.why_not(**needed).is_none()));
            all.extend(next.needs().iter().filter(|needed| self.why_not(**needed).is_none()));
        }
        all
    }
}

fn is_recorded(metric: MetricName) -> bool {
    series(metric).is_some()
}

impl Outcome {
    /// Its name for machines.
    pub fn key(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Broken => "broken",
            Self::Unknown => "unknown",
            Self::Waits => "waits",
            Self::Skipped => "skipped",
        }
    }
}
