//! What the recording rules of a lease mean, computed from samples of one pod's Triton: the same numbers that Prometheus makes
//! of them. Only a pod that was sampled once has none here, where Prometheus may record an idle 0.

use std::collections::{BTreeMap, VecDeque};

use jiff::{SignedDuration, Timestamp};

use crate::domain::scaling::MetricName;

/// A figure of Triton that the rules read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Microseconds that completed requests waited; a counter.
    QueueDuration,
    /// Requests completed; a counter.
    Success,
    /// Requests that wait now.
    Pending,
    /// GPU, 0 to 1.
    GpuUtilization,
    /// GPU memory in use, bytes.
    GpuMemoryUsed,
    /// GPU memory, bytes.
    GpuMemoryTotal,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 6] = [
        Self::QueueDuration,
        Self::Success,
        Self::Pending,
        Self::GpuUtilization,
        Self::GpuMemoryUsed,
        Self::GpuMemoryTotal,
    ];

    /// Its name on Triton's page of metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::QueueDuration => "nv_inference_queue_duration_us",
            Self::Success => "nv_inference_request_success",
            Self::Pending => "nv_inference_pending_request_count",
            Self::GpuUtilization => "nv_gpu_utilization",
            Self::GpuMemoryUsed => "nv_gpu_memory_used_bytes",
            Self::GpuMemoryTotal => "nv_gpu_memory_total_bytes",
        }
    }

    /// The family of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name)
    }
}

/// One series of a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Series {
    /// What it counts.
    pub family: Family,
    /// Its labels as on the page, in one order: the model and its version, or the GPU.
    pub labels: String,
}

/// One look at a pod's page of metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Scrape {
    /// When.
    pub at: Timestamp,
    /// What was there, finite numbers; `None` where the pod did not answer.
    pub values: Option<BTreeMap<Series, f64>>,
}

/// The samples of one pod that still count.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    length: SignedDuration,
    scrapes: VecDeque<Scrape>,
}

impl Window {
    /// An empty window of the length that the rules of the lease have.
    pub fn new(length: SignedDuration) -> Self {
        Self { length, scrapes: VecDeque::new() }
    }

    /// Takes a scrape in, later than those before, and forgets those that no longer count.
    pub fn push(&mut self, scrape: Scrape) {
        let cutoff = scrape.at - self.length;
        while self.scrapes.front().is_some_and(|oldest| oldest.at <= cutoff) {
            self.scrapes.pop_front();
        }
        self.scrapes.push_back(scrape);
    }

    /// When the pod was looked at last.
    pub fn latest(&self) -> Option<Timestamp> {
        self.scrapes.back().map(|scrape| scrape.at)
    }

    /// Returns the value that the rule of `metric` yields `now`; `None` where it yields none, where too little is known of the
    /// pod, and for metrics that are no figures of Triton.
    pub fn value(&self, metric: MetricName, now: Timestamp) -> Option<f64> {
        let answered = self.counting(now).filter(|scrape| scrape.values.is_some()).count();
        if answered < 2 {
            return None;
        }
        match metric {
            MetricName::QueueTime => self.queue_time(now),
            MetricName::GpuUtilization => self.gpu_utilization(now),
            MetricName::GpuMemoryUtilization => self.gpu_memory(now),
            MetricName::CpuUtilization | MetricName::MemoryUtilization => None,
        }
    }

    /// Microseconds per request that completed; 0 where none did and none waits.
    fn queue_time(&self, now: Timestamp) -> Option<f64> {
        let rates = |family| self.of(family, now, |samples| rate(samples, self.length, now));
        let waited = sum(rates(Family::QueueDuration).into_values());
        let completed = sum(rates(Family::Success).into_values()).filter(|rate| *rate > 0.0);
        if let (Some(waited), Some(completed)) = (waited, completed) {
            return Some(waited / completed);
        }
        let newest = self.counting(now).last()?;
        let pending = newest.values.iter().flatten().filter(|(series, _)| series.family == Family::Pending);
        sum(pending.map(|(_, value)| *value)).filter(|pending| *pending == 0.0)
    }

    fn gpu_utilization(&self, now: Timestamp) -> Option<f64> {
        let busy =
            self.of(Family::GpuUtilization, now, |samples| mean(samples.iter().map(|(_, value)| *value)));
        mean(busy.into_values()).map(|busy| 100.0 * busy)
    }

    fn gpu_memory(&self, now: Timestamp) -> Option<f64> {
        let means = |family| self.of(family, now, |samples| mean(samples.iter().map(|(_, value)| *value)));
        let (used, total) = (means(Family::GpuMemoryUsed), means(Family::GpuMemoryTotal));
        let has_memory = total.into_iter().filter(|(_, total)| *total > 0.0);
        let shares = has_memory.filter_map(|(gpu, total)| Some(used.get(gpu)? / total));
        mean(shares).map(|share| 100.0 * share)
    }

    /// What `measure` makes of each series of a family, by its labels.
    fn of(
        &self,
        family: Family,
        now: Timestamp,
        measure: impl Fn(&[(Timestamp, f64)]) -> Option<f64>,
    ) -> BTreeMap<&str, f64> {
        let mut all: BTreeMap<&str, Vec<(Timestamp, f64)>> = BTreeMap::new();
        for scrape in self.counting(now) {
            let series = scrape.values.iter().flatten().filter(|(series, _)| series.family == family);
            for (series, value) in series {
                all.entry(series.labels.as_str()).or_default().push((scrape.at, *value));
            }
        }
        all.into_iter().filter_map(|(labels, samples)| Some((labels, measure(&samples)?))).collect()
    }

