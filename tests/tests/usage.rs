//! How a lease comes up and how it is used, as its pods tell it: on a real control plane, with a node on which the test plays
//! the kubelet, and pods whose agent and Triton the test plays too.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tms_proto::v1::{
    AcquireRequest, AutomaticRenewal, Lease, LeaseSpec, LeaseState, Model, ModelState, RenewRequest,
    RenewalChange, UpdateRequest,
};
use tms_tests::cluster::Cluster;
use tms_tests::http::get;
use tms_tests::kubelet::{container, on_unmanaged, play_kubelet, pods};
use tms_tests::pod::Pod;
use tms_tests::server::{Database, Server, Target, VALUES, World, spec, timestamp};
use tms_tests::wait::{inside, until};

/// Runs a scenario on the shared cluster.
fn on_kubernetes<F: Future<Output = ()>>(database: Database, scenario: impl FnOnce(World) -> F + Send) {
    let Some(cluster) = Cluster::shared() else { return };
    inside(cluster, || async {
        if let Some(mut world) = World::new(database, Target::Kubernetes(cluster)).await {
            let leases = "leases: {automaticRenewal: {idleWindow: 5m, lookInterval: 1m}, notices: [3m, 1m], ";
            world.values = VALUES.replace("leases: {", leases);
            scenario(world).await;
        }
    });
}

/// A wish for a lease of five minutes, that use keeps alive for five minutes more.
fn renewed_by_use() -> LeaseSpec {
    let lifetime = Some(prost_types::Duration { seconds: 300, nanos: 0 });
    let automatic_renewal = Some(AutomaticRenewal::default());
    on_unmanaged(LeaseSpec { lifetime, automatic_renewal, ..spec() })
}

fn model(name: &str) -> Model {
    Model { name: name.to_owned(), uri: format!("https://models.example.com/{name}.tar.gz") }
}

/// The status of a pod whose agent runs, and whose Triton does so if it is ready.
fn status(address: &str, is_ready: bool) -> Value {
    let since = "2026-01-01T00:00:00Z";
    let running = json!({ "running": { "startedAt": since } });
    let waiting = json!({ "waiting": { "reason": "PodInitializing" } });
    let condition = |kind: &str, holds: bool| json!({ "type": kind, "status": if holds { "True" } else { "False" }, "lastTransitionTime": since });
    json!({
        "phase": if is_ready { "Running" } else { "Pending" },
        "podIP": address,
        "podIPs": [{ "ip": address }],
        "conditions": [
            condition("PodScheduled", true), condition("Initialized", is_ready), condition("Ready", is_ready),
        ],
        "initContainerStatuses": [container("agent", &running)],
        "containerStatuses": [container("triton", if is_ready { &running } else { &waiting })],
    })
}

/// Acquires a lease, and makes its only pod ready at this address.
async fn ready_lease(world: &World, server: &Server, spec: LeaseSpec, pod: &Pod) -> Lease {
    let lease = server.acquire(spec).await.unwrap();
    let name = pods(world, &lease, 1).await.remove(0);
    play_kubelet(world, &name, &status(&pod.address(), true));
    server.until_state(&lease.id, LeaseState::Ready).await
}

/// Waits until the server has looked at the use of a pod once more than `looks` times.
async fn until_looked(pod: &Pod, looks: u64) {
    until("the server looks at the use", 30, async || (pod.looks() > looks).then_some(())).await;
}

async fn until_end(server: &Server, lease: &Lease, end: Timestamp) {
    until(&format!("the lease ends at {end}"), 30, async || {
        let now = server.lease(&lease.id).await;
        (timestamp(now.expires_at) == end).then_some(())
    })
    .await;
}

/// Serves one request more, lets a minute go by, and waits until the lease lives on for its idle window from then.
async fn use_for_a_minute(world: &World, server: &Server, lease: &Lease, pod: &Pod, requests: &mut u64) {
    *requests += 1;
    pod.serve(*requests);
    world.advance(MINUTE);
    let end = world.clock.now() + MINUTE * 5;
    until_end(server, lease, end).await;
}

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// Waits until the lease that ended holds nothing, and removes the pods that nobody's kubelet ends.
async fn end(world: &World, server: Server, lease: &Lease) {
    server.release(&lease.id).await.unwrap();
    until("the lease is closed", 60, async || {
        world.kubectl(&["delete", "pods", "--all", "--force", "--grace-period=0", "--output=name"]);
        server.lease(&lease.id).await.closed_at.map(drop)
    })
    .await;
    server.stop().await;
}

