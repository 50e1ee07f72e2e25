//! A single value of a configuration, as it was written.

use std::fmt::{self, Display};

use figment::value::Value;

/// Keys whose values are not shown: they may hold a password by mistake.
const UNSEEN: [&str; 1] = ["server.database.url"];

/// One value as it was written, whatever its type.
pub(super) enum Scalar {
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
}

/// Returns a value that is neither a map nor a list nor null.
pub(super) fn scalar(value: &Value) -> Option<Scalar> {
    match value {
        Value::String(_, text) => Some(Scalar::Text(text.clone())),
        Value::Char(_, character) => Some(Scalar::Text(character.to_string())),
        Value::Bool(_, value) => Some(Scalar::Bool(*value)),
        Value::Num(_, number) => number
            .to_i128()
            .map(Scalar::Integer)
            .or_else(|| number.to_u128().and_then(|number| i128::try_from(number).ok()).map(Scalar::Integer))
            .or_else(|| number.to_f64().map(Scalar::Float)),
        Value::Empty(..) | Value::Dict(..) | Value::Array(..) => None,
    }
}

impl Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl Scalar {
    /// Returns the value as messages about a key show it.
    pub fn shown_at(&self, key: &str) -> Option<String> {
        let shown = match self {
            Self::Text(text) => format!("{text:?}"),
            Self::Bool(_) | Self::Integer(_) | Self::Float(_) => self.to_string(),
        };
        (!UNSEEN.contains(&key)).then_some(shown)
    }
}
