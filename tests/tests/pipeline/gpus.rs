//! GPUs whose figures a test sets, and which belong to the pods that asked for them.

use tms_tests::cluster::Part;
use tms_tests::pipeline::GpuFigures;
use tms_tests::wait::{inside, until};

use crate::namespace::Namespace;
use tms_tests::node::use_node;

const HOLDS_GPUS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: busy}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 0
  securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: triton
    image: docker.io/local/client:1
    resources: {limits: {nvidia.com/gpu: 2}}
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, readOnlyRootFilesystem: true}
"#;

#[test]
fn a_gpu_measures_what_the_test_says_in_the_name_of_the_pod_that_holds_it() {
    let _pipeline = use_node();
    let Some(namespace) = Namespace::new("gpus") else { return };
    let cluster = namespace.cluster;
    cluster.start_parts(&[Part::Prometheus, Part::Dcgm]);
    namespace.create(HOLDS_GPUS);
    inside(cluster, || async {
        for figures in [
            GpuFigures { utilization: 0, memory_used_mib: 0 },
            GpuFigures { utilization: 87, memory_used_mib: 30_000 },
        ] {
            cluster.set_gpus("gpus", "busy", figures);
            for (metric, expected) in [
                ("DCGM_FI_DEV_GPU_UTIL", figures.utilization),
                ("DCGM_FI_DEV_FB_USED", figures.memory_used_mib),
                ("DCGM_FI_DEV_FB_FREE", 40_960 - figures.memory_used_mib),
            ] {
                // The exporter's own pod and namespace are in the labels without a prefix.
                let query = format!(
                    "{metric}{{exported_namespace=\"gpus\",exported_pod=\"busy\",exported_container=\"triton\",\
                     namespace=\"monitoring\"}} == {expected}"
                );
                let both = async || {
                    let found = cluster.prometheus_query(&query).ok()?;
                    (found.len() == 2).then_some(())
                };
                until(&query, 60, both).await;
            }
        }
    });
}
