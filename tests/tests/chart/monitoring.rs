//! What the chart has for Prometheus and Grafana.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{Helm, Rendered, text};

const ALL: &str = "
kubernetes: {namespace: models}
server:
  metrics:
    enabled: true
    podMonitor: {enabled: true, labels: {release: ~, team: a}}
    alerts: {enabled: true, labels: {prometheus: main}}
    dashboards: {enabled: true, annotations: {grafana_folder: Inference}}
";

#[test]
fn what_is_asked_for_is_made_with_labels_of_choice() {
    let Some(helm) = Helm::new() else { return };
    let rendered = helm.template(ALL).unwrap();
    let monitor = rendered.one("PodMonitor");
    let labels = |object: &Value, name: &str| object["metadata"]["labels"][name].clone();
    assert_eq!([labels(monitor, "release"), labels(monitor, "team")], [Value::Null, json!("a")]);
    assert_eq!(monitor["spec"]["podMetricsEndpoints"], json!([{"port": "metrics"}]));
    let selected = monitor["spec"]["selector"]["matchLabels"].as_object().unwrap();
    let pod = rendered.pod()["metadata"]["labels"].as_object().unwrap();
    assert!(!selected.is_empty() && selected.iter().all(|(name, value)| pod.get(name) == Some(value)));

    let rule = rendered.one("PrometheusRule");
    assert_eq!([labels(rule, "release"), labels(rule, "prometheus")], [json!("prometheus"), json!("main")]);
    for alert in alerts(&rendered) {
        let (name, query) = (text(&alert["alert"]), text(&alert["expr"]));
        // The job is the one that the PodMonitor gives, and leases are in their namespace.
        assert!(
            query.contains(r#"{job="ours/tms""#) || query.contains(r#"{namespace="models""#),
            "{name}: {query}"
        );
        assert!(["critical", "warning", "info"].contains(&text(&alert["labels"]["severity"])), "{name}");
        let told = text(&alert["annotations"]["description"]);
        assert!(told.len() > 100 && !told.contains("$JOB") && !told.contains("$LEASES"), "{name}: {told}");
    }

    let dashboards =
        &rendered.objects().iter().find(|object| object["metadata"]["name"] == "tms-dashboards").unwrap();
    assert_eq!(labels(dashboards, "grafana_dashboard"), "1");
    assert_eq!(dashboards["metadata"]["annotations"], json!({"grafana_folder": "Inference"}));
}

#[test]
fn nothing_is_made_that_nobody_asked_for() {
    let Some(helm) = Helm::new() else { return };
    for values in ["", "server: {metrics: {enabled: true}}"] {
        let rendered = helm.template(values).unwrap();
        assert!(!rendered.has("PodMonitor") && !rendered.has("PrometheusRule"), "{:?}", rendered.names());
        assert_eq!(rendered.names().iter().filter(|name| name.starts_with("ConfigMap")).count(), 1);
    }
    // Dashboards show leases where somebody else has the server's figures read.
    let alone = helm.template("server: {metrics: {dashboards: {enabled: true}}}").unwrap();
    assert!(alone.names().contains(&"ConfigMap tms-dashboards".to_owned()));
}

#[test]
fn dashboards_name_a_data_source_of_choice_and_variables_that_they_have_and_no_panel_covers_another() {
    let Some(helm) = Helm::new() else { return };
    let rendered = helm.template(ALL).unwrap();
    let files =
        rendered.objects().iter().find(|object| object["metadata"]["name"] == "tms-dashboards").unwrap();
    for (file, content) in files["data"].as_object().unwrap() {
        let board: Value = serde_json::from_str(text(content)).unwrap();
        let list = |value: &Value| value.as_array().unwrap().clone();
        let variables: BTreeSet<_> =
            list(&board["templating"]["list"]).iter().map(|it| text(&it["name"]).to_owned()).collect();
        let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
        for panel in list(&board["panels"]) {
            let title = text(&panel["title"]);
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{file}: {title}: its id is another's");
            let side = |name: &str| panel["gridPos"][name].as_u64().unwrap();
            for column in side("x")..side("x") + side("w") {
                for line in side("y")..side("y") + side("h") {
                    assert!(column < 24 && places.insert((column, line)), "{file}: {title} covers another");
                }
            }
            for target in panel["targets"].as_array().into_iter().flatten() {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{file}: {title}");
                for used in text(&target["expr"]).split('$').skip(1) {
                    let name: String =
                        used.chars().take_while(|it| it.is_alphanumeric() || *it == '_').collect();
                    let is_grafana_s = name.starts_with("__");
                    assert!(is_grafana_s || variables.contains(&name), "{file}: {title}: ${name}");
                }
            }
        }
        assert!(variables.contains("datasource") && ids.len() > 10, "{file}");
    }
}

fn alerts(rendered: &Rendered) -> Vec<Value> {
    let groups = rendered.one("PrometheusRule")["spec"]["groups"].as_array().unwrap().clone();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}
