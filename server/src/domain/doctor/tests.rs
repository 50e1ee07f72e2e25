//! Each hop broken alone, pairs, what hangs on what, and what cannot be looked at.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::evidence::{Api, ApiState, Evidence, Expectation, LeaseEvidence, Missing, Prometheus, Series};
use super::selector::Selector;
use super::*;
use crate::domain::autoscaler::explanation;
use crate::domain::autoscaler::metric::{Phase, Pod, Ready, Requests, Sample};
use crate::domain::autoscaler::record::{Record, Stated, Status};
use crate::domain::lease::Replicas;
use crate::domain::plan::tests::{auto, lease, settings, spec};

const PODS: [&str; 2] = ["tms-0123456789abcdef0123456789abcdef-a", "tms-0123456789abcdef0123456789abcdef-b"];

/// A chain with a lease that scales by queue time and CPU, through Prometheus; all of it works.
struct Case {
    lease: Option<Lease>,
    settings: Settings,
    expectation: Expectation,
    evidence: Evidence,
}

impl Case {
    fn healthy(provider: Provider) -> Self {
        let settings = Settings { provider, ..settings() };
        let metrics = [(MetricName::QueueTime, 10_000), (MetricName::CpuUtilization, 80)];
        let served = |service: &str| {
            Ok(Api { state: ApiState::Served, service: Some(service.to_owned()), complaint: None })
        };
        let own_service = (provider == Provider::Builtin).then(|| "ours/tms-custom-metrics".to_owned());
        let kinds = |kinds: &[&str]| Ok(kinds.iter().map(|kind| (*kind).to_owned()).collect());
        let selector: Selector = serde_yaml::from_str("{matchLabels: {release: prometheus}}").unwrap();
        Self {
            lease: Some(lease(spec(1, auto(metrics)), &settings)),
            settings,
            expectation: Expectation {
                is_enabled: true,
                namespace: "tms".to_owned(),
                serves_from_prometheus: true,
                own_service: own_service.clone(),
                metrics: metrics.into_iter().map(|(name, _)| name).collect(),
                is_observed: true,
            },
            evidence: Evidence {
                monitoring_kinds: kinds(&["PodMonitor", "PrometheusRule", "Prometheus"]),
                keda_kinds: kinds(&["ScaledObject"]),
                prometheuses: Ok(vec![Prometheus {
                    namespace: "monitoring".to_owned(),
                    name: "main".to_owned(),
                    pod_monitor_selector: Some(selector.clone()),
                    pod_monitor_namespace_selector: Some(Selector::default()),
                    rule_selector: Some(selector),
                    rule_namespace_selector: Some(Selector::default()),
                }]),
                namespace_labels: Ok(BTreeMap::from([("team".to_owned(), "vision".to_owned())])),
                prometheus_api: Ok(()),
                custom_metrics: served(own_service.as_deref().unwrap_or("monitoring/adapter")),
                resource_metrics: served("kube-system/metrics-server"),
                external_metrics: served("keda/keda-operator-metrics-apiserver"),
                lease: Some(of_lease()),
            },
        }
    }

    fn diagnose(&self) -> Diagnosis {
        diagnose(self.lease.as_ref(), &self.settings, &self.expectation, &self.evidence)
    }

    fn of_lease(&mut self) -> &mut LeaseEvidence {
        self.evidence.lease.as_mut().unwrap()
    }

    fn prometheus(&mut self) -> &mut Prometheus {
        &mut self.evidence.prometheuses.as_mut().unwrap()[0]
    }
}

fn of_lease() -> LeaseEvidence {
    let at = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1);
    let pod = |name: &str| Pod {
        name: name.to_owned(),
        phase: Phase::Running,
        is_deleting: false,
        started_at: Some(Timestamp::UNIX_EPOCH),
        ready: Some(Ready { is_ready: Some(true), since: Timestamp::UNIX_EPOCH }),
        requests: Requests::both(1000),
    };
    let sample = Sample { milli: 0, at, window: SignedDuration::from_secs(60) };
    let samples = || Ok(PODS.iter().map(|name| ((*name).to_owned(), sample)).collect());
    let one = || Ok(PODS.iter().map(|name| ((*name).to_owned(), 1)).collect());
    let status = Status { current: 2, desired: 2, conditions: vec![active(true, "ok")], ..Status::default() };
    LeaseEvidence {
        seen: explanation::Evidence {
            at,
            record: Some(Record::begin(status, at)),
            replicas: Replicas::default(),
            pods: Ok(PODS.into_iter().map(pod).collect()),
            troubles: Vec::new(),
            samples: BTreeMap::from([
                (MetricName::QueueTime, samples()),
                (MetricName::CpuUtilization, samples()),
            ]),
            totals: BTreeMap::new(),
            events: Ok(Vec::new()),
        },
        unschedulable: Ok(BTreeMap::new()),
        up: Ok(PODS.iter().map(|name| ((*name).to_owned(), true)).collect()),
        scrape_errors: Vec::new(),
        rules: Ok(BTreeMap::from([("tms_avg_request_queue_duration".to_owned(), None)])),
        series: BTreeMap::from([(MetricName::QueueTime, Series { raw: one(), recorded: one() })]),
    }
}

