//! Objects as people read and apply them.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

/// Fields that come before the others, which follow by alphabet.
const FIRST: [&str; 7] = ["apiVersion", "kind", "metadata", "name", "namespace", "type", "record"];

/// Returns `object` as a YAML document. Texts that some reader could take for something else, such as `on`, are quoted.
pub fn to_yaml(object: &Value) -> String {
    // A long value stays on one line, where people can search for it.
    let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
    serde_saphyr::to_string_with_options(&Ordered(object), options).expect("every JSON value is YAML")
}

struct Ordered<'a>(&'a Value);

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(fields) => {
                let mut fields: Vec<_> = fields.iter().collect();
                fields.sort_by_key(|(key, _)| (rank(key), key.as_str()));
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (key, value) in fields {
                    map.serialize_entry(key, &Ordered(value))?;
                }
                map.end()
            }
            Value::Array(elements) => serializer.collect_seq(elements.iter().map(Ordered)),
            scalar @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
                scalar.serialize(serializer)
            }
        }
    }
}

fn rank(key: &str) -> usize {
    FIRST.iter().position(|first| *first == key).unwrap_or(FIRST.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_fields_that_name_an_object_come_first_and_ambiguous_texts_are_quoted() {
        let object = json!({
            "spec": {"env": [{"value": "on", "name": "A"}, {"value": "no", "name": "B"}], "expr": "a\nor\nb", "port": "8000"},
            "metadata": {"annotations": {"n": "1"}, "namespace": "tms", "name": "x"},
            "kind": "Example",
            "apiVersion": "v1",
        });
        insta::assert_snapshot!(to_yaml(&object), @r#"
        apiVersion: v1
        kind: Example
        metadata:
          name: x
          namespace: tms
          annotations:
            "n": "1"
        spec:
          env:
          - name: A
            value: "on"
          - name: B
            value: "no"
          expr: |-
            a
            or
            b
          port: "8000"
        "#);
    }

    #[test]
    fn a_long_text_stays_on_one_line() {
        let words = "word ".repeat(60);
        assert_eq!(to_yaml(&json!({ "text": words.trim() })), format!("text: {}\n", words.trim()));
    }
}
