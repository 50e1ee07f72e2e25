//! What keeps a lease from becoming ready reaches its owner in words: on a real control plane, with a node on which the
//! test plays the kubelet.

use serde_json::{Value, json};
use tms_proto::v1::{BespokeTriton, Lease, LeaseSpec, LeaseState, ModelState};
use tms_tests::cluster::Cluster;
use tms_tests::kubelet::{container, on_unmanaged, play_kubelet, pods};
use tms_tests::server::{Database, Server, Target, World, autoscaled, spec};
use tms_tests::wait::{inside, until};

/// Runs a scenario on the shared cluster, on SQLite.
fn on_kubernetes<F: Future<Output = ()>>(scenario: impl FnOnce(World, &'static Cluster) -> F + Send) {
    let Some(cluster) = Cluster::shared() else { return };
    inside(cluster, || async {
        let world = World::new(Database::Sqlite, Target::Kubernetes(cluster)).await;
        scenario(world.expect("SQLite is always there"), cluster).await;
    });
}

fn running() -> Value {
    let since = json!({ "running": { "startedAt": "2026-01-01T00:00:00Z" } });
    json!({
        "phase": "Running",
        "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" }],
        "initContainerStatuses": [container("agent", &since)],
        "containerStatuses": [container("triton", &since)],
    })
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({
        "phase": "Pending",
        "conditions": [{ "type": "Ready", "status": "False" }],
        "containerStatuses": [container("triton", &json!({ "waiting": { "reason": reason, "message": message } }))],
    })
}

fn ended(reason: &str, exit_code: i32, message: &str) -> Value {
    let end = json!({ "terminated": { "exitCode": exit_code, "reason": reason, "message": message } });
    let waiting =
        json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting" } });
    let mut agent = container("agent", &waiting);
    agent["lastState"] = end;
    agent["restartCount"] = json!(3);
    json!({
        "phase": "Pending",
        "conditions": [{ "type": "Ready", "status": "False" }],
        "initContainerStatuses": [agent],
    })
}

async fn until_message(server: &Server, lease: &Lease, part: &str) -> Lease {
    until(&format!("the message says {part:?}"), 30, async || {
        let lease = server.lease(&lease.id).await;
        lease.message.contains(part).then_some(lease)
    })
    .await
}

/// Waits until the lease that ended holds nothing, and removes the pods that nobody's kubelet ends, again and again: a
/// ReplicaSet replaces them until it is told to go itself.
async fn until_closed(world: &World, server: &Server, lease: &Lease) -> Lease {
    until("the lease is closed", 60, async || {
        world.kubectl(&["delete", "pods", "--all", "--force", "--grace-period=0", "--output=name"]);
        let lease = server.lease(&lease.id).await;
        lease.closed_at.is_some().then_some(lease)
    })
    .await
}

#[test]
fn a_lease_that_fits_on_no_node_says_so() {
    on_kubernetes(async |world, _| {
        let server = world.start().await;
        let nowhere = [("example.com/nowhere".to_owned(), "true".to_owned())].into();
        let bespoke = BespokeTriton { node_selector: nowhere, ..BespokeTriton::default() };
        let lease = server.acquire(LeaseSpec { bespoke: Some(bespoke), ..spec() }).await.unwrap();
        let lease = until_message(&server, &lease, "no node can take a replica").await;
        assert_eq!(lease.state(), LeaseState::Provisioning);
        assert!(lease.message.contains("didn't match Pod's node affinity/selector"), "{}", lease.message);
        server.release(&lease.id).await.unwrap();
        server.until_closed(&lease.id).await;
        server.stop().await;
    });
}