fn active(holds: bool, reason: &str) -> Stated {
    Stated { kind: "ScalingActive".to_owned(), holds, reason: reason.to_owned(), ..Stated::default() }
}

fn says(lease: &mut LeaseEvidence, stated: Stated) {
    let at = lease.seen.at;
    let status = Status { current: 2, desired: 2, conditions: vec![stated], ..Status::default() };
    lease.seen.record = Some(Record::begin(status, at));
}

fn other() -> Option<Selector> {
    Some(serde_yaml::from_str("{matchLabels: {release: other}}").unwrap())
}

fn silent() -> Result<Api, Missing> {
    let state = ApiState::Silent("service unavailable".to_owned());
    Ok(Api { state, service: None, complaint: None })
}

fn series_of(lease: &mut LeaseEvidence) -> &mut Series {
    lease.series.get_mut(&MetricName::QueueTime).unwrap()
}

/// Breaks one hop as reality does: what hangs on it has nothing either.
fn break_hop(case: &mut Case, hop: Hop) {
    match hop {
        Hop::MonitoringKinds => case.evidence.monitoring_kinds = Ok(BTreeSet::new()),
        Hop::Prometheus => case.evidence.prometheuses = Ok(Vec::new()),
        Hop::PodMonitorLabels => case.prometheus().pod_monitor_selector = other(),
        Hop::PodMonitorNamespace => case.prometheus().pod_monitor_namespace_selector = other(),
        Hop::RuleLabels => case.prometheus().rule_selector = None,
        Hop::RuleNamespace => case.prometheus().rule_namespace_selector = None,
        Hop::PrometheusApi => case.evidence.prometheus_api = Err(Missing::Away("frozen".to_owned())),
        Hop::Target => case.of_lease().up = Ok(BTreeMap::new()),
        Hop::Series => series_of(case.of_lease()).raw = Ok(BTreeMap::new()),
        Hop::Rule => series_of(case.of_lease()).recorded = Ok(BTreeMap::new()),
        Hop::CustomMetricsApi => case.evidence.custom_metrics = silent(),
        Hop::CustomMetric => {
            case.of_lease().seen.samples.insert(MetricName::QueueTime, Err("no metrics".to_owned()));
        }
        Hop::ResourceMetrics => case.evidence.resource_metrics = silent(),
        Hop::Requests => {
            case.of_lease().seen.pods.as_mut().unwrap()[0].requests = Requests::default();
        }
        Hop::Autoscaler => says(case.of_lease(), active(false, "ScalingDisabled")),
        Hop::AmbiguousSelector => says(case.of_lease(), active(false, "AmbiguousSelector")),
        Hop::Scheduling => {
            let detail = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.".to_owned();
            case.of_lease().unschedulable = Ok(BTreeMap::from([("c".to_owned(), detail)]));
        }
        Hop::Keda => case.evidence.keda_kinds = Ok(BTreeSet::new()),
    }
    // What comes of it behind: nothing is measured, and the autoscaler says so.
    if hop < Hop::CustomMetric {
        break_hop(case, Hop::CustomMetric);
        says(case.of_lease(), active(false, "FailedGetPodsMetric"));
    }
}

fn broken(diagnosis: &Diagnosis) -> Vec<Hop> {
    diagnosis.with(Outcome::Broken).map(|finding| finding.hop).collect()
}

fn needed(provider: Provider) -> Vec<Hop> {
    let is_needed = |hop: &Hop| match provider {
        Provider::Adapter | Provider::Builtin => *hop != Hop::Keda,
        Provider::Keda => !matches!(hop, Hop::CustomMetricsApi | Hop::CustomMetric),
    };
    Hop::ALL.into_iter().filter(is_needed).collect()
}

const PROVIDERS: [Provider; 3] = [Provider::Adapter, Provider::Builtin, Provider::Keda];

#[test]
fn a_lease_that_sleeps_lacks_nothing_and_one_that_wakes_waits() {
    let mut case = Case::healthy(Provider::Keda);
    let lease = case.lease.as_mut().unwrap();
    let Scaling::Auto(autoscaling) = &mut lease.spec.scaling else { unreachable!("it scales") };
    autoscaling.minimum = 0;
    lease.report.phase = crate::domain::lease::Phase::Asleep;
    case.of_lease().seen.pods = Ok(Vec::new());
    says(case.of_lease(), active(false, "ScalingDisabled"));
    let diagnosis = case.diagnose();
    assert_eq!(diagnosis.verdict(), Verdict::Healthy, "{:#?}", diagnosis.findings);
    case.lease.as_mut().unwrap().report.phase = crate::domain::lease::Phase::Loading;
    let diagnosis = case.diagnose();
    assert_eq!((broken(&diagnosis), diagnosis.verdict()), (Vec::new(), Verdict::Unknown));
}

