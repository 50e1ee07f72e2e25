//! Situations of an autoscaler that sees its lease for the first time: five and more for each branch of its algorithm.

use std::collections::BTreeMap;

use tms_server::domain::autoscaler::explanation::HoldKind;
use tms_server::domain::scaling::{
    Autoscaling, Behavior, MetricName, PolicyKind, ScalingPolicy, ScalingRules, SelectPolicy,
};

/// Microseconds at which queue time adds replicas, in every situation.
pub const QUEUE_TARGET: i64 = 10_000;
/// Percent at which the GPU adds replicas, where it does.
pub const GPU_TARGET: i64 = 80;
/// Percent at which the CPU adds replicas, where it does.
pub const CPU_TARGET: i64 = 60;
/// What each pod requests of the CPU, in thousandths.
pub const CPU_REQUEST_MILLI: i64 = 100;

const QUEUE: MetricName = MetricName::QueueTime;
const GPU: MetricName = MetricName::GpuUtilization;
const CPU: MetricName = MetricName::CpuUtilization;

/// What the source of a metric says of the pods, in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A value of each pod, in its unit; `None` where it has none.
    Values(Vec<Option<i64>>),
    /// An error.
    Fault,
}

/// A situation.
#[derive(Clone, Debug)]
pub struct Situation {
    /// The branch that it is about.
    pub branch: &'static str,
    /// Replicas, which are ready.
    pub replicas: u32,
    /// Pods beside them that no node takes.
    pub pending: u32,
    /// What was granted.
    pub autoscaling: Autoscaling,
    /// What each metric's source says.
    pub told: BTreeMap<MetricName, Told>,
    /// What must hold or clip the replicas; `None` where nothing may.
    pub hold: Option<HoldKind>,
}

impl Situation {
    fn new(branch: &'static str, values: &[i64], hold: Option<HoldKind>) -> Self {
        let values: Vec<_> = values.iter().map(|value| (*value >= 0).then_some(*value)).collect();
        let free = || rules(0, SelectPolicy::Max, &[(PolicyKind::Pods, 100, 15)]);
        Self {
            branch,
            replicas: u32::try_from(values.len()).expect("a few"),
            pending: 0,
            autoscaling: Autoscaling {
                minimum: 1,
                maximum: 20,
                metrics: BTreeMap::from([(QUEUE, QUEUE_TARGET)]),
                behavior: Behavior { scale_up: free(), scale_down: free() },
                triggers: Vec::new(),
            },
            told: BTreeMap::from([(QUEUE, Told::Values(values))]),
            hold,
        }
    }

    fn between(mut self, minimum: u32, maximum: u32) -> Self {
        (self.autoscaling.minimum, self.autoscaling.maximum) = (minimum, maximum);
        self
    }

    fn up(mut self, rules: ScalingRules) -> Self {
        self.autoscaling.behavior.scale_up = rules;
        self
    }

    fn down(mut self, rules: ScalingRules) -> Self {
        self.autoscaling.behavior.scale_down = rules;
        self
    }

    fn pending(mut self, pods: u32) -> Self {
        self.pending = pods;
        self
    }

    fn with(mut self, metric: MetricName, target: i64, told: Told) -> Self {
        self.autoscaling.metrics.insert(metric, target);
        self.told.insert(metric, told);
        self
    }

    fn without_queue(mut self) -> Self {
        self.autoscaling.metrics.remove(&QUEUE);
        self.told.remove(&QUEUE);
        self
    }
}

/// No value, where a pod has none.
const NONE: i64 = -1;

fn rules(window: u32, select_policy: SelectPolicy, policies: &[(PolicyKind, u32, u32)]) -> ScalingRules {
    let policy = |&(kind, value, period_seconds): &(PolicyKind, u32, u32)| ScalingPolicy {
        kind,
        value,
        period_seconds,
    };
    ScalingRules {
        stabilization_window_seconds: window,
        select_policy,
        policies: policies.iter().map(policy).collect(),
        tolerance_milli: None,
    }
}

fn pods(value: u32) -> ScalingRules {
    rules(0, SelectPolicy::Max, &[(PolicyKind::Pods, value, 60)])
}

fn percent(value: u32) -> ScalingRules {
    rules(0, SelectPolicy::Max, &[(PolicyKind::Percent, value, 60)])
}

/// Every situation.
pub fn all() -> Vec<Situation> {
    [by_value(), by_pods(), by_several(), by_bounds(), by_policy(), by_window()].concat()
}

