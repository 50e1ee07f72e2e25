//! The syntax of Kubernetes names, labels and annotations, as far as values.yaml holds them.

use std::collections::BTreeMap;

use super::reader::Reader;

/// Keys of labels that TMS itself sets.
const RESERVED_LABELS: [&str; 2] = ["app.kubernetes.io", "tms.internal"];
/// Keys of annotations that TMS itself sets.
const RESERVED_ANNOTATIONS: [&str; 1] = ["tms.internal"];

/// Reads a map of labels.
pub(super) fn labels(
    reader: &mut Reader,
    key: &str,
    rule: Option<&'static str>,
) -> Option<BTreeMap<String, String>> {
    read(reader, key, rule, &RESERVED_LABELS, true)
}

/// Reads a map of annotations.
pub(super) fn annotations(reader: &mut Reader, key: &str) -> Option<BTreeMap<String, String>> {
    read(reader, key, None, &RESERVED_ANNOTATIONS, false)
}

fn read(
    reader: &mut Reader,
    key: &str,
    rule: Option<&'static str>,
    reserved: &[&str],
    are_labels: bool,
) -> Option<BTreeMap<String, String>> {
    let entries = reader.texts(key)?;
    let faults = reader.faults.len();
    for (name, value) in &entries {
        let at = format!("{key}.{name}");
        if let Some(prefix) = reserved.iter().find(|prefix| is_below(name, prefix)) {
            reader.fault::<()>(&at, format!("must not be set: {prefix}/ belongs to TMS"), rule);
            if name == "app.kubernetes.io/part-of" {
                reader.advise("set kubernetes.partOf");
            }
        } else if let Err(expected) = qualified_name(name) {
            reader.fault::<()>(&at, format!("the name must be {expected}"), rule);
        }
        if are_labels && let Err(expected) = label_value(value) {
            reader.fault::<()>(&at, format!("must be {expected}"), rule);
        }
    }
    (reader.faults.len() == faults).then(|| entries.into_iter().collect())
}

fn is_below(name: &str, prefix: &str) -> bool {
    name.split_once('/')
        .is_some_and(|(before, _)| before == prefix || before.ends_with(&format!(".{prefix}")))
}

/// Accepts the key of a label or an annotation, such as `team` or `example.com/team`.
pub(super) fn qualified_name(text: &str) -> Result<(), &'static str> {
    const EXPECTED: &str = "a name of at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter \
                            or digit, after an optional domain and '/'";
    let (domain, name) = text.split_once('/').map_or((None, text), |(domain, name)| (Some(domain), name));
    let is_good =
        !name.is_empty() && label_value(name).is_ok() && domain.is_none_or(|it| subdomain(it).is_ok());
    if is_good { Ok(()) } else { Err(EXPECTED) }
}

/// Accepts the value of a label.
pub(super) fn label_value(text: &str) -> Result<(), &'static str> {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let ends_well = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    let is_good = bytes.len() <= 63
        && bytes.iter().copied().all(is_inner)
        && ends_well(bytes.first())
        && ends_well(bytes.last());
    if is_good {
        Ok(())
    } else {
        Err("at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit")
    }
}

/// Accepts the name of a namespace.
pub(super) fn namespace(text: &str) -> Result<(), &'static str> {
    if is_dns_label(text) {
        Ok(())
    } else {
        Err(
            "the name of a namespace: at most 63 lower-case letters, digits and '-', beginning and ending with a letter \
             or digit",
        )
    }
}

/// Accepts the name of an object such as a Secret.
pub(super) fn subdomain(text: &str) -> Result<(), &'static str> {
    if text.len() <= 253 && text.split('.').all(is_dns_label) {
        Ok(())
    } else {
        Err("a name of lower-case letters, digits, '-' and '.'")
    }
}

/// Accepts the name of an extended resource, such as `nvidia.com/gpu`.
pub(super) fn extended_resource(text: &str) -> Result<(), &'static str> {
    let is_extended = text
        .split_once('/')
        .is_some_and(|(domain, _)| !is_below(text, "kubernetes.io") && !domain.is_empty());
    if is_extended && qualified_name(text).is_ok() {
        Ok(())
    } else {
        Err("the name of an extended resource, such as nvidia.com/gpu")
    }
}

/// Accepts the reference of an image, as far as it can be told without a registry.
pub(super) fn image(text: &str) -> Result<(), &'static str> {
    let is_good = !text.is_empty()
        && text.len() <= 512
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte))
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if is_good {
        Ok(())
    } else {
        Err("the reference of an image, such as registry.example.com/tritonserver:26.07-py3")
    }
}

fn is_dns_label(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(is_inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_kubernetes() {
        type Check = fn(&str) -> Result<(), &'static str>;
        let long = "a".repeat(64);
        let cases: [(Check, &str, bool); 26] = [
            (qualified_name, "team", true),
            (qualified_name, "Team_1.x", true),
            (qualified_name, "example.com/team", true),
            (qualified_name, "", false),
            (qualified_name, "example.com/", false),
            (qualified_name, "/team", false),
            (qualified_name, "a/b/c", false),
            (qualified_name, "Example.com/team", false),
            (qualified_name, &long, false),
            (label_value, "", true),
            (label_value, "26.07-py3", true),
            (label_value, "-x", false),
            (label_value, "a b", false),
            (label_value, &long, false),
            (namespace, "tms", true),
            (namespace, "TMS", false),
            (namespace, "a.b", false),
            (subdomain, "pull.secret-1", true),
            (subdomain, "pull..secret", false),
            (extended_resource, "nvidia.com/gpu", true),
            (extended_resource, "nvidia.com/mig-1g.5gb", true),
            (extended_resource, "gpu", false),
            (extended_resource, "kubernetes.io/gpu", false),
            (image, "nvcr.io/nvidia/tritonserver:26.07-py3", true),
            (image, "localhost:5000/a@sha256:0123", true),
            (image, "a b", false),
        ];
        for (check, text, is_good) in cases {
            assert_eq!(check(text).is_ok(), is_good, "{text:?}");
        }
    }
}
