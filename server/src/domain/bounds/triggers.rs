//! Triggers: signals from outside the pods. The administrator lists kinds of them, and says what a lease may set of each.

use std::collections::BTreeMap;

use super::findings::{Findings, entry, quoted};
use super::{AutoscalingBounds, Provider, TriggerRequest};
use crate::domain::scaling::{Trigger, TriggerAuthentication, TriggerMetric};

/// Most triggers of a lease.
const MOST_TRIGGERS: usize = 8;
/// Longest value that a lease sets, in bytes.
const LONGEST_VALUE: usize = 256;

/// A kind of trigger that leases may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriggerBounds {
    /// Name by which leases ask for it.
    pub kind: String,
    /// KEDA's name for such triggers.
    pub trigger_type: String,
    /// How its value is compared with its target.
    pub metric_type: TriggerMetric,
    /// What lets KEDA in.
    pub authentication: Option<TriggerAuthentication>,
    /// What the administrator fixed; where a lease may set the same key, the value of a lease that does not.
    pub fixed: BTreeMap<String, String>,
    /// What a lease may set, and to what.
    pub settable: BTreeMap<String, Allowed>,
}

/// What the value of a key may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// An integer from the first to the second.
    Range(i64, i64),
    /// A text of one of these forms, in which `*` stands for any number of letters, digits, `-`, `_` and `.`.
    Forms(Vec<String>),
}

impl Allowed {
    /// Reads `1..100`, or forms with `|` between them; nothing where that is neither.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some((low, high)) = text.split_once("..") {
            let range = (low.trim().parse().ok()?, high.trim().parse().ok()?);
            return (range.0 <= range.1).then_some(Self::Range(range.0, range.1));
        }
        let forms: Vec<_> = text.split('|').map(|form| form.trim().to_owned()).collect();
        let is_form = |form: &String| !form.is_empty() && !form.chars().any(char::is_control);
        forms.iter().all(is_form).then_some(Self::Forms(forms))
    }

    /// Whether a lease may set this value.
    pub fn admits(&self, value: &str) -> bool {
        match self {
            Self::Range(low, high) => {
                // Only as it is printed: what KEDA makes of `+1` or `01` is its own affair.
                value
                    .parse::<i64>()
                    .is_ok_and(|number| (low..=high).contains(&&number) && number.to_string() == value)
            }
            Self::Forms(forms) => {
                value.len() <= LONGEST_VALUE && forms.iter().any(|form| has_form(value, form))
            }
        }
    }
}

impl std::fmt::Display for Allowed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Range(low, high) => write!(f, "integers from {low} to {high}"),
            Self::Forms(forms) => f.write_str(&forms.join(" or ")),
        }
    }
}

/// Returns the triggers asked for, with what the administrator fixed of them.
pub(super) fn granted(
    field: &str,
    asked: &[TriggerRequest],
    bounds: &AutoscalingBounds,
    findings: &mut Findings,
) -> Vec<Trigger> {
    if asked.is_empty() {
        return Vec::new();
    }
    if bounds.provider != Provider::Keda {
        let message = "triggers asked, which KEDA alone reads, and another provider scales the leases here";
        findings.refuse_until("server.autoscaling.provider", field, message);
        return Vec::new();
    }
    if asked.len() > MOST_TRIGGERS {
        findings
            .refuse(field, format!("{} triggers asked, at most {MOST_TRIGGERS} are possible", asked.len()));
    }
    let mut triggers: Vec<Trigger> = Vec::new();
    for (index, request) in asked.iter().take(MOST_TRIGGERS).enumerate() {
        let field = format!("{field}[{index}]");
        let Some(known) = bounds.triggers.iter().find(|known| known.kind == request.kind) else {
            refuse_unknown(&field, &request.kind, bounds, findings);
            continue;
        };
        if triggers.iter().any(|other| other.kind == known.kind) {
            findings.refuse(
                format!("{field}.kind"),
                format!("a second trigger of kind {} asked: one is possible", known.kind),
            );
            continue;
        }
        check_metadata(&format!("{field}.metadata"), request, known, findings);
        triggers.push(Trigger {
            kind: known.kind.clone(),
            trigger_type: known.trigger_type.clone(),
            metric_type: known.metric_type,
            authentication: known.authentication.clone(),
            fixed: known.fixed.clone(),
            metadata: request.metadata.clone(),
        });
    }
    triggers
}

