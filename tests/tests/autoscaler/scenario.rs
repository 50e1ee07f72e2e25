//! Scenarios made up from a seed: an autoscaler, and what it finds at each of some syncs. Our own decisions carry a scenario on,
//! so that windows and policies are met as they are in life.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tms_server::domain::autoscaler::Options;
use tms_server::domain::autoscaler::decision::{Autoscaler, ConditionKind, Decision, Situation, decide};
use tms_server::domain::autoscaler::history::History;
use tms_server::domain::autoscaler::metric::{
    ExternalTarget, Metric, Phase, Pod, Ready, Requests, Resource, Sample, Samples, Scale, Source,
};
use tms_server::domain::scaling::{Behavior, PolicyKind, ScalingPolicy, ScalingRules, SelectPolicy};
use tms_tests::random::Random;

const BEGINNING: Timestamp = Timestamp::UNIX_EPOCH;

/// An autoscaler and its syncs.
pub struct Scenario {
    pub seed: u64,
    pub options: Options,
    autoscaler: Autoscaler,
    pub steps: Vec<Step>,
}

/// One sync: what it finds, and what we decide.
#[derive(Debug)]
pub struct Step {
    at: Timestamp,
    pub situation: Situation,
    pub decision: Decision,
}

/// Makes up the scenario of a seed.
pub fn scenario(seed: u64) -> Scenario {
    let random = &mut Random::new(seed.wrapping_mul(0x1234_5677) + 1);
    let has_scale_to_zero = chance(random, 25);
    let options = Options { has_scale_to_zero, ..Options::default() };
    let minimum = if has_scale_to_zero { 0 } else { 1 + pick(random, &[0, 0, 1, 2]) };
    let maximum = minimum.max(1) + pick(random, &[2, 5, 9, 20]);
    let behavior =
        (!chance(random, 20)).then(|| Behavior { scale_up: rules(random), scale_down: rules(random) });
    let autoscaler = Autoscaler { minimum, maximum, behavior };
    let kinds = kinds(random);
    let mut play = Play {
        at: BEGINNING,
        wanted: pick(random, &[1, 2, 3, 5]),
        made: 0,
        pods: Vec::new(),
        load: 100 + random.within(0..900) as i64,
        zero: false,
    };
    let mut history = History::default();
    let steps = (0..25)
        .map(|_| {
            let situation = play.next(&autoscaler, &kinds, random);
            let decision = decide(&autoscaler, &situation, &mut history, &options, play.at);
            play.follow(&decision);
            Step { at: play.at, situation, decision }
        })
        .collect();
    Scenario { seed, options, autoscaler, steps }
}

/// What there is between two syncs.
struct Play {
    at: Timestamp,
    wanted: i32,
    made: usize,
    pods: Vec<Pod>,
    /// What all pods together have to bear, in percent of one.
    load: i64,
    zero: bool,
}

impl Play {
    fn next(&mut self, autoscaler: &Autoscaler, kinds: &[Kind], random: &mut Random) -> Situation {
        self.at += SignedDuration::from_secs(pick(random, &[15, 15, 15, 15, 30, 45, 7, 120]));
        if chance(random, 25) {
            self.load = pick(random, &[0, 5, 40, 90, 110, 150, 240, 400, 900, 3000]);
        }
        // A person may interfere.
        if chance(random, 3) {
            self.wanted = pick(random, &[0, 1, autoscaler.maximum + 3, 4]);
        }
        self.age(random);
        let existing = self.wanted + if chance(random, 10) { pick(random, &[-1, 1]) } else { 0 };
        let metrics = kinds.iter().map(|kind| self.metric(*kind, random)).collect();
        let pods = if chance(random, 3) { Vec::new() } else { self.pods.clone() };
        let scale = Scale { wanted: self.wanted, existing: existing.max(0), pods };
        Situation { scale, metrics, was_scaled_to_zero: self.zero }
    }

    fn follow(&mut self, decision: &Decision) {
        self.wanted = decision.replicas;
        let set = decision.conditions.iter().find(|set| set.kind == ConditionKind::ScaledToZero);
        self.zero = set.map_or(self.zero, |set| set.status);
    }

