//! What was seen each second.

use std::fmt::Write as _;

/// All of one provider.
pub struct Trace {
    pub provider: &'static str,
    pub rows: Vec<Row>,
    pub requests: u64,
    pub failed: usize,
    /// Milliseconds of a request that does not wait.
    pub service_ms: f64,
}

/// What was seen in one second.
pub struct Row {
    pub unix_second: i64,
    /// Since the beginning.
    pub second: i64,
    /// Requests sent in it.
    pub sent: u64,
    pub desired: u32,
    pub ready: u32,
    /// Mean wait of the requests that were answered, in microseconds.
    pub queue_us: Option<f64>,
}

impl Trace {
    /// When more replicas were first wanted.
    pub fn decided(&self) -> Option<i64> {
        self.first(|row| row.desired > 1)
    }

    /// When a new replica was first ready.
    pub fn ready(&self) -> Option<i64> {
        self.first(|row| row.ready > 1)
    }

    /// When so many were ready.
    pub fn all_ready(&self, replicas: u32) -> Option<i64> {
        self.first(|row| row.ready >= replicas)
    }

    /// When one replica was wanted again after this second.
    pub fn back(&self, after: i64) -> Option<i64> {
        self.first(|row| row.second >= after && row.desired == 1)
    }

    fn first(&self, is_so: impl Fn(&Row) -> bool) -> Option<i64> {
        self.rows.iter().find(|row| is_so(row)).map(|row| row.second)
    }
}

/// Writes traces as CSV, which `tmsctl lease simulate --load` reads as well, of one provider.
pub fn csv(traces: &[Trace]) -> String {
    let mut text =
        "provider,time,requests_per_second,desired_replicas,ready_replicas,queue_time_us\n".to_owned();
    for trace in traces {
        for row in &trace.rows {
            let queue = row.queue_us.map_or(String::new(), |wait| format!("{wait:.0}"));
            let Row { second, sent, desired, ready, .. } = row;
            let _ = writeln!(text, "{},{second},{sent},{desired},{ready},{queue}", trace.provider);
        }
    }
    text
}