fn by_value() -> Vec<Situation> {
    let mut all = Vec::new();
    for values in
        [&[10_000, 10_000][..], &[9_100, 9_000], &[10_900, 11_000], &[5_000, 14_500], &[9_001], &[10_999]]
    {
        all.push(Situation::new("tolerance", values, Some(HoldKind::Tolerance)));
    }
    for values in [&[40_000, 50_000][..], &[11_100], &[25_000], &[13_000, 12_000, 11_000], &[20_000, 20_000]]
    {
        all.push(Situation::new("up", values, None));
    }
    for values in
        [&[2_000, 2_000, 2_000][..], &[4_000, 4_000], &[8_000, 8_500, 1_000], &[5_000; 4], &[6_600; 3]]
    {
        all.push(Situation::new("down", values, None));
    }
    for values in [[70, 80], [30, 20], [60, 62], [100, 90], [10, 50]] {
        let used = values.map(|percent| Some(percent * CPU_REQUEST_MILLI / 100)).to_vec();
        let hold = (values == [60, 62]).then_some(HoldKind::Tolerance);
        let situation = Situation::new("cpu", &[0, 0], hold).without_queue();
        all.push(situation.with(CPU, CPU_TARGET, Told::Values(used)));
    }
    all
}

fn by_pods() -> Vec<Situation> {
    let mut all = Vec::new();
    for values in [
        &[40_000, 50_000, NONE][..],
        &[30_000, NONE],
        &[60_000, NONE, NONE],
        &[25_000, 25_000, NONE],
        &[90_000, NONE],
    ] {
        all.push(Situation::new("missing, up", values, Some(HoldKind::Missing)));
    }
    for values in [
        &[2_000, 2_000, 2_000, NONE][..],
        &[0, NONE, NONE, NONE],
        &[1_000, 1_000, NONE],
        &[0, 0, NONE],
        &[3_000, 1_000, 2_000, 2_000, NONE],
    ] {
        all.push(Situation::new("missing, down", values, Some(HoldKind::Missing)));
    }
    for (values, pending) in [
        (&[40_000][..], 1),
        (&[50_000, 30_000], 1),
        (&[30_000, 30_000], 2),
        (&[90_000], 2),
        (&[25_000, 35_000], 1),
    ] {
        all.push(Situation::new("pending, up", values, Some(HoldKind::Unready)).pending(pending));
    }
    for (values, pending) in [
        (&[2_000, 2_000][..], 1),
        (&[1_000, 1_000, 1_000], 1),
        (&[4_000, 4_000], 2),
        (&[0, 0], 1),
        (&[3_000, 2_000, 1_000], 2),
    ] {
        all.push(Situation::new("pending, down", values, Some(HoldKind::Unready)).pending(pending));
    }
    for values in [
        &[12_000, NONE, NONE][..],
        &[15_000, NONE, NONE],
        &[13_000, 13_000, NONE, NONE, NONE],
        &[20_000, NONE, NONE, NONE],
        &[11_500, NONE],
    ] {
        all.push(Situation::new("uncertain", values, Some(HoldKind::Uncertain)));
    }
    for replicas in 1..=5 {
        let mut situation = Situation::new("no value", &vec![NONE; replicas], Some(HoldKind::Blocked));
        if replicas % 2 == 0 {
            situation.told.insert(QUEUE, Told::Fault);
        }
        all.push(situation);
    }
    all
}

fn by_several() -> Vec<Situation> {
    let mut all = Vec::new();
    for values in [&[1_000, 1_000][..], &[2_000, 3_000, 1_000], &[0, 0], &[5_000, 5_000, 5_000], &[4_000; 4]]
    {
        let situation = Situation::new("blocked", values, Some(HoldKind::Blocked));
        all.push(situation.with(GPU, GPU_TARGET, Told::Fault));
    }
    for values in [&[30_000][..], &[20_000, 25_000], &[40_000, 10_000], &[15_000; 3], &[12_000, 13_000]] {
        let situation = Situation::new("one fails, up", values, Some(HoldKind::Invalid));
        all.push(situation.with(GPU, GPU_TARGET, Told::Fault));
    }
    for (queue, gpu) in [
        ([30_000, 30_000], [90, 100]),
        ([5_000, 5_000], [100, 100]),
        ([12_000, 12_000], [20, 20]),
        ([0, 0], [70, 50]),
        ([20_000, 20_000], [95, 99]),
    ] {
        let values = gpu.map(Some).to_vec();
        let situation = Situation::new("largest wins", &queue, None);
        all.push(situation.with(GPU, GPU_TARGET, Told::Values(values)));
    }
    all
}

