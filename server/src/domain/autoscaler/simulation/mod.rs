//! What an autoscaling request would have done under a trace of load: the algorithm of this module against replicas that are
//! modelled second by second. The same question always has the same answer.

mod answer;
mod replica;
mod trace;
mod waits;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use thiserror::Error;

pub use answer::{Assumption, Row, Simulation, Summary};
use replica::{Recorded, Replica};
pub use trace::{Fault, Shape, Trace};
use waits::Waits;

use super::Options;
use super::decision::{Autoscaler, Decision, Situation, decide};
use super::history::History;
use super::metric::{Metric, Phase, Pod, Ready, Requests, Resource, Sample, Samples, Scale, Source};
use crate::domain::scaling::{Autoscaling, MetricName};

/// What is to be simulated.
#[derive(Clone, Debug)]
pub struct Question {
    /// The autoscaling that is asked for, with a minimum of at least 1. It begins with that many replicas, warm.
    pub autoscaling: Autoscaling,
    /// The load.
    pub trace: Trace,
    /// What a replica can do.
    pub service: Service,
    /// When what is known.
    pub timing: Timing,
    /// The autoscaler's.
    pub options: Options,
}

/// What a replica can do.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Seconds that one request takes, without waiting; more than 0.
    pub seconds_per_request: f64,
    /// Requests that a replica serves at once: instances by batch size, at least 1.
    pub served_at_once: u32,
    /// Seconds from the decision until the containers of a new replica run.
    pub pending_seconds: u32,
    /// Seconds from there until it is ready.
    pub loading_seconds: u32,
    /// GPUs of a replica.
    pub gpus: u32,
    /// Percent of its CPU request that a replica uses while it is busy all the time; needed to scale on it.
    pub cpu_percent_when_busy: Option<f64>,
    /// Percent of its memory request that a replica uses always; needed to scale on it.
    pub memory_percent: Option<f64>,
    /// Percent of the GPU memory that a replica uses always; needed to scale on it.
    pub gpu_memory_percent: Option<f64>,
    /// How requests arrive within a second.
    pub arrivals: Arrivals,
}

/// How requests arrive within a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// One after the other, so that none waits while there is capacity.
    Even,
    /// Independently of each other, as from many clients, so that some wait by chance.
    Random,
}

/// When what is known, in seconds; each at least 1 besides the delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two looks at a replica's metrics.
    pub scrape_seconds: u32,
    /// Window of the recording rules.
    pub window_seconds: u32,
    /// Age of what the autoscaler is told.
    pub delay_seconds: u32,
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Refused {
    /// A number is out of its range.
    #[error("{field} is {value}, allowed is {allowed}")]
    OutOfRange {
        /// Which one.
        field: &'static str,
        /// Its value.
        value: f64,
        /// The range.
        allowed: &'static str,
    },
    /// The model says nothing of a metric.
    #[error("{metric} scales the lease, but {field} is not given: say how much of it a replica uses")]
    Unmodelled {
        /// The metric.
        metric: &'static str,
        /// What would tell.
        field: &'static str,
    },
}

impl Service {
    /// Requests per second of one replica.
    pub fn capacity(&self) -> f64 {
        f64::from(self.served_at_once) / self.seconds_per_request
    }
}

/// Plays the load, and returns what the autoscaler would have done.
///
/// # Errors
///
/// A number may be out of its range, or missing.
pub fn simulate(question: &Question) -> Result<Simulation, Refused> {
    check(question)?;
    let sync = question.options.sync_period.as_secs();
    let mut world = World::new(question);
    let mut simulation = Simulation::new(question);
    for second in 0..=question.trace.seconds() {
        world.pass(second);
        if second % sync == 0 {
            let decision = world.sync(second);
            simulation.rows.push(world.row(second, decision));
        }
    }
    simulation.summarize(question, &world.all_waits, world.waiting(), world.replica_seconds / 3600.0);
    Ok(simulation)
}

