//! What KEDA asks Prometheus for a lease: with the answer its autoscaler proposes as one that reads a value of each pod.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tms_server::domain::autoscaler::Options;
use tms_server::domain::autoscaler::metric::{
    ExternalTarget, Metric, Phase, Pod, Requests, Sample, Scale, Source,
};
use tms_server::domain::autoscaler::proposal::{Tolerances, propose};
use tms_server::domain::bounds::Provider;
use tms_server::domain::capabilities::Capabilities;
use tms_server::domain::lease::Lease;
use tms_server::domain::plan::{self, Kind, Settings};
use tms_server::domain::scaling::{MetricName, Scaling};
use tms_tests::random::Random;
use tms_tests::samples;

use super::{ID, QUEUE, promtool, run, write};

const THRESHOLD: i64 = 10_000;
/// Situations that are made up.
const SITUATIONS: u64 = 120;

/// The pods of a lease, each with its queue time or with none.
type Pods = Vec<Option<i64>>;

#[test]
fn keda_asks_prometheus_so_that_its_autoscaler_decides_as_ours() {
    let known: [&[Option<i64>]; 7] = [
        // The last of these is where a plain sum goes wrong: it would propose 2, and ours keeps 5.
        &[Some(40_000), Some(50_000)],
        &[Some(40_000), Some(50_000), None],
        &[Some(2_000), Some(2_000), Some(2_000), None],
        &[Some(0), None, None, None],
        &[Some(11_000), Some(11_000)],
        &[None, None],
        &[Some(20_000), None, None, None, None],
    ];
    let made_up = (0..SITUATIONS).map(|seed| pods(&mut Random::new(seed)));
    let situations: Vec<Pods> = known.iter().map(|pods| pods.to_vec()).chain(made_up).collect();
    let mut proposals = BTreeMap::new();
    for pods in &situations {
        let (ours, keda) = (of_each_pod(pods), asked(pods).map(|sum| of_sum(sum, pods.len())));
        // Without any value there is no proposal either way, and the replicas stay.
        assert_eq!(ours, keda.flatten(), "{pods:?}");
        *proposals.entry(ours.map(|ours| ours.cmp(&count(pods.len())))).or_insert(0) += 1;
    }
    assert!(proposals.len() == 4 && proposals.values().all(|count| *count >= 5), "too tame: {proposals:?}");

    let Some(promtool) = promtool() else { return };
    let query = query(1);
    let tests: Vec<_> = situations.iter().map(|pods| situation(&query, pods)).collect();
    let mut tests = json!({ "evaluation_interval": "15s", "tests": tests });
    let folder = tempfile::tempdir().expect("a temporary folder");
    run(&promtool, &["test", "rules"], &write(folder.path(), "tests.yaml", &tests.to_string()));

    // One that sleeps is idle and not unknown, but only to a Prometheus that has been there for a while.
    let query = self::query(0);
    let asleep = json!({ "expr": query, "eval_time": "6m", "exp_samples": [{ "labels": "{}", "value": 0 }] });
    let unsettled = json!({ "expr": query, "eval_time": "4m", "exp_samples": [] });
    let other = json!([{ "series": r#"up{job="other",namespace="tms",pod="other"}"#, "values": "1x40" }]);
    let sleepy = json!({ "interval": "15s", "input_series": other, "promql_expr_test": [asleep, unsettled] });
    let awake = situation(&query, &[Some(3_000), None]);
    let loading = situation(&query, &[None]);
    tests["tests"] = json!([sleepy, awake, loading]);
    run(&promtool, &["test", "rules"], &write(folder.path(), "tests.yaml", &tests.to_string()));
}

fn pods(random: &mut Random) -> Pods {
    let number = 1 + random.within(0..6);
    let largest = [5_000, 12_000, 40_000][usize::try_from(random.within(0..3)).expect("small")];
    (0..number)
        .map(|_| (random.within(0..3) > 0).then(|| i64::try_from(random.within(0..largest)).expect("small")))
        .collect()
}

/// What Prometheus is to answer.
fn asked(pods: &[Option<i64>]) -> Option<i64> {
    let values: Vec<_> = pods.iter().copied().flatten().collect();
    let (sum, all) = (values.iter().sum::<i64>(), count(pods.len()));
    let missing = i64::from(all) - i64::try_from(values.len()).expect("few");
    let supposed = (sum + THRESHOLD * missing).min(THRESHOLD * i64::from(all));
    (!values.is_empty()).then(|| sum.max(supposed))
}

fn of_each_pod(pods: &[Option<i64>]) -> Option<i32> {
    let sample = |(number, value): (usize, &Option<i64>)| {
        let window = SignedDuration::from_secs(60);
        let sample = Sample { milli: (*value)? * 1000, at: Timestamp::UNIX_EPOCH, window };
        Some((format!("pod-{number}"), sample))
    };
    let samples = pods.iter().enumerate().filter_map(sample).collect();
    proposed(Source::Pods { average_milli: THRESHOLD * 1000, samples: Ok(samples) }, pods.len())
}

fn of_sum(sum: i64, replicas: usize) -> Option<i32> {
    let target = ExternalTarget::Average(THRESHOLD * 1000);
    proposed(Source::External { target, values: Ok(vec![sum * 1000]) }, replicas)
}

fn proposed(source: Source, replicas: usize) -> Option<i32> {
    let pod = |number| Pod {
        name: format!("pod-{number}"),
        phase: Phase::Running,
        is_deleting: false,
        started_at: None,
        ready: None,
        requests: Requests::default(),
    };
    let scale =
        Scale { wanted: count(replicas), existing: count(replicas), pods: (0..replicas).map(pod).collect() };
    let metric = Metric { name: "queueTime".to_owned(), source };
    let tolerances = Tolerances { up: 0.1, down: 0.1 };
    let proposal = propose(&metric, &scale, tolerances, &Options::default(), Timestamp::UNIX_EPOCH);
    proposal.ok().map(|proposal| proposal.replicas)
}

fn count(replicas: usize) -> i32 {
    i32::try_from(replicas).expect("few")
}

/// The query of a lease that scales by its queue time.
fn query(minimum: u32) -> String {
    let settings = Settings { provider: Provider::Keda, ..samples::settings("main") };
    let mut scaling = samples::autoscaled_on([(MetricName::QueueTime, THRESHOLD)], 1, 4);
    if let Scaling::Auto(autoscaling) = &mut scaling {
        autoscaling.minimum = minimum;
    }
    let lease = samples::lease("tms", scaling, &settings);
    let lease = Lease { id: ID.parse().expect("a lease id"), ..lease };
    let plan = plan::plan(&lease, &settings, &Capabilities::assumed());
    let object = plan.objects().find(|object| object.kind == Kind::ScaledObject).expect("KEDA is told");
    object.body["spec"]["triggers"][0]["metadata"]["query"].as_str().expect("a query").to_owned()
}

/// A test of promtool: every pod is scraped, and those that have a value have it.
fn situation(query: &str, pods: &[Option<i64>]) -> Value {
    let scraped = |pod| format!(r#"up{{job="tms/tms-{ID}",namespace="tms",pod="pod-{pod}"}}"#);
    let recorded = |pod| format!(r#"{QUEUE}{{namespace="tms",pod="pod-{pod}",tms_lease_id="{ID}"}}"#);
    let mut series = Vec::new();
    for (number, value) in pods.iter().enumerate() {
        series.push(json!({ "series": scraped(number), "values": "1x8" }));
        series
            .extend(value.map(|value| json!({ "series": recorded(number), "values": format!("{value}x8") })));
    }
    let answer = asked(pods).map(|sum| json!({ "labels": "{}", "value": sum }));
    json!({
        "interval": "15s",
        "input_series": series,
        "promql_expr_test": [{ "expr": query, "eval_time": "2m", "exp_samples": Vec::from_iter(answer) }],
    })
}
