//! Reads labels, annotations and names of objects.

use std::collections::BTreeMap;

use super::reader::{FaultOf, Reader};
use crate::domain::bounds::names::{is_own, label_key_fault, label_value_fault};

/// Reads a map of labels.
pub(super) fn labels(
    reader: &mut Reader,
    key: &str,
    rule: Option<&'static str>,
) -> Option<BTreeMap<String, String>> {
    read(reader, key, rule, reserved_label, label_value_fault)
}

/// Reads a map of annotations.
pub(super) fn annotations(reader: &mut Reader, key: &str) -> Option<BTreeMap<String, String>> {
    read(reader, key, None, |name| is_own(name).then_some(OWN), |_| None)
}

const OWN: &str = "must not be set: tms.internal/ belongs to TMS";

fn reserved_label(name: &str) -> Option<&'static str> {
    match name.split_once('/') {
        Some(("app.kubernetes.io", "part-of")) => Some("must not be set: kubernetes.partOf sets it"),
        Some(("app.kubernetes.io", _)) => {
            Some("must not be set: TMS itself sets labels of app.kubernetes.io/")
        }
        Some(_) | None => is_own(name).then_some(OWN),
    }
}

fn read(
    reader: &mut Reader,
    key: &str,
    rule: Option<&'static str>,
    reserved: FaultOf,
    value_fault: FaultOf,
) -> Option<BTreeMap<String, String>> {
    let entries = reader.texts(key)?;
    let mut is_sound = true;
    for (name, value) in &entries {
        let name_fault = reserved(name).or_else(|| label_key_fault(name));
        for problem in [name_fault, value_fault(value)].into_iter().flatten() {
            is_sound = false;
            reader.fault::<()>(&format!("{key}.{name}"), problem.to_owned(), rule);
        }
    }
    is_sound.then(|| entries.into_iter().collect())
}

/// What is wrong with the name of a Service.
pub(super) fn service_fault(text: &str) -> Option<&'static str> {
    let is_sound = is_dns_label(text) && text.starts_with(|first: char| first.is_ascii_lowercase());
    (!is_sound).then_some(
        "is not the name of a Service: at most 63 of a–z 0–9 - are, with a letter first and no - last",
    )
}

/// What is wrong with the name of a namespace.
pub(super) fn namespace_fault(text: &str) -> Option<&'static str> {
    (!is_dns_label(text)).then_some(
        "is not the name of a namespace: at most 63 of a–z 0–9 - are, with a letter or digit at both ends",
    )
}

/// What is wrong with the name of a Secret.
pub(super) fn secret_fault(text: &str) -> Option<&'static str> {
    (!is_object_name(text)).then_some(
        "is not the name of a Secret: at most 253 of a–z 0–9 - . are, with a letter or digit at both ends",
    )
}

/// What is wrong with the name of an object.
pub(super) fn object_fault(text: &str) -> Option<&'static str> {
    (!is_object_name(text)).then_some(
        "is not the name of an object: at most 253 of a–z 0–9 - . are, with a letter or digit at both ends",
    )
}

fn is_object_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}

fn is_dns_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_objects_follow_the_rules_of_kubernetes() {
        let long = "a".repeat(64);
        let cases: [(FaultOf, &[&str], &[&str]); 2] = [
            (namespace_fault, &["tms", "a", "0-a"], &["", "TMS", "a.b", "-a", "a-", &long]),
            (secret_fault, &["pull", "pull.secret-1"], &["", "pull..secret", "Pull", "a_b", &long]),
        ];
        for (fault_of, good, bad) in cases {
            for name in good {
                assert_eq!(fault_of(name), None, "{name:?}");
            }
            for name in bad {
                assert!(fault_of(name).is_some(), "{name:?}");
            }
        }
    }
}
