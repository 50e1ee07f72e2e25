//! Real Tritons under load, from one replica to the most and back, by each provider of the autoscaler's numbers: how long it
//! takes, and whether a request fails. Leaves a trace and a picture in docs/.

mod picture;
mod trace;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use tms_proto::v1::{
    Autoscaling, Behavior, BespokeTriton, Lease, LeaseSpec, Metric, ScalingPolicy, ScalingRules,
};
use tms_server::clock;
use tms_tests::cluster::{Cluster, Part};
use tms_tests::load::{Kind, Load};
use tms_tests::models::Model;
use tms_tests::triton::{self, Counters};
use tms_tests::wait::{inside, until};
use tokio::time::{MissedTickBehavior, interval};

use crate::installation::{Client, Installation, models};
use crate::registration::Registration;
use crate::site::Store;
use crate::table::Table;
use crate::{disk, say};
use trace::{Row, Trace};

/// Where the autoscaler gets its numbers.
struct Provider {
    /// As in the picture.
    name: &'static str,
    /// Of the release, and of its namespace.
    release: &'static str,
    /// For helm.
    flags: &'static [&'static str],
    /// What has to run besides.
    parts: &'static [Part],
}

const PROVIDERS: [Provider; 2] = [
    Provider {
        name: "builtin",
        release: "bench-builtin",
        flags: &["--set=server.autoscaling.provider=builtin"],
        parts: &[],
    },
    Provider {
        name: "builtin over Prometheus",
        release: "bench-prometheus",
        flags: &[
            "--set=server.autoscaling.provider=builtin",
            "--set=server.autoscaling.builtin.prometheusUrl=http://prometheus.monitoring.svc:9090",
        ],
        parts: &[Part::Prometheus],
    },
];

/// As quick as the pipeline's Prometheus.
const FLAGS: [&str; 3] = [
    "--set=server.autoscaling.prometheus.scrapeInterval=5s",
    "--set=server.autoscaling.prometheus.scrapeTimeout=4s",
    "--set=server.autoscaling.prometheus.window=20s",
];

/// What a request takes without waiting: ten a second for each replica.
const SERVICE_MS: &str = "100";
/// Queue time above which replicas are added, in microseconds.
const THRESHOLD_US: i64 = 50_000;
/// Most replicas.
const MAXIMUM: u32 = 4;
/// From which second on how many requests arrive in each; with the last it ends.
const PROFILE: [(i64, f64); 4] = [(0, 2.0), (30, 20.0), (150, 2.0), (300, 0.0)];
/// Second in which the load comes, and that in which it goes.
const RUSH: (i64, i64) = (PROFILE[1].0, PROFILE[2].0);

/// Measures each provider, and writes what came of it.
pub fn run() {
    let Some(cluster) = crate::cluster() else { std::process::exit(1) };
    let mut table = Table::new(&disk::machine(&std::env::temp_dir()));
    let traces: Vec<_> = PROVIDERS.iter().map(|provider| measure(cluster, provider, &mut table)).collect();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");
    fs::write(format!("{folder}/scaling.csv"), trace::csv(&traces)).expect("docs takes a file");
    fs::write(format!("{folder}/scaling.svg"), picture::draw(&traces)).expect("docs takes a file");
    println!("\n{table}\nwritten: docs/scaling.csv, docs/scaling.svg");
}

fn measure(cluster: &'static Cluster, provider: &Provider, table: &mut Table) -> Trace {
    say(&format!("{}: 1 to {MAXIMUM} replicas and back, {} s", provider.name, PROFILE[3].0));
    if !provider.parts.is_empty() {
        cluster.start_parts(provider.parts);
    }
    let _registration = Registration::none(provider.release).expect("the cluster runs");
    let flags = [&FLAGS, provider.flags].concat();
    let installation = Installation::install_with(provider.release, None, &flags).expect("the cluster runs");
    let mut trace = None;
    inside(cluster, || async { trace = Some(drive(installation.client(), provider).await) });
    let trace = trace.expect("it was driven");
    let seconds = |moment: Option<i64>, since: i64| {
        moment.map_or("never".to_owned(), |second| format!("{} s", second - since))
    };
    table.add(
        provider.name,
        &format!("decided after {}", seconds(trace.decided(), RUSH.0)),
        &format!("a new replica ready after {}", seconds(trace.ready(), RUSH.0)),
        &format!(
            "{MAXIMUM} ready after {}, one left {} after the load; {} of {} requests failed; {:.0} ms a request without waiting",
            seconds(trace.all_ready(MAXIMUM), RUSH.0),
            seconds(trace.back(RUSH.1), RUSH.1),
            trace.failed,
            trace.requests,
            trace.service_ms,
        ),
    );
    trace
}