async fn events(server: &Server, lease: &Lease, reason: &str) -> usize {
    let request = tms_proto::v1::StatusRequest { lease_id: lease.id.clone() };
    let answer = server.leases.clone().status(request).await.unwrap().into_inner();
    answer.events.iter().filter(|event| event.reason == reason).count()
}

#[test]
fn an_acquire_tells_the_progress_of_each_model_in_steps_and_all_of_them_at_last() {
    on_kubernetes(Database::Sqlite, async |world| {
        let server = world.start().await;
        let wish = on_unmanaged(LeaseSpec { models: vec![model("a"), model("b")], ..spec() });
        let request = AcquireRequest { spec: Some(wish), ..AcquireRequest::default() };
        let mut stream = server.acquire_stream(request).await.unwrap();
        let lease = stream.message().await.unwrap().unwrap().lease.unwrap();
        let name = pods(&world, &lease, 1).await.remove(0);
        let pod = Pod::start().await;
        let fetching = |bytes: u64, message: &str| {
            json!([
                { "name": "a", "state": "downloading", "downloadedBytes": bytes, "totalBytes": 1000, "message": message },
                { "name": "b", "state": "pending", "message": "" },
            ])
        };
        pod.tell(fetching(0, ""));
        play_kubelet(&world, &name, &status(&pod.address(), false));

        let mut told: Vec<String> = Vec::new();
        let mut hear = async |until: &str| {
            while !std::mem::take(&mut told).iter().any(|line| line == until) {
                let message = stream.message().await.unwrap().expect("the stream goes on");
                for model in message.models {
                    let bytes = model.downloaded_bytes.map(|bytes| format!(" {bytes}")).unwrap_or_default();
                    let state = model.state().as_str_name().trim_start_matches("MODEL_STATE_");
                    let line = format!("{} {state}{bytes} {}", model.name, model.message);
                    told.push(line.trim_end().to_owned());
                }
            }
        };
        hear("a DOWNLOADING 0").await;
        // Less than a tenth is not told.
        let before = server.lease(&lease.id).await.version;
        let questions = pod.questions();
        pod.tell(fetching(99, ""));
        until("the agent is asked again", 30, async || (pod.questions() > questions).then_some(())).await;
        assert_eq!(server.lease(&lease.id).await.version, before);
        pod.tell(fetching(100, ""));
        hear("a DOWNLOADING 100").await;
        pod.tell(fetching(100, "503 Service Unavailable; trying again"));
        hear("a DOWNLOADING 100 503 Service Unavailable; trying again").await;
        pod.tell(json!([{ "name": "a", "state": "loading" }, { "name": "b", "state": "loading" }]));
        hear("b LOADING").await;
        pod.tell(json!([{ "name": "a", "state": "ready" }, { "name": "b", "state": "loading" }]));
        hear("a READY").await;
        play_kubelet(&world, &name, &status(&pod.address(), true));
        let mut last = None;
        while let Some(message) = stream.message().await.unwrap() {
            last = Some(message);
        }
        let last = last.expect("a last message");
        assert_eq!(last.lease.unwrap().state(), LeaseState::Ready);
        let states: Vec<_> = last.models.iter().map(|model| (model.name.as_str(), model.state())).collect();
        assert_eq!(states, [("a", ModelState::Ready), ("b", ModelState::Ready)]);
        // Nobody asks the agent of a pod that is ready.
        let questions = pod.questions();
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!(pod.questions(), questions);
        end(&world, server, &lease).await;
    });
}

