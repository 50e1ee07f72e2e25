//! values.yaml on its way through Helm to the server.

use std::process::Command;

use jiff::SignedDuration;
use tempfile::NamedTempFile;
use tms_server::config::{self, ClusterKind, Config};
use tms_server::domain::scaling::MetricName;
use tms_tests::process::program;

use crate::harness::{Helm, Rendered};

/// What the server reads of values, with its warnings.
fn read(rendered: &Rendered) -> (Config, Vec<String>) {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rendered.values()).unwrap();
    let (config, warnings) = config::load(&[file.path().to_owned()], std::iter::empty())
        .unwrap_or_else(|faults| panic!("{faults}\n{}", rendered.values()));
    (config, warnings.into_iter().map(|warning| warning.key).collect())
}

#[test]
fn the_server_in_a_pod_listens_to_all_keeps_its_file_on_the_volume_and_acts_on_its_cluster() {
    let Some(helm) = Helm::new() else { return };
    let (config, warnings) = read(&helm.template("").unwrap());
    assert_eq!(config.listen.address.to_string(), "0.0.0.0:30345");
    assert_eq!(config.listen.tls.unwrap().certificate_file.to_str(), Some("/etc/tms-tls/tls.crt"));
    assert_eq!(config.health_port.map(u16::from), Some(8080));
    assert_eq!(config.database.url, "sqlite:///var/lib/tms/tms.db");
    assert_eq!(config.cluster.kind, ClusterKind::Kubernetes { kubeconfig: None });
    assert_eq!(config.namespace.as_deref(), Some("ours"));
    // Nobody is told apart, and the NOTES say so too.
    assert_eq!(warnings, ["server.tls.clientCaFile"]);
}

#[test]
fn what_somebody_chose_is_left_alone() {
    let Some(helm) = Helm::new() else { return };
    let values = "
kubernetes: {namespace: models}
server:
  apiService: {address: '::', port: 31000, healthPort: 9000}
  database: {url: 'sqlite:///var/lib/tms/other.db'}
  cluster: {kind: manifests, manifests: {directory: /var/lib/tms/manifests}}
";
    let (config, _) = read(&helm.template(values).unwrap());
    assert_eq!(config.listen.address.to_string(), "[::]:31000");
    assert_eq!(config.health_port.map(u16::from), Some(9000));
    assert_eq!(config.database.url, "sqlite:///var/lib/tms/other.db");
    assert_eq!(config.cluster.kind, ClusterKind::Manifests { directory: "/var/lib/tms/manifests".into() });
    assert_eq!(config.namespace.as_deref(), Some("models"));
}

#[test]
fn every_default_comes_through_helm_unchanged() {
    let Some(helm) = Helm::new() else { return };
    let (through_helm, _) = read(&helm.template("").unwrap());
    // Where nothing is observed, no lease is renewed by its use.
    let in_a_cluster = ("TMS__SERVER__CLUSTER__KIND".to_owned(), "kubernetes".to_owned());
    let (built_in, _) = config::load(&[], std::iter::once(in_a_cluster)).unwrap();
    assert_eq!(through_helm.bounds, built_in.bounds);
    assert_eq!(through_helm.leases, built_in.leases);
    assert_eq!(through_helm.logging, built_in.logging);
    assert_eq!(
        format!("{:?}", through_helm.plan_settings(String::new())),
        format!("{:?}", built_in.plan_settings(String::new()))
    );
}

#[test]
fn large_numbers_stay_integers() {
    let Some(helm) = Helm::new() else { return };
    let values = "
server:
  leases: {maximumPerOwner: 1000000}
  autoscaling:
    metrics: {queueTime: {threshold: {default: 20000000, minimum: 1e7, maximum: 3600000000}}}
";
    let (config, _) = read(&helm.template(values).unwrap());
    assert_eq!(config.leases.maximum_per_owner, Some(1_000_000));
    let queue_time = &config.bounds.autoscaling.metrics[&MetricName::QueueTime];
    assert_eq!(
        (queue_time.default, queue_time.minimum, queue_time.maximum),
        (20_000_000, 10_000_000, Some(3_600_000_000))
    );
}

#[test]
fn null_takes_the_default_and_takes_a_label_away() {
    let Some(helm) = Helm::new() else { return };
    let values = "
server:
  leases: {defaultLifetime: ~}
  logging: ~
  autoscaling:
    behavior: {scaleUp: {tolerance: ~}}
    prometheus: {podMonitorLabels: {release: ~, team: a}, ruleLabels: {release: ~}}
";
    let (config, _) = read(&helm.template(values).unwrap());
    assert_eq!(config.bounds.lifetime.default, SignedDuration::from_hours(1));
    let plan = config.plan_settings(String::new());
    assert_eq!(plan.pod_monitor_labels.keys().collect::<Vec<_>>(), ["team"]);
    assert!(plan.rule_labels.is_empty());
}

#[test]
fn both_spellings_of_the_guides_come_through() {
    let Some(helm) = Helm::new() else { return };
    let values = "
server:
  autoscaling:
    enabled: true
    metrics: {queueTime: {enable: true, allowed: true}, gpuUtilization: {enabled: true}}
    prometheus: {ruleLables: {team: a}}
";
    let (config, _) = read(&helm.template(values).unwrap());
    let autoscaling = &config.bounds.autoscaling;
    assert!(autoscaling.enabled);
    assert!(autoscaling.metrics[&MetricName::QueueTime].enabled);
    assert!(autoscaling.metrics[&MetricName::GpuUtilization].enabled);
    let labels = config.plan_settings(String::new()).rule_labels;
    assert_eq!(labels.keys().collect::<Vec<_>>(), ["release", "team"]);
}

#[test]
fn the_server_accepts_what_the_examples_become() {
    let Some(helm) = Helm::new() else { return };
    for example in ["try-out", "postgresql"] {
        let rendered = helm.template_with(&["--values", &Helm::example(example)]).unwrap();
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), rendered.values()).unwrap();
        let checked = Command::new(program()).arg("check-config").arg(file.path()).output().unwrap();
        assert!(checked.status.success(), "{example}: {}", String::from_utf8_lossy(&checked.stderr));
    }
}
