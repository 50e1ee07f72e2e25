//! `domain::autoscaler::recording` against Prometheus: pods made up from a seed, with models that come and go, counters that
//! begin anew and scrapes that fail, must have the same values by both.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tms_server::domain::autoscaler::recording::{Family, Scrape, Series, Window};
use tms_server::domain::bounds::GpuSource;
use tms_server::domain::scaling::MetricName;
use tms_tests::random::Random;

use super::{GPU, GPU_MEMORY, ID, QUEUE, promtool, rule_file, run, write};

const PODS: u64 = 150;
const STEP_SECONDS: i64 = 15;
const WINDOW_SECONDS: i64 = 60;
/// Scrapes of a pod, and those after which its values are compared.
const SCRAPES: i64 = 24;
const COMPARED: [i64; 6] = [8, 9, 12, 15, 19, 23];
/// What both are rounded to.
const NEAREST: f64 = 0.0007;

#[test]
fn what_is_computed_from_samples_is_what_prometheus_records() {
    let Some(promtool) = promtool() else { return };
    let pods: Vec<_> = (0..PODS).map(|seed| (format!("pod-{seed}"), scrapes(seed))).collect();
    let metrics = [
        (MetricName::QueueTime, QUEUE),
        (MetricName::GpuUtilization, GPU),
        (MetricName::GpuMemoryUtilization, GPU_MEMORY),
    ];
    let mut seen = BTreeMap::new();
    let mut compared = Vec::new();
    for (metric, record) in metrics {
        for after in COMPARED {
            let values = pods.iter().map(|(pod, scrapes)| (pod, value(scrapes, metric, after)));
            let values: Vec<_> = values.collect();
            for (_, value) in &values {
                let kind = value.map_or("none", |value| if value == 0.0 { "zero" } else { "more" });
                *seen.entry((record, kind)).or_insert(0) += 1;
            }
            compared.push(comparison(record, after, &values));
        }
    }
    assert!(seen.len() == 9 && seen.values().all(|count| *count >= 10), "too tame: {seen:?}");
    let tests = json!({
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "15s",
        "fuzzy_compare": true,
        "tests": [{
            "interval": "15s",
            "input_series": pods.iter().flat_map(|(pod, scrapes)| input(pod, scrapes)).collect::<Vec<_>>(),
            "promql_expr_test": compared,
        }],
    });
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path(), "rules.yaml", &rule_file(GpuSource::Triton, "nvidia.com/gpu"));
    let tests = write(folder.path(), "tests.yaml", &tests.to_string());
    run(&promtool, &["test", "rules"], &tests);
}

/// The value of a pod at the moment of a scrape, from what was sampled until then.
fn value(scrapes: &[Scrape], metric: MetricName, after: i64) -> Option<f64> {
    let now = moment(after);
    let mut window = Window::new(SignedDuration::from_secs(WINDOW_SECONDS));
    scrapes.iter().filter(|scrape| scrape.at <= now).for_each(|scrape| window.push(scrape.clone()));
    window.value(metric, now)
}