#[test]
fn an_image_that_cannot_be_pulled_is_named_once_and_the_lease_heals() {
    on_kubernetes(async |world, _| {
        let server = world.start().await;
        let lease = server.acquire(on_unmanaged(spec())).await.unwrap();
        let pod = pods(&world, &lease, 1).await.remove(0);
        let cause = "failed to pull and unpack image: not found";
        play_kubelet(&world, &pod, &waiting("ErrImagePull", cause));
        let seen = until_message(&server, &lease, "cannot be pulled").await;
        assert!(seen.message.contains("nvcr.io/nvidia/tritonserver:26.07-py3"), "{}", seen.message);
        assert!(seen.message.contains(cause), "{}", seen.message);
        // The kubelet's two words for one trouble make one message, and no further change.
        for (reason, message) in [("ImagePullBackOff", "Back-off pulling image"), ("ErrImagePull", cause)] {
            play_kubelet(&world, &pod, &waiting(reason, message));
        }
        play_kubelet(&world, &pod, &running());
        let ready = server.until_state(&lease.id, LeaseState::Ready).await;
        assert_eq!(ready.message, "");
        assert!(ready.models.iter().all(|model| model.state() == ModelState::Ready));
        assert!(ready.version <= seen.version + 2, "{} after {}", ready.version, seen.version);
        server.release(&lease.id).await.unwrap();
        until_closed(&world, &server, &lease).await;
        server.stop().await;
    });
}

#[test]
fn a_model_that_cannot_be_loaded_makes_the_lease_invalid_and_frees_everything() {
    on_kubernetes(async |world, _| {
        let server = world.start().await;
        let lease = server.acquire(on_unmanaged(autoscaled(1, 2))).await.unwrap();
        let pod = pods(&world, &lease, 1).await.remove(0);
        let message =
            json!({ "failed": [{ "name": "bert", "message": "there is no version directory" }] }).to_string();
        play_kubelet(&world, &pod, &ended("Error", 1, &message));
        let invalid = server.until_state(&lease.id, LeaseState::Invalid).await;
        assert_eq!(invalid.message, "models cannot be loaded: bert: there is no version directory");
        assert_eq!(invalid.models[0].state(), ModelState::Failed);
        assert_eq!(invalid.models[0].message, "there is no version directory");
        let closed = until_closed(&world, &server, &lease).await;
        assert_eq!(closed.message, invalid.message, "the reason stays");
        assert_eq!(world.objects(), [""; 0]);
        server.stop().await;
    });
}

#[test]
fn objects_that_do_not_go_are_told_beside_why_the_lease_ended() {
    on_kubernetes(async |mut world, _| {
        world.values = world.values.replace("server:", "server:\n  cluster: {sweepIntervalSeconds: 1}");
        let server = world.start().await;
        let lease = server.acquire(on_unmanaged(spec())).await.unwrap();
        let pod = pods(&world, &lease, 1).await.remove(0);
        let message = json!({ "failed": [{ "name": "bert", "message": "corrupt" }] }).to_string();
        play_kubelet(&world, &pod, &ended("Error", 3, &message));
        let reason = "models cannot be loaded: bert: corrupt";
        assert_eq!(server.until_state(&lease.id, LeaseState::Invalid).await.message, reason);
        // No kubelet ends the pod, and the Deployment waits for it.
        world.advance(jiff::SignedDuration::from_mins(10));
        let stuck = until_message(&server, &lease, "its objects are still there").await;
        assert!(
            stuck.message.starts_with(&format!("{reason}; its objects are still there: ")),
            "{}",
            stuck.message
        );
        assert_eq!(until_closed(&world, &server, &lease).await.message, reason, "that is over");
        server.stop().await;
    });
}

#[test]
fn a_container_that_keeps_ending_is_named_with_its_last_words() {
    on_kubernetes(async |world, _| {
        let server = world.start().await;
        let lease = server.acquire(on_unmanaged(spec())).await.unwrap();
        let pod = pods(&world, &lease, 1).await.remove(0);
        play_kubelet(&world, &pod, &ended("OOMKilled", 137, ""));
        let seen = until_message(&server, &lease, "keeps ending").await;
        assert_eq!(seen.message, "container agent keeps ending (exit code 137, OOMKilled)");
        assert_ne!(seen.state(), LeaseState::Invalid, "a crash may heal");
        server.release(&lease.id).await.unwrap();
        until_closed(&world, &server, &lease).await;
        server.stop().await;
    });
}