fn check(question: &Question) -> Result<(), Refused> {
    let Question { autoscaling, service, timing, options, .. } = question;
    let at_least = |field, value: f64, least: f64, allowed| {
        if value >= least { Ok(()) } else { Err(Refused::OutOfRange { field, value, allowed }) }
    };
    at_least(
        "minimum",
        autoscaling.minimum.into(),
        1.0,
        "1 or more: what wakes a lease at zero is not in the trace",
    )?;
    at_least("maximum", autoscaling.maximum.into(), autoscaling.minimum.into(), "the minimum or more")?;
    at_least("service seconds", service.seconds_per_request, 1e-6, "a microsecond or more")?;
    at_least("served at once", service.served_at_once.into(), 1.0, "1 or more")?;
    at_least("scrape interval", timing.scrape_seconds.into(), 1.0, "1 second or more")?;
    at_least("window", timing.window_seconds.into(), 1.0, "1 second or more")?;
    at_least("sync period", options.sync_period.as_secs() as f64, 1.0, "1 second or more")?;
    for metric in autoscaling.metrics.keys() {
        let (field, percent) = match metric {
            MetricName::CpuUtilization => ("the CPU of a busy replica", service.cpu_percent_when_busy),
            MetricName::MemoryUtilization => ("the memory of a replica", service.memory_percent),
            MetricName::GpuMemoryUtilization => ("the GPU memory of a replica", service.gpu_memory_percent),
            MetricName::GpuUtilization | MetricName::QueueTime => continue,
        };
        let percent = percent.ok_or(Refused::Unmodelled { metric: metric.key(), field })?;
        at_least(field, percent, 0.0, "0 percent or more")?;
    }
    Ok(())
}

struct World<'a> {
    question: &'a Question,
    autoscaler: Autoscaler,
    history: History,
    replicas: Vec<Replica>,
    /// Replicas that take no new requests and serve what waits before them.
    leaving: Vec<Replica>,
    created: u32,
    replica_seconds: f64,
    waits: Waits,
    all_waits: Waits,
}

impl<'a> World<'a> {
    fn new(question: &'a Question) -> Self {
        let mut world = Self {
            question,
            autoscaler: Autoscaler::from(&question.autoscaling),
            history: History::default(),
            replicas: Vec::new(),
            leaving: Vec::new(),
            created: 0,
            replica_seconds: 0.0,
            waits: Waits::default(),
            all_waits: Waits::default(),
        };
        for _ in 0..question.autoscaling.minimum {
            world.create(0, (0, 0));
        }
        world
    }

    fn create(&mut self, second: i64, cold_seconds: (i64, i64)) {
        self.created += 1;
        self.replicas.push(Replica::new(self.created, second, cold_seconds, &self.question.timing));
    }

    /// Lets a second pass.
    fn pass(&mut self, second: i64) {
        let Question { trace, service, timing, .. } = self.question;
        let ready = self.replicas.iter().filter(|replica| replica.ready <= second).count();
        let arriving = trace.rate_at(second as f64 + 0.5) / ready.max(1) as f64;
        let (waits, all_waits) = (&mut self.waits, &mut self.all_waits);
        let mut serve = |replica: &mut Replica, arriving| {
            replica.serve(second, arriving, service, |served| {
                waits.add(served.requests, served.wait_seconds * 1e6);
                all_waits.add(served.requests, served.wait_seconds * 1e6);
            });
        };
        for replica in self.replicas.iter_mut().filter(|replica| replica.ready <= second) {
            serve(replica, arriving);
            if second % i64::from(timing.scrape_seconds) == 0 {
                replica.scrape(second, service, timing);
            }
        }
        self.leaving.iter_mut().for_each(|replica| serve(replica, 0.0));
        self.replica_seconds += (self.replicas.len() + self.leaving.len()) as f64;
        self.leaving.retain(|replica| replica.waiting() > 0.0);
    }

    fn sync(&mut self, second: i64) -> Decision {
        let situation = self.situation(second);
        let options = &self.question.options;
        let decision = decide(&self.autoscaler, &situation, &mut self.history, options, moment(second));
        let wanted = usize::try_from(decision.replicas).unwrap_or(0);
        let Service { pending_seconds, loading_seconds, .. } = self.question.service;
        while self.replicas.len() < wanted {
            self.create(second, (pending_seconds.into(), loading_seconds.into()));
        }
        // The youngest go first, as with a ReplicaSet.
        self.leaving.extend(self.replicas.drain(wanted..).filter(|replica| replica.waiting() > 0.0));
        decision
    }

