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
        for (key, position) in &layer.positions {
            let origin = Origin { source: layer.source.clone(), position: Some(*position) };
            origins.insert(key.clone(), origin);
        }
    }
    Merged { values, origins }
}

/// Reads a file.
pub(super) fn read_file(path: &Path) -> Result<Spanned<Content>, Finding> {
    let fault = |problem, hint| Finding {
        origin: Origin::whole(Source::File(path.to_owned())),
        key: String::new(),
        value: None,
        problem,
        rule: None,
        hint,
    };
    let bytes = std::fs::read(path).map_err(|error| fault(format!("cannot be read: {error}"), None))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| fault("is not UTF-8".to_owned(), Some("save the file as UTF-8".to_owned())))?;
    parse(&text, &Source::File(path.to_owned()))
}

/// Reads YAML.
pub(super) fn parse(text: &str, source: &Source) -> Result<Spanned<Content>, Finding> {
    let parsed: Result<Option<Spanned<Content>>, _> = serde_saphyr::from_str(text);
    match parsed {
        Ok(Some(content)) => Ok(content),
        Ok(None) => Ok(without_position(Content::Null)),
        Err(error) => {
            let position = error.location().map(|location| (location.line(), location.column()));
            // The snippet would print neighbouring lines, which may hold what is not for a log.
            let problem = error.without_snippet().to_string();
            Err(Finding {
                origin: Origin { source: source.clone(), position },
                key: String::new(),
                value: None,
                problem: format!("is not valid YAML: {problem}"),
                rule: None,
                hint: None,
            })
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