#[test]
fn nothing_is_said_of_a_healthy_chain() {
    for provider in PROVIDERS {
        let diagnosis = Case::healthy(provider).diagnose();
        assert_eq!(diagnosis.verdict(), Verdict::Healthy, "{provider:?}: {:#?}", diagnosis.findings);
        assert_eq!(diagnosis.summary(), "Every hop works.");
        let healthy: Vec<_> = diagnosis.with(Outcome::Healthy).map(|finding| finding.hop).collect();
        assert_eq!(healthy, needed(provider));
        assert!(diagnosis.findings.iter().all(|finding| finding.remedy.is_empty()));
    }
}

#[test]
fn each_hop_broken_alone_is_the_only_one_that_is_called_broken() {
    for provider in PROVIDERS {
        for hop in needed(provider) {
            let mut case = Case::healthy(provider);
            break_hop(&mut case, hop);
            let diagnosis = case.diagnose();
            assert_eq!(broken(&diagnosis), [hop], "{provider:?}: {:#?}", diagnosis.findings);
            let first = diagnosis.first_broken().unwrap();
            assert!(!first.expected.is_empty() && !first.found.is_empty() && !first.remedy.is_empty());
            assert_eq!(diagnosis.summary(), format!("The first broken hop is: {}.", hop.title()));
        }
    }
}

#[test]
fn of_any_two_broken_hops_the_first_is_named_and_what_hangs_on_it_waits() {
    for (first, second) in Hop::ALL.into_iter().flat_map(|first| Hop::ALL.map(|second| (first, second))) {
        if first >= second || [first, second].contains(&Hop::Keda) {
            continue;
        }
        let mut case = Case::healthy(Provider::Adapter);
        break_hop(&mut case, second);
        break_hop(&mut case, first);
        if second >= Hop::Autoscaler {
            break_hop(&mut case, second);
        }
        let diagnosis = case.diagnose();
        let chain = Chain {
            lease: case.lease.as_ref(),
            settings: &case.settings,
            expectation: &case.expectation,
            evidence: &case.evidence,
        };
        let expected: Vec<_> = match (chain.ancestors(first), chain.ancestors(second)) {
            // The autoscaler comes before what it hangs on, where others select its pods.
            (before, _) if before.contains(&second) => vec![second],
            (_, before) if before.contains(&first) => vec![first],
            _ => vec![first, second],
        };
        assert_eq!(broken(&diagnosis), expected, "{first:?} and {second:?}: {:#?}", diagnosis.findings);
    }
}

#[test]
fn what_could_not_be_looked_at_is_not_called_healthy_unless_a_hop_behind_it_works() {
    let mut case = Case::healthy(Provider::Adapter);
    case.evidence.prometheuses = Err(Missing::NoRights);
    case.evidence.namespace_labels = Err(Missing::NoRights);
    case.evidence.prometheus_api = Err(Missing::NoAddress);
    let none = Series { raw: Err(Missing::NoAddress), recorded: Err(Missing::NoAddress) };
    *series_of(case.of_lease()) = none;
    case.of_lease().up = Err(Missing::NoAddress);
    let diagnosis = case.diagnose();
    assert_eq!(diagnosis.verdict(), Verdict::Healthy, "values prove the rest: {:#?}", diagnosis.findings);
    assert!(diagnosis.findings[2].found.contains("proven by"), "{:?}", diagnosis.findings[2]);

    break_hop(&mut case, Hop::CustomMetric);
    says(case.of_lease(), active(false, "FailedGetPodsMetric"));
    let diagnosis = case.diagnose();
    assert_eq!(broken(&diagnosis), [Hop::CustomMetric]);
    assert!(diagnosis.summary().contains("Before it could not be looked at: Prometheus object"));
    let remedy = |hop: Hop| diagnosis.findings.iter().find(|it| it.hop == hop).unwrap().remedy.clone();
    assert!(remedy(Hop::PodMonitorLabels).contains("server.doctor.clusterRights: true"));
    assert!(remedy(Hop::Target).contains("server.autoscaling.prometheus.url"));

    let mut case = Case::healthy(Provider::Adapter);
    (case.lease, case.evidence.lease) = (None, None);
    case.evidence.prometheuses = Err(Missing::NoRights);
    case.evidence.prometheus_api = Err(Missing::NoAddress);
    let diagnosis = case.diagnose();
    assert_eq!(diagnosis.verdict(), Verdict::Unknown);
    assert!(diagnosis.summary().starts_with("Nothing is broken as far as could be looked at"));
}