#[test]
fn an_agent_that_cannot_be_reached_makes_progress_coarser_and_no_more() {
    on_kubernetes(Database::Sqlite, async |world| {
        let server = world.start().await;
        let lease = server.acquire(on_unmanaged(spec())).await.unwrap();
        let name = pods(&world, &lease, 1).await.remove(0);
        play_kubelet(&world, &name, &status("127.0.99.99", false));
        let fetching = server.until_state(&lease.id, LeaseState::Loading).await;
        assert_eq!((fetching.models[0].state(), fetching.message.as_str()), (ModelState::Pending, ""));
        let mut fetched = status("127.0.99.99", false);
        fetched["conditions"][1]["status"] = json!("True");
        play_kubelet(&world, &name, &fetched);
        until("the model is loading", 30, async || {
            let lease = server.lease(&lease.id).await;
            (lease.models[0].state() == ModelState::Loading).then_some(())
        })
        .await;
        play_kubelet(&world, &name, &status("127.0.99.99", true));
        server.until_state(&lease.id, LeaseState::Ready).await;
        end(&world, server, &lease).await;
    });
}

#[test]
fn a_replica_that_loses_its_models_degrades_the_lease_and_says_why_until_it_has_them_again() {
    on_kubernetes(Database::Sqlite, async |world| {
        let server = world.start().await;
        let pod = Pod::start().await;
        let lease = ready_lease(&world, &server, on_unmanaged(spec()), &pod).await;
        let name = pods(&world, &lease, 1).await.remove(0);
        pod.tell(json!([{ "name": "bert", "state": "failed", "message": "out of GPU memory" }]));
        play_kubelet(&world, &name, &status(&pod.address(), false));
        // The pod may be seen before its Deployment counts again.
        let degraded = until("the lease says why", 30, async || {
            let lease = server.lease(&lease.id).await;
            (lease.message == "0 of 1 replicas are ready: bert: out of GPU memory").then_some(lease)
        })
        .await;
        assert_eq!(degraded.state(), LeaseState::Degraded);
        assert_eq!(degraded.models[0].state(), ModelState::Failed);
        pod.tell(json!([{ "name": "bert", "state": "ready" }]));
        play_kubelet(&world, &name, &status(&pod.address(), true));
        let healed = server.until_state(&lease.id, LeaseState::Ready).await;
        assert_eq!((healed.message.as_str(), healed.models[0].state()), ("", ModelState::Ready));
        end(&world, server, &lease).await;
    });
}

#[test]
fn a_lease_that_is_used_outlives_its_lifetime_and_ends_once_it_is_not() {
    on_kubernetes(Database::Sqlite, async |world| {
        let server = world.start().await;
        let pod = Pod::start().await;
        let lease = ready_lease(&world, &server, renewed_by_use(), &pod).await;
        let window = lease.spec.as_ref().unwrap().automatic_renewal.unwrap().idle_window.unwrap();
        assert_eq!(window.seconds, 300, "the administrator's");
        let mut requests = 0;
        for _ in 0..8 {
            use_for_a_minute(&world, &server, &lease, &pod, &mut requests).await;
        }
        let used = server.lease(&lease.id).await;
        assert_eq!(timestamp(used.last_used_at), world.clock.now());
        // Looks that find no use write nothing.
        let looks = pod.looks();
        world.advance(MINUTE);
        until_looked(&pod, looks).await;
        world.advance(MINUTE);
        until_looked(&pod, looks + 1).await;
        assert_eq!(server.lease(&lease.id).await.expires_at, used.expires_at);
        world.advance(MINUTE * 3);
        server.until_state(&lease.id, LeaseState::Expired).await;
        end(&world, server, &lease).await;
    });
}

#[test]
fn a_restarted_server_takes_requests_of_before_for_use_at_its_start_and_then_only_new_ones() {
    on_kubernetes(Database::Sqlite, async |world| {
        let server = world.start().await;
        let pod = Pod::start().await;
        let lease = ready_lease(&world, &server, renewed_by_use(), &pod).await;
        let mut requests = 0;
        use_for_a_minute(&world, &server, &lease, &pod, &mut requests).await;
        server.stop().await;
        world.advance(MINUTE);
        let server = world.start().await;
        let end_of_life = world.clock.now() + MINUTE * 5;
        until_end(&server, &lease, end_of_life).await;
        for _ in 0..2 {
            let looks = pod.looks();
            world.advance(MINUTE);
            until_looked(&pod, looks).await;
        }
        let unused = server.lease(&lease.id).await;
        assert_eq!(timestamp(unused.expires_at), end_of_life, "the end has not moved");
        use_for_a_minute(&world, &server, &lease, &pod, &mut requests).await;
        end(&world, server, &lease).await;
    });
}

