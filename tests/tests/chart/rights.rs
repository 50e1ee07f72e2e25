//! The rights of the server's account: those that it needs, and no more.

use std::fs;

use serde::Deserialize;
use serde_json::Value;
use tms_proto::v1::LeaseState;
use tms_tests::cluster::Cluster;
use tms_tests::server::{Database, Target, VALUES, World, autoscaled};
use tms_tests::wait::inside;

use crate::harness::{CHART, Helm, text};

const RIGHTS_OF_TESTS: &str = include_str!("../../cluster/manifests/rights.yaml");
const INSTALL: &str = include_str!("../../../docs/install.md");

/// The rules of the tests' user `tms`.
fn rules_of_tests() -> Value {
    let role = serde_yaml::Deserializer::from_str(RIGHTS_OF_TESTS).next().unwrap();
    Value::deserialize(role).unwrap()["rules"].clone()
}

#[test]
fn the_account_has_the_rights_with_which_every_other_test_runs() {
    let Some(helm) = Helm::new() else { return };
    assert_eq!(helm.template("").unwrap().one("Role")["rules"], rules_of_tests());
}

#[test]
fn only_where_the_doctor_may_look_around_it_has_rights_to_read_elsewhere_and_none_to_write() {
    let Some(helm) = Helm::new() else { return };
    assert!(!helm.template("").unwrap().has("ClusterRole"));
    let rendered =
        helm.template("{kubernetes: {namespace: models}, server: {doctor: {clusterRights: true}}}").unwrap();
    let role = rendered.one("ClusterRole");
    let rules: Vec<_> = role["rules"].as_array().unwrap().iter().map(rule_in_words).collect();
    let expected = [
        "list prometheuses",
        "get namespaces models",
        "get apiservices v1beta1.custom.metrics.k8s.io, v1beta1.external.metrics.k8s.io, v1beta1.metrics.k8s.io",
    ];
    assert_eq!(rules, expected);
    let binding = rendered.one("ClusterRoleBinding");
    assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
    assert_eq!(binding["subjects"][0]["name"], "tms");
    for row in [
        "`prometheuses` | list |",
        "`namespaces`, that of the leases | get |",
        "external.metrics.k8s.io | get | who serves",
    ] {
        assert!(INSTALL.contains(row), "docs/install.md lacks a row with {row}");
    }
}

fn rule_in_words(rule: &Value) -> String {
    let list = |field: &str| {
        let items = rule[field].as_array().into_iter().flatten().map(text);
        items.collect::<Vec<_>>().join(", ")
    };
    format!("{} {} {}", list("verbs"), list("resources"), list("resourceNames")).trim_end().to_owned()
}

#[test]
fn the_guide_to_installing_explains_every_right() {
    for rule in rules_of_tests().as_array().unwrap() {
        let verbs: Vec<_> = rule["verbs"].as_array().unwrap().iter().map(text).collect();
        for resource in rule["resources"].as_array().unwrap() {
            let row = format!("`{}` | {} |", text(resource), verbs.join(", "));
            assert!(INSTALL.contains(&row), "docs/install.md lacks a row with {row}");
        }
    }
}

#[test]
fn with_the_account_of_the_chart_a_lease_lives_and_ends_and_nothing_is_forbidden() {
    let (Some(helm), Some(cluster)) = (Helm::new(), Cluster::shared()) else { return };
    inside(cluster, || async {
        let Some(mut world) = World::new(Database::Sqlite, Target::Kubernetes(cluster)).await else { return };
        let namespace = world.namespace.clone();
        let in_it = |args: &[&str]| cluster.kubectl(&[&["--namespace", &namespace], args].concat()).unwrap();
        let flags = ["--namespace", &namespace, "--set", "server.persistence.enabled=false"];
        helm.run_in(cluster, &[&["install", "tms", CHART], &flags[..]].concat()).unwrap();
        let token = in_it(&["create", "token", "tms", "--duration=1h"]);
        // The administrator's kubeconfig with the account's token in it.
        let admin = fs::read_to_string(cluster.kubeconfig("admin")).unwrap();
        let kubeconfig = world.folder.path().join("account.kubeconfig");
        fs::write(&kubeconfig, admin.replace("admin-token", token.trim())).unwrap();
        world.values = format!("{VALUES}  cluster: {{kubeconfig: {}}}\n", kubeconfig.display());

        let server = world.start().await;
        let lease = server.acquire(autoscaled(1, 4)).await.unwrap();
        server.until_state(&lease.id, LeaseState::Ready).await;
        server.release(&lease.id).await.unwrap();
        server.until_closed(&lease.id).await;
        server.stop().await;

        let writes = cluster.writes_of(&format!("system:serviceaccount:{namespace}:tms"));
        assert!(writes.iter().any(|write| write.resource == "horizontalpodautoscalers"), "{writes:?}");
        let refused: Vec<_> = writes.iter().filter(|write| write.code == 401 || write.code == 403).collect();
        assert!(refused.is_empty(), "{refused:?}");
        helm.run_in(cluster, &["uninstall", "tms", "--namespace", &namespace, "--wait"]).unwrap();
        in_it(&["delete", "namespace", &namespace, "--wait=false"]);
    });
}
