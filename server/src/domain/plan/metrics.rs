//! What an autoscaler reads for each metric, so that the rules that record it, whoever serves it and the autoscaler agree on its
//! name.

use crate::domain::scaling::MetricName;

/// Where an autoscaler reads a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A resource of the Triton container, in percent of its request.
    Container(&'static str),
    /// A series of the lease's rules, one value per pod.
    Recorded(&'static str),
}

/// Returns where an autoscaler reads `metric`.
pub fn source(metric: MetricName) -> Source {
    match metric {
        MetricName::CpuUtilization => Source::Container("cpu"),
        MetricName::MemoryUtilization => Source::Container("memory"),
        MetricName::GpuUtilization => Source::Recorded("tms_gpu_utilization"),
        MetricName::GpuMemoryUtilization => Source::Recorded("tms_gpu_memory_utilization"),
        MetricName::QueueTime => Source::Recorded("tms_avg_request_queue_duration"),
    }
}

/// Returns the series that holds `metric` for each pod; `None` where the cluster measures it itself.
pub fn series(metric: MetricName) -> Option<&'static str> {
    match source(metric) {
        Source::Container(_) => None,
        Source::Recorded(series) => Some(series),
    }
}

/// Returns the metric that a series of this name holds for each pod.
pub fn metric_of(name: &str) -> Option<MetricName> {
    MetricName::ALL.into_iter().find(|metric| series(*metric) == Some(name))
}