#[test]
fn use_after_the_last_look_counts_and_a_triton_that_is_silent_at_the_end_keeps_nothing_alive() {
    on_kubernetes(Database::Sqlite, async |world| {
        let server = world.start().await;
        let pod = Pod::start().await;
        let lease = ready_lease(&world, &server, renewed_by_use(), &pod).await;
        let end_of_life = timestamp(lease.expires_at);
        let seconds = SignedDuration::from_secs;
        let looks = pod.looks();
        world.advance(MINUTE * 4 + seconds(30));
        until_looked(&pod, looks).await;
        // The next regular look is due half a minute after the end.
        pod.serve(1);
        world.advance(seconds(30));
        until_end(&server, &lease, end_of_life + MINUTE * 5).await;
        assert_eq!(server.lease(&lease.id).await.state(), LeaseState::Ready);
        assert_eq!(events(&server, &lease, "KeptAlive").await, 1);

        drop(pod);
        world.advance(MINUTE * 5);
        server.until_state(&lease.id, LeaseState::Expired).await;
        end(&world, server, &lease).await;
    });
}

#[test]
fn renewal_by_use_that_is_turned_on_later_keeps_a_lease_alive_until_it_is_turned_off() {
    on_kubernetes(Database::Sqlite, async |world| {
        let server = world.start().await;
        let pod = Pod::start().await;
        let wish = LeaseSpec { automatic_renewal: None, ..renewed_by_use() };
        let lease = ready_lease(&world, &server, wish, &pod).await;
        let looked_at = Pod::start().await;
        ready_lease(&world, &server, renewed_by_use(), &looked_at).await;
        pod.serve(5);
        server.stop().await;
        let before = looked_at.looks();
        let server = world.start().await;
        until_looked(&looked_at, before).await;
        // What is found at the first look of a server counts; it is over once the next has begun.
        world.advance(MINUTE);
        until_looked(&looked_at, before + 1).await;
        assert_eq!(pod.looks(), 0, "nobody looks");
        let update = async |automatic_renewal| {
            let renewal = Some(RenewalChange { automatic_renewal });
            let request = UpdateRequest { lease_id: lease.id.clone(), renewal, ..UpdateRequest::default() };
            server.leases.clone().update(request).await.unwrap().into_inner().lease.unwrap()
        };
        assert_eq!(update(Some(AutomaticRenewal::default())).await.expires_at, lease.expires_at);
        world.advance(MINUTE);
        until_looked(&pod, 0).await;
        let mut requests = 5;
        use_for_a_minute(&world, &server, &lease, &pod, &mut requests).await;
        assert_eq!(events(&server, &lease, "KeptAlive").await, 1, "what came before counts for nothing");
        update(None).await;
        pod.serve(99);
        world.advance(MINUTE * 5);
        server.until_state(&lease.id, LeaseState::Expired).await;
        end(&world, server, &lease).await;
    });
}

#[test]
fn a_server_that_has_not_reached_an_agent_yet_keeps_what_another_told() {
    on_kubernetes(Database::Sqlite, async |world| {
        let server = world.start().await;
        let lease = server.acquire(on_unmanaged(spec())).await.unwrap();
        let name = pods(&world, &lease, 1).await.remove(0);
        let pod = Pod::start().await;
        pod.tell(
            json!([{ "name": "bert", "state": "downloading", "downloadedBytes": 60, "totalBytes": 100 }]),
        );
        play_kubelet(&world, &name, &status(&pod.address(), false));
        let told = until("the download is told", 30, async || {
            let lease = server.lease(&lease.id).await;
            (lease.models[0].downloaded_bytes == Some(60)).then_some(lease)
        })
        .await;
        server.stop().await;
        drop(pod);
        let server = world.start().await;
        // Once another lease is ready, this one has been looked at.
        let other = server.acquire(spec()).await.unwrap();
        server.until_state(&other.id, LeaseState::Ready).await;
        until("nothing is to be done", 30, async || server.running.waker().is_idle().then_some(())).await;
        let kept = server.lease(&lease.id).await;
        assert_eq!((kept.version, &kept.models), (told.version, &told.models));
        server.release(&other.id).await.unwrap();
        end(&world, server, &lease).await;
    });
}