fn by_bounds() -> Vec<Situation> {
    let (most, least) = (Some(HoldKind::Maximum), Some(HoldKind::Minimum));
    let mut all = Vec::new();
    for (values, maximum) in [
        (&[90_000][..], 4),
        (&[50_000, 50_000], 3),
        (&[30_000, 30_000], 2),
        (&[20_000; 3], 5),
        (&[99_000], 2),
    ] {
        all.push(Situation::new("maximum", values, most).between(1, maximum));
    }
    for (values, minimum) in
        [(&[0, 0][..], 1), (&[0, 0, 0], 2), (&[1_000; 4], 3), (&[2_000, 2_000], 2), (&[500; 5], 4)]
    {
        all.push(Situation::new("minimum", values, least).between(minimum, 8));
    }
    for (replicas, maximum) in [(4, 2), (3, 1), (5, 4), (2, 1), (4, 3)] {
        all.push(Situation::new("above maximum", &vec![10_000; replicas], most).between(1, maximum));
    }
    for (replicas, minimum) in [(1, 2), (1, 3), (2, 4), (2, 3), (3, 5)] {
        all.push(Situation::new("below minimum", &vec![10_000; replicas], least).between(minimum, 8));
    }
    all
}

fn by_policy() -> Vec<Situation> {
    let policy = Some(HoldKind::Policy);
    let mut all = Vec::new();
    for (values, value) in [
        (&[90_000][..], 1),
        (&[90_000], 2),
        (&[50_000, 40_000], 1),
        (&[40_000, 40_000], 3),
        (&[30_000; 3], 2),
    ] {
        all.push(Situation::new("pods, up", values, policy).up(pods(value)));
    }
    for (values, value) in [
        (&[90_000][..], 100),
        (&[50_000, 50_000], 50),
        (&[30_000; 3], 10),
        (&[90_000, 90_000], 100),
        (&[40_000, 40_000], 20),
    ] {
        all.push(Situation::new("percent, up", values, policy).up(percent(value)));
    }
    for (values, value) in
        [(&[0, 0, 0][..], 1), (&[1_000; 4], 1), (&[1_000; 4], 2), (&[0; 5], 3), (&[2_000; 3], 1)]
    {
        all.push(Situation::new("pods, down", values, policy).down(pods(value)));
    }
    for (values, value) in
        [(&[0; 4][..], 50), (&[0; 5], 20), (&[1_000; 4], 25), (&[2_000; 5], 40), (&[0; 3], 10)]
    {
        all.push(Situation::new("percent, down", values, policy).down(percent(value)));
    }
    for values in [&[90_000][..], &[60_000, 60_000], &[40_000; 3], &[30_000, 30_000], &[80_000]] {
        let both = [(PolicyKind::Pods, 1, 60), (PolicyKind::Percent, 300, 60)];
        let smallest = rules(0, SelectPolicy::Min, &both);
        all.push(Situation::new("smallest policy", values, policy).up(smallest));
    }
    for values in [&[90_000][..], &[20_000, 20_000], &[13_000; 3], &[50_000], &[30_000, 40_000]] {
        let none = rules(0, SelectPolicy::Disabled, &[(PolicyKind::Pods, 4, 60)]);
        all.push(Situation::new("disabled, up", values, Some(HoldKind::Disabled)).up(none));
    }
    for values in [&[0, 0][..], &[1_000; 3], &[2_000; 4], &[0, 0, 0], &[4_000, 4_000]] {
        let none = rules(0, SelectPolicy::Disabled, &[(PolicyKind::Pods, 4, 60)]);
        all.push(Situation::new("disabled, down", values, Some(HoldKind::Disabled)).down(none));
    }
    all
}

/// At first sight the replicas there are count as a recommendation.
fn by_window() -> Vec<Situation> {
    let held = Some(HoldKind::Stabilization);
    let window = || rules(300, SelectPolicy::Max, &[(PolicyKind::Pods, 100, 15)]);
    let mut all = Vec::new();
    for values in [&[0, 0][..], &[1_000; 3], &[2_000; 4], &[5_000, 5_000], &[8_000, 2_000, 1_000]] {
        all.push(Situation::new("window, down", values, held).down(window()));
    }
    for values in [&[90_000][..], &[20_000, 20_000], &[13_000; 3], &[15_000, 12_000], &[30_000]] {
        all.push(Situation::new("window, up", values, held).up(window()));
    }
    all
}
