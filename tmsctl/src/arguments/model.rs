//! `name=…,uri=…`, the way a model is written on the command line.

use tms_proto::v1::Model;

/// Reads a model. The URI may hold commas and equals signs: it reaches to the end, or to `,name=`. Values may be quoted.
pub fn parse(text: &str) -> Result<Model, String> {
    let mut name: Option<String> = None;
    let mut uri: Option<String> = None;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (key, after) = rest
            .split_once('=')
            .ok_or_else(|| format!("{rest:?} has no `=`; a model is name=NAME,uri=URI"))?;
        let (slot, end) = match key.trim() {
            "name" => (&mut name, after.find(',')),
            "uri" => (&mut uri, after.find(",name=").filter(|_| name.is_none())),
            other => return Err(format!("there is no key {other:?}; a model is name=NAME,uri=URI")),
        };
        let (value, remainder) = split_value(after, end)?;
        if value.is_empty() {
            return Err(format!("`{key}=` has no value"));
        }
        if slot.replace(value.to_owned()).is_some() {
            return Err(format!("`{key}=` is there twice; each model has its own --model"));
        }
        rest = remainder;
    }
    Ok(Model {
        name: name.ok_or("`name=` is missing; a model is name=NAME,uri=URI")?,
        uri: uri.ok_or("`uri=` is missing; a model is name=NAME,uri=URI")?,
    })
}

/// Splits a value, quoted or reaching to `end`, from what follows its comma.
pub(super) fn split_value(text: &str, end: Option<usize>) -> Result<(&str, &str), String> {
    let Some(quote) = text.chars().next().filter(|first| matches!(first, '"' | '\'')) else {
        return Ok(match end {
            Some(end) => (text[..end].trim(), &text[end + 1..]),
            None => (text.trim(), ""),
        });
    };
    let (value, after) =
        text[1..].split_once(quote).ok_or_else(|| format!("a {quote} is not closed in {text:?}"))?;
    match after.trim_start() {
        "" => Ok((value, "")),
        after => after
            .strip_prefix(',')
            .map(|after| (value, after))
            .ok_or_else(|| format!("a comma is missing before {after:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_a_name_and_a_uri_that_may_hold_anything() {
        for (text, name, uri) in [
            ("name=resnet,uri=https://m/resnet.tar.gz", "resnet", "https://m/resnet.tar.gz"),
            ("uri=pvc://models/resnet,name=resnet", "resnet", "pvc://models/resnet"),
            ("name=a,uri=https://m/x?sig=a=b,c=d,e", "a", "https://m/x?sig=a=b,c=d,e"),
            ("uri=https://m/x?k=1,2,name=a", "a", "https://m/x?k=1,2"),
            ("name=a,uri=https://m/x,name=b", "a", "https://m/x,name=b"),
            ("name=\"a\",uri='https://m/x,y'", "a", "https://m/x,y"),
            ("uri=\"https://m/,name=x\", name=a", "a", "https://m/,name=x"),
            (" name = a , uri = s3://b/k ", "a", "s3://b/k"),
        ] {
            assert_eq!(parse(text), Ok(Model { name: name.into(), uri: uri.into() }), "{text}");
        }
    }

    #[test]
    fn what_is_no_model_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "`name=` is missing"),
            ("resnet", "has no `=`"),
            ("name=a", "`uri=` is missing"),
            ("uri=https://m/x", "`name=` is missing"),
            ("nmae=a,uri=b", "there is no key \"nmae\""),
            ("name=a,name=b,uri=c", "`name=` is there twice"),
            ("name=,uri=c", "`name=` has no value"),
            ("name=a,uri=", "`uri=` has no value"),
            ("name=\"a,uri=b", "is not closed"),
            ("name=\"a\"b,uri=c", "a comma is missing"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