#[test]
fn two_servers_keep_a_used_lease_alive_once() {
    on_kubernetes(Database::Postgres, async |world| {
        let (one, other) = (world.start().await, world.start().await);
        let pod = Pod::start().await;
        let lease = ready_lease(&world, &one, renewed_by_use(), &pod).await;
        let mut requests = 0;
        for _ in 0..6 {
            let looks = pod.looks();
            use_for_a_minute(&world, &one, &lease, &pod, &mut requests).await;
            until_looked(&pod, looks).await;
        }
        assert_eq!(events(&one, &lease, "KeptAlive").await, 6, "one change for each minute of use");
        other.stop().await;
        end(&world, one, &lease).await;
    });
}

#[test]
fn a_triton_that_tells_too_much_or_nothing_of_use_keeps_nothing_alive() {
    on_kubernetes(Database::Sqlite, async |world| {
        let server = world.start().await;
        let pod = Pod::start().await;
        let lease = ready_lease(&world, &server, renewed_by_use(), &pod).await;
        for text in ["#".repeat(2 << 20), "nv_inference_request_failure{model=\"bert\"} 9\n".to_owned()] {
            pod.serve_metrics(text + "nv_inference_request_success_total 5\n");
            let looks = pod.looks();
            world.advance(MINUTE);
            until_looked(&pod, looks).await;
        }
        assert_eq!(server.lease(&lease.id).await.expires_at, lease.expires_at);
        world.advance(MINUTE * 3);
        server.until_state(&lease.id, LeaseState::Expired).await;
        end(&world, server, &lease).await;
    });
}

#[test]
fn notices_of_the_end_are_kubernetes_events_and_a_renewal_brings_them_again() {
    on_kubernetes(Database::Sqlite, async |world| {
        let server = world.start().await;
        let lifetime = Some(prost_types::Duration { seconds: 600, nanos: 0 });
        let lease = server.acquire(LeaseSpec { lifetime, ..spec() }).await.unwrap();
        server.until_state(&lease.id, LeaseState::Ready).await;
        world.advance(MINUTE * 7);
        until("a first notice", 30, async || {
            (events(&server, &lease, "ExpiringSoon").await == 1).then_some(())
        })
        .await;
        let selector = format!("--field-selector=regarding.name=tms-{},reason=ExpiringSoon", lease.id);
        let event = until("an event tells it", 30, async || {
            world.kubectl(&["get", "events.events.k8s.io", &selector])["items"].as_array()?.first().cloned()
        })
        .await;
        assert_eq!(event["type"], "Warning");
        assert!(event["note"].as_str().unwrap().starts_with("ends in 3m, at "), "{}", event["note"]);

        let server = {
            server.stop().await;
            world.start().await
        };
        world.advance(MINUTE * 2);
        until("the second", 30, async || (events(&server, &lease, "ExpiringSoon").await == 2).then_some(()))
            .await;
        let renew = RenewRequest { lease_id: lease.id.clone(), lifetime };
        server.leases.clone().renew(renew).await.unwrap();
        world.advance(MINUTE * 7);
        until("a third", 30, async || (events(&server, &lease, "ExpiringSoon").await == 3).then_some(()))
            .await;
        server.release(&lease.id).await.unwrap();
        server.until_closed(&lease.id).await;
        server.stop().await;
    });
}

#[test]
fn where_a_first_start_went_is_among_the_figures_of_the_server() {
    on_kubernetes(Database::Sqlite, async |mut world| {
        world.values =
            world.values.replace("server:", "server:\n  metrics: {enabled: true, listen: '127.0.0.1:0'}");
        let server = world.start().await;
        let lease = server.acquire(spec()).await.unwrap();
        server.until_state(&lease.id, LeaseState::Ready).await;
        let address = server.running.metrics_address().expect("the figures are served");
        let page = until("the start is counted", 30, async || {
            let page = get(address, "/metrics").await;
            page.contains("tms_replica_cold_start_seconds_count{stage=\"ready\"} 1").then_some(page)
        })
        .await;
        assert!(page.contains("content-type: application/openmetrics-text"), "{page}");
        assert!(get(address, "/").await.starts_with("HTTP/1.1 404"));
        server.release(&lease.id).await.unwrap();
        server.until_closed(&lease.id).await;
        server.stop().await;
    });
}