#[test]
fn a_ready_lease_that_loses_a_replica_is_degraded_and_heals() {
    on_kubernetes(async |world, _| {
        let server = world.start().await;
        let lease = server.acquire(on_unmanaged(LeaseSpec { replicas: Some(2), ..spec() })).await.unwrap();
        let names = pods(&world, &lease, 2).await;
        play_kubelet(&world, &names[0], &running());
        let loading = server.until_state(&lease.id, LeaseState::Loading).await;
        assert_eq!(loading.replicas.unwrap().ready, 1, "one of two is not enough");
        play_kubelet(&world, &names[1], &running());
        server.until_state(&lease.id, LeaseState::Ready).await;
        let crash = ended("Error", 1, r#"{"failed":[{"name":"bert","message":"out of GPU memory"}]}"#);
        play_kubelet(&world, &names[1], &crash);
        let degraded = server.until_state(&lease.id, LeaseState::Degraded).await;
        assert!(degraded.message.contains("bert: out of GPU memory"), "{}", degraded.message);
        play_kubelet(&world, &names[1], &running());
        let mut healthy = running();
        healthy["initContainerStatuses"][0]["lastState"] = json!(null);
        play_kubelet(&world, &names[1], &healthy);
        server.until_state(&lease.id, LeaseState::Ready).await;
        server.release(&lease.id).await.unwrap();
        until_closed(&world, &server, &lease).await;
        server.stop().await;
    });
}

#[test]
fn a_lease_that_is_not_ready_in_time_becomes_invalid_with_its_last_trouble() {
    on_kubernetes(async |world, _| {
        let server = world.start().await;
        let lease = server.acquire(on_unmanaged(spec())).await.unwrap();
        let pod = pods(&world, &lease, 1).await.remove(0);
        play_kubelet(&world, &pod, &waiting("CreateContainerConfigError", "secret \"models\" not found"));
        until_message(&server, &lease, "cannot be created").await;
        world.advance(jiff::SignedDuration::from_mins(31));
        let invalid = server.until_state(&lease.id, LeaseState::Invalid).await;
        let expected = "not ready within 30m (server.leases.loadTimeout): container triton cannot be created: \
                        secret \"models\" not found";
        assert_eq!(invalid.message, expected);
        until_closed(&world, &server, &lease).await;
        server.stop().await;
    });
}

#[test]
fn a_quota_that_keeps_replicas_from_being_created_is_told() {
    on_kubernetes(async |world, cluster| {
        let quota = format!(
            "apiVersion: v1\nkind: ResourceQuota\nmetadata: {{name: none, namespace: {}}}\nspec: {{hard: {{pods: '0'}}}}",
            world.namespace
        );
        cluster.create(&quota).unwrap();
        let server = world.start().await;
        let lease = server.acquire(spec()).await.unwrap();
        let seen = until_message(&server, &lease, "replicas cannot be created").await;
        assert!(seen.message.contains("exceeded quota: none"), "{}", seen.message);
        server.release(&lease.id).await.unwrap();
        server.until_closed(&lease.id).await;
        server.stop().await;
    });
}

#[test]
fn what_happens_to_a_lease_is_written_as_kubernetes_events() {
    on_kubernetes(async |world, _| {
        let server = world.start().await;
        let lease = server.acquire(spec()).await.unwrap();
        server.until_state(&lease.id, LeaseState::Ready).await;
        let selector = format!("--field-selector=regarding.name=tms-{},reportingController=tms", lease.id);
        let note = until("an event says READY", 20, async || {
            let events = world.kubectl(&["get", "events.events.k8s.io", &selector]);
            let notes = events["items"].as_array()?.iter().filter_map(|event| event["note"].as_str());
            notes.map(str::to_owned).find(|note| note.contains("READY"))
        })
        .await;
        assert!(note.ends_with("→ READY"), "{note}");
        server.release(&lease.id).await.unwrap();
        server.until_closed(&lease.id).await;
        server.stop().await;
    });
}
