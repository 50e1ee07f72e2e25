//! Label selectors as they stand in a query: `app=x,tier in (a,b),!legacy`.

use std::collections::BTreeSet;

use kube::core::{Expression, Selector};

/// A text is no label selector.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unable to parse requirement {0:?}: it must be KEY, !KEY, KEY=VALUE, KEY!=VALUE, KEY in (VALUE,…) or KEY notin (VALUE,…)"
)]
pub(super) struct Unreadable(String);

/// Reads a selector; nothing selects all.
pub(super) fn parse(text: &str) -> Result<Selector, Unreadable> {
    if text.trim().is_empty() {
        return Ok(Selector::default());
    }
    requirements(text)
        .map(|part| requirement(part).ok_or_else(|| Unreadable(part.trim().to_owned())))
        .collect()
}

/// Splits at commas outside of parentheses.
fn requirements(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
}

fn requirement(text: &str) -> Option<Expression> {
    let text = text.trim();
    if let Some(key) = text.strip_prefix('!') {
        return Some(Expression::DoesNotExist(name(key.trim(), "./")?));
    }
    let end = text.find(|c: char| !is_of_name(c, "./")).unwrap_or(text.len());
    let (key, rest) = text.split_at(end);
    let (key, rest) = (name(key, "./")?, rest.trim());
    let value =
        |text: &str| if text.trim().is_empty() { Some(String::new()) } else { name(text.trim(), ".") };
    if rest.is_empty() {
        return Some(Expression::Exists(key));
    }
    if let Some(unwanted) = rest.strip_prefix("!=") {
        return Some(Expression::NotEqual(key, value(unwanted)?));
    }
    if let Some(wanted) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
        return Some(Expression::Equal(key, value(wanted)?));
    }
    let set = |rest: &str| -> Option<BTreeSet<String>> {
        let inside = rest.trim().strip_prefix('(')?.strip_suffix(')')?;
        inside.split(',').map(value).collect()
    };
    match rest.strip_prefix("notin") {
        Some(rest) => Some(Expression::NotIn(key, set(rest)?)),
        None => Some(Expression::In(key, set(rest.strip_prefix("in")?)?)),
    }
}

fn name(text: &str, more: &str) -> Option<String> {
    (!text.is_empty() && text.chars().all(|c| is_of_name(c, more))).then(|| text.to_owned())
}

fn is_of_name(c: char, more: &str) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_' || more.contains(c)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kube::core::SelectorExt;

    use super::*;

    fn labels() -> BTreeMap<String, String> {
        [("app", "triton"), ("tms.internal/lease-id", "7"), ("empty", "")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn every_form_of_a_requirement_selects_as_kubernetes_does() {
        let table = [
            ("", true),
            (" ", true),
            ("app=triton", true),
            ("app == triton", true),
            ("app=other", false),
            ("app!=other", true),
            ("none!=other", true),
            ("app!=triton", false),
            ("tms.internal/lease-id=7", true),
            ("empty=", true),
            ("app=", false),
            ("app", true),
            ("none", false),
            ("!none", true),
            ("! app", false),
            ("app in (a,triton)", true),
            ("app in(a, b)", false),
            ("none in (a)", false),
            ("app notin (a,b)", true),
            ("none notin (a)", true),
            ("app notin (triton)", false),
            ("app in (triton,x),tms.internal/lease-id=7,!none", true),
            ("app in (triton,x),tms.internal/lease-id=8", false),
        ];
        for (text, expected) in table {
            let selector = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(selector.matches(&labels()), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_requirement_is_named() {
        for text in [
            ",",
            "app in a",
            "app in (a",
            "app>1",
            "a b",
            "app=a=b",
            "app=a b",
            "!",
            "=a",
            "app within (a)",
            "app=,",
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.starts_with("unable to parse requirement"), "{text}: {error}");
        }
    }
}