fn refuse_unknown(field: &str, kind: &str, bounds: &AutoscalingBounds, findings: &mut Findings) {
    let known: Vec<_> = bounds.triggers.iter().map(|known| known.kind.as_str()).collect();
    let allowed = match known.as_slice() {
        [] => "none is".to_owned(),
        [one] => format!("{one} is"),
        _ => format!("{} are", known.join(", ")),
    };
    let message = format!("a trigger of kind {} asked, but it is not allowed: {allowed}", quoted(kind));
    findings.refuse_by("server.autoscaling.keda.triggers", format!("{field}.kind"), message);
}

fn check_metadata(field: &str, request: &TriggerRequest, known: &TriggerBounds, findings: &mut Findings) {
    let names = || known.settable.keys().cloned().collect::<Vec<_>>().join(", ");
    for (key, value) in &request.metadata {
        match known.settable.get(key) {
            None if known.settable.is_empty() => {
                findings.refuse(
                    entry(field, key),
                    format!("a lease sets nothing of a trigger of kind {}", known.kind),
                );
            }
            None => findings.refuse(
                entry(field, key),
                format!("a lease does not set this of a trigger of kind {}, but {}", known.kind, names()),
            ),
            Some(allowed) if !allowed.admits(value) => findings.refuse_by(
                "server.autoscaling.keda.triggers",
                entry(field, key),
                format!("{} asked, {allowed} are allowed", quoted(value)),
            ),
            Some(_) => {}
        }
    }
    let is_missing = |key: &&String| !request.metadata.contains_key(*key) && !known.fixed.contains_key(*key);
    for key in known.settable.keys().filter(is_missing) {
        findings.refuse(
            entry(field, key),
            format!("a trigger of kind {} needs it: {} are allowed", known.kind, known.settable[key]),
        );
    }
}

/// Whether a value has a form, of which each `*` stands for any number of harmless characters. Each piece between two of them is
/// taken where it comes first: what would be skipped on the way to a later place has to be harmless too.
fn has_form(value: &str, form: &str) -> bool {
    let Some((first, rest)) = form.split_once('*') else { return value == form };
    let Some(mut value) = value.strip_prefix(first) else { return false };
    let is_harmless = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let (between, last) = rest.rsplit_once('*').map_or((None, rest), |(between, last)| (Some(between), last));
    for piece in between.into_iter().flat_map(|between| between.split('*')) {
        match value.split_once(piece) {
            Some((skipped, after)) if skipped.chars().all(is_harmless) => value = after,
            Some(_) | None => return false,
        }
    }
    value.strip_suffix(last).is_some_and(|skipped| skipped.chars().all(is_harmless))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_is_a_range_or_a_few_forms() {
        for (allowed, value, expected) in [
            ("1..100", "1", true),
            ("1..100", "100", true),
            ("1..100", "0", false),
            ("1..100", "101", false),
            ("1..100", "+5", false),
            ("1..100", "05", false),
            ("1..100", "", false),
            ("1..100", "many", false),
            ("-5..5", "-5", true),
            ("orders", "orders", true),
            ("orders", "orders2", false),
            ("orders-*|returns", "returns", true),
            ("orders-*|returns", "orders-", true),
            ("orders-*|returns", "orders-eu.west_1", true),
            ("orders-*|returns", "orders-a/b", false),
            ("orders-*|returns", "orders-a b", false),
            ("*-batch", "big-batch", true),
            ("*-batch", "batch", false),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "abcd", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "abbc", true),
            ("a*b*c", "a/bc", false),
            ("a*b*c", "ab/c", false),
            ("ab*ba", "aba", false),
            ("a**b", "a-b", true),
            ("*-*-*-*-*-*-*-*z", &"-".repeat(256), false),
            ("*-*-*-*-*-*-*-*z", &("-".repeat(255) + "z"), true),
            ("*", "", true),
        ] {
            let parsed = Allowed::parse(allowed).expect("it is a rule");
            assert_eq!(parsed.admits(value), expected, "{value:?} by {allowed}");
        }
        for wrong in ["", "5..1", "a..b", "a||b", "a\nb"] {
            assert_eq!(Allowed::parse(wrong), None, "{wrong:?}");
        }
    }
}
