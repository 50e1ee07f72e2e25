//! `kind=…,KEY=VALUE,…`, the way a trigger is written on the command line.

use std::collections::BTreeMap;

use tms_proto::v1::Trigger;

use super::model::split_value;

/// Reads a trigger. A value with a comma is quoted.
pub fn parse(text: &str) -> Result<Trigger, String> {
    let mut pairs: BTreeMap<String, String> = BTreeMap::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (key, after) = rest
            .split_once('=')
            .ok_or_else(|| format!("{rest:?} has no `=`; a trigger is kind=KIND,KEY=VALUE,…"))?;
        let key = key.trim();
        let (value, remainder) = split_value(after, after.find(','))?;
        if key.is_empty() || value.is_empty() {
            return Err(format!("{key:?} has no value; a trigger is kind=KIND,KEY=VALUE,…"));
        }
        if pairs.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(format!("`{key}=` is there twice; each trigger has its own --trigger"));
        }
        rest = remainder;
    }
    let kind = pairs.remove("kind").ok_or("`kind=` is missing; a trigger is kind=KIND,KEY=VALUE,…")?;
    Ok(Trigger { kind, metadata: pairs.into_iter().collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trigger_is_a_kind_and_what_is_set_of_it() {
        let metadata = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        for (text, kind, pairs) in [
            ("kind=orders", "orders", vec![]),
            ("kind=orders,queueName=eu,value=20", "orders", vec![("queueName", "eu"), ("value", "20")]),
            (" value = 20 , kind = orders ", "orders", vec![("value", "20")]),
            ("kind=orders,query='a=b,c'", "orders", vec![("query", "a=b,c")]),
        ] {
            let expected = Trigger { kind: kind.to_owned(), metadata: metadata(&pairs) };
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_trigger_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "`kind=` is missing"),
            ("orders", "has no `=`"),
            ("queueName=eu", "`kind=` is missing"),
            ("kind=", "\"kind\" has no value"),
            ("kind=a,value=1,value=2", "`value=` is there twice"),
            ("kind=a,query='b", "is not closed"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
