//! Simulations as messages.

use tms_proto::v1;

use super::answer::autoscaling;
use super::explain::count;
use crate::domain::autoscaler::simulation::{Question, Row, Simulation, Summary};

/// Returns what would have been, in at most so many rows.
pub fn simulation(question: &Question, played: &Simulation, most_rows: usize) -> v1::SimulateResponse {
    let together = played.rows.len().div_ceil(most_rows.max(1)).max(1);
    v1::SimulateResponse {
        autoscaling: Some(autoscaling(&question.autoscaling)),
        rows: played.rows.chunks(together).map(row).collect(),
        summary: Some(summary(question, &played.summary)),
        assumptions: played.assumptions.iter().map(|assumption| assumption.text.clone()).collect(),
        warnings: Vec::new(),
    }
}

/// One row of several that follow each other.
fn row(rows: &[Row]) -> v1::SimulatedRow {
    let mean = |value: fn(&Row) -> f64| rows.iter().map(value).sum::<f64>() / rows.len() as f64;
    let last = rows.last().expect("a chunk has a row");
    v1::SimulatedRow {
        second: last.second,
        requests_per_second: mean(|row| row.requests_per_second),
        replicas: count(rows.iter().map(|row| row.replicas).max().unwrap_or(0)),
        ready: u32::try_from(last.ready).unwrap_or(u32::MAX),
        queue_time_us: rows.iter().filter_map(|row| row.queue_time_us).max_by(f64::total_cmp),
        utilization: mean(|row| row.utilization),
        waiting: last.waiting,
        proposed: last.proposed.map(count),
        holds: last.effects.iter().map(ToString::to_string).collect(),
    }
}

fn summary(question: &Question, summary: &Summary) -> v1::SimulationSummary {
    v1::SimulationSummary {
        seconds: question.trace.seconds(),
        requests: summary.requests,
        waiting_at_end: summary.waiting_at_end,
        mean_queue_time_us: summary.mean_queue_time_us,
        queue_time_50_us: summary.queue_time_50_us,
        queue_time_95_us: summary.queue_time_95_us,
        queue_time_99_us: summary.queue_time_99_us,
        longest_queue_time_us: summary.longest_queue_time_us,
        most_replicas: count(summary.most_replicas),
        mean_replicas: summary.mean_replicas,
        changes: u32::try_from(summary.changes).unwrap_or(u32::MAX),
        gpu_hours: summary.gpu_hours,
        share_over_target: summary.share_over_target,
        replica_hours: summary.replica_hours,
    }
}
