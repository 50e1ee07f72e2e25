//! Whether Prometheus Operator is there, and a Prometheus that takes what TMS emits.

use std::collections::BTreeMap;

use super::Chain;
use super::evidence::{Missing, Prometheus};
use super::judgement::Judgement;
use super::selector::{Requirement, Selector, in_words};
use crate::domain::plan;

/// The label that every namespace has.
const NAME_OF_NAMESPACE: &str = "kubernetes.io/metadata.name";
const KINDS: [&str; 3] = ["PodMonitor", "PrometheusRule", "Prometheus"];
const TO_READ: &str = "list prometheuses of monitoring.coreos.com, in every namespace";

pub(super) fn kinds(chain: &Chain<'_>) -> Judgement {
    let expected = "the cluster serves PodMonitor, PrometheusRule and Prometheus of monitoring.coreos.com/v1";
    let kinds = match &chain.evidence.monitoring_kinds {
        Ok(kinds) => kinds,
        Err(missing) => return Judgement::unknown(expected, missing, "discover APIs"),
    };
    let lacking: Vec<_> = KINDS.into_iter().filter(|kind| !kinds.contains(*kind)).collect();
    if lacking.is_empty() {
        return Judgement::healthy(expected, "it serves them");
    }
    let remedy = "install Prometheus Operator with its CustomResourceDefinitions: helm install prometheus \
                  prometheus-community/kube-prometheus-stack; or set server.autoscaling.provider: builtin, which needs none";
    Judgement::broken(expected, format!("it does not serve {}", lacking.join(", ")), remedy)
}

pub(super) fn prometheus(chain: &Chain<'_>) -> Judgement {
    let expected = "there is an object of kind Prometheus";
    match chosen(chain) {
        Err(missing) => Judgement::unknown(expected, &missing, TO_READ),
        Ok(Some(prometheus)) => Judgement::healthy(expected, place(prometheus)),
        Ok(None) => Judgement::broken(
            expected,
            "there is none in any namespace",
            "make one: helm install prometheus prometheus-community/kube-prometheus-stack; or set \
             server.autoscaling.provider: builtin, which needs none",
        ),
    }
}

pub(super) fn pod_monitor_labels(chain: &Chain<'_>) -> Judgement {
    objects(chain, &POD_MONITORS)
}

pub(super) fn pod_monitor_namespace(chain: &Chain<'_>) -> Judgement {
    namespaces(chain, &POD_MONITORS)
}

pub(super) fn rule_labels(chain: &Chain<'_>) -> Judgement {
    objects(chain, &RULES)
}

pub(super) fn rule_namespace(chain: &Chain<'_>) -> Judgement {
    namespaces(chain, &RULES)
}