    /// Pods come, start, become ready, fail and go.
    fn age(&mut self, random: &mut Random) {
        self.pods.retain(|pod| !pod.is_deleting);
        let wanted = usize::try_from(self.wanted).unwrap_or(0);
        while self.pods.len() < wanted {
            self.made += 1;
            let phase = if chance(random, 50) { Phase::Pending } else { Phase::Running };
            let is_ready = if chance(random, 10) { None } else { Some(chance(random, 60)) };
            let since = self.at - SignedDuration::from_secs(pick(random, &[0, 5, 20, 60, 400]));
            self.pods.push(Pod {
                name: format!("pod-{}", self.made),
                phase,
                is_deleting: false,
                started_at: (!chance(random, 5))
                    .then(|| since - SignedDuration::from_secs(pick(random, &[0, 10, 30, 60]))),
                ready: (!chance(random, 5)).then_some(Ready { is_ready, since }),
                requests: if chance(random, 1) {
                    Requests::default()
                } else {
                    Requests::both(pick(random, &[1000, 1000, 500]))
                },
            });
        }
        self.pods[wanted..].iter_mut().for_each(|pod| pod.is_deleting = true);
        for pod in &mut self.pods {
            if pod.phase == Phase::Pending && chance(random, 40) {
                pod.phase = Phase::Running;
            }
            if let Some(ready) = pod.ready.as_mut().filter(|ready| ready.is_ready != Some(true))
                && chance(random, 50)
            {
                *ready = Ready { is_ready: Some(true), since: self.at };
            }
            if chance(random, 2) {
                pod.phase = pick(random, &[Phase::Failed, Phase::Unknown, Phase::Succeeded, Phase::Running]);
            }
        }
    }

    fn metric(&self, kind: Kind, random: &mut Random) -> Metric {
        let source = match kind {
            Kind::Resource { resource, percent } => {
                let samples = self.answer(random, |milli| milli * i64::from(percent) / 100);
                Source::Resource { resource, percent, samples }
            }
            Kind::Pods { average_milli } => {
                let samples = self.answer(random, |milli| milli * average_milli / 1000);
                Source::Pods { average_milli, samples }
            }
            Kind::External(target) => {
                let one = match target {
                    ExternalTarget::Value(milli) => milli / i64::from(self.wanted.max(1)),
                    ExternalTarget::Average(milli) => milli,
                };
                let values = vec![self.load * one / 200, self.load * one / 200];
                let values = if chance(random, 5) { Vec::new() } else { values };
                Source::External { target, values: refused(random).map_or(Ok(values), Err) }
            }
        };
        Metric { name: kind.name().to_owned(), source }
    }

    /// A figure of each pod: `of` makes it of thousandths of what a pod bears at its target.
    fn answer(&self, random: &mut Random, of: impl Fn(i64) -> i64) -> Result<Samples, String> {
        if let Some(why) = refused(random) {
            return Err(why);
        }
        let running = self.pods.iter().filter(|pod| pod.phase != Phase::Pending);
        let share = self.load * 10 / (running.clone().count().max(1) as i64);
        let mut samples = Samples::new();
        let loses_many = chance(random, 10);
        for pod in running {
            if chance(random, if loses_many { 60 } else { 5 }) {
                continue;
            }
            let request = pod.requests.cpu_milli.unwrap_or(1000);
            let even = chance(random, 30);
            let milli = if even { share } else { share * (80 + random.within(0..40) as i64) / 100 };
            let milli = if chance(random, 3) { 1000 } else { milli };
            let age = SignedDuration::from_secs(pick(random, &[0, 5, 15, 40]));
            let window = SignedDuration::from_secs(pick(random, &[15, 30, 60]));
            let milli = of(milli) * request / 1000;
            samples.insert(pod.name.clone(), Sample { milli, at: self.at - age, window });
        }
        if chance(random, 3) {
            let gone = Sample { milli: of(share), at: self.at, window: SignedDuration::from_secs(15) };
            samples.insert("a-pod-that-is-gone".to_owned(), gone);
        }
        Ok(samples)
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Resource { resource: Resource, percent: i32 },
    Pods { average_milli: i64 },
    External(ExternalTarget),
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Resource { resource: Resource::Cpu, .. } => "cpu",
            Self::Resource { resource: Resource::Memory, .. } => "memory",
            Self::Pods { .. } => "queue",
            Self::External(ExternalTarget::Value(_)) => "length",
            Self::External(ExternalTarget::Average(_)) => "backlog",
        }
    }
}

fn kinds(random: &mut Random) -> Vec<Kind> {
    let percent = pick(random, &[50, 80, 90, 150]);
    let all = [
        Kind::Pods { average_milli: pick(random, &[10_000_000, 80_000, 1_000, 7]) },
        Kind::Resource { resource: Resource::Cpu, percent },
        Kind::Resource { resource: Resource::Memory, percent },
        Kind::External(ExternalTarget::Value(pick(random, &[10_000, 333]))),
        Kind::External(ExternalTarget::Average(pick(random, &[10_000, 333]))),
    ];
    let first = random.within(0..5) as usize;
    let count = pick(random, &[1, 1, 2, 3]);
    (0..count).map(|place| all[(first + place * 2) % all.len()]).collect()
}

fn rules(random: &mut Random) -> ScalingRules {
    let select_policy = if chance(random, 10) {
        SelectPolicy::Disabled
    } else {
        pick(random, &[SelectPolicy::Max, SelectPolicy::Min])
    };
    let count = pick(random, &[1, 1, 2]);
    let policies = (0..count).map(|_| ScalingPolicy {
        kind: pick(random, &[PolicyKind::Pods, PolicyKind::Percent]),
        value: pick(random, &[1, 2, 4, 50, 100]),
        period_seconds: pick(random, &[15, 30, 60, 120]),
    });
    ScalingRules {
        policies: policies.collect(),
        stabilization_window_seconds: pick(random, &[0, 0, 15, 30, 60, 300]),
        select_policy,
        tolerance_milli: if chance(random, 30) { Some(pick(random, &[0, 20, 50, 70, 300])) } else { None },
    }
}

