//! The alerts of the chart, evaluated by promtool: each fires when what it tells of has lasted, and not for what is only like it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::harness::Helm;
use super::{promtool, run, write};

/// An alert: series by which it fires at the second of two moments, and not at the first yet; and series by which it never does.
struct Case {
    alert: &'static str,
    moments: [&'static str; 2],
    fires: Vec<(&'static str, &'static str)>,
    quiet: Vec<(&'static str, &'static str)>,
}

const ON: &str = "server: {metrics: {enabled: true, podMonitor: {enabled: true}, alerts: {enabled: true}}}";

#[test]
fn each_alert_fires_for_what_lasts_and_not_for_what_is_only_like_it() {
    let (Some(promtool), Some(helm)) = (promtool(), Helm::new()) else { return };
    let rendered = helm.template(ON).expect("the chart is right");
    let rules = &rendered.one("PrometheusRule")["spec"];
    let cases = cases();
    let tried: BTreeSet<_> = cases.iter().map(|case| case.alert.to_owned()).collect();
    assert_eq!(names(rules), tried);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = write(folder.path(), "rules.yaml", &rules.to_string());
    run(&promtool, &["check", "rules", "--lint=all", "--lint-fatal"], &file);
    let tests = json!({
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": cases.iter().flat_map(tests_of).collect::<Vec<_>>(),
    });
    run(&promtool, &["test", "rules"], &write(folder.path(), "tests.yaml", &tests.to_string()));
}

fn names(rules: &Value) -> BTreeSet<String> {
    let groups = rules["groups"].as_array().expect("groups").iter();
    let rules = groups.flat_map(|group| group["rules"].as_array().expect("rules"));
    rules.map(|rule| rule["alert"].as_str().expect("every rule is an alert").to_owned()).collect()
}

/// The tests of one alert, as promtool reads them.
fn tests_of(case: &Case) -> [Value; 2] {
    let test = |name: &str, series: &[(&str, &str)], moments: &[(&str, bool)]| {
        let series = series.iter().map(|(series, values)| json!({"series": series, "values": values}));
        let fires = format!(r#"count(ALERTS{{alertname="{}",alertstate="firing"}})"#, case.alert);
        let asked = moments.iter().map(|(moment, is_firing)| {
            let samples = if *is_firing { json!([{"labels": "{}", "value": 1}]) } else { json!([]) };
            json!({"expr": fires, "eval_time": moment, "exp_samples": samples})
        });
        json!({
            "name": format!("{} {name}", case.alert),
            "interval": "1m",
            "input_series": series.collect::<Vec<_>>(),
            "promql_expr_test": asked.collect::<Vec<_>>(),
        })
    };
    let [before, after] = case.moments;
    [
        test("fires", &case.fires, &[(before, false), (after, true)]),
        test("is quiet", &case.quiet, &[(before, false), (after, false)]),
    ]
}

fn cases() -> Vec<Case> {
    [of_the_server(), of_its_work(), of_all_leases(), of_one_lease()].into_iter().flatten().collect()
}

fn of_the_server() -> Vec<Case> {
    vec![
        Case {
            alert: "TmsDown",
            moments: ["4m", "10m"],
            fires: vec![
                (r#"up{job="ours/tms",pod="a"}"#, "0x30"),
                (r#"up{job="other/tms",pod="b"}"#, "1x30"),
            ],
            quiet: vec![(r#"up{job="ours/tms",pod="a"}"#, "0x30"), (r#"up{job="ours/tms",pod="b"}"#, "1x30")],
        },
        Case {
            alert: "TmsNoLeader",
            moments: ["1m", "5m"],
            fires: vec![
                (r#"tms_leader{job="ours/tms",pod="a"}"#, "0x30"),
                (r#"tms_leader{job="ours/tms",pod="b"}"#, "0x30"),
            ],
            quiet: vec![
                (r#"tms_leader{job="ours/tms",pod="a"}"#, "0x30"),
                (r#"tms_leader{job="ours/tms",pod="b"}"#, "1x30"),
            ],
        },
        Case {
            alert: "TmsDatabaseFails",
            moments: ["4m", "10m"],
            fires: vec![(
                r#"tms_database_seconds_count{job="ours/tms",operation="census",outcome="failed"}"#,
                "0+6x30",
            )],
            quiet: vec![
                (r#"tms_database_seconds_count{job="ours/tms",operation="census",outcome="failed"}"#, "7x30"),
                (r#"tms_database_seconds_count{job="ours/tms",operation="census",outcome="ok"}"#, "0+6x30"),
            ],
        },
        Case {
            alert: "TmsDatabaseSlow",
            moments: ["9m", "20m"],
            fires: commits("2.048", "1.024"),
            quiet: commits("0.064", "0.032"),
        },
        Case {
            alert: "TmsRpcsFailing",
            moments: ["9m", "20m"],
            fires: vec![
                (r#"tms_rpc_seconds_count{job="ours/tms",rpc="List",code="UNAVAILABLE"}"#, "0+1x30"),
                (r#"tms_rpc_seconds_count{job="ours/tms",rpc="List",code="OK"}"#, "0+9x30"),
            ],
            quiet: vec![
                (r#"tms_rpc_seconds_count{job="ours/tms",rpc="Status",code="NOT_FOUND"}"#, "0+9x30"),
                (r#"tms_rpc_seconds_count{job="ours/tms",rpc="List",code="OK"}"#, "0+1x30"),
            ],
        },
        Case {
            alert: "TmsCertificateExpires",
            moments: ["59m", "2h"],
            // Time begins at 0 here.
            fires: vec![(
                r#"tms_certificate_expiry_timestamp_seconds{job="ours/tms",kind="api"}"#,
                "864000x150",
            )],
            quiet: vec![(
                r#"tms_certificate_expiry_timestamp_seconds{job="ours/tms",kind="api"}"#,
                "1728000x150",
            )],
        },
    ]
}

/// Commits that all took less than one time, and more than another, in seconds.
fn commits(less: &'static str, more: &'static str) -> Vec<(&'static str, &'static str)> {
    let bucket = |le: &str| -> &'static str {
        let labels = format!(r#"job="ours/tms",operation="commit",outcome="ok",le="{le}""#);
        format!("tms_database_seconds_bucket{{{labels}}}").leak()
    };
    vec![(bucket(more), "0x30"), (bucket(less), "0+10x30"), (bucket("+Inf"), "0+10x30")]
}

fn of_its_work() -> Vec<Case> {
    vec![
        Case {
            alert: "TmsPassesFailing",
            moments: ["9m", "20m"],
            fires: vec![
                (r#"tms_pass_seconds_count{job="ours/tms",outcome="cluster"}"#, "0+5x30"),
                (r#"tms_pass_seconds_count{job="ours/tms",outcome="rested"}"#, "0+5x30"),
            ],
            quiet: vec![
                (r#"tms_pass_seconds_count{job="ours/tms",outcome="cluster"}"#, "0+1x30"),
                (r#"tms_pass_seconds_count{job="ours/tms",outcome="conflict"}"#, "0+5x30"),
                (r#"tms_pass_seconds_count{job="ours/tms",outcome="rested"}"#, "0+5x30"),
            ],
        },
        Case {
            alert: "TmsApiServerErrors",
            moments: ["9m", "20m"],
            fires: vec![
                (r#"tms_kubernetes_call_seconds_count{job="ours/tms",outcome="away"}"#, "0+1x30"),
                (r#"tms_kubernetes_call_seconds_count{job="ours/tms",outcome="busy"}"#, "0+1x30"),
                (r#"tms_kubernetes_call_seconds_count{job="ours/tms",outcome="ok"}"#, "0+8x30"),
            ],
            // At rest there are no calls at all.
            quiet: vec![
                (r#"tms_kubernetes_call_seconds_count{job="ours/tms",outcome="away"}"#, "5x30"),
                (r#"tms_kubernetes_call_seconds_count{job="ours/tms",outcome="ok"}"#, "8x30"),
            ],
        },
        Case {
            alert: "TmsKubernetesRefuses",
            moments: ["14m", "40m"],
            fires: vec![(r#"tms_kubernetes_call_seconds_count{job="ours/tms",outcome="refused"}"#, "0+1x60")],
            // Once, which the lease tells.
            quiet: vec![(
                r#"tms_kubernetes_call_seconds_count{job="ours/tms",outcome="refused"}"#,
                "0x20 1x40",
            )],
        },
        Case {
            alert: "TmsAgentsUnreachable",
            moments: ["14m", "30m"],
            fires: vec![
                (r#"tms_agent_questions_total{job="ours/tms",outcome="failed"}"#, "0+9x60"),
                (r#"tms_agent_questions_total{job="ours/tms",outcome="ok"}"#, "0+1x60"),
            ],
            quiet: vec![
                (r#"tms_agent_questions_total{job="ours/tms",outcome="failed"}"#, "0+1x60"),
                (r#"tms_agent_questions_total{job="ours/tms",outcome="ok"}"#, "0+9x60"),
            ],
        },
        Case {
            alert: "TmsCustomMetricsFail",
            moments: ["4m", "15m"],
            fires: vec![
                (r#"tms_custom_metrics_answers_total{job="ours/tms",code="503"}"#, "0+2x30"),
                (r#"tms_custom_metrics_answers_total{job="ours/tms",code="200"}"#, "0+8x30"),
            ],
            quiet: vec![
                (r#"tms_custom_metrics_answers_total{job="ours/tms",code="404"}"#, "0+9x30"),
                (r#"tms_custom_metrics_answers_total{job="ours/tms",code="200"}"#, "0+1x30"),
            ],
        },
    ]
}

fn of_all_leases() -> Vec<Case> {
    vec![
        Case {
            alert: "TmsLeaseDegraded",
            moments: ["9m", "15m"],
            fires: vec![(r#"tms_leases{job="ours/tms",state="DEGRADED",pod="a"}"#, "2x30")],
            quiet: vec![
                (r#"tms_leases{job="ours/tms",state="DEGRADED",pod="a"}"#, "2x5 0x25"),
                (r#"tms_leases{job="ours/tms",state="READY",pod="a"}"#, "7x30"),
            ],
        },
        Case {
            alert: "TmsLeaseReplicasMissing",
            moments: ["44m", "1h"],
            fires: vec![
                (r#"tms_lease_replicas{job="ours/tms",kind="wanted",pod="a"}"#, "5x90"),
                (r#"tms_lease_replicas{job="ours/tms",kind="ready",pod="a"}"#, "4x90"),
            ],
            quiet: vec![
                (r#"tms_lease_replicas{job="ours/tms",kind="wanted",pod="a"}"#, "5x90"),
                (r#"tms_lease_replicas{job="ours/tms",kind="ready",pod="a"}"#, "4x20 5x70"),
            ],
        },
        Case {
            alert: "TmsLeaseScalingInactive",
            moments: ["9m", "15m"],
            fires: vec![(r#"tms_troubled_autoscalers{job="ours/tms",kind="no_metric",pod="a"}"#, "1x30")],
            quiet: vec![
                (r#"tms_troubled_autoscalers{job="ours/tms",kind="no_metric",pod="a"}"#, "0x30"),
                (r#"tms_troubled_autoscalers{job="ours/tms",kind="at_maximum",pod="a"}"#, "1x30"),
            ],
        },
        Case {
            alert: "TmsLeaseAtMaximum",
            moments: ["29m", "40m"],
            fires: vec![(r#"tms_troubled_autoscalers{job="ours/tms",kind="at_maximum",pod="a"}"#, "1x60")],
            quiet: vec![(
                r#"tms_troubled_autoscalers{job="ours/tms",kind="at_maximum",pod="a"}"#,
                "1x20 0x40",
            )],
        },
        Case {
            alert: "TmsLeaseNotRemoved",
            moments: ["14m", "20m"],
            fires: vec![
                (r#"tms_leases{job="ours/tms",state="EXPIRED",pod="a"}"#, "1x30"),
                (r#"tms_leases{job="ours/tms",state="RELEASED",pod="a"}"#, "0x30"),
            ],
            quiet: vec![
                (r#"tms_leases{job="ours/tms",state="EXPIRED",pod="a"}"#, "1x5 0x25"),
                (r#"tms_leases{job="ours/tms",state="READY",pod="a"}"#, "3x30"),
            ],
        },
        Case {
            alert: "TmsColdStartSlow",
            moments: ["9m", "20m"],
            fires: vec![
                (
                    r#"tms_replica_cold_start_seconds_bucket{job="ours/tms",stage="fetched",le="512.0"}"#,
                    "0x60",
                ),
                (
                    r#"tms_replica_cold_start_seconds_bucket{job="ours/tms",stage="fetched",le="1024.0"}"#,
                    "0x10 3x50",
                ),
                (
                    r#"tms_replica_cold_start_seconds_bucket{job="ours/tms",stage="fetched",le="+Inf"}"#,
                    "0x10 3x50",
                ),
            ],
            quiet: vec![
                (
                    r#"tms_replica_cold_start_seconds_bucket{job="ours/tms",stage="fetched",le="512.0"}"#,
                    "0x10 3x50",
                ),
                (
                    r#"tms_replica_cold_start_seconds_bucket{job="ours/tms",stage="fetched",le="+Inf"}"#,
                    "0x10 3x50",
                ),
            ],
        },
    ]
}

fn of_one_lease() -> Vec<Case> {
    const UP: &str = r#"up{job="ours/tms-1",namespace="ours",tms_internal_lease_id="1",pod="a"}"#;
    const SUCCESS: &str =
        r#"nv_inference_request_success{namespace="ours",tms_internal_lease_id="1",pod="a",model="m"}"#;
    vec![
        Case {
            alert: "TmsLeaseNotScraped",
            moments: ["44m", "1h"],
            fires: vec![(UP, "0x90")],
            quiet: vec![(UP, "0x30 1x60"), (r#"up{job="ours/other",namespace="ours",pod="b"}"#, "0x90")],
        },
        Case {
            alert: "TmsLeaseRequestsFail",
            moments: ["9m", "20m"],
            fires: vec![
                (SUCCESS, "0+9x30"),
                (
                    r#"nv_inference_request_failure{namespace="ours",tms_internal_lease_id="1",pod="b",model="m",reason="BACKEND"}"#,
                    "0+1x30",
                ),
            ],
            quiet: vec![
                (SUCCESS, "0+9x30"),
                (
                    r#"nv_inference_request_failure{namespace="ours",tms_internal_lease_id="1",pod="a",model="m",reason="CANCELED"}"#,
                    "0+9x30",
                ),
            ],
        },
        Case {
            alert: "TmsLeaseIdle",
            // Young, and then old without a request.
            moments: ["5h", "8h"],
            fires: vec![(UP, "1x600"), (SUCCESS, "100x600")],
            quiet: vec![(UP, "1x600"), (SUCCESS, "100x400 101x200")],
        },
    ]
}
