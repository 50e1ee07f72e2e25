//! What the autoscaler of a lease says of itself, and what its replicas need besides figures.

use super::Chain;
use super::judgement::Judgement;
use crate::domain::autoscaler::record::Stated;
use crate::domain::scaling::MetricName;

/// The reason that a controller gives where several autoscalers select the same pods.
const AMBIGUOUS: &str = "AmbiguousSelector";
/// The reason that it gives where there are no replicas.
const DISABLED: &str = "ScalingDisabled";

pub(super) fn requests(chain: &Chain<'_>) -> Judgement {
    let expected = "the container triton of every replica requests the CPU or memory that it is measured by";
    let Some(lease) = &chain.evidence.lease else { return Judgement::waits(expected, "there is no lease") };
    let pods = match &lease.seen.pods {
        Ok(pods) => pods,
        Err(words) => {
            let missing = super::evidence::Missing::Refused(words.clone());
            return Judgement::unknown(expected, &missing, "list pods");
        }
    };
    let lacking = chain.metrics().find_map(|metric| {
        let (resource, of): (_, fn(&crate::domain::autoscaler::metric::Requests) -> Option<i64>) =
            match metric {
                MetricName::CpuUtilization => ("cpu", |requests| requests.cpu_milli),
                MetricName::MemoryUtilization => ("memory", |requests| requests.memory_milli),
                MetricName::GpuUtilization | MetricName::GpuMemoryUtilization | MetricName::QueueTime => {
                    return None;
                }
            };
        let lack = pods.iter().filter(|pod| of(&pod.requests).is_none_or(|amount| amount <= 0));
        let names: Vec<_> = lack.map(|pod| pod.name.as_str()).collect();
        (!names.is_empty()).then(|| (resource, names.join(", ")))
    });
    match lacking {
        None => Judgement::healthy(expected, "it does"),
        Some((resource, pods)) => Judgement::broken(
            expected,
            format!("no request for {resource} in {pods}"),
            format!(
                "remove pods that are not the lease's and carry its label, or give them a request; a lease asks for {resource} \
                 when it is acquired (server.resources.default.{resource})"
            ),
        ),
    }
}

pub(super) fn autoscaler(chain: &Chain<'_>) -> Judgement {
    let expected = "the HorizontalPodAutoscaler can read its metrics and set the replicas";
    let Some(lease) = &chain.evidence.lease else { return Judgement::waits(expected, "there is no lease") };
    let Some(record) = &lease.seen.record else {
        let is_grown = chain.replicas().is_ok_and(|replicas| !replicas.grown.is_empty());
        let found = "it is not there, or its controller has not looked at it";
        return if is_grown {
            let remedy =
                "see the message of the lease (tmsctl lease status), and that kube-controller-manager runs";
            Judgement::broken(expected, found, remedy)
        } else {
            Judgement::waits(expected, found)
        };
    };
    let trouble = record.status.conditions.iter().find(|stated| stated.is_trouble());
    let Some(trouble) = trouble else {
        return Judgement::healthy(
            expected,
            format!("it wants {} of {} replicas", record.status.desired, record.status.current),
        );
    };
    if trouble.reason == AMBIGUOUS {
        return Judgement::waits(expected, in_words(trouble));
    }
    let may_sleep = chain.lease.is_some_and(|lease| lease.spec.scaling.minimum() == 0);
    if may_sleep && trouble.reason == DISABLED {
        return Judgement::waits(expected, "it has not looked since the lease slept");
    }
    let is_grown = chain.replicas().is_ok_and(|replicas| !replicas.grown.is_empty());
    if !is_grown && trouble.kind == "ScalingActive" && trouble.reason.starts_with("FailedGet") {
        return Judgement::waits(
            expected,
            format!("replicas are missing or too young: {}", in_words(trouble)),
        );
    }
    Judgement::broken(expected, in_words(trouble), remedy(chain, trouble))
}

fn remedy(chain: &Chain<'_>, trouble: &Stated) -> String {
    let name = chain.lease.map(|lease| lease.id.object_name()).unwrap_or_default();
    let namespace = &chain.expectation.namespace;
    match trouble.reason.as_str() {
        DISABLED => format!(
            "somebody set the replicas to 0, which switches the autoscaler off: kubectl scale deployment {name} --namespace \
             {namespace} --replicas 1"
        ),
        reason if reason.starts_with("FailedGet") => format!(
            "it looks every 15 s; if it says so for longer: kubectl describe hpa {name} --namespace {namespace}, and tmsctl lease \
             explain"
        ),
        _ => format!("kubectl describe hpa {name} --namespace {namespace}"),
    }
}

pub(super) fn ambiguous_selector(chain: &Chain<'_>) -> Judgement {
    let expected = "no other HorizontalPodAutoscaler selects the pods of the lease";
    let Some(record) = chain.evidence.lease.as_ref().and_then(|lease| lease.seen.record.as_ref()) else {
        return Judgement::waits(expected, "the autoscaler has not looked yet");
    };
    let ambiguous =
        record.status.conditions.iter().find(|stated| !stated.holds && stated.reason == AMBIGUOUS);
    match ambiguous {
        None => Judgement::healthy(expected, "it says of no other"),
        Some(stated) => {
            let namespace = &chain.expectation.namespace;
            Judgement::broken(
                expected,
                in_words(stated),
                format!(
                    "neither scales until one is gone: kubectl delete hpa OTHER --namespace {namespace}, of those that it names"
                ),
            )
        }
    }
}

pub(super) fn scheduling(chain: &Chain<'_>) -> Judgement {
    let expected = "a node can take every replica";
    let Some(evidence) = &chain.evidence.lease else {
        return Judgement::waits(expected, "there is no lease");
    };
    let pods = match &evidence.unschedulable {
        Ok(pods) => pods,
        Err(missing) => return Judgement::unknown(expected, missing, "list pods"),
    };
    let Some((_, words)) = pods.iter().next() else {
        return Judgement::healthy(expected, "no replica waits for a node");
    };
    let names: Vec<_> = pods.keys().map(String::as_str).collect();
    let triton = chain.lease.map(|lease| &lease.spec.triton);
    let remedy = match triton.filter(|triton| triton.gpus > 0 && words.contains(&triton.gpu_resource)) {
        Some(triton) => format!(
            "add a node with {} free {} (kubectl describe nodes | grep {}), release other leases, or ask for fewer \
             (tmsctl lease create --gpus; server.resources.maximum.gpus bounds it)",
            triton.gpus, triton.gpu_resource, triton.gpu_resource
        ),
        None => {
            "add a node, release other leases, or ask for less CPU and memory or fewer replicas".to_owned()
        }
    };
    Judgement::broken(expected, format!("{} wait for a node: {words}", names.join(", ")), remedy)
}

fn in_words(stated: &Stated) -> String {
    format!("{} is false: {}: {}", stated.kind, stated.reason, stated.message)
}