#[test]
fn a_replica_that_is_too_young_is_neither_healthy_nor_broken() {
    let mut case = Case::healthy(Provider::Builtin);
    let at = case.of_lease().seen.at;
    for pod in case.of_lease().seen.pods.as_mut().unwrap() {
        pod.ready = Some(Ready { is_ready: Some(true), since: at - SignedDuration::from_secs(100) });
    }
    break_hop(&mut case, Hop::Target);
    case.of_lease().seen.samples.clear();
    let diagnosis = case.diagnose();
    assert_eq!((diagnosis.verdict(), broken(&diagnosis)), (Verdict::Unknown, Vec::new()));
    for pod in case.of_lease().seen.pods.as_mut().unwrap() {
        pod.ready = Some(Ready { is_ready: Some(true), since: at - SignedDuration::from_secs(120) });
    }
    assert_eq!(case.diagnose().first_broken().unwrap().hop, Hop::Target);
}

#[test]
fn hops_that_nothing_depends_on_are_skipped() {
    let skipped = |case: &Case| -> Vec<Hop> {
        case.diagnose().with(Outcome::Skipped).map(|finding| finding.hop).collect()
    };
    let mut direct = Case::healthy(Provider::Builtin);
    direct.expectation.serves_from_prometheus = false;
    direct.evidence.prometheuses = Ok(Vec::new());
    assert_eq!(direct.diagnose().verdict(), Verdict::Healthy);
    assert_eq!(skipped(&direct)[..10], Hop::ALL[..10]);

    let mut off = Case::healthy(Provider::Adapter);
    off.expectation.is_enabled = false;
    assert_eq!(skipped(&off), Hop::ALL);

    let mut fixed = Case::healthy(Provider::Adapter);
    fixed.lease.as_mut().unwrap().spec.scaling = Scaling::Fixed { replicas: 2 };
    assert_eq!(
        fixed.diagnose().with(Outcome::Healthy).map(|it| it.hop).collect::<Vec<_>>(),
        [Hop::Scheduling]
    );

    let mut unobserved = Case::healthy(Provider::Adapter);
    unobserved.expectation.is_observed = false;
    assert_eq!(unobserved.diagnose().verdict(), Verdict::Unknown);
}

#[test]
fn the_remedy_is_a_key_or_a_command() {
    let remedy = |provider, break_it: &dyn Fn(&mut Case)| {
        let mut case = Case::healthy(provider);
        break_it(&mut case);
        case.diagnose().first_broken().unwrap().remedy.clone()
    };
    let adapter = Provider::Adapter;
    assert_eq!(
        remedy(adapter, &|case| case.prometheus().pod_monitor_selector = other()),
        "set server.autoscaling.prometheus.podMonitorLabels: {release: other}"
    );
    assert_eq!(
        remedy(adapter, &|case| case.prometheus().rule_selector = other()),
        "set server.autoscaling.prometheus.ruleLabels: {release: other}"
    );
    assert_eq!(
        remedy(adapter, &|case| case.prometheus().pod_monitor_namespace_selector = other()),
        "kubectl label namespace tms release=other --overwrite"
    );
    assert_eq!(
        remedy(adapter, &|case| case.prometheus().rule_namespace_selector = None),
        "kubectl patch prometheus main --namespace monitoring --type merge --patch \
         '{\"spec\":{\"ruleNamespaceSelector\":{}}}'"
    );
    let held = |case: &mut Case| {
        case.evidence.custom_metrics.as_mut().unwrap().service = Some("monitoring/adapter".to_owned());
    };
    assert!(
        remedy(Provider::Builtin, &held)
            .starts_with("kubectl delete apiservice v1beta1.custom.metrics.k8s.io")
    );
    let several = |case: &mut Case| {
        let twice = BTreeMap::from([(PODS[0].to_owned(), 2), (PODS[1].to_owned(), 1)]);
        series_of(case.of_lease()).recorded = Ok(twice);
    };
    assert!(remedy(adapter, &several).starts_with("remove the other rule"));
    assert!(remedy(adapter, &|case| break_hop(case, Hop::Scheduling)).contains("1 free nvidia.com/gpu"));
}

#[test]
fn of_several_prometheuses_the_one_that_takes_most_is_judged() {
    let mut case = Case::healthy(Provider::Adapter);
    let stranger = Prometheus { name: "a-stranger".to_owned(), ..Prometheus::default() };
    case.evidence.prometheuses.as_mut().unwrap().insert(0, stranger);
    assert_eq!(case.diagnose().verdict(), Verdict::Healthy);
}
