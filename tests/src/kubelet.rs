//! Playing the kubelet of the node `unmanaged`, whose pods get the status that a test writes.

use serde_json::{Value, json};
use tms_proto::v1::{BespokeTriton, Lease, LeaseSpec, Toleration};

use crate::server::World;
use crate::wait::until;

/// A wish for a place on the node whose kubelet is the test.
pub fn on_unmanaged(spec: LeaseSpec) -> LeaseSpec {
    let toleration = Toleration {
        key: "tms.test/unmanaged".to_owned(),
        operator: "Exists".to_owned(),
        ..Toleration::default()
    };
    let bespoke = BespokeTriton {
        node_selector: [("tms.test/node".to_owned(), "unmanaged".to_owned())].into(),
        tolerations: vec![toleration],
        ..BespokeTriton::default()
    };
    LeaseSpec { bespoke: Some(bespoke), ..spec }
}

/// Waits for the pods of a lease and returns their names.
pub async fn pods(world: &World, lease: &Lease, count: usize) -> Vec<String> {
    let selector = format!("--selector=tms.internal/lease-id={}", lease.id);
    until(&format!("{count} pods are bound"), 30, async || {
        let list = world.kubectl(&["get", "pods", &selector]);
        let bound = |pod: &&Value| {
            pod["spec"]["nodeName"].is_string() && pod["metadata"]["deletionTimestamp"].is_null()
        };
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let names: Vec<_> = items
            .iter()
            .filter(bound)
            .map(|pod| pod["metadata"]["name"].as_str().expect("a pod has a name").to_owned())
            .collect();
        (names.len() == count).then_some(names)
    })
    .await
}

/// Writes the status of a pod, as its kubelet would.
pub fn play_kubelet(world: &World, pod: &str, status: &Value) {
    let patch = json!({ "status": status }).to_string();
    world.kubectl(&["patch", "pod", pod, "--subresource=status", "--type=merge", "--patch", &patch]);
}

/// The status of one container, which is ready if it runs.
pub fn container(name: &str, state: &Value) -> Value {
    let is_ready = state.get("running").is_some();
    json!({
        "name": name, "image": "nvcr.io/nvidia/tritonserver:26.07-py3", "imageID": "", "ready": is_ready,
        "restartCount": 0, "state": state,
    })
}
