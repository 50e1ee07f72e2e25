//! The objects of a lease on a real API: it takes them without a word, and what it gives back is what was planned.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tms_server::domain::bounds::GpuSource;
use tms_server::domain::capabilities::Capabilities;
use tms_server::domain::lease::{LeaseId, Spec, Toleration};
use tms_server::domain::plan::{self, Settings, covers, to_yaml};
use tms_tests::cluster::Cluster;
use tms_tests::samples;

#[test]
fn an_autoscaled_lease_is_taken_and_kept_as_planned() {
    let spec = samples::autoscaled_on_everything();
    apply_and_compare(&spec, &samples::settings());
    apply_and_compare(
        &spec,
        &Settings { gpu_source: GpuSource::Dcgm, pre_stop_seconds: 0, ..samples::settings() },
    );
}

#[test]
fn a_fixed_lease_with_every_wish_is_taken_and_kept_as_planned() {
    let mut spec = samples::fixed(2);
    spec.triton.cpu = "1500m".to_owned();
    spec.triton.environment = [("B", "1.0"), ("A", "on"), ("PRICE", "$5 $(HOME)")]
        .map(|(name, value)| (name.into(), value.into()))
        .into();
    spec.triton.node_selector = BTreeMap::from([("tms.test/node".to_owned(), "kwok".to_owned())]);
    spec.triton.tolerations = vec![Toleration {
        key: "dedicated".to_owned(),
        operator: "Equal".to_owned(),
        value: "inference".to_owned(),
        effect: "NoExecute".to_owned(),
        toleration_seconds: Some(60),
    }];
    spec.triton.affinity =
        Some(json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 1,
            "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", "labelSelector": {}},
        }]}}));
    apply_and_compare(&spec, &samples::settings());
}

/// Every warning of the API counts as an error, also that a pod is not within the restricted standard.
const NAMESPACE: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: tms, labels: {pod-security.kubernetes.io/warn: restricted}}
"#;

fn apply_and_compare(spec: &Spec, settings: &Settings) {
    let Some(cluster) = Cluster::shared() else { return };
    cluster
        .kubectl_as("admin", &["apply", "--server-side", "-f", "-"], NAMESPACE)
        .expect("the namespace is there");
    let lease = samples::lease(LeaseId::random(), spec.clone(), settings);
    let capabilities = Capabilities { kubernetes: Some((1, 36)), ..Capabilities::assumed() };
    for object in plan::plan(&lease, settings, &capabilities).objects() {
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
