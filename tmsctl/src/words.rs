//! Times, durations and counts in the words of the tables.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Returns a number of bytes in the largest unit that leaves at least one of it, such as `1.5 GiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match UNITS.into_iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) => format!("{:.1} {unit}", bytes as f64 / f64::from(shift).exp2()),
        None => format!("{bytes} B"),
    }
}

/// Returns a duration in its two largest units, such as `1h 5m`, rounded.
pub fn duration(duration: Duration) -> String {
    let seconds = rounded(duration);
    let units =
        [("d", seconds / 86_400), ("h", seconds / 3_600 % 24), ("m", seconds / 60 % 60), ("s", seconds % 60)];
    let Some(first) = units.iter().position(|(_, count)| *count > 0) else { return "0s".to_owned() };
    let parts: Vec<String> = units[first..]
        .iter()
        .take(2)
        .filter(|(_, count)| *count > 0)
        .map(|(unit, count)| format!("{count}{unit}"))
        .collect();
    parts.join(" ")
}

/// Returns the seconds of a duration, rounded to what two units can tell.
fn rounded(duration: Duration) -> u64 {
    let seconds = (duration + Duration::from_millis(500)).as_secs();
    match seconds {
        0..3_600 => seconds,
        3_600..86_400 => (seconds + 30) / 60 * 60,
        86_400.. => (seconds + 1_800) / 3_600 * 3_600,
    }
}

/// Returns how far a moment is from now, such as `in 42m` or `3d 4h ago`.
pub fn relative(at: Timestamp, now: Timestamp) -> String {
    let distance: SignedDuration = at.duration_since(now);
    let length = duration(distance.unsigned_abs());
    match length.as_str() {
        "0s" => "now".to_owned(),
        _ if distance.is_negative() => format!("{length} ago"),
        _ => format!("in {length}"),
    }
}

/// Returns how far a moment is from now and when it is, such as `in 42m (2026-11-22 17:14:12 UTC)`.
pub fn moment(at: Timestamp, now: Timestamp) -> String {
    format!("{} ({})", relative(at, now), date(at))
}

/// Returns a moment to the second, in UTC.
pub fn date(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Returns the threshold of a metric with its unit: `80%`, or the shortest of `200ms` and `1500us` for queue times.
pub fn threshold(metric: &str, value: i64) -> String {
    match metric {
        "queueTime" if value != 0 && value % 1_000_000 == 0 => format!("{}s", value / 1_000_000),
        "queueTime" if value != 0 && value % 1_000 == 0 => format!("{}ms", value / 1_000),
        "queueTime" => format!("{value}us"),
        _ => format!("{value}%"),
    }
}

/// Returns a count with its noun, which gets an `s` where the count is not one.
pub fn count(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_told_in_the_largest_unit_of_which_there_is_one() {
        for (count, words) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (3 << 19, "1.5 MiB"),
            (16 << 30, "16.0 GiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(bytes(count), words);
        }
    }

    #[test]
    fn a_duration_is_told_in_its_two_largest_units() {
        for (seconds, words) in [
            (0, "0s"),
            (3_599, "59m 59s"),
            (7_199, "2h"),
            (86_399, "1d"),
            (59, "59s"),
            (60, "1m"),
            (61, "1m 1s"),
            (3_600, "1h"),
            (3_605, "1h"),
            (5_400, "1h 30m"),
            (86_400, "1d"),
            (180_000, "2d 2h"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), words, "{seconds} s");
        }
    }

    #[test]
    fn a_moment_is_told_by_its_distance() {
        let now: Timestamp = "2026-11-22T16:00:00Z".parse().unwrap();
        for (at, words) in [
            ("2026-11-22T16:42:00Z", "in 42m"),
            ("2026-11-22T15:59:30Z", "30s ago"),
            ("2026-11-22T16:00:00.4Z", "now"),
        ] {
            assert_eq!(relative(at.parse().unwrap(), now), words);
        }
        assert_eq!(moment("2026-11-22T17:00:00Z".parse().unwrap(), now), "in 1h (2026-11-22 17:00:00 UTC)");
    }

    #[test]
    fn a_threshold_is_told_in_the_largest_unit_that_keeps_it_whole() {
        for (metric, value, words) in [
            ("cpuUtilization", 80, "80%"),
            ("queueTime", 200_000, "200ms"),
            ("queueTime", 2_000_000, "2s"),
            ("queueTime", 1_500, "1500us"),
            ("queueTime", 0, "0us"),
        ] {
            assert_eq!(threshold(metric, value), words);
        }
    }
}
