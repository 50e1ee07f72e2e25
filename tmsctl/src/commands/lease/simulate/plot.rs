//! Bars of block characters, for a terminal.

/// Eighths of a character, from none to all.
const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Lines of a plot.
const HEIGHT: usize = 4;
/// Columns beside the bars: names, an axis, and the indentation of a section.
const MARGIN: usize = 16;
/// Columns of names.
const NAMES: usize = 11;

/// Returns values over time as bars within so many columns, the largest as high as the plot. Where there are more values than
/// columns, a column shows the largest of its own.
pub fn bars(name: &str, values: &[f64], width: usize, told: impl Fn(f64) -> String) -> String {
    let columns = width.saturating_sub(MARGIN).max(1);
    let columns = columned(values, columns);
    let most = columns.iter().copied().fold(0.0, f64::max);
    let mut text = String::new();
    for row in (0..HEIGHT).rev() {
        let label = match row {
            _ if row + 1 == HEIGHT => told(most),
            1 => name.to_owned(),
            0 => "0".to_owned(),
            _ => String::new(),
        };
        let bars: String = columns.iter().map(|value| part(*value, most, row)).collect();
        text += format!("{label:>NAMES$} │{bars}").trim_end();
        text.push('\n');
    }
    text
}

fn columned(values: &[f64], columns: usize) -> Vec<f64> {
    if values.is_empty() {
        return Vec::new();
    }
    let column = |index: usize| {
        let begin = index * values.len() / columns;
        let end = ((index + 1) * values.len() / columns).max(begin + 1);
        values[begin..end].iter().copied().fold(0.0, f64::max)
    };
    (0..columns).map(column).collect()
}

/// What a bar shows in one line, counted from below. Whatever is more than nothing can be seen.
fn part(value: f64, most: f64, row: usize) -> char {
    if most <= 0.0 || value <= 0.0 {
        return EIGHTHS[0];
    }
    let eighths = (value / most * (HEIGHT * 8) as f64).round().max(1.0) as usize;
    EIGHTHS[eighths.saturating_sub(row * 8).min(8)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(values: &[f64], width: usize) -> String {
        bars("replicas", values, width, |most| format!("{most:.0}"))
    }

    #[test]
    fn the_largest_is_as_high_as_the_plot_and_a_little_is_seen() {
        insta::assert_snapshot!(plot(&[0.0, 1.0, 2.0, 4.0, 0.01, 8.0], 22), @r"
                  8 │     █
                    │     █
           replicas │   █ █
                  0 │ ▄██▁█
        ");
    }

    #[test]
    fn more_values_than_columns_keep_their_peaks_and_fewer_are_drawn_out() {
        let mut values = vec![1.0; 1_000];
        values[503] = 9.0;
        let text = plot(&values, 56);
        assert!(text.lines().all(|line| line.chars().count() <= 56 - 2), "{text}");
        assert_eq!(text.lines().next().unwrap().matches('█').count(), 1, "{text}");
        let text = plot(&[1.0, 2.0], 36);
        assert_eq!(text.lines().next().unwrap().matches('█').count(), 10, "{text}");
    }

    #[test]
    fn nothing_is_a_plot_without_bars() {
        assert_eq!(plot(&[0.0, 0.0], 30).matches('█').count(), 0);
        assert_eq!(plot(&[], 0).lines().count(), HEIGHT);
    }
}
