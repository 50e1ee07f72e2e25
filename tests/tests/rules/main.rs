//! The recording rules of a lease and the alerts of the chart, checked and evaluated by Prometheus' own promtool: every
//! situation in which a pod can be, what an autoscaler then reads, and what an administrator is told.

mod alerts;
#[path = "../chart/harness.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "the tests of the chart use the rest")]
mod harness;
mod keda;
mod recording;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tms_server::domain::bounds::GpuSource;
use tms_server::domain::capabilities::Capabilities;
use tms_server::domain::plan::{self, Kind, Settings, to_yaml};
use tms_server::domain::scaling::MetricName;
use tms_tests::{samples, skip, tool};

const ID: &str = "0123456789abcdef0123456789abcdef";
const QUEUE: &str = "tms_avg_request_queue_duration";
const GPU: &str = "tms_gpu_utilization";
const GPU_MEMORY: &str = "tms_gpu_memory_utilization";

/// What happened to a pod, in samples 15 seconds apart, and what is recorded two minutes after the first.
struct Situation {
    name: &'static str,
    record: &'static str,
    series: Vec<(String, &'static str)>,
    recorded: Vec<(&'static str, f64)>,
}

#[test]
fn the_queue_time_is_right_in_every_situation() {
    let success = |labels: &str| of_triton("nv_inference_request_success", "a", labels);
    let queue = |labels: &str| of_triton("nv_inference_queue_duration_us", "a", labels);
    let pending = |labels: &str| of_triton("nv_inference_pending_request_count", "a", labels);
    let situation = |name, series, recorded| Situation { name, record: QUEUE, series, recorded };
    let bert = r#"model="bert",version="1""#;
    evaluate(GpuSource::Triton, "nvidia.com/gpu", &[
        situation(
            "requests completed",
            vec![(success(bert), "0+30x8"), (queue(bert), "0+150000x8"), (pending(bert), "2x8")],
            vec![("a", 5_000.0)],
        ),
        situation(
            "one request in a minute",
            vec![(success(bert), "7x5 8x2"), (queue(bert), "28000x5 32000x2"), (pending(bert), "0x8")],
            vec![("a", 4_000.0)],
        ),
        // The first wait of 4 ms: `rate` extrapolates no counter below zero, so until the window has passed the mean is
        // up to a quarter low, and never high.
        situation(
            "a queue that has just built up",
            vec![(success(bert), "7x5 8x2"), (queue(bert), "100x5 4100x2"), (pending(bert), "0x8")],
            vec![("a", 3_075.0)],
        ),
        situation(
            "requests completed without waiting",
            vec![(success(bert), "0+30x8"), (queue(bert), "0x8"), (pending(bert), "0x8")],
            vec![("a", 0.0)],
        ),
        situation(
            "idle",
            vec![(success(bert), "900x8"), (queue(bert), "12345x8"), (pending(bert), "0x8")],
            vec![("a", 0.0)],
        ),
        situation(
            "idle, and never asked anything",
            vec![(success(bert), "0x8"), (queue(bert), "0x8"), (pending(bert), "0x8")],
            vec![("a", 0.0)],
        ),
        situation(
            "nothing completed and something pending: not idle, but unknown",
            vec![(success(bert), "900x8"), (queue(bert), "12345x8"), (pending(bert), "1x8")],
            vec![],
        ),
        situation(
            "one model stuck while another is idle",
            vec![
                (success(bert), "900x8"),
                (pending(bert), "0x8"),
                (success(r#"model="llm",version="1""#), "3x8"),
                (pending(r#"model="llm",version="1""#), "1x8"),
            ],
            vec![],
        ),
        situation(
            "just started, scraped once",
            vec![(success(bert), "_x7 0"), (queue(bert), "_x7 0"), (pending(bert), "_x7 0")],
            vec![("a", 0.0)],
        ),
        situation("loading, nothing to scrape", vec![(of_triton("up", "a", ""), "0x8")], vec![]),
        situation(
            "gone for a while",
            vec![
                (success(bert), "0+30x2 stale _x5"),
                (queue(bert), "0+150000x2 stale _x5"),
                (pending(bert), "0x2 stale _x5"),
            ],
            vec![],
        ),
        situation(
            "a container that restarted: counters begin anew",
            vec![
                (success(bert), "1000+30x5 0+30x2"),
                (queue(bert), "9000000+150000x5 0+150000x2"),
                (pending(bert), "0x8"),
            ],
            vec![("a", 5_000.0)],
        ),
        situation(
            "a denominator of zero under a numerator that moved",
            vec![(success(bert), "900x8"), (queue(bert), "0+1000x8"), (pending(bert), "1x8")],
            vec![],
        ),
        situation(
            "several models: their mean by requests, not the sum of their means",
            vec![
                (success(bert), "0+30x8"),
                (queue(bert), "0+30000x8"),
                (success(r#"model="llm",version="1""#), "0+10x8"),
                (queue(r#"model="llm",version="1""#), "0+90000x8"),
            ],
            vec![("a", 3_000.0)],
        ),
        situation(
            "an ensemble counts besides the models that it is composed of",
            vec![
                (success(r#"model="ensemble",version="1""#), "0+10x8"),
                (queue(r#"model="ensemble",version="1""#), "0x8"),
                (success(bert), "0+10x8"),
                (queue(bert), "0+60000x8"),
            ],
            vec![("a", 3_000.0)],
        ),
        situation(
            "one model on several GPUs, with a series for each and one without",
            vec![
                (success(r#"model="bert",version="1",gpu_uuid="GPU-0""#), "0+20x8"),
                (success(r#"model="bert",version="1",gpu_uuid="GPU-1""#), "0+20x8"),
                (queue(r#"model="bert",version="1",gpu_uuid="GPU-0""#), "0+20000x8"),
                (queue(r#"model="bert",version="1",gpu_uuid="GPU-1""#), "0+60000x8"),
                (pending(bert), "0x8"),
            ],
            vec![("a", 2_000.0)],
        ),
        situation(
            "models with a namespace of Triton's own",
            vec![
                (success(r#"model="bert",exported_namespace="/x""#), "0+30x8"),
                (queue(r#"model="bert",exported_namespace="/x""#), "0+150000x8"),
            ],
            vec![("a", 5_000.0)],
        ),
        situation(
            "two pods, one series each",
            vec![
                (success(bert), "0+30x8"),
                (queue(bert), "0+150000x8"),
                (of_triton("nv_inference_request_success", "b", bert), "900x8"),
                (of_triton("nv_inference_pending_request_count", "b", bert), "0x8"),
            ],
            vec![("a", 5_000.0), ("b", 0.0)],
        ),
        situation(
            "another lease, and another container with a port of that name",
            vec![
                (
                    r#"nv_inference_pending_request_count{job="tms/tms-f00d",container="triton",namespace="tms",pod="x"}"#
                        .to_owned(),
                    "0x8",
                ),
                (
                    format!(
                        r#"nv_inference_pending_request_count{{job="tms/tms-{ID}",container="proxy",namespace="tms",pod="a"}}"#
                    ),
                    "0x8",
                ),
            ],
            vec![],
        ),
    ]);
}

#[test]
fn gpu_figures_of_triton_are_percent_of_a_pod() {
    let busy = |labels: &str| of_triton("nv_gpu_utilization", "a", labels);
    let used = |labels: &str| of_triton("nv_gpu_memory_used_bytes", "a", labels);
    let total = |labels: &str| of_triton("nv_gpu_memory_total_bytes", "a", labels);
    let gpu = |name, series, recorded| Situation { name, record: GPU, series, recorded };
    let memory = |name, series, recorded| Situation { name, record: GPU_MEMORY, series, recorded };
    let (first, second) = (r#"gpu_uuid="GPU-0""#, r#"gpu_uuid="GPU-1""#);
    evaluate(
        GpuSource::Triton,
        "nvidia.com/gpu",
        &[
            gpu("busy", vec![(busy(first), "0.9x8")], vec![("a", 90.0)]),
            gpu("idle is an explicit 0", vec![(busy(first), "0x8")], vec![("a", 0.0)]),
            gpu("a gauge that jumps", vec![(busy(first), "0 1 0 1 0 1 0 1 0")], vec![("a", 50.0)]),
            gpu("two GPUs", vec![(busy(first), "1x8"), (busy(second), "0.5x8")], vec![("a", 75.0)]),
            gpu("loading, nothing to scrape", vec![(of_triton("up", "a", ""), "0x8")], vec![]),
            gpu(
                "two pods",
                vec![(busy(first), "1x8"), (of_triton("nv_gpu_utilization", "b", second), "0.25x8")],
                vec![("a", 100.0), ("b", 25.0)],
            ),
            memory("half full", vec![(used(first), "8e9x8"), (total(first), "16e9x8")], vec![("a", 50.0)]),
            memory(
                "empty is an explicit 0",
                vec![(used(first), "0x8"), (total(first), "16e9x8")],
                vec![("a", 0.0)],
            ),
            memory(
                "two GPUs of different size",
                vec![
                    (used(first), "8e9x8"),
                    (total(first), "16e9x8"),
                    (used(second), "20e9x8"),
                    (total(second), "80e9x8"),
                ],
                vec![("a", 37.5)],
            ),
            memory("a GPU that reports nothing", vec![(used(first), "0x8"), (total(first), "0x8")], vec![]),
            memory(
                "one of two GPUs reports nothing",
                vec![
                    (used(first), "8e9x8"),
                    (total(first), "16e9x8"),
                    (used(second), "0x8"),
                    (total(second), "0x8"),
                ],
                vec![("a", 50.0)],
            ),
            memory(
                "a pod that came back under another address",
                vec![
                    (used(r#"gpu_uuid="GPU-0",node="1""#), "8e9x6 stale"),
                    (total(r#"gpu_uuid="GPU-0",node="1""#), "16e9x6 stale"),
                    (used(r#"gpu_uuid="GPU-0",node="2""#), "_x7 8e9x1"),
                    (total(r#"gpu_uuid="GPU-0",node="2""#), "_x7 16e9x1"),
                ],
                vec![("a", 50.0)],
            ),
        ],
    );
}

#[test]
fn gpu_figures_of_dcgm_belong_to_the_pod_that_uses_the_gpu() {
    let pod = format!("tms-{ID}-6d4cf56db6-x7k2p");
    let pod: &'static str = pod.leak();
    let up = || (of_triton("up", pod, ""), "1x8");
    let gpu = |name, series, recorded| Situation { name, record: GPU, series, recorded };
    let memory = |name, series, recorded| Situation { name, record: GPU_MEMORY, series, recorded };
    let of = |metric: &str, gpu: &str| of_exporter(metric, "dcgm-1", "tms", pod, gpu);
    let busy = |gpu: &str| of("DCGM_FI_DEV_GPU_UTIL", gpu);
    evaluate(
        GpuSource::Dcgm,
        "nvidia.com/gpu",
        &[
            gpu("busy", vec![up(), (busy("0"), "80x8")], vec![(pod, 80.0)]),
            gpu("idle is an explicit 0", vec![up(), (busy("0"), "0x8")], vec![(pod, 0.0)]),
            gpu("two GPUs", vec![up(), (busy("0"), "100x8"), (busy("1"), "50x8")], vec![(pod, 75.0)]),
            gpu("no figure of the exporter", vec![up()], vec![]),
            gpu("a pod that nobody scrapes", vec![(busy("0"), "80x8")], vec![]),
            gpu(
                "a pod of that name in another namespace",
                vec![up(), (of_exporter("DCGM_FI_DEV_GPU_UTIL", "dcgm-1", "other", pod, "0"), "80x8")],
                vec![],
            ),
            gpu(
                "an exporter that restarted at the same address",
                vec![
                    up(),
                    (of_exporter("DCGM_FI_DEV_GPU_UTIL", "dcgm-1", "tms", pod, "0"), "80x6 stale"),
                    (of_exporter("DCGM_FI_DEV_GPU_UTIL", "dcgm-2", "tms", pod, "0"), "_x7 80x1"),
                ],
                vec![(pod, 80.0)],
            ),
            memory(
                "a quarter full",
                vec![
                    up(),
                    (of("DCGM_FI_DEV_FB_USED", "0"), "4000x8"),
                    (of("DCGM_FI_DEV_FB_FREE", "0"), "12000x8"),
                ],
                vec![(pod, 25.0)],
            ),
            memory(
                "empty is an explicit 0",
                vec![
                    up(),
                    (of("DCGM_FI_DEV_FB_USED", "0"), "0x8"),
                    (of("DCGM_FI_DEV_FB_FREE", "0"), "16000x8"),
                ],
                vec![(pod, 0.0)],
            ),
            memory(
                "a GPU that reports nothing",
                vec![up(), (of("DCGM_FI_DEV_FB_USED", "0"), "0x8"), (of("DCGM_FI_DEV_FB_FREE", "0"), "0x8")],
                vec![],
            ),
        ],
    );
    let engine = (of("DCGM_FI_PROF_GR_ENGINE_ACTIVE", "0"), "0.4x8");
    evaluate(
        GpuSource::Dcgm,
        "nvidia.com/mig-1g.5gb",
        &[gpu("a part of a GPU", vec![up(), engine], vec![(pod, 40.0)])],
    );
}

fn of_triton(metric: &str, pod: &str, labels: &str) -> String {
    format!(r#"{metric}{{job="tms/tms-{ID}",container="triton",namespace="tms",pod="{pod}",{labels}}}"#)
}

/// A series as Prometheus keeps it by default: the exporter's own pod under `pod`.
fn of_exporter(metric: &str, exporter: &str, namespace: &str, pod: &str, gpu: &str) -> String {
    format!(
        r#"{metric}{{job="dcgm-exporter",namespace="gpu",pod="{exporter}",instance="10.0.0.1:9400",UUID="GPU-{gpu}",exported_namespace="{namespace}",exported_pod="{pod}",exported_container="triton"}}"#
    )
}

/// Runs promtool over the rules of a lease that scales on everything.
fn evaluate(gpu_source: GpuSource, gpu_resource: &str, situations: &[Situation]) {
    let Some(promtool) = promtool() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let rules = write(folder.path(), "rules.yaml", &rule_file(gpu_source, gpu_resource));
    let tests = write(folder.path(), "tests.yaml", &test_file(situations).to_string());
    run(&promtool, &["check", "rules", "--lint=all", "--lint-fatal"], &rules);
    run(&promtool, &["test", "rules"], &tests);
}

fn promtool() -> Option<PathBuf> {
    let found = tool("promtool");
    if found.is_none() {
        skip("promtool is missing; tests/cluster/cluster build makes it");
    }
    found
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).expect("the file can be written");
    path
}

fn run(promtool: &Path, arguments: &[&str], file: &Path) {
    let output = Command::new(promtool).args(arguments).arg(file).output().expect("promtool starts");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

fn test_file(situations: &[Situation]) -> Value {
    let test = |situation: &Situation| {
        let series =
            situation.series.iter().map(|(series, values)| json!({"series": series, "values": values}));
        let sample = |(pod, value): &(&str, f64)| {
            let labels =
                format!(r#"{}{{namespace="tms",pod="{pod}",tms_lease_id="{ID}"}}"#, situation.record);
            json!({"labels": labels, "value": value})
        };
        json!({
            "name": situation.name,
            "interval": "15s",
            "input_series": series.collect::<Vec<_>>(),
            "promql_expr_test": [{
                "expr": situation.record,
                "eval_time": "2m",
                "exp_samples": situation.recorded.iter().map(sample).collect::<Vec<_>>(),
            }],
        })
    };
    json!({
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "15s",
        "fuzzy_compare": true,
        "tests": situations.iter().map(test).collect::<Vec<_>>(),
    })
}

fn rule_file(gpu_source: GpuSource, gpu_resource: &str) -> String {
    let settings = Settings { gpu_source, ..samples::settings("main") };
    let scaling = samples::autoscaled_on(MetricName::ALL.map(|metric| (metric, 80)), 1, 4);
    let mut lease = samples::lease("tms", scaling, &settings);
    lease.id = ID.parse().expect("a lease id");
    lease.spec.triton.gpu_resource = gpu_resource.to_owned();
    let plan = plan::plan(&lease, &settings, &Capabilities::assumed());
    let rule = plan.objects().find(|object| object.kind == Kind::PrometheusRule).expect("a rule is emitted");
    to_yaml(&rule.body["spec"])
}
