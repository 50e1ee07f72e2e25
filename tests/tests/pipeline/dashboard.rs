//! The dashboards and alerts of the chart, asked of a real Prometheus while a lease serves: every query is understood, and every
//! panel has something to show.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;

use serde_json::Value;
use tms_proto::v1::{Autoscaling, LeaseSpec};
use tms_tests::cluster::{Cluster, Part};
use tms_tests::http::get;
use tms_tests::pipeline::PROMETHEUS_BY_ADDRESS;
use tms_tests::wait::{inside, until, until_so};

use crate::installation::{Installation, models};
use crate::series::installation;
use crate::traffic::Traffic;
use tms_tests::node::use_node;

/// Panels that have nothing to show here, and why.
const EMPTY: [(&str, &str); 3] = [
    ("GPU utilization", "no Triton of a test has a GPU"),
    ("GPU memory", "no Triton of a test has a GPU"),
    ("Custom metrics", "this installation does not serve them"),
];

/// What stands for a variable of a dashboard; the first that fits counts.
const VARIABLES: [(&str, &str); 5] = [
    ("$__rate_interval", "1m"),
    ("$__range", "10m"),
    ("$namespace", "tms-pipeline"),
    ("$lease", ".+"),
    ("$job", "tms-pipeline/tms"),
];

/// A query, and what shows its answer.
#[derive(Debug)]
struct Asked {
    by: String,
    query: String,
}

#[test]
fn every_panel_has_something_to_show_while_a_lease_serves_and_every_alert_is_evaluated() {
    let _pipeline = use_node();
    let Some(installation) = installation() else { return };
    let cluster = installation.cluster;
    cluster.start_parts(&[Part::Prometheus]);
    let asked = queries(installation);
    let shown: BTreeSet<_> = asked.iter().map(|asked| asked.by.as_str()).collect();
    assert!(EMPTY.iter().all(|(panel, _)| shown.contains(panel)), "{shown:?}");
    inside(cluster, || async {
        // Where a first start goes is counted from then on.
        let is_read = async || has_data(r#"tms_leader{job="tms-pipeline/tms"}"#).await.then_some(());
        until("the server is read", 90, is_read).await;
        let client = installation.client();
        let autoscaling = Autoscaling { min_replicas: Some(2), max_replicas: Some(3), ..Default::default() };
        let wish = models([("claimed", "pvc://models/claimed")]);
        let lease = client.ready(LeaseSpec { autoscaling: Some(autoscaling), ..wish }).await;
        let traffic = Traffic::start(installation, &lease, "claimed");

        let can_be_empty = |asked: &&Asked| EMPTY.iter().any(|(panel, _)| *panel == asked.by);
        for asked in asked.iter().filter(can_be_empty) {
            // It is understood all the same.
            has_data(&asked.query).await;
        }
        let waiting = RefCell::new(asked.iter().filter(|asked| !can_be_empty(asked)).collect::<Vec<_>>());
        let none_is_empty = async || {
            // Calls that succeed and calls that fail, to be counted.
            assert!(client.lease(&lease.id).await.is_some());
            assert!(client.lease("ffffffffffffffffffffffffffffffff").await.is_none());
            let mut still = Vec::new();
            for asked in waiting.take() {
                if !has_data(&asked.query).await {
                    still.push(asked);
                }
            }
            let outcome = if still.is_empty() { Ok(()) } else { Err(format!("{still:#?}")) };
            waiting.replace(still);
            outcome
        };
        until_so("every panel has something to show", 120, none_is_empty).await;
        let all_sound = async || evaluated(cluster, installation);
        until_so("every alert is evaluated", 60, all_sound).await;
        traffic.end().all_good();
        client.release(&lease.id).await;
    });
}

/// Every query of the dashboards that the chart has installed: of panels, and of the variables that are chosen from.
fn queries(installation: &Installation) -> Vec<Asked> {
    let files = installation.json(&["get", "configmap", "tms-dashboards"])["data"].clone();
    let files = files.as_object().expect("a map of files");
    assert_eq!(files.keys().collect::<Vec<_>>(), ["tms-leases.json", "tms-server.json"]);
    let mut asked = Vec::new();
    for file in files.values() {
        let board: Value = serde_json::from_str(file.as_str().expect("a text")).expect("JSON");
        for panel in board["panels"].as_array().expect("panels") {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let query = with_variables(text(&target["expr"]));
                asked.push(Asked { by: text(&panel["title"]).to_owned(), query });
            }
        }
        for variable in board["templating"]["list"].as_array().expect("variables") {
            let Some(query) = variable["query"]["query"].as_str() else { continue };
            let parts = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
            let (series, label) = parts.and_then(|parts| parts.rsplit_once(", ")).expect("label_values(…)");
            // Those that have the label.
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let query = with_variables(&format!(r#"{name}{{{label}!="",{labels}"#));
            asked.push(Asked { by: format!("variable {label}"), query });
        }
    }
    asked
}

fn with_variables(query: &str) -> String {
    let filled = VARIABLES.iter().fold(query.to_owned(), |query, (name, value)| query.replace(name, value));
    assert!(!filled.contains('$'), "an unknown variable: {query}");
    filled
}

/// Whether a query has a value that is a number. It must be understood.
async fn has_data(query: &str) -> bool {
    // NaN is not even the same as itself. The answer to a count is short.
    let counted = format!("count(({query}) == ({query}))");
    let mut path = "/api/v1/query?query=".to_owned();
    for byte in counted.bytes() {
        write!(path, "%{byte:02X}").expect("a string takes text");
    }
    let address: SocketAddr =
        PROMETHEUS_BY_ADDRESS.strip_prefix("http://").expect("no TLS").parse().expect("an address");
    let answer = get(address, &path).await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer}"));
    let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
    assert_eq!(body["status"], "success", "{query}: {body}");
    body["data"]["result"].as_array().is_some_and(|result| !result.is_empty())
}

/// Whether Prometheus has evaluated each alert that the chart has installed, or which not.
fn evaluated(cluster: &Cluster, installation: &Installation) -> Result<(), String> {
    let rule = installation.json(&["get", "prometheusrule", "tms"]);
    let groups = rule["spec"]["groups"].as_array().expect("groups").iter();
    let named = |rule: &Value| text(&rule["alert"]).to_owned();
    let expected: BTreeSet<_> =
        groups.flat_map(|group| group["rules"].as_array().expect("rules").iter().map(named)).collect();
    let proxy = "/api/v1/namespaces/monitoring/services/prometheus:web/proxy/api/v1/rules?type=alert";
    let answer = cluster.kubectl(&["get", "--raw", proxy])?;
    let answer: Value = serde_json::from_str(&answer).map_err(|error| format!("{error}: {answer}"))?;
    let is_ours = |group: &&Value| text(&group["file"]).contains("tms-pipeline-tms-");
    let loaded = answer["data"]["groups"].as_array().expect("groups").iter().filter(is_ours);
    let rules = loaded.flat_map(|group| group["rules"].as_array().expect("rules").clone());
    let sound: BTreeSet<_> =
        rules.filter(|rule| rule["health"] == "ok").map(|rule| text(&rule["name"]).to_owned()).collect();
    if sound == expected { Ok(()) } else { Err(format!("{:?} are not", expected.difference(&sound))) }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is a text"))
}