fn wish(uri: &str) -> LeaseSpec {
    let rules = |window, value| ScalingRules {
        stabilization_window_seconds: Some(window),
        select_policy: "Max".to_owned(),
        policies: vec![ScalingPolicy { r#type: "Pods".to_owned(), value, period_seconds: 15 }],
    };
    let metric = Metric { enable: Some(true), threshold: Some(THRESHOLD_US) };
    let autoscaling = Autoscaling {
        min_replicas: Some(1),
        max_replicas: Some(MAXIMUM),
        metrics: [("queueTime".to_owned(), metric)].into(),
        behavior: Some(Behavior { scale_up: Some(rules(0, 2)), scale_down: Some(rules(30, 1)) }),
        ..Autoscaling::default()
    };
    let bespoke = BespokeTriton { gpus: Some(0), ..BespokeTriton::default() };
    LeaseSpec { autoscaling: Some(autoscaling), bespoke: Some(bespoke), ..models([("slow", uri)]) }
}

async fn drive(client: Client<'_>, provider: &Provider) -> Trace {
    let store = Store::start(&[Model::echo("slow").with("service_time_ms", SERVICE_MS)]).await;
    let lease = client.ready(wish(&store.uri("slow"))).await;
    until("the autoscaler knows the metric", 120, async || is_known(&client).then_some(())).await;
    let service = &lease.endpoint.as_ref().expect("it is ready").host;
    let clients = Kind::ALL.map(|kind| (kind, "slow"));
    let mut load = Load::start(client.installation.cluster, provider.release, service, &clients);
    let (rows, service_ms) = watch(&client, &lease, &mut load).await;
    let report = load.end();
    println!("{}: {report}", provider.name);
    client.release(&lease.id).await;
    let sent = |row: &Row| report.sent.get(&row.unix_second).copied().unwrap_or(0);
    let rows: Vec<_> = rows.into_iter().map(|row| Row { sent: sent(&row), ..row }).collect();
    let (requests, failed) = (report.sent.values().sum(), report.failed());
    Trace { provider: provider.name, rows, requests, failed, service_ms }
}

/// Whether the autoscaler has a value, wherever it reads that.
fn is_known(client: &Client<'_>) -> bool {
    let list = client.installation.json(&["get", "hpa"]);
    let metric = &list["items"][0]["status"]["currentMetrics"][0];
    ["pods", "external", "object"].iter().any(|kind| {
        let current = &metric[kind]["current"];
        current["averageValue"].is_string() || current["value"].is_string()
    })
}

/// Plays the load, and looks each second. Returns what was seen, and the milliseconds of a request that does not wait.
async fn watch(client: &Client<'_>, lease: &Lease, load: &mut Load) -> (Vec<Row>, f64) {
    let mut rows = Vec::new();
    let mut tritons = Tritons::default();
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let begun = clock::system_now().as_second();
    let mut parts = PROFILE.iter().peekable();
    loop {
        seconds.tick().await;
        let unix_second = clock::system_now().as_second();
        let second = unix_second - begun;
        // After a late look the next comes early.
        if rows.last().is_some_and(|row: &Row| row.second == second) {
            continue;
        }
        while let Some((_, rate)) = parts.next_if(|(from, _)| *from <= second) {
            load.rate(*rate);
        }
        if parts.peek().is_none() {
            return (rows, tritons.service_ms());
        }
        let seen = client.lease(&lease.id).await.and_then(|lease| lease.replicas).unwrap_or_default();
        if tritons.addresses.len() != seen.current as usize {
            let pods = client.installation.pods(&lease.id);
            tritons.addresses = pods.into_iter().filter_map(|pod| pod.address).collect();
        }
        let queue_us = tritons.look().await;
        rows.push(Row { unix_second, second, sent: 0, desired: seen.desired, ready: seen.ready, queue_us });
    }
}

/// The Tritons of a lease.
#[derive(Default)]
struct Tritons {
    addresses: Vec<IpAddr>,
    known: BTreeMap<IpAddr, Counters>,
}

impl Tritons {
    /// Returns the mean wait in microseconds of the requests that were answered since the last look; nothing where none was.
    async fn look(&mut self) -> Option<f64> {
        let (mut requests, mut waited_us) = (0, 0);
        for address in &self.addresses {
            // One that starts or ends does not answer.
            let Some(now) = triton::counters(*address).await else { continue };
            let before = self.known.insert(*address, now.clone()).unwrap_or_default();
            requests += answered(&now).saturating_sub(answered(&before));
            waited_us += now.queue_us.saturating_sub(before.queue_us);
        }
        (requests > 0).then(|| waited_us as f64 / requests as f64)
    }

    fn service_ms(&self) -> f64 {
        let all = |figure: &dyn Fn(&Counters) -> u64| self.known.values().map(figure).sum::<u64>() as f64;
        (all(&|of| of.request_us) - all(&|of| of.queue_us)) / 1000.0 / all(&answered).max(1.0)
    }
}

fn answered(counters: &Counters) -> u64 {
    counters.answered.values().sum()
}
