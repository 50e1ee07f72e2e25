//! A trace of load: requests per second over time, from CSV.

use jiff::Timestamp;
use thiserror::Error;

/// Longest trace in seconds: 31 days.
const LONGEST: f64 = 31.0 * 86_400.0;

/// Requests per second over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    points: Vec<Point>,
    shape: Shape,
}

/// What happens between two lines of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The load goes straight from one to the next.
    Linear,
    /// The load of a line holds until the next.
    Step,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    seconds: f64,
    rate: f64,
}

/// Why a text is no trace. Lines count from 1, the header included.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Fault {
    /// A column is missing.
    #[error("line 1: there is no column {column}; the header names `time` and `requests_per_second`")]
    NoColumn {
        /// Its name.
        column: &'static str,
    },
    /// A field is missing or is not what its column holds.
    #[error("line {line}: {column} is {value:?}, allowed is {allowed}")]
    Malformed {
        /// The line.
        line: usize,
        /// The column.
        column: &'static str,
        /// What was there.
        value: String,
        /// What may be there.
        allowed: &'static str,
    },
    /// Time does not go on.
    #[error("line {line}: its time is not after that of the line before; sort the lines by time")]
    NotLater {
        /// The line.
        line: usize,
    },
    /// There is nothing to play.
    #[error("the trace has {lines} lines of load, at least 2 are needed: the last one is its end")]
    TooShort {
        /// Lines besides the header.
        lines: usize,
    },
    /// It would take too long.
    #[error("the trace lasts {seconds} seconds, at most {LONGEST} are allowed")]
    TooLong {
        /// Its length.
        seconds: f64,
    },
}

impl Trace {
    /// Reads CSV whose header names the columns `time` (seconds, or RFC 3339) and `requests_per_second`; others are left out.
    ///
    /// # Errors
    ///
    /// The text may be no trace.
    pub fn parse(text: &str, shape: Shape) -> Result<Self, Fault> {
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let header: Vec<_> = lines.next().map(|(_, line)| fields(line).collect()).unwrap_or_default();
        let column =
            |name| header.iter().position(|field| *field == name).ok_or(Fault::NoColumn { column: name });
        let (time, rate) = (column("time")?, column("requests_per_second")?);
        let points: Vec<_> =
            lines.map(|(index, line)| point(index + 1, line, time, rate)).collect::<Result<_, _>>()?;
        Self::new(points, shape)
    }

    fn new(points: Vec<(usize, Point)>, shape: Shape) -> Result<Self, Fault> {
        if let Some(pair) = points.windows(2).find(|pair| pair[1].1.seconds <= pair[0].1.seconds) {
            return Err(Fault::NotLater { line: pair[1].0 });
        }
        let mut points: Vec<_> = points.into_iter().map(|(_, point)| point).collect();
        let [first, .., last] = points.as_slice() else {
            return Err(Fault::TooShort { lines: points.len() });
        };
        let (begin, seconds) = (first.seconds, last.seconds - first.seconds);
        if seconds > LONGEST {
            return Err(Fault::TooLong { seconds });
        }
        points.iter_mut().for_each(|point| point.seconds -= begin);
        Ok(Self { points, shape })
    }

    /// Its length in whole seconds.
    pub fn seconds(&self) -> i64 {
        self.points.last().map_or(0, |last| last.seconds as i64)
    }

    /// Requests per second so many seconds after its beginning.
    pub fn rate_at(&self, seconds: f64) -> f64 {
        let next = self.points.partition_point(|point| point.seconds <= seconds);
        let before = self.points[next.saturating_sub(1)];
        match (self.shape, self.points.get(next)) {
            (Shape::Step, _) | (Shape::Linear, None) => before.rate,
            (Shape::Linear, Some(_)) if next == 0 => before.rate,
            (Shape::Linear, Some(after)) => {
                let part = (seconds - before.seconds) / (after.seconds - before.seconds);
                before.rate + part * (after.rate - before.rate)
            }
        }
    }
}

fn point(line: usize, text: &str, time: usize, rate: usize) -> Result<(usize, Point), Fault> {
    let fields: Vec<_> = fields(text).collect();
    let field = |index: usize| fields.get(index).copied().unwrap_or_default();
    let malformed =
        |column, value: &str, allowed| Fault::Malformed { line, column, value: value.to_owned(), allowed };
    let seconds = moment(field(time)).ok_or_else(|| {
        malformed("time", field(time), "a number of seconds or a time such as 2026-11-22T08:00:00Z")
    })?;
    let requests = number(field(rate)).filter(|rate| *rate >= 0.0);
    let rate = requests
        .ok_or_else(|| malformed("requests_per_second", field(rate), "a number that is not negative"))?;
    Ok((line, Point { seconds, rate }))
}

fn fields(line: &str) -> impl Iterator<Item = &str> {
    line.split(',').map(|field| field.trim().trim_matches('"'))
}

fn moment(text: &str) -> Option<f64> {
    let written = || text.parse::<Timestamp>().ok().map(|at| at.as_millisecond() as f64 / 1000.0);
    number(text).or_else(written)
}

fn number(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|number| number.is_finite())
}
