//! Label selectors of Kubernetes, and what of them a set of labels does not meet.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

/// A selector. The empty one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Selector {
    /// Labels that must have these values.
    pub match_labels: BTreeMap<String, String>,
    /// Further requirements.
    pub match_expressions: Vec<Requirement>,
}

/// One requirement.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// What is required of it.
    pub operator: Operator,
    /// Its values, for `In` and `NotIn`.
    #[serde(default)]
    pub values: Vec<String>,
}

/// What is required of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Operator {
    /// It has one of the values.
    In,
    /// It has none of the values, or is not there.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

impl Selector {
    /// Returns the requirements that the labels do not meet; none where it selects them.
    pub fn unmet(&self, labels: &BTreeMap<String, String>) -> Vec<Requirement> {
        self.requirements().filter(|requirement| !requirement.is_met(labels)).collect()
    }

    /// Whether it asks for no label but this one.
    pub fn knows_only(&self, key: &str) -> bool {
        self.requirements().all(|requirement| requirement.key == key)
    }

    fn requirements(&self) -> impl Iterator<Item = Requirement> {
        let equal = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            operator: Operator::In,
            values: vec![value.clone()],
        };
        self.match_labels.iter().map(equal).chain(self.match_expressions.iter().cloned())
    }
}

impl Requirement {
    /// Returns a label that would meet it, where setting one does.
    pub fn wish(&self) -> Option<(String, String)> {
        let value = match self.operator {
            Operator::In => self.values.first()?.clone(),
            Operator::Exists => "true".to_owned(),
            Operator::NotIn | Operator::DoesNotExist => return None,
        };
        Some((self.key.clone(), value))
    }

    fn is_met(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.requirements().map(|requirement| requirement.to_string()).collect();
        if all.is_empty() { f.write_str("everything") } else { f.write_str(&all.join(", ")) }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, operator, values } = self;
        match (operator, values.as_slice()) {
            (Operator::In, [value]) => write!(f, "{key}={value}"),
            (Operator::In, _) => write!(f, "{key} in ({})", values.join(", ")),
            (Operator::NotIn, _) => write!(f, "{key} not in ({})", values.join(", ")),
            (Operator::Exists, _) => write!(f, "{key}"),
            (Operator::DoesNotExist, _) => write!(f, "!{key}"),
        }
    }
}

/// Returns labels as people write them.
pub(super) fn in_words(labels: &BTreeMap<String, String>) -> String {
    let all: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if all.is_empty() { "no labels".to_owned() } else { all.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_says_what_is_not_met() {
        let labels = BTreeMap::from([("release".to_owned(), "tms".to_owned())]);
        let unmet = |yaml: &str| {
            let selector: Selector = serde_yaml::from_str(yaml).unwrap();
            let unmet = selector.unmet(&labels);
            unmet.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        let table = [
            ("{}", ""),
            ("{matchLabels: {release: tms}}", ""),
            ("{matchLabels: {release: prometheus}}", "release=prometheus"),
            ("{matchLabels: {release: tms, team: a}}", "team=a"),
            ("{matchExpressions: [{key: release, operator: In, values: [a, b]}]}", "release in (a, b)"),
            ("{matchExpressions: [{key: release, operator: NotIn, values: [tms]}]}", "release not in (tms)"),
            ("{matchExpressions: [{key: other, operator: NotIn, values: [tms]}]}", ""),
            ("{matchExpressions: [{key: release, operator: Exists}]}", ""),
            ("{matchExpressions: [{key: other, operator: Exists}]}", "other"),
            ("{matchExpressions: [{key: release, operator: DoesNotExist}]}", "!release"),
        ];
        for (yaml, expected) in table {
            assert_eq!(unmet(yaml), expected, "{yaml}");
        }
    }
}
