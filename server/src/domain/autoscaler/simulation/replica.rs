//! One replica of a simulation: what waits before it, what it serves each second, and what its pages of metrics tell.

use std::collections::{BTreeMap, VecDeque};

use jiff::{SignedDuration, Timestamp};

use super::{Arrivals, Service, Timing, moment};
use crate::domain::autoscaler::recording::{Family, Scrape, Series, Window};
use crate::domain::scaling::MetricName;

/// Percent of its capacity up to which waiting by chance is reckoned; above, the backlog tells.
pub(super) const STEADY_PERCENT: u32 = 95;

pub(super) struct Replica {
    pub name: String,
    pub created: i64,
    /// Second from which its containers run.
    pub runs: i64,
    /// Second from which it serves.
    pub ready: i64,
    /// Requests that wait: the second of their arrival, and how many.
    backlog: VecDeque<(i64, f64)>,
    completed: f64,
    waited_us: f64,
    /// Share of the last second in which it served.
    pub busy: f64,
    busy_since_scrape: f64,
    window: Window,
    recorded: VecDeque<Recorded>,
}

/// What is known of a replica after a scrape.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recorded {
    pub at: i64,
    pub queue_time: Option<f64>,
    pub gpu: Option<f64>,
    pub gpu_memory: Option<f64>,
    /// Mean share of the time since the scrape before.
    pub busy: f64,
}

/// Requests that were taken from the queue in one second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Served {
    pub requests: f64,
    pub wait_seconds: f64,
}

impl Replica {
    pub fn new(number: u32, created: i64, cold_seconds: (i64, i64), timing: &Timing) -> Self {
        let (pending, loading) = cold_seconds;
        Self {
            name: format!("replica-{number}"),
            created,
            runs: created + pending,
            ready: created + pending + loading,
            backlog: VecDeque::new(),
            completed: 0.0,
            waited_us: 0.0,
            busy: 0.0,
            busy_since_scrape: 0.0,
            window: Window::new(SignedDuration::from_secs(timing.window_seconds.into())),
            recorded: VecDeque::new(),
        }
    }

    /// Requests that wait.
    pub fn waiting(&self) -> f64 {
        self.backlog.iter().map(|(_, requests)| requests).sum()
    }

    /// Lets a second pass in which so many requests arrive, and tells each group that it serves to `note`.
    pub fn serve(&mut self, second: i64, arriving: f64, service: &Service, mut note: impl FnMut(Served)) {
        if arriving > 0.0 {
            self.backlog.push_back((second, arriving));
        }
        let capacity = service.capacity();
        let by_chance = wait_by_chance(arriving / capacity, service);
        let mut left = capacity;
        while left > 0.0
            && let Some((arrived, waiting)) = self.backlog.pop_front()
        {
            let requests = waiting.min(left);
            left -= requests;
            if waiting > requests {
                self.backlog.push_front((arrived, waiting - requests));
            }
            let wait_seconds = (second - arrived) as f64 + by_chance;
            self.completed += requests;
            self.waited_us += requests * wait_seconds * 1e6;
            note(Served { requests, wait_seconds });
        }
        self.busy = 1.0 - left / capacity;
        self.busy_since_scrape += self.busy;
    }

    /// Has its page read, and the rules evaluated.
    pub fn scrape(&mut self, second: i64, service: &Service, timing: &Timing) {
        let values = [
            (Family::QueueDuration, self.waited_us),
            (Family::Success, self.completed),
            (Family::Pending, self.waiting().round()),
            (Family::GpuUtilization, self.busy),
            (Family::GpuMemoryUsed, service.gpu_memory_percent.unwrap_or(0.0)),
            (Family::GpuMemoryTotal, 100.0),
        ];
        let series = |family| Series { family, labels: String::new() };
        let values: BTreeMap<_, _> =
            values.into_iter().map(|(family, value)| (series(family), value)).collect();
        let at = moment(second);
        self.window.push(Scrape { at, values: Some(values) });
        let value = |metric| self.window.value(metric, at);
        self.recorded.push_back(Recorded {
            at: second,
            queue_time: value(MetricName::QueueTime),
            gpu: value(MetricName::GpuUtilization),
            gpu_memory: value(MetricName::GpuMemoryUtilization),
            busy: self.busy_since_scrape / f64::from(timing.scrape_seconds),
        });
        self.busy_since_scrape = 0.0;
    }

    /// What an autoscaler learns of it at a moment that lies before now, no earlier than those that were asked for before.
    pub fn recorded(&mut self, second: i64) -> Option<Recorded> {
        while self.recorded.get(1).is_some_and(|next| next.at <= second) {
            self.recorded.pop_front();
        }
        self.recorded.front().filter(|recorded| recorded.at <= second).copied()
    }

    pub fn created_at(&self) -> Timestamp {
        moment(self.created)
    }
}

/// Mean wait of requests that arrive at random while there is no backlog: Sakasegawa's approximation for a service that always
/// takes as long.
fn wait_by_chance(load: f64, service: &Service) -> f64 {
    let servers = f64::from(service.served_at_once);
    let load = load.min(f64::from(STEADY_PERCENT) / 100.0);
    match service.arrivals {
        Arrivals::Even => 0.0,
        Arrivals::Random => {
            let crowding = load.powf((2.0 * (servers + 1.0)).sqrt() - 1.0) / (servers * (1.0 - load));
            service.seconds_per_request * crowding / 2.0
        }
    }
}
