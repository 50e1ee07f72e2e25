//! KEDA scales a Deployment by what Prometheus says.

use tms_tests::cluster::Part;
use tms_tests::pipeline::PROMETHEUS;

use crate::namespace::Namespace;
use tms_tests::node::use_node;

/// A Deployment that does nothing, and a wish for one replica for each ten of a constant that is twenty.
const SCALED: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: idle}
spec:
  selector: {matchLabels: {app: idle}}
  template:
    metadata: {labels: {app: idle}}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 0
      securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: idle
        image: docker.io/local/client:1
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, readOnlyRootFilesystem: true}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: idle}
spec:
  scaleTargetRef: {name: idle}
  minReplicaCount: 1
  maxReplicaCount: 5
  pollingInterval: 5
  triggers:
  - type: prometheus
    metadata: {serverAddress: "PROMETHEUS", query: "vector(20)", threshold: "10"}
"#;

#[test]
fn keda_scales_a_deployment_to_what_prometheus_says() {
    let _pipeline = use_node();
    let Some(namespace) = Namespace::new("keda-scales") else { return };
    namespace.cluster.start_parts(&[Part::Prometheus, Part::KedaAdapter]);
    namespace.create(&SCALED.replace("PROMETHEUS", PROMETHEUS));
    let two = ["wait", "deployment/idle", "--for=jsonpath={.status.readyReplicas}=2", "--timeout=90s"];
    if let Err(complaint) = namespace.kubectl(&two) {
        let described = namespace.kubectl(&["describe", "scaledobject,hpa"]).unwrap_or_default();
        panic!("{complaint}\n{described}");
    }
    let hpa = ["get", "hpa", "keda-hpa-idle", "--output=jsonpath={.status.desiredReplicas}"];
    assert_eq!(namespace.kubectl(&hpa).as_deref(), Ok("2"));
}
