//! The syntax of names that Kubernetes or Triton will see. Each check says what is wrong in words that follow the name, or
//! nothing where all is well.

/// Longest name part of a label key, and longest label value.
const LONGEST_LABEL: usize = 63;
/// Longest DNS subdomain.
const LONGEST_DOMAIN: usize = 253;
/// Domain of the labels and annotations that belong to TMS.
const OWN_DOMAIN: &str = "tms.internal";

/// What is wrong with the name of a model.
pub(super) fn model_name_fault(name: &str) -> Option<&'static str> {
    let is_name = (1..=128).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    (!is_name).then_some(
        "is not a model name: 1 to 128 of A-Z a-z 0-9 _ . - are, beginning with a letter, a digit or an underscore",
    )
}

/// What is wrong with the key of a label.
pub(crate) fn label_key_fault(key: &str) -> Option<&'static str> {
    let is_key = match key.split_once('/') {
        Some((domain, name)) => is_domain(domain) && is_label_part(name),
        None => is_label_part(key),
    };
    (!is_key).then_some(
        "is not a label key: at most 63 of A-Z a-z 0-9 _ . - are, with a letter or digit at both ends, after an optional \
         domain and a slash",
    )
}

/// What is wrong with the value of a label.
pub(crate) fn label_value_fault(value: &str) -> Option<&'static str> {
    (!value.is_empty() && !is_label_part(value)).then_some(
        "is not a label value: at most 63 of A-Z a-z 0-9 _ . - are, with a letter or digit at both ends, or nothing",
    )
}

/// Whether the label key belongs to TMS.
pub(crate) fn is_own(key: &str) -> bool {
    key.split_once('/').is_some_and(|(domain, _)| {
        domain == OWN_DOMAIN || domain.strip_suffix(OWN_DOMAIN).is_some_and(|sub| sub.ends_with('.'))
    })
}

/// What is wrong with the name of an environment variable, by the rule that every version of Kubernetes applies.
pub(super) fn environment_name_fault(name: &str) -> Option<&'static str> {
    let is_name = (1..=253).contains(&name.len())
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        && name != "."
        && !name.starts_with("..");
    (!is_name).then_some("is not the name of an environment variable: letters, digits and _ . - are, not beginning with a digit")
}

/// What is wrong with the name of an extended resource.
pub(crate) fn extended_resource_fault(name: &str) -> Option<&'static str> {
    const PREFIX_OF_QUOTAS: &str = "requests.";
    let is_extended = name.split_once('/').is_some_and(|(domain, part)| {
        is_domain(domain)
            && domain.len() + PREFIX_OF_QUOTAS.len() <= LONGEST_DOMAIN
            && is_label_part(part)
            && !name.starts_with(PREFIX_OF_QUOTAS)
            && !name.contains("kubernetes.io/")
    });
    (!is_extended).then_some("is not an extended resource, such as nvidia.com/gpu or nvidia.com/mig-1g.5gb")
}

/// Letters, digits, `-`, `_` and `.`, with a letter or digit at both ends.
fn is_label_part(text: &str) -> bool {
    text.len() <= LONGEST_LABEL
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// A DNS subdomain in lower case.
pub(crate) fn is_domain(text: &str) -> bool {
    text.len() <= LONGEST_DOMAIN
        && text.split('.').all(|label| {
            label.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && label.ends_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One line per case: the check, what passes, what does not.
    #[test]
    fn names_follow_their_syntax() {
        type Check = fn(&str) -> Option<&'static str>;
        let long = |length: usize| "a".repeat(length);
        let cases: [(&str, Check, &[&str], &[&str]); 5] = [
            (
                "model",
                model_name_fault,
                &["resnet", "_x", "0", "a.b-c_D", &long(128)],
                &["", ".", "..", ".a", "-a", "a/b", "a b", "é", "a\n", &long(129)],
            ),
            (
                "label key",
                label_key_fault,
                &["team", "a.b/c", "example.com/Team_1.x-y", &long(63)],
                &["", "/", "a/", "/a", "A.b/c", "a/b/c", "-a", "a-", "a b", "é", "a..b/c", &long(64)],
            ),
            (
                "label value",
                label_value_fault,
                &["", "A.b_c-1", &long(63)],
                &["-", "a-", ".a", "a b", "é", &long(64)],
            ),
            (
                "environment",
                environment_name_fault,
                &["A", "_a", "a.b-c", ".a", "LD_LIBRARY_PATH"],
                &["", "1A", "A=B", "A B", ".", "..", "..a", "é", &long(254)],
            ),
            (
                "resource",
                extended_resource_fault,
                &["nvidia.com/gpu", "nvidia.com/mig-1g.5gb", "nvidia.com/gpu.shared"],
                &[
                    "",
                    "gpu",
                    "cpu",
                    "kubernetes.io/gpu",
                    "x.kubernetes.io/gpu",
                    "requests.a/b",
                    "a/b/c",
                    "Nvidia.com/gpu",
                    "a/-",
                ],
            ),
        ];
        for (subject, fault, good, bad) in cases {
            for name in good {
                assert_eq!(fault(name), None, "{subject} {name:?}");
            }
            for name in bad {
                assert!(fault(name).is_some(), "{subject} {name:?}");
            }
        }
    }

    #[test]
    fn only_the_domain_of_tms_is_its_own() {
        for (key, expected) in [
            ("tms.internal/lease", true),
            ("a.tms.internal/lease", true),
            ("tms.internal", false),
            ("atms.internal/lease", false),
            ("example.com/tms.internal", false),
        ] {
            assert_eq!(is_own(key), expected, "{key}");
        }
    }
}