fn comparison(record: &str, after: i64, values: &[(&String, Option<f64>)]) -> Value {
    // Prometheus adds in another order, so the last digits differ. No value lies in the middle of two multiples of this.
    let rounded = |value: f64| (value * (1.0 / NEAREST) + 0.5).floor() / (1.0 / NEAREST);
    let sample = |(pod, value): &(&String, Option<f64>)| {
        let labels = format!(r#"{{namespace="tms",pod="{pod}",tms_lease_id="{ID}"}}"#);
        value.map(|value| json!({"labels": labels, "value": rounded(value)}))
    };
    json!({
        "expr": format!("round({record}, {NEAREST})"),
        "eval_time": format!("{}s", after * STEP_SECONDS),
        "exp_samples": values.iter().filter_map(sample).collect::<Vec<_>>(),
    })
}

/// The same samples as promtool reads them: where a series is gone, Prometheus marks it as stale.
fn input(pod: &str, scrapes: &[Scrape]) -> Vec<Value> {
    let mut all: Vec<_> =
        scrapes.iter().filter_map(|scrape| scrape.values.as_ref()).flat_map(BTreeMap::keys).collect();
    all.sort();
    all.dedup();
    let text = |series: &Series| {
        let mut was_there = false;
        let word = |after| {
            let scrape = scrapes.iter().find(|scrape| scrape.at == moment(after));
            let value = scrape.and_then(|scrape| scrape.values.as_ref()?.get(series));
            let is_gone = std::mem::replace(&mut was_there, value.is_some()) && value.is_none();
            value.map_or(if is_gone { "stale" } else { "_" }.to_owned(), |value| format!("{value}"))
        };
        (0..SCRAPES).map(word).collect::<Vec<_>>().join(" ")
    };
    let labels = |series: &Series| super::of_triton(series.family.name(), pod, &series.labels);
    all.into_iter().map(|series| json!({"series": labels(series), "values": text(series)})).collect()
}

/// What is sampled of one pod: each scrape 15 seconds after the other.
fn scrapes(seed: u64) -> Vec<Scrape> {
    let random = &mut Random::new(seed + 1);
    let mut models: Vec<_> = (0..random.within(0..4)).map(|number| Model::new(number, random)).collect();
    let gpus: Vec<_> = (0..random.within(0..5)).map(|number| Gpu::new(number, random)).collect();
    let first = random.within(0..6) as i64;
    let mut has_failed = false;
    (first..SCRAPES)
        .map(|after| {
            if chance(random, 4) {
                models.iter_mut().for_each(Model::restart);
            }
            models.iter_mut().for_each(|model| model.serve(random));
            // Two failures in a row would leave a pod with too few samples for ours.
            has_failed = !has_failed && chance(random, 8);
            let mut values = BTreeMap::new();
            models.iter().for_each(|model| model.tell(&mut values));
            gpus.iter().for_each(|gpu| gpu.tell(&mut values, random));
            Scrape { at: moment(after), values: (!has_failed).then_some(values) }
        })
        .collect()
}

struct Model {
    labels: String,
    pace: u64,
    completed: u64,
    waited: u64,
    pending: u64,
    is_loaded: bool,
}

impl Model {
    fn new(number: u64, random: &mut Random) -> Self {
        let gpu = if chance(random, 50) { format!(r#",gpu_uuid="GPU-{number}""#) } else { String::new() };
        Self {
            labels: format!(r#"model="model-{number}",version="1"{gpu}"#),
            pace: *random.one_of(&[0, 0, 1, 3, 200]).expect("a pace"),
            completed: random.within(0..500),
            waited: random.within(0..3_000_000),
            pending: 0,
            is_loaded: !chance(random, 10),
        }
    }

    fn restart(&mut self) {
        (self.completed, self.waited) = (0, 0);
    }

    fn serve(&mut self, random: &mut Random) {
        let requests = random.within(0..self.pace + 1);
        self.completed += requests;
        self.waited += (0..requests).map(|_| random.within(0..50_000)).sum::<u64>();
        self.pending = if chance(random, 15) { random.within(1..9) } else { 0 };
        if chance(random, 3) {
            self.is_loaded = !self.is_loaded;
            self.restart();
        }
    }

    fn tell(&self, values: &mut BTreeMap<Series, f64>) {
        if !self.is_loaded {
            return;
        }
        let mut tell = |family, labels: &str, value: u64| {
            values.insert(Series { family, labels: labels.to_owned() }, value as f64);
        };
        tell(Family::Success, &self.labels, self.completed);
        tell(Family::QueueDuration, &self.labels, self.waited);
        // The gauge of waiting requests names no GPU.
        let labels = self.labels.split(",gpu_uuid").next().unwrap_or_default();
        tell(Family::Pending, labels, self.pending);
    }
}

struct Gpu {
    labels: String,
    total: u64,
    is_idle: bool,
}

impl Gpu {
    fn new(number: u64, random: &mut Random) -> Self {
        let total = *random.one_of(&[0, 16_000_000_000, 80_000_000_000]).expect("a size");
        Self { labels: format!(r#"gpu_uuid="GPU-{number}""#), total, is_idle: chance(random, 30) }
    }

    fn tell(&self, values: &mut BTreeMap<Series, f64>, random: &mut Random) {
        let mut tell = |family, value: f64| {
            values.insert(Series { family, labels: self.labels.clone() }, value);
        };
        let busy = if self.is_idle { 0 } else { random.within(0..101) };
        if !chance(random, 5) {
            tell(Family::GpuUtilization, busy as f64 / 100.0);
        }
        tell(Family::GpuMemoryUsed, (self.total / 100 * busy) as f64);
        if !chance(random, 5) {
            tell(Family::GpuMemoryTotal, self.total as f64);
        }
    }
}

fn moment(after: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(after * STEP_SECONDS)
}

fn chance(random: &mut Random, percent: u64) -> bool {
    random.within(0..100) < percent
}