    /// The scrapes in the window that ends now: its beginning is outside of it, as in Prometheus.
    fn counting(&self, now: Timestamp) -> impl Iterator<Item = &Scrape> {
        let cutoff = now - self.length;
        self.scrapes.iter().filter(move |scrape| cutoff < scrape.at && scrape.at <= now)
    }
}

/// A counter's increase per second, as Prometheus' `rate` has it: what a fall took away is added again, and the increase is
/// carried to the ends of the window, unless the series seems to begin or end within it, or would fall below zero.
fn rate(samples: &[(Timestamp, f64)], length: SignedDuration, now: Timestamp) -> Option<f64> {
    let ((first_at, first), (last_at, last)) = (*samples.first()?, *samples.last()?);
    if samples.len() < 2 {
        return None;
    }
    let steps = samples.windows(2).map(|pair| (pair[0].1, pair[1].1));
    let lost: f64 = steps.filter(|(before, after)| after < before).map(|(before, _)| before).sum();
    let increase = last - first + lost;

    let sampled = seconds_between(first_at, last_at);
    let step = sampled / (samples.len() - 1) as f64;
    let reach = |gap: f64| if gap >= step * 1.1 { step / 2.0 } else { gap };
    let mut before = reach(seconds_between(now - length, first_at));
    if increase > 0.0 && first >= 0.0 {
        before = before.min(sampled * (first / increase));
    }
    let after = reach(seconds_between(last_at, now));
    Some(increase * ((sampled + before + after) / sampled) / length.as_secs_f64())
}

fn seconds_between(start: Timestamp, end: Timestamp) -> f64 {
    end.duration_since(start).as_millis() as f64 / 1000.0
}

fn sum(values: impl Iterator<Item = f64>) -> Option<f64> {
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_usize), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
    }

    type Values<'a> = Option<&'a [(Family, f64)]>;

    /// The value a minute after the beginning, with a window of a minute and these samples, all of one model or GPU.
    fn value(metric: MetricName, scrapes: &[(i64, Values)]) -> Option<f64> {
        let mut window = Window::new(SignedDuration::from_secs(60));
        for (at, values) in scrapes {
            let series =
                |(family, value): &(Family, f64)| (Series { family: *family, labels: String::new() }, *value);
            let values = values.map(|values| values.iter().map(series).collect());
            window.push(Scrape { at: second(*at), values });
        }
        window.value(metric, second(60))
    }

    #[test]
    fn a_pod_that_was_sampled_once_has_no_value_and_never_an_idle_one() {
        let idle: &[_] = &[(Family::Success, 0.0), (Family::QueueDuration, 0.0), (Family::Pending, 0.0)];
        let queue_time = |scrapes: &[_]| value(MetricName::QueueTime, scrapes);
        assert_eq!(queue_time(&[]), None, "never");
        assert_eq!(queue_time(&[(60, Some(idle))]), None, "once");
        assert_eq!(
            queue_time(&[(30, None), (45, None), (60, Some(idle))]),
            None,
            "once, after it did not answer"
        );
        assert_eq!(queue_time(&[(0, Some(idle)), (60, Some(idle))]), None, "once in this window");
        assert_eq!(queue_time(&[(45, Some(idle)), (60, Some(idle))]), Some(0.0), "twice");
        assert_eq!(
            queue_time(&[(30, Some(idle)), (45, Some(idle)), (60, None)]),
            None,
            "it does not answer now"
        );
        let gpu: &[_] = &[(Family::GpuUtilization, 0.0)];
        assert_eq!(value(MetricName::GpuUtilization, &[(60, Some(gpu))]), None, "once");
        assert_eq!(
            value(MetricName::GpuUtilization, &[(45, Some(gpu)), (60, Some(gpu))]),
            Some(0.0),
            "twice"
        );
    }

    #[test]
    fn extrapolation_cancels_where_a_pod_has_counted_for_long() {
        let of = |completed, waited, pending| {
            [(Family::Success, completed), (Family::QueueDuration, waited), (Family::Pending, pending)]
        };
        let cases = [
            (of(1000.0, 9e6, 3.0), of(1010.0, 9e6 + 50_000.0, 3.0), Some(5_000.0), "five milliseconds each"),
            (of(1000.0, 9e6, 0.0), of(1001.0, 9e6, 0.0), Some(0.0), "no wait"),
            (of(1000.0, 9e6, 0.0), of(1000.0, 9e6, 0.0), Some(0.0), "idle"),
            (of(1000.0, 9e6, 0.0), of(1000.0, 9e6, 1.0), None, "one that takes long: not idle"),
            (of(1000.0, 9e6, 0.0), of(0.0, 0.0, 0.0), Some(0.0), "it began anew, and is idle"),
        ];
        for (before, after, expected, why) in cases {
            let value = value(MetricName::QueueTime, &[(15, Some(&before)), (60, Some(&after))]);
            let rounded = value.map(|value| (value * 1000.0).round() / 1000.0);
            assert_eq!(rounded, expected, "{why}");
        }
    }

    #[test]
    fn families_are_found_by_their_names() {
        assert!(Family::ALL.iter().all(|family| Family::from_name(family.name()) == Some(*family)));
        assert_eq!(Family::from_name("nv_cpu_utilization"), None);
    }
}
