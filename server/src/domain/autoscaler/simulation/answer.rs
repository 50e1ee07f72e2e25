//! What a simulation tells: a row for each sync, a summary, and what was assumed.

use serde::Serialize;

use super::replica::STEADY_PERCENT;
use super::waits::Waits;
use super::{Arrivals, Question};
use crate::domain::autoscaler::effect::Effect;
use crate::domain::scaling::MetricName;

/// What an autoscaling request would have done.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Simulation {
    /// What the model takes for granted.
    pub assumptions: Vec<Assumption>,
    /// One row for each sync.
    pub rows: Vec<Row>,
    /// All of it.
    pub summary: Summary,
}

/// Something that the model takes for granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Assumption {
    /// What it is about.
    pub subject: &'static str,
    /// A sentence.
    pub text: String,
}

/// What was at one sync.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Seconds since the beginning.
    pub second: i64,
    /// Load.
    pub requests_per_second: f64,
    /// Replicas from this sync on.
    pub replicas: i32,
    /// Replicas that serve.
    pub ready: usize,
    /// Mean wait in microseconds of the requests that were served since the last sync; `None` where there were none.
    pub queue_time_us: Option<f64>,
    /// Mean share of the replicas' capacity in use, 0 to 1.
    pub utilization: f64,
    /// Requests that wait.
    pub waiting: f64,
    /// GPU-hours used until now.
    pub gpu_hours: f64,
    /// Replicas that the metrics proposed; `None` where they could not be used or were not asked.
    pub proposed: Option<i32>,
    /// What held or clipped the decision.
    pub effects: Vec<Effect>,
}

/// A whole simulation in numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Requests served.
    pub requests: f64,
    /// Requests that waited still when it ended.
    pub waiting_at_end: f64,
    /// Mean wait in microseconds.
    pub mean_queue_time_us: f64,
    /// Wait in microseconds that half of the requests did not exceed, within a hundredth.
    pub queue_time_50_us: f64,
    /// Wait in microseconds that 95 of 100 requests did not exceed, within a hundredth.
    pub queue_time_95_us: f64,
    /// Wait in microseconds that 99 of 100 requests did not exceed, within a hundredth.
    pub queue_time_99_us: f64,
    /// Longest wait in microseconds.
    pub longest_queue_time_us: f64,
    /// Most replicas.
    pub most_replicas: i32,
    /// Mean of the replicas at the syncs.
    pub mean_replicas: f64,
    /// How often the number of replicas changed.
    pub changes: usize,
    /// GPU-hours used.
    pub gpu_hours: f64,
    /// Hours of replicas, from their creation until they are gone.
    pub replica_hours: f64,
    /// Share of the syncs at which a metric was above its threshold, 0 to 1.
    pub share_over_target: f64,
}

impl Simulation {
    pub(super) fn new(question: &Question) -> Self {
        Self { assumptions: assumptions(question), rows: Vec::new(), summary: Summary::default() }
    }

    pub(super) fn summarize(&mut self, question: &Question, waits: &Waits, waiting: f64, replica_hours: f64) {
        let over = self.rows.iter().filter(|row| row.is_over_target(question)).count();
        let replicas = || self.rows.iter().map(|row| row.replicas);
        self.summary = Summary {
            requests: waits.requests(),
            waiting_at_end: waiting,
            mean_queue_time_us: waits.mean_us().unwrap_or(0.0),
            queue_time_50_us: waits.quantile_us(0.5),
            queue_time_95_us: waits.quantile_us(0.95),
            queue_time_99_us: waits.quantile_us(0.99),
            longest_queue_time_us: waits.longest_us(),
            most_replicas: replicas().max().unwrap_or(0),
            mean_replicas: replicas().map(f64::from).sum::<f64>() / self.rows.len().max(1) as f64,
            changes: self.rows.windows(2).filter(|pair| pair[0].replicas != pair[1].replicas).count(),
            gpu_hours: self.rows.last().map_or(0.0, |row| row.gpu_hours),
            replica_hours,
            share_over_target: over as f64 / self.rows.len().max(1) as f64,
        };
    }
}

impl Row {
    /// Whether what a metric stands for was above its threshold, whatever the autoscaler knew of it then.
    fn is_over_target(&self, question: &Question) -> bool {
        let service = &question.service;
        question.autoscaling.metrics.iter().any(|(name, threshold)| {
            let value = match name {
                MetricName::CpuUtilization => {
                    service.cpu_percent_when_busy.map(|busy| busy * self.utilization)
                }
                MetricName::MemoryUtilization => service.memory_percent,
                MetricName::GpuUtilization => Some(100.0 * self.utilization),
                MetricName::GpuMemoryUtilization => service.gpu_memory_percent,
                MetricName::QueueTime => self.queue_time_us,
            };
            value.is_some_and(|value| value > *threshold as f64)
        })
    }
}

fn assumptions(question: &Question) -> Vec<Assumption> {
    let Question { autoscaling, service, timing, options, .. } = question;
    let cold = service.pending_seconds + service.loading_seconds;
    let arrivals = match service.arrivals {
        Arrivals::Even => "Requests arrive evenly, so that none waits while there is capacity.".to_owned(),
        Arrivals::Random => format!(
            "Requests arrive independently of each other: below {STEADY_PERCENT} % of the capacity some wait by chance \
             (Sakasegawa's approximation), above it the backlog tells."
        ),
    };
    let texts = [
        (
            "service",
            format!(
                "Each request takes {} s, and a replica serves {} at once: {:.1} requests per second, whatever the load.",
                service.seconds_per_request,
                service.served_at_once,
                service.capacity()
            ),
        ),
        ("arrivals", arrivals),
        (
            "balance",
            "Every ready replica gets the same share of new requests at once; what waits before one stays there.".to_owned(),
        ),
        ("clients", "Clients neither time out nor send less when it takes longer.".to_owned()),
        (
            "start",
            format!(
                "It begins with {} warm replicas; a new one serves after {cold} s ({} s until its containers run).",
                autoscaling.minimum, service.pending_seconds
            ),
        ),
        ("end", "The youngest replicas go first, and serve what waits before them.".to_owned()),
        (
            "metrics",
            format!(
                "Replicas are looked at every {} s, rules look back {} s, and the autoscaler, every {} s, learns what was known \
                 {} s before. A request counts when it is taken from the queue.",
                timing.scrape_seconds,
                timing.window_seconds,
                options.sync_period.as_secs(),
                timing.delay_seconds
            ),
        ),
        (
            "utilization",
            "A GPU is as busy as the replica's capacity is used; memory does not depend on the load.".to_owned(),
        ),
        (
            "cost",
            format!("{} GPUs per replica count from its creation until it is gone.", service.gpus),
        ),
    ];
    texts.into_iter().map(|(subject, text)| Assumption { subject, text }).collect()
}