/// What is selected alike.
struct Subject {
    what: &'static str,
    key: &'static str,
    field: &'static str,
    namespace_field: &'static str,
    selector: fn(&Prometheus) -> Option<&Selector>,
    namespace_selector: fn(&Prometheus) -> Option<&Selector>,
    labels: fn(&Chain<'_>) -> BTreeMap<String, String>,
}

const POD_MONITORS: Subject = Subject {
    what: "PodMonitors",
    key: "server.autoscaling.prometheus.podMonitorLabels",
    field: "podMonitorSelector",
    namespace_field: "podMonitorNamespaceSelector",
    selector: |prometheus| prometheus.pod_monitor_selector.as_ref(),
    namespace_selector: |prometheus| prometheus.pod_monitor_namespace_selector.as_ref(),
    labels: |chain| plan::monitor_labels(chain.lease, chain.settings),
};

const RULES: Subject = Subject {
    what: "PrometheusRules",
    key: "server.autoscaling.prometheus.ruleLabels",
    field: "ruleSelector",
    namespace_field: "ruleNamespaceSelector",
    selector: |prometheus| prometheus.rule_selector.as_ref(),
    namespace_selector: |prometheus| prometheus.rule_namespace_selector.as_ref(),
    labels: |chain| plan::rule_labels(chain.lease, chain.settings),
};

fn objects(chain: &Chain<'_>, subject: &Subject) -> Judgement {
    let Subject { what, key, field, .. } = subject;
    let expected = format!("a Prometheus selects our {what} by their labels");
    let prometheus = match chosen(chain) {
        Ok(Some(prometheus)) => prometheus,
        Ok(None) => return Judgement::waits(expected, "there is no Prometheus object"),
        Err(missing) => return Judgement::unknown(expected, &missing, TO_READ),
    };
    let (place, labels) = (place(prometheus), (subject.labels)(chain));
    let Some(selector) = (subject.selector)(prometheus) else {
        let found = format!("{place} has no .spec.{field}, and so selects none");
        return Judgement::broken(expected, found, patch(prometheus, &format!("\"{field}\":{{}}")));
    };
    let unmet = selector.unmet(&labels);
    if unmet.is_empty() {
        return Judgement::healthy(expected, format!("{place} selects {selector}"));
    }
    let told: BTreeMap<_, _> = labels.into_iter().filter(|(key, _)| key != plan::LEASE_LABEL).collect();
    let found = format!("{place} selects {selector}; ours have {}", in_words(&told));
    let remedy = match wishes(&unmet) {
        Some(wishes) => format!("set {key}: {{{}}}", wishes.join(", ")),
        None => {
            format!("change .spec.{field} of {place}, or {key}, so that they agree: {}", in_turn(&unmet))
        }
    };
    Judgement::broken(expected, found, remedy)
}

fn namespaces(chain: &Chain<'_>, subject: &Subject) -> Judgement {
    let Subject { what, namespace_field, .. } = subject;
    let namespace = &chain.expectation.namespace;
    let expected = format!("a Prometheus takes {what} from namespace {namespace}");
    let prometheus = match chosen(chain) {
        Ok(Some(prometheus)) => prometheus,
        Ok(None) => return Judgement::waits(expected, "there is no Prometheus object"),
        Err(missing) => return Judgement::unknown(expected, &missing, TO_READ),
    };
    let place = place(prometheus);
    let Some(selector) = (subject.namespace_selector)(prometheus) else {
        if prometheus.namespace == *namespace {
            return Judgement::healthy(expected, format!("{place} takes those of its own namespace"));
        }
        let found =
            format!("{place} has no .spec.{namespace_field}, and so takes those of its own namespace alone");
        return Judgement::broken(expected, found, patch(prometheus, &format!("\"{namespace_field}\":{{}}")));
    };
    let labels = match labels_of_namespace(chain, selector) {
        Ok(labels) => labels,
        Err(missing) => return Judgement::unknown(expected, &missing, "get the namespace of the leases"),
    };
    let unmet = selector.unmet(&labels);
    if unmet.is_empty() {
        return Judgement::healthy(expected, format!("{place} takes namespaces with {selector}"));
    }
    let found = format!("{place} takes namespaces with {selector}; {namespace} has {}", in_words(&labels));
    let wished: Option<Vec<_>> = unmet.iter().map(Requirement::wish).collect();
    let remedy = match wished {
        Some(wished) => {
            let labels: Vec<_> = wished.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("kubectl label namespace {namespace} {} --overwrite", labels.join(" "))
        }
        None => format!("change .spec.{namespace_field} of {place}: {}", in_turn(&unmet)),
    };
    Judgement::broken(expected, found, remedy)
}

/// Returns the labels of the namespace of the leases; where nobody may read them, those that every namespace has may do.
fn labels_of_namespace(chain: &Chain<'_>, selector: &Selector) -> Result<BTreeMap<String, String>, Missing> {
    match &chain.evidence.namespace_labels {
        Ok(labels) => Ok(labels.clone()),
        Err(_) if selector.knows_only(NAME_OF_NAMESPACE) => {
            Ok(BTreeMap::from([(NAME_OF_NAMESPACE.to_owned(), chain.expectation.namespace.clone())]))
        }
        Err(missing) => Err(missing.clone()),
    }
}

/// Returns the Prometheus that takes most of ours, in the order of the hops; of equals the first by its name.
fn chosen<'a>(chain: &Chain<'a>) -> Result<Option<&'a Prometheus>, Missing> {
    let prometheuses = chain.evidence.prometheuses.as_ref().map_err(Clone::clone)?;
    let takes = |prometheus: &Prometheus| {
        [&POD_MONITORS, &RULES].map(|subject| {
            let labels = (subject.labels)(chain);
            let selects = (subject.selector)(prometheus).is_some_and(|one| one.unmet(&labels).is_empty());
            let reaches = match (subject.namespace_selector)(prometheus) {
                None => prometheus.namespace == chain.expectation.namespace,
                Some(selector) => labels_of_namespace(chain, selector)
                    .is_ok_and(|labels| selector.unmet(&labels).is_empty()),
            };
            (selects, reaches)
        })
    };
    let score = |prometheus: &Prometheus| {
        takes(prometheus).into_iter().flat_map(|(one, other)| [one, other]).filter(|it| *it).count()
    };
    let name = |prometheus: &Prometheus| (prometheus.namespace.clone(), prometheus.name.clone());
    Ok(prometheuses.iter().min_by_key(|prometheus| (usize::MAX - score(prometheus), name(prometheus))))
}

fn wishes(unmet: &[Requirement]) -> Option<Vec<String>> {
    unmet.iter().map(|one| one.wish().map(|(key, value)| format!("{key}: {value}"))).collect()
}

fn in_turn(unmet: &[Requirement]) -> String {
    unmet.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn place(prometheus: &Prometheus) -> String {
    format!("Prometheus {}/{}", prometheus.namespace, prometheus.name)
}

fn patch(prometheus: &Prometheus, field: &str) -> String {
    format!(
        "kubectl patch prometheus {} --namespace {} --type merge --patch '{{\"spec\":{{{field}}}}}'",
        prometheus.name, prometheus.namespace
    )
}
