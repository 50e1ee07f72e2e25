//! The JSON Schema of values.yaml, by which Helm refuses what one value alone shows to be wrong. It is made of the keys of
//! the built-in values.yaml and of what the reader demands of them; whatever concerns two keys is left to the server.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::demand::Demand;
use super::finding::Source;
use super::reader::Reader;
use super::shape::{Conform, RETIRED, SPELLINGS, Shape, join};
use super::{BUILT_IN, layer};

/// What texts look like, where a look is enough to refuse one. The server reads them more closely.
const PATTERNS: [(&str, &str); 7] = [
    ("images.secrets[]", NAME),
    ("kubernetes.namespace", "^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$"),
    ("server.apiService.address", "^[0-9a-fA-F.:]+$"),
    ("server.database.passwordSecret.name", NAME),
    ("server.resources.gpuResource", "^[^/]+/[^/]+$"),
    ("server.tls.clientCaSecretName", NAME),
    ("server.tls.secretName", NAME),
];
/// The name of an object of Kubernetes, or nothing.
const NAME: &str = "^([a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?)?$";
/// A number with a unit, or ISO 8601.
const DURATION: &str = "^\\s*[-+]?([Pp].*[0-9]|[0-9]).*[A-Za-zµ]";
const QUANTITY: &str = "^[-+]?([0-9]+\\.?[0-9]*|\\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][-+]?[0-9]+)?$";

/// Returns the schema as text.
pub fn schema() -> String {
    let built_in = layer::parse(BUILT_IN, &Source::BuiltIn).expect("the built-in values.yaml is valid YAML");
    let shape = Shape::of(&built_in.value);
    let layer = Conform::new(Source::BuiltIn, &shape).layer(&built_in);
    let mut reader = Reader::probing(layer::merge(&[layer]));
    super::config(&mut reader, None);
    let mut root = Schema { reader: &reader }.at(&shape, "");
    root["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    root["title"] = json!("values.yaml of TMS");
    let text = serde_json::to_string_pretty(&root).expect("text keys and plain values");
    format!("{text}\n")
}

struct Schema<'a> {
    reader: &'a Reader,
}

impl Schema<'_> {
    fn at(&self, shape: &Shape, key: &str) -> Value {
        match shape {
            Shape::Leaf => self.leaf(key),
            Shape::List(item) => json!({"type": "array", "items": self.item(item, &format!("{key}[]"))}),
            // Null takes a label of a lower layer away.
            Shape::Free => json!({"type": "object", "additionalProperties": {"type": ["string", "null"]}}),
            Shape::Foreign => json!({"type": "object"}),
            Shape::Map(known) => self.map(known, key),
        }
    }

    /// A list that is empty by default does not show what its items are; the demands do.
    fn item(&self, shape: &Shape, key: &str) -> Value {
        let below = format!("{key}.");
        let names: BTreeMap<String, Shape> = self
            .reader
            .demands
            .keys()
            .filter_map(|demanded| demanded.strip_prefix(&below))
            .map(|name| Shape::of_item(key.trim_end_matches("[]"), name))
            .collect();
        if names.is_empty() { self.at(shape, key) } else { self.map(&names, key) }
    }

    fn map(&self, known: &BTreeMap<String, Shape>, key: &str) -> Value {
        let mut properties: Map<String, Value> =
            known.iter().map(|(name, shape)| (name.clone(), self.at(shape, &join(key, name)))).collect();
        for (_, other, name) in SPELLINGS.iter().filter(|(map, ..)| *map == key) {
            if let Some(same) = properties.get(*name).cloned() {
                properties.insert((*other).to_owned(), same);
            }
        }
        for (retired, why) in RETIRED {
            let (map, name) = retired.rsplit_once('.').unwrap_or(("", retired));
            if map == key {
                properties.insert(name.to_owned(), json!({"description": why}));
            }
        }
        json!({"type": "object", "properties": properties, "additionalProperties": false})
    }

    fn leaf(&self, key: &str) -> Value {
        let mut schema = match self.reader.demands.at(key) {
            Some(Demand::Boolean) => json!({"type": "boolean"}),
            Some(Demand::Integer(range)) => {
                json!({"type": "integer", "minimum": range.start(), "maximum": range.end()})
            }
            Some(Demand::Part) => json!({"type": "number", "minimum": 0, "maximum": 1}),
            Some(Demand::Text { may_be_empty: true }) => json!({"type": "string"}),
            Some(Demand::Text { may_be_empty: false }) => json!({"type": "string", "minLength": 1}),
            Some(Demand::Choice(words)) => json!({"type": "string", "enum": words}),
            Some(Demand::Duration) => json!({"type": "string", "pattern": DURATION}),
            Some(Demand::Quantity) => json!({"type": ["string", "number"], "pattern": QUANTITY}),
            Some(Demand::Texts) | None => json!({}),
        };
        if let Some((_, pattern)) = PATTERNS.iter().find(|(known, _)| *known == key) {
            schema["pattern"] = json!(pattern);
        }
        if !key.contains("[]") && self.reader.is_null(key) {
            allow_null(&mut schema);
        }
        schema
    }
}

/// Lets a key be null whose default is null: Helm keeps that default.
fn allow_null(schema: &mut Value) {
    schema["type"] = match schema["type"].take() {
        Value::Array(mut types) => {
            types.push(json!("null"));
            Value::Array(types)
        }
        one => json!([one, "null"]),
    };
}
