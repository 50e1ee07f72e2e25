//! The layers of a configuration: the built-in values.yaml, the administrator's files, the environment. Each is read
//! into a tree that remembers where everything stands; what the keys mean is left to others.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use figment::value::{Dict, Map, Tag, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::finding::{Finding, Origin, Source};

/// A document as it was written.
#[derive(Clone, PartialEq)]
pub(super) enum Content {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Spanned<Content>>),
    Map(Vec<(Spanned<String>, Spanned<Content>)>),
}

/// A document, or why there is none.
pub(super) type Document = Result<Spanned<Content>, Box<Finding>>;

/// Keys and values of one source under the names that the server knows, and where each stands.
pub(super) struct Layer {
    pub source: Source,
    pub values: Dict,
    pub positions: BTreeMap<String, (u64, u64)>,
}

impl Provider for &Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(Origin::whole(self.source.clone()).to_string())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

/// Every layer in one: values, and the origin of each key.
pub(super) struct Merged {
    pub values: Dict,
    pub origins: BTreeMap<String, Origin>,
}

/// Merges layers, of which each later one wins.
pub(super) fn merge(layers: &[Layer]) -> Merged {
    let figment = layers.iter().fold(Figment::new(), Figment::merge);
    let values = figment.extract().expect("any dictionary is a dictionary");
    let mut origins = BTreeMap::new();
    for layer in layers {
        // A list replaces the whole list below it.
        let lists: Vec<&str> = layer.positions.keys().filter_map(|key| key.strip_suffix("[0]")).collect();
        let is_replaced = |key: &str| {
            lists.iter().any(|list| key.strip_prefix(list).is_some_and(|rest| rest.starts_with('[')))
        };
        origins.retain(|key: &String, _| !is_replaced(key));
        for (key, position) in &layer.positions {
            let origin = Origin { source: layer.source.clone(), position: Some(*position) };
            origins.insert(key.clone(), origin);
        }
    }
    Merged { values, origins }
}

/// Reads a file.
pub(super) fn read_file(path: &Path) -> Document {
    let source = Source::File(path.to_owned());
    // A text that is not UTF-8 is an error of reading, too.
    let text = std::fs::read_to_string(path)
        .map_err(|error| unreadable(&source, None, format!("cannot be read: {error}")))?;
    parse(&text, &source)
}

/// Reads YAML.
pub(super) fn parse(text: &str, source: &Source) -> Document {
    let parsed: Result<Option<Spanned<Content>>, _> = serde_saphyr::from_str(text);
    match parsed {
        Ok(Some(content)) => Ok(content),
        Ok(None) => Ok(without_position(Content::Null)),
        Err(error) => {
            let position = error.location().map(|location| (location.line(), location.column()));
            Err(unreadable(source, position, why_unreadable(&error)))
        }
    }
}

fn unreadable(source: &Source, position: Option<(u64, u64)>, problem: String) -> Box<Finding> {
    let origin = Origin { source: source.clone(), position };
    Box::new(Finding { origin, key: String::new(), value: None, problem, rule: None, hint: None })
}

fn why_unreadable(error: &serde_saphyr::Error) -> String {
    // The snippet would print neighbouring lines, which may hold what is not for a log.
    match error.without_snippet() {
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("gives the key {key} twice")
        }
        other => {
            let text = other.to_string();
            let reason = text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason);
            format!("is not valid YAML: {reason}")
        }
    }
}

/// Returns content that stands nowhere in a file.
pub(super) fn without_position<T>(value: T) -> Spanned<T> {
    Spanned { value, referenced: Location::UNKNOWN, defined: Location::UNKNOWN }
}

impl Content {
    /// Returns the content as figment holds it.
    pub fn into_value(self) -> Value {
        match self {
            Self::Null => Value::Empty(Tag::Default, figment::value::Empty::None),
            Self::Bool(value) => Value::from(value),
            Self::Integer(value) => Value::from(value),
            Self::Float(value) => Value::from(value),
            Self::Text(value) => Value::from(value),
            Self::List(items) => {
                Value::Array(Tag::Default, items.into_iter().map(|item| item.value.into_value()).collect())
            }
            Self::Map(entries) => {
                let entry =
                    |(key, node): (Spanned<String>, Spanned<Self>)| (key.value, node.value.into_value());
                Value::Dict(Tag::Default, entries.into_iter().map(entry).collect())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML")
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_none<E>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Integer(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Content, E> {
        Ok(Content::Integer(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Content, E> {
        Ok(i128::try_from(value).map_or(Content::Float(value as f64), Content::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Content, E> {
        Ok(Content::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Content, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Content::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Content, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Content::Map(map))
    }
}
