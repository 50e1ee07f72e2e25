//! Reads metrics in the text format of Prometheus, as Triton writes them.

/// One sample of a page.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample<'a> {
    /// Name of the family.
    pub name: &'a str,
    /// Labels as they stand between the braces.
    pub labels: &'a str,
    /// Value, which may be no number.
    pub value: f64,
}

/// Returns the samples of a page in its order. Comments and what is no sample are left out.
pub(super) fn samples(page: &str) -> impl Iterator<Item = Sample<'_>> {
    page.lines().filter_map(sample)
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => rest.split_at_checked(end_of_labels(rest)?)?,
        None => ("", rest),
    };
    let rest = rest.strip_prefix('}').unwrap_or(rest);
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    (!name.is_empty()).then_some(Sample { name, labels, value })
}

/// Returns where the brace stands that ends labels: not one within quotes.
fn end_of_labels(text: &str) -> Option<usize> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.bytes().position(|byte| {
        if std::mem::take(&mut is_escaped) {
            return false;
        }
        match byte {
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b'}' if !is_quoted => return true,
            _ => {}
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_whatever_their_labels_hold() {
        let read = |line| sample(line).map(|sample| (sample.name, sample.labels, sample.value));
        let table = [
            ("up 1", Some(("up", "", 1.0))),
            ("up{} 2", Some(("up", "", 2.0))),
            (
                r#"a{model="x",version="1"} 1.5e+03 1395066363000"#,
                Some(("a", r#"model="x",version="1""#, 1500.0)),
            ),
            (r#"a{model="} 9"} 3"#, Some(("a", r#"model="} 9""#, 3.0))),
            (r#"a{model="\"} 9\\"} 3"#, Some(("a", r#"model="\"} 9\\""#, 3.0))),
            (r#"a{b="1"}7"#, Some(("a", r#"b="1""#, 7.0))),
            ("a +Inf", Some(("a", "", f64::INFINITY))),
            ("# HELP a one", None),
            ("a", None),
            ("a x", None),
            (r#"a{b="1" 7"#, None),
            (r#"{b="1"} 7"#, None),
            ("", None),
        ];
        for (line, expected) in table {
            assert_eq!(read(line), expected, "{line}");
        }
        assert!(sample("a NaN").is_some_and(|sample| sample.value.is_nan()));
        assert_eq!(
            samples("# TYPE a counter\na 1\n\nb 2\n").map(|sample| sample.name).collect::<Vec<_>>(),
            ["a", "b"]
        );
    }
}