    fn situation(&mut self, second: i64) -> Situation {
        let pods = self.replicas.iter().map(|replica| pod(replica, second)).collect();
        let count = i32::try_from(self.replicas.len()).unwrap_or(i32::MAX);
        let known_at = second - i64::from(self.question.timing.delay_seconds);
        let recorded: Vec<_> = self
            .replicas
            .iter_mut()
            .filter_map(|replica| Some((replica.name.clone(), replica.recorded(known_at)?)))
            .collect();
        let metrics = self.question.autoscaling.metrics.iter();
        let metrics = metrics.map(|(name, threshold)| self.metric(*name, *threshold, &recorded)).collect();
        let scale = Scale { wanted: count, existing: count, pods };
        Situation { scale, metrics, was_scaled_to_zero: false }
    }

    fn metric(&self, name: MetricName, threshold: i64, recorded: &[(String, Recorded)]) -> Metric {
        let service = &self.question.service;
        let samples =
            |value: &dyn Fn(&Recorded) -> Option<f64>| Ok(samples(recorded, value, &self.question.timing));
        // Of a request of one unit, a percent is a hundredth.
        let share = |percent: Option<f64>| percent.map(|percent| percent / 100.0);
        let resource = |resource, samples| {
            let percent = i32::try_from(threshold).unwrap_or(i32::MAX);
            Source::Resource { resource, percent, samples }
        };
        let pods = |samples| Source::Pods { average_milli: threshold.saturating_mul(1000), samples };
        let source = match name {
            MetricName::CpuUtilization => resource(
                Resource::Cpu,
                samples(&|known| share(service.cpu_percent_when_busy).map(|share| known.busy * share)),
            ),
            MetricName::MemoryUtilization => {
                resource(Resource::Memory, samples(&|_| share(service.memory_percent)))
            }
            MetricName::GpuUtilization => pods(samples(&|known| known.gpu)),
            MetricName::GpuMemoryUtilization => pods(samples(&|known| known.gpu_memory)),
            MetricName::QueueTime => pods(samples(&|known| known.queue_time)),
        };
        Metric { name: name.key().to_owned(), source }
    }

    fn row(&mut self, second: i64, decision: Decision) -> Row {
        let ready: Vec<_> = self.replicas.iter().filter(|replica| replica.ready <= second).collect();
        let busy: f64 = ready.iter().map(|replica| replica.busy).sum();
        Row {
            second,
            requests_per_second: self.question.trace.rate_at(second as f64),
            replicas: decision.replicas,
            ready: ready.len(),
            queue_time_us: std::mem::take(&mut self.waits).mean_us(),
            utilization: busy / ready.len().max(1) as f64,
            waiting: self.waiting(),
            gpu_hours: self.replica_seconds * f64::from(self.question.service.gpus) / 3600.0,
            proposed: decision.proposed,
            effects: decision.effects,
        }
    }

    fn waiting(&self) -> f64 {
        self.replicas.iter().chain(&self.leaving).map(Replica::waiting).sum()
    }
}

fn pod(replica: &Replica, second: i64) -> Pod {
    let is_ready = replica.ready <= second;
    let since = if is_ready { moment(replica.ready) } else { replica.created_at() };
    Pod {
        name: replica.name.clone(),
        phase: if replica.runs <= second { Phase::Running } else { Phase::Pending },
        is_deleting: false,
        started_at: Some(replica.created_at()),
        ready: Some(Ready { is_ready: Some(is_ready), since }),
        requests: Requests::both(1000),
    }
}

fn samples(
    recorded: &[(String, Recorded)],
    value: &dyn Fn(&Recorded) -> Option<f64>,
    timing: &Timing,
) -> Samples {
    let window = SignedDuration::from_secs(timing.scrape_seconds.into());
    let sample = |(name, known): &(String, Recorded)| {
        let milli = (value(known)? * 1000.0) as i64;
        Some((name.clone(), Sample { milli, at: moment(known.at), window }))
    };
    recorded.iter().filter_map(sample).collect::<BTreeMap<_, _>>()
}

/// The moment so many seconds after the beginning.
fn moment(second: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
}
