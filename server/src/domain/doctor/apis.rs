//! Whether the APIs from which autoscalers read are served, by whom they should, and have a value for every replica.

use super::evidence::{Api, ApiState, Found};
use super::judgement::Judgement;
use super::{Chain, is_recorded};
use crate::domain::bounds::Provider;
use crate::domain::plan::{MetricSource, metric_source};
use crate::domain::scaling::MetricName;

const CUSTOM: &str = "custom.metrics.k8s.io";
const RESOURCE: &str = "metrics.k8s.io";
const EXTERNAL: &str = "external.metrics.k8s.io";
const TO_DISCOVER: &str = "discover APIs (ClusterRole system:discovery)";

pub(super) fn custom_metrics(chain: &Chain<'_>) -> Judgement {
    let own =
        chain.expectation.own_service.as_deref().filter(|_| chain.settings.provider == Provider::Builtin);
    let expected = match own {
        Some(own) => format!("{CUSTOM} is served by TMS, through Service {own}"),
        None => format!("{CUSTOM} is served by a custom-metrics adapter"),
    };
    let api = match &chain.evidence.custom_metrics {
        Ok(api) => api,
        Err(missing) => return Judgement::unknown(expected, missing, TO_DISCOVER),
    };
    let other = api.service.as_deref().filter(|service| own.is_some_and(|own| own != *service));
    if let Some(other) = other {
        let remedy = format!(
            "kubectl delete apiservice v1beta1.{CUSTOM} v1beta2.{CUSTOM}, and TMS registers itself within half a minute; or set \
             server.autoscaling.provider: adapter"
        );
        return Judgement::broken(expected, format!("{other} serves it"), remedy);
    }
    let remedy = match own {
        Some(_) => {
            "see why in the server's log; its Service and server.autoscaling.builtin.listenPort must be reached by the API \
             server (helm upgrade makes the Service anew)"
        }
        None => {
            "install one: helm install prometheus-adapter prometheus-community/prometheus-adapter --set \
             prometheus.url=http://ADDRESS-OF-PROMETHEUS; or set server.autoscaling.provider: builtin, which needs none"
        }
    };
    served(CUSTOM, &expected, api, remedy)
}

pub(super) fn custom_metric(chain: &Chain<'_>) -> Judgement {
    let remedy = match chain.settings.provider {
        Provider::Builtin if chain.expectation.serves_from_prometheus => {
            "see what the server says of it in its log: it reads server.autoscaling.builtin.prometheusUrl"
        }
        Provider::Builtin => "let the servers reach port 8002 of the pods (network policies)",
        Provider::Adapter | Provider::Keda => {
            "let the adapter ask the Prometheus that has the series (prometheus.url), with its default rules (rules.default: \
             true) and metricsRelistInterval above server.autoscaling.prometheus.scrapeInterval; it finds a new series within \
             that time"
        }
    };
    values(chain, &format!("{CUSTOM} has a value for every replica"), is_recorded, |found| {
        (found, remedy.to_owned())
    })
}

pub(super) fn resource_metrics(chain: &Chain<'_>) -> Judgement {
    let expected = format!("{RESOURCE} is served, and has a value for every replica");
    let api = match &chain.evidence.resource_metrics {
        Ok(api) => api,
        Err(missing) => return Judgement::unknown(expected, missing, TO_DISCOVER),
    };
    let remedy = "install metrics-server: helm install metrics-server metrics-server/metrics-server --namespace kube-system";
    if api.state != ApiState::Served || chain.lease.is_none() || chain.sleeps() {
        return served(RESOURCE, &expected, api, remedy);
    }
    values(
        chain,
        &expected,
        |metric| !is_recorded(metric),
        |found| {
            (found, "see what metrics-server says: kubectl logs deployment/metrics-server --namespace kube-system".to_owned())
        },
    )
}

pub(super) fn keda(chain: &Chain<'_>) -> Judgement {
    let expected =
        "the cluster serves ScaledObject of keda.sh/v1alpha1, and KEDA's server external.metrics.k8s.io";
    let remedy = "install KEDA: helm install keda kedacore/keda --namespace keda --create-namespace; or choose another \
                  server.autoscaling.provider";
    match &chain.evidence.keda_kinds {
        Ok(kinds) if kinds.contains("ScaledObject") => {}
        Ok(_) => return Judgement::broken(expected, "it does not serve ScaledObject", remedy),
        Err(missing) => return Judgement::unknown(expected, missing, TO_DISCOVER),
    }
    let external: &Found<Api> = &chain.evidence.external_metrics;
    match external {
        Ok(api) => served(EXTERNAL, expected, api, remedy),
        Err(missing) => Judgement::unknown(expected, missing, TO_DISCOVER),
    }
}

fn served(name: &str, expected: &str, api: &Api, remedy: &str) -> Judgement {
    let by = api.service.as_ref().map(|service| format!(" by {service}")).unwrap_or_default();
    let why = |words: &str| api.complaint.clone().unwrap_or_else(|| words.to_owned());
    match &api.state {
        ApiState::Served => Judgement::healthy(expected, format!("{name} is served{by}")),
        ApiState::Absent => Judgement::broken(expected, format!("nobody serves {name}"), remedy),
        ApiState::Silent(words) => {
            let found = format!("{name} is registered{by} and does not answer: {}", why(words));
            let remedy = format!(
                "see kubectl get apiservice | grep {name}, and the Service and the pods behind it; {remedy}"
            );
            Judgement::broken(expected, found, remedy)
        }
    }
}

/// Judges whether the autoscaler can read metrics of a sort for every replica.
fn values(
    chain: &Chain<'_>,
    expected: &str,
    is_meant: fn(MetricName) -> bool,
    mend: impl Fn(String) -> (String, String),
) -> Judgement {
    let Some(lease) = &chain.evidence.lease else { return Judgement::waits(expected, "there is no lease") };
    let samples = lease.seen.samples.iter().filter(|(metric, _)| is_meant(**metric));
    let judged = samples.map(|(metric, samples)| {
        let name = match metric_source(*metric) {
            MetricSource::Container(resource) => resource,
            MetricSource::Recorded(series) => series,
        };
        let has = match samples {
            Ok(samples) => samples.keys().cloned().collect(),
            Err(words) if is_forbidden(words) => {
                let missing = super::evidence::Missing::Refused(words.clone());
                return Judgement::unknown(
                    expected,
                    &missing,
                    "get pods of that API, as the chart's Role does",
                );
            }
            Err(_) => std::collections::BTreeSet::new(),
        };
        let complaint = samples.as_ref().err().map(|words| format!(": {words}")).unwrap_or_default();
        chain.for_each(expected, &has, |lack| {
            mend(format!("{name}: no value for {}{complaint}", lack.join(", ")))
        })
    });
    Judgement::worst(judged).unwrap_or_else(|| Judgement::waits(expected, "the lease has no such metric"))
}

fn is_forbidden(words: &str) -> bool {
    words.contains("is forbidden")
}
