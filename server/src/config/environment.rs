//! The part of the configuration that comes from the environment: one variable, one key.

use std::collections::BTreeMap;

use secrecy::SecretString;

use super::finding::{Finding, Origin, Source};
use super::layer::{self, Content, Document};
use super::shape::{self, Shape};

/// What the name of a variable that sets a key begins with. Two underscores, because Kubernetes itself sets variables
/// such as TMS_SERVER_PORT in every pod that lives beside a Service of that name.
const PREFIX: &str = "TMS__";
/// The variable with the password of the database.
const PASSWORD: &str = "TMS_DATABASE_PASSWORD";

/// What the environment says.
pub(super) struct Environment {
    /// One document for each variable that sets a key.
    pub variables: Vec<(Source, Document)>,
    /// The password of the database.
    pub password: Option<SecretString>,
}

/// Returns the environment of this process, without what is not text.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Reads the variables that are meant for the server.
pub(super) fn read(variables: impl Iterator<Item = (String, String)>, shape: &Shape) -> Environment {
    let mut password = None;
    let mut ours = BTreeMap::new();
    for (name, value) in variables {
        if name == PASSWORD {
            password = (!value.is_empty()).then(|| SecretString::from(value));
        } else if name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX)) {
            ours.insert(name, value);
        }
    }

    let mut set_by: BTreeMap<String, (String, String)> = BTreeMap::new();
    let mut read = Vec::new();
    for (name, value) in ours {
        let parts: Vec<&str> = name[PREFIX.len()..].split("__").collect();
        let (names, below) = shape::key_of_variable(&parts, shape);
        let source = Source::Variable(name.clone());
        let key = names.join(".");
        let content = match set_by.get(&key) {
            Some((other, said)) if *said != value => Err(Box::new(Finding {
                origin: Origin::whole(source.clone()),
                key: key.clone(),
                value: None,
                problem: format!("says otherwise than {other}, which sets the same key"),
                rule: None,
                hint: Some("keep one of them".to_owned()),
            })),
            Some(_) | None => document(&names, &value, below, &source),
        };
        set_by.insert(key, (name, value));
        read.push((source, content));
    }
    Environment { variables: read, password }
}

/// Returns the document that sets the key of these names. A list or a map is written as YAML on one line; everything
/// else stays the text that it is, to be read as the key demands.
fn document(names: &[String], value: &str, shape: Option<&Shape>, source: &Source) -> Document {
    let content = match shape {
        Some(Shape::List(_) | Shape::Free | Shape::Foreign | Shape::Map(_)) => {
            layer::parse(value, source)?.value
        }
        Some(Shape::Leaf) | None => Content::Text(value.to_owned()),
    };
    Ok(shape::nest(names, content))
}
