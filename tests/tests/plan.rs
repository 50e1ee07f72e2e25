//! Plans on a real API: it takes every object without a word, and what it gives back is what was planned.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tms_server::domain::bounds::GpuSource;
use tms_server::domain::capabilities::Capabilities;
use tms_server::domain::lease::{Lease, Model, Toleration};
use tms_server::domain::plan::{self, Settings, covers, to_yaml};
use tms_server::domain::repositories::{AccessMode, Claim, Credential, Target};
use tms_server::domain::scaling::{MetricName, Scaling};
use tms_tests::cluster::Cluster;
use tms_tests::samples;

/// Every warning of the API counts as an error, also that a pod is not within the restricted standard.
const NAMESPACE: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: plan, labels: {pod-security.kubernetes.io/warn: restricted}}
"#;

#[test]
fn an_autoscaled_lease_is_taken_and_kept_as_planned() {
    let everything = MetricName::ALL.map(|metric| (metric, if metric.is_percent() { 80 } else { 10_000 }));
    let scaling = samples::autoscaled_on(everything, 1, 4);
    for settings in [settings(), Settings { gpu_source: GpuSource::Dcgm, pre_stop_seconds: 0, ..settings() }]
    {
        let lease = samples::lease("plan", scaling.clone(), &settings);
        apply_and_compare(&lease, &settings);
    }
}

#[test]
fn a_fixed_lease_with_every_wish_is_taken_and_kept_as_planned() {
    let mut lease = samples::lease("plan", Scaling::Fixed { replicas: 2 }, &settings());
    lease.spec.labels = texts([("experiment", "42")]);
    let model = |name: &str, uri: &str| Model { name: name.to_owned(), uri: uri.to_owned() };
    lease.spec.models = vec![
        model("tokenizer", "pvc://models/tokenizer"),
        model("bert", "https://models.example.com/internal/bert.tar.gz"),
        model("decoder", "pvc://disk.v2/decoder"),
    ];
    let triton = &mut lease.spec.triton;
    triton.gpus = 0;
    triton.cpu = "1500m".to_owned();
    triton.environment = texts([("B", "1.0"), ("A", "on"), ("PRICE", "$5 $(HOME)")]);
    triton.node_selector = texts([("tms.test/node", "kwok")]);
    triton.tolerations = vec![Toleration {
        key: "dedicated".to_owned(),
        operator: "Equal".to_owned(),
        value: "inference".to_owned(),
        effect: "NoExecute".to_owned(),
        toleration_seconds: Some(60),
    }];
    triton.affinity = Some(json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
        "weight": 1,
        "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", "labelSelector": {}},
    }]}}));
    lease.deployment = plan::render(lease.id, "plan", &lease.spec, &settings());
    apply_and_compare(&lease, &settings());
}

fn settings() -> Settings {
    let sample = samples::settings("plan");
    let mut repositories = sample.repositories.clone();
    repositories.claims.push(Claim { name: "disk.v2".to_owned(), access: AccessMode::ReadWriteOnce });
    repositories.credentials.push(Credential {
        target: Target::parse("models.example.com/internal").expect("it is a target"),
        secret: "model-credentials".to_owned(),
    });
    Settings {
        repositories,
        pull_secrets: vec!["ngc-pull".to_owned()],
        part_of: Some("inference".to_owned()),
        custom_labels: texts([("team", "vision")]),
        custom_annotations: texts([("example.com/contact", "vision@example.com")]),
        ..sample
    }
}

fn texts<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn apply_and_compare(lease: &Lease, settings: &Settings) {
    let Some(cluster) = Cluster::shared() else { return };
    cluster
        .kubectl_as("admin", &["apply", "--server-side", "-f", "-"], NAMESPACE)
        .expect("the namespace is there");
    let capabilities = Capabilities { kubernetes: Some((1, 36)), ..Capabilities::assumed() };
    for object in plan::plan(lease, settings, &capabilities).objects() {
        let kind = object.kind.as_str();
        let manifest = to_yaml(&object.body);
        let strict = ["--validate=strict", "--warnings-as-errors"];
        let apply = ["apply", "--server-side", "--field-manager=tms", "-o", "json", "-f", "-"];
        let apply = [apply.as_slice(), &strict].concat();
        let apply = || -> Value {
            let printed = cluster
                .kubectl_as("tms", &apply, &manifest)
                .unwrap_or_else(|error| panic!("{kind}: {error}"));
            serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{kind}: {error}: {printed}"))
        };
        let live = apply();
        assert!(covers(&live, &object.body), "{kind}: {live:#} does not cover {:#}", object.body);
        assert_eq!(apply()["spec"], live["spec"], "{kind} changes when it is applied again");
    }
}
