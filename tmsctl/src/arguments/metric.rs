//! What a lease asks of one metric, as written after the flag of that metric.

use jiff::SignedDuration;
use tms_proto::v1::Metric;

/// Reads the wish for a utilization: `on`, `off`, or a threshold in percent.
pub fn utilization(text: &str) -> Result<Metric, String> {
    wish(text, |text| {
        text.trim_end_matches('%')
            .trim()
            .parse()
            .map_err(|_| format!("{text:?} is no threshold: write percent such as 80, `on` or `off`"))
    })
}

/// Reads the wish for the queue time: `on`, `off`, or a threshold in microseconds or with its unit.
pub fn queue_time(text: &str) -> Result<Metric, String> {
    wish(text, |text| {
        let refused =
            || format!("{text:?} is no threshold: write microseconds or a time such as 200ms, `on` or `off`");
        if let Ok(microseconds) = text.parse() {
            return Ok(microseconds);
        }
        let time: SignedDuration = text.parse().map_err(|_| refused())?;
        if time.subsec_nanos() % 1_000 != 0 {
            return Err(format!("{text:?} is finer than a microsecond"));
        }
        i64::try_from(time.as_micros()).map_err(|_| refused())
    })
}

fn wish(text: &str, threshold: impl FnOnce(&str) -> Result<i64, String>) -> Result<Metric, String> {
    match text.trim() {
        "on" => Ok(Metric { enable: Some(true), threshold: None }),
        "off" => Ok(Metric { enable: Some(false), threshold: None }),
        text => Ok(Metric { enable: Some(true), threshold: Some(threshold(text)?) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_on_off_or_has_a_threshold() {
        let on = |threshold| Ok(Metric { enable: Some(true), threshold });
        for (text, wish) in
            [("on", on(None)), ("80", on(Some(80))), ("80%", on(Some(80))), (" 5 % ", on(Some(5)))]
        {
            assert_eq!(utilization(text), wish, "{text}");
        }
        for (text, wish) in [
            ("on", on(None)),
            ("200000", on(Some(200_000))),
            ("200ms", on(Some(200_000))),
            ("1.5ms", on(Some(1_500))),
            ("750us", on(Some(750))),
            ("2s", on(Some(2_000_000))),
        ] {
            assert_eq!(queue_time(text), wish, "{text}");
        }
        assert_eq!(queue_time("off"), Ok(Metric { enable: Some(false), threshold: None }));
    }

    #[test]
    fn what_is_no_threshold_is_refused_with_the_reason() {
        for (result, reason) in [
            (utilization("high"), "write percent such as 80"),
            (utilization("200ms"), "write percent such as 80"),
            (utilization(""), "write percent such as 80"),
            (queue_time("soon"), "microseconds or a time such as 200ms"),
            (queue_time("10ns"), "finer than a microsecond"),
        ] {
            let error = result.unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
