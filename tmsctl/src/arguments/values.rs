//! Single values of the command line: durations, pairs of key and value, tolerations.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo};
use tms_proto::v1::Toleration;

use crate::failure::Failure;

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Reads a duration such as `90m`, `1h 30m`, `2d` or `PT2H`; a day has 24 hours.
pub fn duration(text: &str) -> Result<Duration, String> {
    let refused = |error: jiff::Error| match text.trim().parse::<u64>() {
        Ok(number) => format!("the unit is missing: {number}s, {number}m, {number}h or {number}d"),
        Err(_) => format!("write a duration such as 90m, 1h 30m or 2d ({error})"),
    };
    let span: Span = text.parse().map_err(refused)?;
    let signed = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(refused)?;
    let duration = Duration::try_from(signed).map_err(|_| "a duration is not negative".to_owned())?;
    if duration.is_zero() {
        return Err("a duration is longer than nothing".to_owned());
    }
    Ok(duration)
}

/// Returns a duration as the interface has it.
pub fn proto_duration(duration: Duration) -> Result<prost_types::Duration, Failure> {
    duration.try_into().map_err(|_| Failure::usage("the duration is longer than any server grants"))
}

/// Reads `KEY=VALUE`; the value may be empty and hold equals signs.
pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not KEY=VALUE")),
    }
}

/// Collects the pairs of one flag; a key that is there twice is a slip that nobody wants guessed away.
pub fn pairs(flag: &str, pairs: Vec<(String, String)>) -> Result<BTreeMap<String, String>, Failure> {
    let mut map = BTreeMap::new();
    for (key, value) in pairs {
        if let Some(first) = map.insert(key.clone(), value.clone()) {
            return Err(Failure::usage(format!("{flag} gives {key} twice, as {first:?} and as {value:?}")));
        }
    }
    Ok(map)
}

/// Collects labels.
pub fn labels(given: Vec<(String, String)>) -> Result<BTreeMap<String, String>, Failure> {
    pairs("--label", given)
}

/// Reads `KEY[=VALUE][:EFFECT[:SECONDS]]`, as `kubectl taint` writes taints.
pub fn toleration(text: &str) -> Result<Toleration, String> {
    let mut parts = text.split(':');
    let taint = parts.next().unwrap_or_default();
    let effect = parts.next().unwrap_or_default();
    let seconds = parts.next().map(str::parse::<i64>).transpose();
    let seconds = seconds.map_err(|_| format!("the seconds of {text:?} are no number"))?;
    if parts.next().is_some() {
        return Err(format!("{text:?} is not KEY[=VALUE][:EFFECT[:SECONDS]]"));
    }
    if !effect.is_empty() && !EFFECTS.contains(&effect) {
        return Err(format!("there is no effect {effect:?}, only {}", EFFECTS.join(", ")));
    }
    if seconds.is_some() && effect != "NoExecute" {
        return Err("only NoExecute takes seconds".to_owned());
    }
    let (key, operator, value) = match taint.split_once('=') {
        Some(("", _)) => return Err(format!("{text:?} has a value without a key")),
        Some((key, value)) => (key, "Equal", value),
        None => (taint, "Exists", ""),
    };
    Ok(Toleration {
        key: key.to_owned(),
        operator: operator.to_owned(),
        value: value.to_owned(),
        effect: effect.to_owned(),
        toleration_seconds: seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_units_and_is_positive() {
        for (text, seconds) in [
            ("90m", 5_400),
            ("1h 30m", 5_400),
            ("1h30m", 5_400),
            ("2d", 172_800),
            ("PT2H", 7_200),
            ("45s", 45),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for (text, reason) in [
            ("90", "the unit is missing: 90s, 90m, 90h or 90d"),
            ("soon", "such as 90m, 1h 30m or 2d"),
            ("-1h", "not negative"),
            ("0s", "longer than nothing"),
            ("2 months", "such as 90m"),
        ] {
            let error = duration(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_pair_has_a_key() {
        assert_eq!(key_value("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(key_value("A="), Ok(("A".into(), String::new())));
        assert!(key_value("A").is_err());
        assert!(key_value("=b").is_err());
        let twice = pairs("--env", vec![("A".into(), "1".into()), ("A".into(), "2".into())]).unwrap_err();
        assert_eq!(twice.exit_code(), 2);
    }

    #[test]
    fn a_toleration_is_written_as_a_taint() {
        let tolerates = |key: &str, operator: &str, value: &str, effect: &str, seconds| {
            Ok(Toleration {
                key: key.into(),
                operator: operator.into(),
                value: value.into(),
                effect: effect.into(),
                toleration_seconds: seconds,
            })
        };
        for (text, toleration_of) in [
            ("gpu:NoSchedule", tolerates("gpu", "Exists", "", "NoSchedule", None)),
            ("gpu=a100:NoSchedule", tolerates("gpu", "Equal", "a100", "NoSchedule", None)),
            ("gpu=a100:NoExecute:300", tolerates("gpu", "Equal", "a100", "NoExecute", Some(300))),
            ("gpu", tolerates("gpu", "Exists", "", "", None)),
            (":NoSchedule", tolerates("", "Exists", "", "NoSchedule", None)),
        ] {
            assert_eq!(toleration(text), toleration_of, "{text}");
        }
        for bad in ["gpu:Never", "=a:NoSchedule", "gpu:NoSchedule:30", "gpu:NoExecute:soon", "a:b:c:d"] {
            assert!(toleration(bad).is_err(), "{bad}");
        }
    }
}
