//! A picture of the traces, which browsers show in light and in dark.

use std::fmt::Write as _;

use super::trace::{Row, Trace};
use super::{MAXIMUM, RUSH};

const WIDTH: f64 = 760.0;
const LEFT: f64 = 36.0;
const RIGHT: f64 = 724.0;
/// Heights of a provider's parts: its title, replicas and load, a gap, the queue, the axis of time.
const TITLE: f64 = 24.0;
const REPLICAS: f64 = 84.0;
const GAP: f64 = 8.0;
const QUEUE: f64 = 36.0;
const AXIS: f64 = 26.0;
const PANEL: f64 = TITLE + REPLICAS + GAP + QUEUE + AXIS;
const LEGEND: f64 = 22.0;
/// Load at the upper edge, in requests per second.
const HIGHEST_LOAD: f64 = 40.0;
/// Seconds over which the load is averaged.
const SMOOTH: usize = 5;

const STYLE: &str = "\
text { font: 11px system-ui, sans-serif; fill: #57606a } .title { font-weight: 600; fill: #1f2328 } \
.load { fill: #8c959f; opacity: .3 } .grid { stroke: #8c959f; opacity: .35; stroke-width: .5 } \
.wanted, .ready, .queue { fill: none; stroke-width: 1.6 } \
.wanted { stroke: #bf8700; stroke-dasharray: 4 3 } .ready { stroke: #0969da } .queue { stroke: #cf222e } \
@media (prefers-color-scheme: dark) { text { fill: #9198a1 } .title { fill: #f0f6fc } .wanted { stroke: #d29922 } \
.ready { stroke: #58a6ff } .queue { stroke: #ff7b72 } }";

/// Draws each trace under the one before.
pub fn draw(traces: &[Trace]) -> String {
    let height = LEGEND + PANEL * traces.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\" aria-label=\"Replicas of a lease under load\">\n<style>{STYLE}</style>\n"
    );
    legend(&mut svg);
    for (index, trace) in traces.iter().enumerate() {
        let _ = writeln!(svg, "<g transform=\"translate(0 {})\">", LEGEND + PANEL * index as f64);
        panel(&mut svg, trace);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

fn legend(svg: &mut String) {
    let entries =
        [("wanted", "replicas wanted"), ("ready", "replicas ready"), ("queue", "queue time"), ("load", "")];
    for (index, (class, name)) in entries.into_iter().enumerate() {
        let x = LEFT + 150.0 * index as f64;
        if class == "load" {
            let _ = writeln!(svg, "<rect class=\"load\" x=\"{x}\" y=\"6\" width=\"24\" height=\"8\"/>");
            text(svg, x + 30.0, 14.0, "start", "", &format!("load, 0 to {HIGHEST_LOAD:.0} requests/s"));
        } else {
            let _ = writeln!(svg, "<path class=\"{class}\" d=\"M{x} 10h24\"/>");
            text(svg, x + 30.0, 14.0, "start", "", name);
        }
    }
}

fn panel(svg: &mut String, trace: &Trace) {
    let last = trace.rows.last().map_or(1, |row| row.second) as f64;
    let x = |second: i64| LEFT + (RIGHT - LEFT) * second as f64 / last;
    text(svg, LEFT, TITLE - 9.0, "start", "title", &title(trace));

    let bottom = TITLE + REPLICAS;
    let replicas_y = |replicas: u32| bottom - REPLICAS * f64::from(replicas) / f64::from(MAXIMUM + 1);
    for replicas in 0..=MAXIMUM {
        let y = replicas_y(replicas);
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>");
        text(svg, LEFT - 6.0, y + 4.0, "end", "", &replicas.to_string());
    }
    let load = smoothed(&trace.rows).map(|(second, load)| {
        format!("{:.1} {:.1}", x(second), bottom - REPLICAS * (load / HIGHEST_LOAD).min(1.0))
    });
    let load: Vec<_> = load.collect();
    let _ =
        writeln!(svg, "<path class=\"load\" d=\"M{LEFT} {bottom}L{}L{RIGHT} {bottom}z\"/>", load.join("L"));
    for (class, count) in [("wanted", (|row| row.desired) as fn(&Row) -> u32), ("ready", |row| row.ready)] {
        let steps =
            trace.rows.iter().map(|row| format!("H{:.1}V{:.1}", x(row.second), replicas_y(count(row))));
        let start = trace.rows.first().map_or(0, count);
        let steps: String = steps.collect();
        let _ = writeln!(svg, "<path class=\"{class}\" d=\"M{LEFT} {:.1}{steps}\"/>", replicas_y(start));
    }

    let bottom = bottom + GAP + QUEUE;
    let waits = || trace.rows.iter().filter_map(|row| Some((row.second, row.queue_us? / 1e6)));
    let longest = waits().map(|(_, wait)| wait).fold(0.1, f64::max);
    let points =
        waits().map(|(second, wait)| format!("{:.1} {:.1}", x(second), bottom - QUEUE * wait / longest));
    let points: Vec<_> = points.collect();
    let _ = writeln!(svg, "<path class=\"grid\" d=\"M{LEFT} {bottom}H{RIGHT}\"/>");
    let _ = writeln!(svg, "<path class=\"queue\" d=\"M{}\"/>", points.join("L"));
    text(svg, LEFT - 6.0, bottom + 4.0, "end", "", "0");
    text(svg, LEFT - 6.0, bottom - QUEUE + 9.0, "end", "", &format!("{longest:.0} s"));
    for second in (0..=last as i64).step_by(30) {
        text(svg, x(second), bottom + 15.0, "middle", "", &format!("{second} s"));
    }
}

fn title(trace: &Trace) -> String {
    let after = |moment: Option<i64>| {
        moment.map_or("never".to_owned(), |second| format!("after {} s", second - RUSH.0))
    };
    format!(
        "{}: decided {}, a new replica ready {}, {} of {} requests failed",
        trace.provider,
        after(trace.decided()),
        after(trace.ready()),
        trace.failed,
        trace.requests
    )
}

/// The mean load of the seconds around each.
fn smoothed(rows: &[Row]) -> impl Iterator<Item = (i64, f64)> {
    rows.iter().enumerate().map(|(index, row)| {
        let around = &rows[index.saturating_sub(SMOOTH / 2)..(index + SMOOTH / 2 + 1).min(rows.len())];
        (row.second, around.iter().map(|row| row.sent as f64).sum::<f64>() / around.len() as f64)
    })
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, class: &str, words: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{words}</text>"
    );
}
