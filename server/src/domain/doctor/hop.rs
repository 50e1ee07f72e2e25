//! The hops of the chain, in their order, and what each hangs on.

/// A hop of the chain, in the order in which figures go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hop {
    /// The cluster serves PodMonitor, PrometheusRule and Prometheus.
    MonitoringKinds,
    /// There is a Prometheus object.
    Prometheus,
    /// It selects our PodMonitors by their labels.
    PodMonitorLabels,
    /// It takes PodMonitors from the namespace of the leases.
    PodMonitorNamespace,
    /// It selects our PrometheusRules by their labels.
    RuleLabels,
    /// It takes PrometheusRules from the namespace of the leases.
    RuleNamespace,
    /// Prometheus answers questions.
    PrometheusApi,
    /// It scrapes every replica of the lease.
    Target,
    /// It has what the rules read, of every replica.
    Series,
    /// The rules are loaded and yield one series for each replica.
    Rule,
    /// custom.metrics.k8s.io is served, by whom it should.
    CustomMetricsApi,
    /// It has a value for every replica.
    CustomMetric,
    /// metrics.k8s.io is served and has a value for every replica.
    ResourceMetrics,
    /// Every replica requests what its use is a percentage of.
    Requests,
    /// The autoscaler says that it can scale.
    Autoscaler,
    /// No other autoscaler selects the same pods.
    AmbiguousSelector,
    /// A node can take every replica.
    Scheduling,
    /// KEDA is there.
    Keda,
}

impl Hop {
    /// Every hop, in order.
    pub const ALL: [Self; 18] = [
        Self::MonitoringKinds,
        Self::Prometheus,
        Self::PodMonitorLabels,
        Self::PodMonitorNamespace,
        Self::RuleLabels,
        Self::RuleNamespace,
        Self::PrometheusApi,
        Self::Target,
        Self::Series,
        Self::Rule,
        Self::CustomMetricsApi,
        Self::CustomMetric,
        Self::ResourceMetrics,
        Self::Requests,
        Self::Autoscaler,
        Self::AmbiguousSelector,
        Self::Scheduling,
        Self::Keda,
    ];

    /// Its name for machines.
    pub fn key(self) -> &'static str {
        match self {
            Self::MonitoringKinds => "monitoringKinds",
            Self::Prometheus => "prometheus",
            Self::PodMonitorLabels => "podMonitorLabels",
            Self::PodMonitorNamespace => "podMonitorNamespace",
            Self::RuleLabels => "ruleLabels",
            Self::RuleNamespace => "ruleNamespace",
            Self::PrometheusApi => "prometheusApi",
            Self::Target => "target",
            Self::Series => "series",
            Self::Rule => "rule",
            Self::CustomMetricsApi => "customMetricsApi",
            Self::CustomMetric => "customMetric",
            Self::ResourceMetrics => "resourceMetrics",
            Self::Requests => "requests",
            Self::Autoscaler => "autoscaler",
            Self::AmbiguousSelector => "ambiguousSelector",
            Self::Scheduling => "scheduling",
            Self::Keda => "keda",
        }
    }

    /// Its name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::MonitoringKinds => "kinds of Prometheus Operator",
            Self::Prometheus => "Prometheus object",
            Self::PodMonitorLabels => "labels of PodMonitors",
            Self::PodMonitorNamespace => "namespace of PodMonitors",
            Self::RuleLabels => "labels of PrometheusRules",
            Self::RuleNamespace => "namespace of PrometheusRules",
            Self::PrometheusApi => "Prometheus answers",
            Self::Target => "replicas are scraped",
            Self::Series => "series of Triton",
            Self::Rule => "recording rules",
            Self::CustomMetricsApi => "custom.metrics.k8s.io",
            Self::CustomMetric => "values of custom metrics",
            Self::ResourceMetrics => "metrics.k8s.io",
            Self::Requests => "requests of replicas",
            Self::Autoscaler => "HorizontalPodAutoscaler",
            Self::AmbiguousSelector => "one autoscaler for each pod",
            Self::Scheduling => "nodes for replicas",
            Self::Keda => "KEDA",
        }
    }

    /// What it hangs on.
    pub(super) fn needs(self) -> &'static [Self] {
        match self {
            Self::MonitoringKinds
            | Self::CustomMetricsApi
            | Self::ResourceMetrics
            | Self::Requests
            | Self::AmbiguousSelector
            | Self::Scheduling
            | Self::Keda => &[],
            Self::Prometheus => &[Self::MonitoringKinds],
            Self::PodMonitorLabels
            | Self::PodMonitorNamespace
            | Self::RuleLabels
            | Self::RuleNamespace
            | Self::PrometheusApi => &[Self::Prometheus],
            Self::Target => &[Self::PodMonitorLabels, Self::PodMonitorNamespace, Self::PrometheusApi],
            Self::Series => &[Self::Target],
            Self::Rule => &[Self::Series, Self::RuleLabels, Self::RuleNamespace],
            Self::CustomMetric => &[Self::CustomMetricsApi, Self::Rule],
            Self::Autoscaler => &[
                Self::Rule,
                Self::CustomMetric,
                Self::ResourceMetrics,
                Self::Requests,
                Self::AmbiguousSelector,
                Self::Keda,
            ],
        }
    }

    pub(super) fn is_of_lease(self) -> bool {
        match self {
            Self::Target
            | Self::Series
            | Self::Rule
            | Self::CustomMetric
            | Self::Requests
            | Self::Autoscaler
            | Self::AmbiguousSelector
            | Self::Scheduling => true,
            Self::MonitoringKinds
            | Self::Prometheus
            | Self::PodMonitorLabels
            | Self::PodMonitorNamespace
            | Self::RuleLabels
            | Self::RuleNamespace
            | Self::PrometheusApi
            | Self::CustomMetricsApi
            | Self::ResourceMetrics
            | Self::Keda => false,
        }
    }

    pub(super) fn is_of_prometheus(self) -> bool {
        self <= Self::Rule
    }

    pub(super) fn is_of_custom_metrics(self) -> bool {
        matches!(self, Self::CustomMetricsApi | Self::CustomMetric)
    }
}
