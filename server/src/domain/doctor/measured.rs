//! What Prometheus knows of the replicas of a lease: its targets, their series, and what the rules make of them.

use std::collections::{BTreeMap, BTreeSet};

use super::Chain;
use super::evidence::{LeaseEvidence, Missing, Series};
use super::judgement::Judgement;
use crate::domain::bounds::GpuSource;
use crate::domain::plan;
use crate::domain::scaling::MetricName;

const TO_ASK: &str = "ask Prometheus";

pub(super) fn api(chain: &Chain<'_>) -> Judgement {
    let expected = "Prometheus answers queries";
    match &chain.evidence.prometheus_api {
        Ok(()) => Judgement::healthy(expected, "it answers"),
        Err(Missing::Away(words) | Missing::Refused(words)) => Judgement::broken(
            expected,
            words.clone(),
            "see that its pods run (kubectl get pods --all-namespaces --selector app.kubernetes.io/name=prometheus), and that \
             server.autoscaling.prometheus.url, or else the provider's prometheusUrl, is its address",
        ),
        Err(missing) => Judgement::unknown(expected, missing, TO_ASK),
    }
}

pub(super) fn target(chain: &Chain<'_>) -> Judgement {
    let expected = "Prometheus scrapes every replica, and each answers";
    let Some(lease) = &chain.evidence.lease else { return Judgement::waits(expected, "there is no lease") };
    let up = match &lease.up {
        Ok(up) => up,
        Err(missing) => return Judgement::unknown(expected, missing, TO_ASK),
    };
    let of = |is_up: bool| up.iter().filter(move |(_, up)| **up == is_up).map(|(pod, _)| pod.clone());
    let down: BTreeSet<String> = of(false).collect();
    let job = chain.lease.map(plan::job).unwrap_or_default();
    chain.for_each(expected, &of(true).collect(), |lack| {
        if lack.iter().all(|pod| down.contains(*pod)) {
            let why = if lease.scrape_errors.is_empty() {
                String::new()
            } else {
                format!(": {}", lease.scrape_errors.join("; "))
            };
            (
                format!("scrapes of {} fail{why}", lack.join(", ")),
                "let Prometheus reach port 8002 of the pods (network policies), and mend what it says of the target: page \
                 Status > Targets of Prometheus"
                    .to_owned(),
            )
        } else {
            (
                format!("no target of job {job} for {}", lack.join(", ")),
                format!(
                    "see what the operator says of PodMonitor {job} (kubectl logs deployment/prometheus-operator), and that \
                     Prometheus' account may list pods in namespace {}",
                    chain.expectation.namespace
                ),
            )
        }
    })
}

pub(super) fn series(chain: &Chain<'_>) -> Judgement {
    let expected = "Prometheus has the series that the rules read, of every replica";
    each_metric(chain, expected, |metric, series| {
        let raw = match &series.raw {
            Ok(raw) => raw,
            Err(missing) => return Judgement::unknown(expected, missing, TO_ASK),
        };
        chain.for_each(expected, &raw.keys().cloned().collect(), |lack| {
            let remedy = match (metric, chain.settings.gpu_source) {
                (MetricName::QueueTime, _) => {
                    "take a Triton of 23.09 or later, started with metrics and without counter_latencies=false, and let no \
                     metricRelabelings of Prometheus (scrape classes, limits) drop nv_inference_*"
                }
                (_, GpuSource::Triton) => {
                    "let Triton see a GPU (tmsctl lease logs LEASE: DCGM), or set server.autoscaling.gpuSource: dcgm where \
                     GPUs are shared or split (MIG)"
                }
                (_, GpuSource::Dcgm) => {
                    "let Prometheus scrape DCGM-exporter with honorLabels: false and with the pods of GPUs in its labels \
                     (DCGM_EXPORTER_KUBERNETES=true)"
                }
            };
            (format!("{}: nothing of {}", metric.key(), lack.join(", ")), remedy.to_owned())
        })
    })
}

pub(super) fn rule(chain: &Chain<'_>) -> Judgement {
    let expected = "the rules of the lease are loaded, and yield one series for each replica";
    let Some(lease) = &chain.evidence.lease else { return Judgement::waits(expected, "there is no lease") };
    each_metric(chain, expected, |metric, series| {
        let recorded = match &series.recorded {
            Ok(recorded) => recorded,
            Err(missing) => return Judgement::unknown(expected, missing, TO_ASK),
        };
        let name = plan::series(metric).unwrap_or_default();
        let several = in_words_if(recorded, |count| *count > 1);
        if let Some(several) = several {
            let found = format!("{name}: several series of {several}, which are added up by who reads them");
            let remedy = format!(
                "remove the other rule that records {name}: kubectl get prometheusrules --all-namespaces --output yaml | grep {name}"
            );
            return Judgement::broken(expected, found, remedy);
        }
        chain.for_each(expected, &recorded.keys().cloned().collect(), |lack| unrecorded(lease, name, lack))
    })
}

/// Says why a rule yields nothing for some replicas.
fn unrecorded(lease: &LeaseEvidence, name: &str, lack: &[&str]) -> (String, String) {
    let lack = lack.join(", ");
    match lease.rules.as_ref().map(|rules| rules.get(name)) {
        Ok(None) => (
            format!("{name}: the rule is not loaded"),
            "see what the operator says of the PrometheusRule: kubectl get events, and its log; it skips what it takes for \
             invalid, and takes up to a minute"
                .to_owned(),
        ),
        Ok(Some(Some(error))) => (
            format!("{name}: the rule fails: {error}"),
            "mend what Prometheus says of the rule: page Status > Rules of Prometheus".to_owned(),
        ),
        Ok(Some(None)) | Err(_) => (
            format!("{name}: no value for {lack}, in which requests wait and none was completed for a window"),
            "see what Triton does: tmsctl lease logs LEASE".to_owned(),
        ),
    }
}

/// Judges each recorded metric; the first that is not healthy speaks for all.
fn each_metric(
    chain: &Chain<'_>,
    expected: &str,
    judge: impl Fn(MetricName, &Series) -> Judgement,
) -> Judgement {
    let Some(lease) = &chain.evidence.lease else { return Judgement::waits(expected, "there is no lease") };
    Judgement::worst(lease.series.iter().map(|(metric, series)| judge(*metric, series)))
        .unwrap_or_else(|| Judgement::waits(expected, "the lease has no such metric"))
}

fn in_words_if(counts: &BTreeMap<String, u64>, is_so: impl Fn(&u64) -> bool) -> Option<String> {
    let pods: Vec<_> = counts.iter().filter(|(_, count)| is_so(count)).map(|(pod, _)| pod.as_str()).collect();
    (!pods.is_empty()).then(|| pods.join(", "))
}
