//! Where the pods of a lease may run: node selector, tolerations, affinity.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Affinity;
use serde_json::Value;

use super::findings::{Findings, entry, quoted};
use super::names::{label_key_fault, label_value_fault};
use crate::domain::lease::Toleration;

/// Most labels of a node selector.
const MOST_NODE_LABELS: usize = 32;
/// Most tolerations.
const MOST_TOLERATIONS: usize = 32;
/// Longest affinity in bytes.
const LONGEST_AFFINITY: usize = 64 * 1024;

/// Checks the labels that a node must carry.
pub(super) fn check_node_selector(selector: &BTreeMap<String, String>, findings: &mut Findings) {
    const FIELD: &str = "spec.bespoke.node_selector";
    if selector.len() > MOST_NODE_LABELS {
        findings.refuse(
            FIELD,
            format!("{} labels asked, at most {MOST_NODE_LABELS} are allowed", selector.len()),
        );
    }
    for (key, value) in selector.iter().take(MOST_NODE_LABELS) {
        check_label(&entry(FIELD, key), key, value, findings);
    }
}

/// Checks one label against the syntax of Kubernetes.
pub(super) fn check_label(field: &str, key: &str, value: &str, findings: &mut Findings) {
    if let Some(fault) = label_key_fault(key) {
        findings.refuse(field, format!("{} {fault}", quoted(key)));
    }
    if let Some(fault) = label_value_fault(value) {
        findings.refuse(field, format!("{} {fault}", quoted(value)));
    }
}

/// Returns the tolerations with their operators written out.
pub(super) fn tolerations(asked: &[Toleration], findings: &mut Findings) -> Vec<Toleration> {
    const FIELD: &str = "spec.bespoke.tolerations";
    if asked.len() > MOST_TOLERATIONS {
        findings.refuse(
            FIELD,
            format!("{} tolerations asked, at most {MOST_TOLERATIONS} are allowed", asked.len()),
        );
    }
    for (index, toleration) in asked.iter().take(MOST_TOLERATIONS).enumerate() {
        check_toleration(&format!("{FIELD}[{index}]"), toleration, findings);
    }
    let written_out = |toleration: &Toleration| Toleration {
        operator: if toleration.operator.is_empty() {
            "Equal".to_owned()
        } else {
            toleration.operator.clone()
        },
        ..toleration.clone()
    };
    asked.iter().map(written_out).collect()
}

fn check_toleration(field: &str, toleration: &Toleration, findings: &mut Findings) {
    let Toleration { key, operator, value, effect, toleration_seconds } = toleration;
    match operator.as_str() {
        "" | "Equal" => {
            if key.is_empty() {
                findings
                    .refuse(format!("{field}.key"), "no key given; without one the operator must be Exists");
            }
            if let Some(fault) = label_value_fault(value) {
                findings.refuse(format!("{field}.value"), format!("{} {fault}", quoted(value)));
            }
        }
        "Exists" => {
            if !value.is_empty() {
                findings
                    .refuse(format!("{field}.value"), "a value is given, but the operator Exists takes none");
            }
        }
        other => findings.refuse(
            format!("{field}.operator"),
            format!("{} is not an operator of tolerations: Equal and Exists are", quoted(other)),
        ),
    }
    if let Some(fault) = label_key_fault(key).filter(|_| !key.is_empty()) {
        findings.refuse(format!("{field}.key"), format!("{} {fault}", quoted(key)));
    }
    if !matches!(effect.as_str(), "" | "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
        findings.refuse(
            format!("{field}.effect"),
            format!("{} is not an effect: NoSchedule, PreferNoSchedule and NoExecute are", quoted(effect)),
        );
    }
    if toleration_seconds.is_some() && effect != "NoExecute" {
        findings.refuse(
            format!("{field}.toleration_seconds"),
            "only the effect NoExecute is tolerated for a time",
        );
    }
}

/// Returns the affinity as Kubernetes reads it; fields that Kubernetes does not know are refused, not dropped.
pub(super) fn affinity(text: &str, findings: &mut Findings) -> Option<Value> {
    const FIELD: &str = "spec.bespoke.affinity_json";
    if text.trim().is_empty() {
        return None;
    }
    if text.len() > LONGEST_AFFINITY {
        findings.refuse(FIELD, format!("{} bytes asked, at most {LONGEST_AFFINITY} are allowed", text.len()));
        return None;
    }
    let given: Value = match serde_json::from_str(text) {
        Ok(given) => given,
        Err(error) => {
            findings.refuse(FIELD, format!("is not JSON: {error}"));
            return None;
        }
    };
    let affinity: Affinity = match serde_path_to_error::deserialize(&given) {
        Ok(affinity) => affinity,
        Err(error) => {
            findings.refuse(
                FIELD,
                format!("is not a Kubernetes Affinity: {} at {}", error.inner(), error.path()),
            );
            return None;
        }
    };
    let understood = serde_json::to_value(&affinity).unwrap_or_default();
    let mut unknown = Vec::new();
    collect_unknown(&given, &understood, "", &mut unknown);
    for path in &unknown {
        findings.refuse(FIELD, format!("{} is not a field of a Kubernetes Affinity", quoted(path)));
    }
    (affinity != Affinity::default()).then_some(understood)
}

/// Collects the paths in `given` that did not survive being read into the type.
fn collect_unknown(given: &Value, understood: &Value, path: &str, unknown: &mut Vec<String>) {
    match (given, understood) {
        (Value::Object(given), Value::Object(understood)) => {
            for (key, value) in given.iter().filter(|(_, value)| !value.is_null()) {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match understood.get(key) {
                    Some(understood) => collect_unknown(value, understood, &path, unknown),
                    None => unknown.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(understood)) => {
            for (index, (given, understood)) in given.iter().zip(understood).enumerate() {
                collect_unknown(given, understood, &format!("{path}[{index}]"), unknown);
            }
        }
        _ => {}
    }
}