impl Scenario {
    /// The scenario as the replay of the controller reads it.
    pub fn to_json(&self) -> Value {
        json!({
            "spec": self.spec(),
            "scaleToZero": self.options.has_scale_to_zero,
            "steps": self.steps.iter().map(step).collect::<Vec<_>>(),
        })
    }

    fn spec(&self) -> Value {
        let mut spec = json!({
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "lease"},
            "minReplicas": self.autoscaler.minimum,
            "maxReplicas": self.autoscaler.maximum,
            "metrics": self.steps[0].situation.metrics.iter().map(metric).collect::<Vec<_>>(),
        });
        if let Some(behavior) = &self.autoscaler.behavior {
            spec["behavior"] = json!(behavior);
            for (name, rules) in [("scaleUp", &behavior.scale_up), ("scaleDown", &behavior.scale_down)] {
                if let Some(milli) = rules.tolerance_milli {
                    spec["behavior"][name]["tolerance"] = milli_quantity(milli.into());
                }
            }
        }
        spec
    }
}

fn metric(metric: &Metric) -> Value {
    let name = json!({"name": metric.name});
    match &metric.source {
        Source::Resource { percent, .. } => json!({
            "type": "ContainerResource",
            "containerResource": {
                "name": metric.name,
                "container": "triton",
                "target": {"type": "Utilization", "averageUtilization": percent},
            },
        }),
        Source::Pods { average_milli, .. } => json!({
            "type": "Pods",
            "pods": {"metric": name, "target": {"type": "AverageValue", "averageValue": milli_quantity(*average_milli)}},
        }),
        Source::External { target: ExternalTarget::Value(milli), .. } => json!({
            "type": "External",
            "external": {"metric": name, "target": {"type": "Value", "value": milli_quantity(*milli)}},
        }),
        Source::External { target: ExternalTarget::Average(milli), .. } => json!({
            "type": "External",
            "external": {"metric": name, "target": {"type": "AverageValue", "averageValue": milli_quantity(*milli)}},
        }),
    }
}

fn milli_quantity(milli: i64) -> Value {
    format!("{milli}m").into()
}

fn step(step: &Step) -> Value {
    let Situation { scale, metrics, was_scaled_to_zero } = &step.situation;
    let answers: BTreeMap<_, _> =
        metrics.iter().map(|metric| (metric.name.clone(), answer(&metric.source))).collect();
    json!({
        "at": milliseconds(step.at),
        "wanted": scale.wanted,
        "existing": scale.existing,
        "scaledToZero": was_scaled_to_zero,
        "pods": scale.pods.iter().map(pod).collect::<Vec<_>>(),
        "answers": answers,
    })
}

fn answer(source: &Source) -> Value {
    match source {
        Source::Resource { samples: Err(why), .. }
        | Source::Pods { samples: Err(why), .. }
        | Source::External { values: Err(why), .. } => json!({"error": why}),
        Source::External { values: Ok(values), .. } => json!({"values": values}),
        Source::Resource { samples: Ok(samples), .. } | Source::Pods { samples: Ok(samples), .. } => {
            let sample = |sample: &Sample| json!({"milli": sample.milli, "at": milliseconds(sample.at), "window": sample.window.as_millis() as i64});
            let samples: BTreeMap<_, _> = samples.iter().map(|(pod, given)| (pod, sample(given))).collect();
            json!({"samples": samples})
        }
    }
}

fn pod(pod: &Pod) -> Value {
    let ready = match pod.ready.map(|ready| ready.is_ready) {
        None => "",
        Some(Some(true)) => "True",
        Some(Some(false)) => "False",
        Some(None) => "Unknown",
    };
    json!({
        "name": pod.name,
        "phase": format!("{:?}", pod.phase),
        "deleting": pod.is_deleting,
        "startedAt": pod.started_at.map(milliseconds),
        "ready": ready,
        "readySince": pod.ready.map_or(0, |ready| milliseconds(ready.since)),
        "request": pod.requests.cpu_milli,
    })
}

fn milliseconds(at: Timestamp) -> i64 {
    at.duration_since(BEGINNING).as_millis() as i64
}

fn refused(random: &mut Random) -> Option<String> {
    chance(random, 5).then(|| "the server is currently unable to handle the request".to_owned())
}

fn chance(random: &mut Random, percent: u64) -> bool {
    random.within(0..100) < percent
}

fn pick<T: Copy>(random: &mut Random, things: &[T]) -> T {
    *random.one_of(things).expect("there is something to choose from")
}
