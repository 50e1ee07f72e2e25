//! Whether an object that lives in a cluster is what it should be, so that at rest nothing is written.

use serde_json::{Map, Value};

use crate::domain::quantity::Quantity;

/// Returns whether `live`, as read from the API, holds everything that `desired` says. Defaults of the API and fields of
/// other managers do not matter.
pub fn covers(live: &Value, desired: &Value) -> bool {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => covers_map(live, desired),
        (Value::Array(live), Value::Array(desired)) => covers_list(live, desired),
        (Value::String(live), Value::String(desired)) => {
            live == desired || are_equal_quantities(live, desired)
        }
        _ => live == desired || (live.is_null() && is_nothing(desired)),
    }
}

fn covers_map(live: &Map<String, Value>, desired: &Map<String, Value>) -> bool {
    desired.iter().all(|(key, value)| covers(live.get(key).unwrap_or(&Value::Null), value))
}

/// Lists whose elements have names are sets by name, to which others may add; in all other lists the place counts.
fn covers_list(live: &[Value], desired: &[Value]) -> bool {
    if !desired.is_empty() && desired.iter().all(|element| name(element).is_some()) {
        return desired.iter().all(|wanted| {
            let found = live.iter().find(|element| name(element) == name(wanted));
            found.is_some_and(|element| covers(element, wanted))
        });
    }
    live.len() == desired.len() && live.iter().zip(desired).all(|(live, desired)| covers(live, desired))
}

fn name(element: &Value) -> Option<&str> {
    element.get("name")?.as_str()
}

fn are_equal_quantities(live: &str, desired: &str) -> bool {
    matches!((Quantity::parse(live), Quantity::parse(desired)), (Ok(live), Ok(desired)) if live == desired)
}

/// Whether the API may leave the value out when it is given back.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(is_set) => !is_set,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(elements) => elements.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_covers_what_it_says_itself_and_less() {
        for (case, live, desired) in [
            ("itself", json!({"a": {"b": [1, 2]}}), json!({"a": {"b": [1, 2]}})),
            ("a part", json!({"a": 1, "b": {"c": 2, "d": 3}}), json!({"b": {"c": 2}})),
            ("defaults", json!({"port": "http", "scheme": "HTTP"}), json!({"port": "http"})),
            ("no map", json!({}), json!({"annotations": {}})),
            ("no list", json!({}), json!({"imagePullSecrets": []})),
            ("no switch", json!({}), json!({"automount": false})),
            ("no number", json!({}), json!({"seconds": 0})),
            ("no text", json!({}), json!({"value": ""})),
            ("null", json!({"value": null}), json!({"value": ""})),
            ("nothing of nothing", json!({}), json!({"affinity": null})),
            ("a quantity written otherwise", json!({"cpu": "4"}), json!({"cpu": "4000m"})),
            ("a binary quantity", json!({"memory": "1Gi"}), json!({"memory": "1024Mi"})),
            (
                "a list by place",
                json!({"metrics": [{"type": "Pods", "x": 1}]}),
                json!({"metrics": [{"type": "Pods"}]}),
            ),
            (
                "an injected container",
                json!([{"name": "proxy"}, {"name": "triton"}]),
                json!([{"name": "triton"}]),
            ),
            (
                "variables in another order",
                json!([{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]),
                json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]),
            ),
            (
                "a defaulted port",
                json!([{"name": "http", "containerPort": 8000, "protocol": "TCP"}]),
                json!([{"name": "http", "containerPort": 8000}]),
            ),
        ] {
            assert!(covers(&live, &desired), "{case}: {live} should cover {desired}");
        }
    }

    #[test]
    fn an_object_does_not_cover_what_it_lacks_or_says_otherwise() {
        for (case, live, desired) in [
            ("another value", json!({"a": 1}), json!({"a": 2})),
            ("a missing value", json!({}), json!({"a": 1})),
            ("a missing label", json!({"labels": {"a": "1"}}), json!({"labels": {"a": "1", "b": "2"}})),
            ("a missing map", json!({}), json!({"labels": {"a": "1"}})),
            ("a missing list", json!({}), json!({"args": ["x"]})),
            ("a value where nothing should be", json!({"seconds": 5}), json!({"seconds": 0})),
            ("a list where nothing should be", json!({"args": ["x"]}), json!({"args": []})),
            ("a longer list", json!({"args": ["a", "b"]}), json!({"args": ["a"]})),
            ("a list in another order", json!({"args": ["a", "b"]}), json!({"args": ["b", "a"]})),
            ("a missing element", json!([{"name": "a"}]), json!([{"name": "a"}, {"name": "b"}])),
            ("an element changed", json!([{"name": "a", "v": "1"}]), json!([{"name": "a", "v": "2"}])),
            ("another quantity", json!({"cpu": "4"}), json!({"cpu": "4m"})),
            ("a number for a text", json!({"a": 1}), json!({"a": "1"})),
            ("a map for a list", json!({"a": {}}), json!({"a": ["x"]})),
        ] {
            assert!(!covers(&live, &desired), "{case}: {live} should not cover {desired}");
        }
    }
}
