//! The life of a lease, on each database and each cluster: a real server, a clock that the test moves, and a look at
//! what there is.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use jiff::SignedDuration;
use tms_proto::v1::{
    AcquireRequest, Autoscaling, Event, LabelSet, LeaseSpec, LeaseState, ListRequest, Metric, RenewRequest,
    StatusRequest, UpdateRequest, WatchRequest,
};
use tms_tests::cluster::Cluster;
use tms_tests::server::{Database, Target, World, autoscaled, spec, timestamp};
use tms_tests::wait::{inside, until};

/// Makes a test of each scenario for each database and cluster.
macro_rules! on_every_back_end {
    ($($scenario:ident),+ $(,)?) => {
        mod sqlite_manifests { $(#[test] fn $scenario() { super::on_manifests(super::Database::Sqlite, super::$scenario); })+ }
        mod postgres_manifests { $(#[test] fn $scenario() { super::on_manifests(super::Database::Postgres, super::$scenario); })+ }
        mod sqlite_kubernetes { $(#[test] fn $scenario() { super::on_kubernetes(super::Database::Sqlite, super::$scenario); })+ }
        mod postgres_kubernetes { $(#[test] fn $scenario() { super::on_kubernetes(super::Database::Postgres, super::$scenario); })+ }
    };
}

on_every_back_end! {
    a_lease_lives_from_acquire_to_release,
    every_combination_of_metrics_is_emitted,
    a_lease_expires_while_the_server_runs,
    an_expired_lease_is_deleted_even_after_a_restart,
    a_renewed_lease_outlives_its_first_end,
    a_notice_precedes_the_end_once_even_across_a_restart,
    an_update_changes_what_is_emitted,
    a_restart_changes_nothing,
    an_acquire_that_is_repeated_returns_the_first_lease,
    watching_resumes_where_it_stopped,
    leases_are_listed_by_state_and_label,
}

fn on_manifests<F: Future<Output = ()>>(database: Database, scenario: impl FnOnce(World) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        if let Some(world) = World::new(database, Target::Manifests).await {
            scenario(world).await;
        }
    });
}

fn on_kubernetes<F: Future<Output = ()>>(database: Database, scenario: impl FnOnce(World) -> F + Send) {
    let Some(cluster) = Cluster::shared() else { return };
    inside(cluster, || async {
        if let Some(world) = World::new(database, Target::Kubernetes(cluster)).await {
            scenario(world).await;
        }
    });
}

/// The state of a lease that has all that was asked for.
fn settled(world: &World) -> LeaseState {
    match world.target {
        Target::Manifests => LeaseState::Written,
        Target::Kubernetes(_) => LeaseState::Ready,
    }
}

async fn a_lease_lives_from_acquire_to_release(world: World) {
    let server = world.start().await;
    let request = AcquireRequest { spec: Some(autoscaled(1, 4)), ..AcquireRequest::default() };
    let mut stream = server.acquire_stream(request).await.unwrap();
    let first = stream.message().await.unwrap().unwrap().lease.unwrap();
    assert_eq!(first.id.len(), 32);
    let mut last = None;
    while let Some(message) = stream.message().await.unwrap() {
        last = Some(message);
    }
    let last = last.expect("more than one message");
    assert_eq!(last.models.len(), 1, "the last message has every model");
    assert_eq!(last.lease.unwrap().state(), settled(&world));

    let name = format!("tms-{}", first.id);
    let expected = [
        ("Deployment", ""),
        ("HorizontalPodAutoscaler", ""),
        ("PodDisruptionBudget", ""),
        ("PodMonitor", ""),
        ("PrometheusRule", ""),
        ("Service", ""),
        ("Service", "-headless"),
    ];
    assert_eq!(world.objects(), expected.map(|(kind, suffix)| format!("{kind} {name}{suffix}")));

    let released = server.release(&first.id).await.unwrap();
    assert_eq!(released.state(), LeaseState::Released);
    server.until_closed(&first.id).await;
    assert_eq!(world.objects(), [""; 0]);
    let again = server.release(&first.id).await.unwrap();
    assert_eq!(again.ended_at, released.ended_at, "releasing again is success and changes nothing");
    server.stop().await;
}

async fn every_combination_of_metrics_is_emitted(world: World) {
    let server = world.start().await;
    let metrics =
        ["cpuUtilization", "memoryUtilization", "gpuUtilization", "gpuMemoryUtilization", "queueTime"];
    let recorded = ["tms_gpu_utilization", "tms_gpu_memory_utilization", "tms_avg_request_queue_duration"];
    let mut leases = Vec::new();
    for chosen in 1..1_usize << metrics.len() {
        let is_chosen = |index: usize| chosen & (1 << index) != 0;
        let wish = |(index, metric): (usize, &&str)| {
            ((*metric).to_owned(), Metric { enable: Some(is_chosen(index)), threshold: None })
        };
        let autoscaling = Autoscaling {
            max_replicas: Some(2),
            metrics: metrics.iter().enumerate().map(wish).collect(),
            ..Autoscaling::default()
        };
        let lease = server.acquire(LeaseSpec { autoscaling: Some(autoscaling), ..spec() }).await.unwrap();
        assert_eq!(lease.active_metrics.len(), chosen.count_ones() as usize);
        leases.push((chosen, lease.id));
    }
    for (chosen, id) in &leases {
        server.until_state(id, settled(&world)).await;
        let autoscaler = match world.target {
            Target::Manifests => {
                let file = world.manifests().join(id).join("horizontalpodautoscaler.yaml");
                std::fs::read_to_string(file).unwrap()
            }
            Target::Kubernetes(_) => {
                world.kubectl(&["get", "hpa", &format!("tms-{id}")])["spec"]["metrics"].to_string()
            }
        };
        for (index, name) in recorded.iter().enumerate() {
            assert_eq!(autoscaler.contains(name), chosen & (1 << (index + 2)) != 0, "{name} in {autoscaler}");
        }
        assert_eq!(autoscaler.contains("cpu"), chosen & 1 != 0);
        let has_rules = world.objects().contains(&format!("PrometheusRule tms-{id}"));
        assert_eq!(has_rules, chosen >> 2 != 0, "rules are there for recorded metrics only");
    }
    server.stop().await;
}

async fn a_lease_expires_while_the_server_runs(world: World) {
    let server = world.start().await;
    let lease = server.acquire(spec()).await.unwrap();
    server.until_state(&lease.id, settled(&world)).await;
    world.advance(SignedDuration::from_mins(59));
    assert_eq!(server.lease(&lease.id).await.state(), settled(&world));
    world.advance(SignedDuration::from_mins(1));
    let expired = server.until_closed(&lease.id).await;
    assert_eq!(expired.state(), LeaseState::Expired);
    assert_eq!(expired.ended_at, expired.expires_at);
    assert_eq!(world.objects(), [""; 0]);
    server.stop().await;
}

async fn an_expired_lease_is_deleted_even_after_a_restart(world: World) {
    let server = world.start().await;
    let lease = server.acquire(autoscaled(2, 3)).await.unwrap();
    server.until_state(&lease.id, settled(&world)).await;
    server.stop().await;
    world.advance(SignedDuration::from_hours(2));
    let server = world.start().await;
    assert_eq!(server.until_closed(&lease.id).await.state(), LeaseState::Expired);
    assert_eq!(world.objects(), [""; 0]);
    server.stop().await;
}

async fn a_renewed_lease_outlives_its_first_end(world: World) {
    let server = world.start().await;
    let lease = server.acquire(spec()).await.unwrap();
    server.until_state(&lease.id, settled(&world)).await;
    world.advance(SignedDuration::from_mins(30));
    let hours = |hours: i64| Some(prost_types::Duration { seconds: hours * 3600, nanos: 0 });
    let renew = RenewRequest { lease_id: lease.id[..8].to_owned(), lifetime: hours(24) };
    let renewed = server.leases.clone().renew(renew).await.unwrap().into_inner();
    assert_eq!(renewed.granted, hours(8), "the administrator's maximum");
    assert_eq!(renewed.warnings.len(), 1);
    let ends = timestamp(renewed.lease.unwrap().expires_at);
    assert_eq!(ends, world.clock.now() + SignedDuration::from_hours(8));
    world.advance(SignedDuration::from_hours(7));
    assert_eq!(server.lease(&lease.id).await.state(), settled(&world));
    world.advance(SignedDuration::from_hours(1));
    server.until_closed(&lease.id).await;
    let late = RenewRequest { lease_id: lease.id.clone(), lifetime: None };
    let refused = server.leases.clone().renew(late).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    server.stop().await;
}

async fn a_notice_precedes_the_end_once_even_across_a_restart(world: World) {
    let server = world.start().await;
    let lease = server.acquire(spec()).await.unwrap();
    server.until_state(&lease.id, settled(&world)).await;
    let notices = async |server: &tms_tests::server::Server| {
        let request = StatusRequest { lease_id: lease.id.clone() };
        let events = server.leases.clone().status(request).await.unwrap().into_inner().events;
        let notices = events.into_iter().filter(|event| event.reason == "ExpiringSoon");
        notices.map(|event| event.message).collect::<Vec<_>>()
    };
    world.advance(SignedDuration::from_mins(45));
    until("the first notice", 20, async || (notices(&server).await.len() == 1).then_some(())).await;
    server.stop().await;

    let server = world.start().await;
    world.advance(SignedDuration::from_mins(13));
    let told = until("the second notice", 20, async || {
        Some(notices(&server).await).filter(|notices| notices.len() != 1)
    })
    .await;
    assert!(told[0].starts_with("ends in 15m, at ") && told[1].starts_with("ends in 2m, at "), "{told:?}");
    assert_eq!(told.len(), 2);
    world.advance(SignedDuration::from_mins(2));
    server.until_state(&lease.id, LeaseState::Expired).await;
    server.until_closed(&lease.id).await;
    server.stop().await;
}

async fn an_update_changes_what_is_emitted(world: World) {
    let server = world.start().await;
    let lease = server.acquire(LeaseSpec { replicas: Some(3), ..spec() }).await.unwrap();
    server.until_state(&lease.id, settled(&world)).await;
    let update = |request: UpdateRequest| {
        let mut leases = server.leases.clone();
        async move { leases.update(request).await.unwrap().into_inner().lease.unwrap() }
    };
    let autoscaling = Autoscaling { min_replicas: Some(2), max_replicas: Some(5), ..Autoscaling::default() };
    let labels = LabelSet { labels: [("team".to_owned(), "vision".to_owned())].into() };
    let updated = update(UpdateRequest {
        lease_id: lease.id.clone(),
        autoscaling: Some(autoscaling),
        labels: Some(labels),
        ..UpdateRequest::default()
    })
    .await;
    assert_eq!((updated.generation, updated.replicas.unwrap().maximum), (2, 5));
    let has = |kind: &str| world.objects().contains(&format!("{kind} tms-{}", lease.id));
    until("an autoscaler is there", 30, async || has("HorizontalPodAutoscaler").then_some(())).await;
    until("rules are there", 30, async || has("PrometheusRule").then_some(())).await;
    server.until_state(&lease.id, settled(&world)).await;

    update(UpdateRequest { lease_id: lease.id.clone(), replicas: Some(1), ..UpdateRequest::default() }).await;
    until("the autoscaler is gone", 30, async || (!has("HorizontalPodAutoscaler")).then_some(())).await;
    let settled = server.until_state(&lease.id, settled(&world)).await;
    assert_eq!(settled.spec.unwrap().labels["team"], "vision");
    server.stop().await;
}

async fn a_restart_changes_nothing(mut world: World) {
    let server = world.start().await;
    let lease = server.acquire(autoscaled(1, 2)).await.unwrap();
    server.until_state(&lease.id, settled(&world)).await;
    server.stop().await;
    let before = deployment(&world, &lease.id);
    world.values.push_str("images: {triton: 'other:1', server: 'other:2'}\n");
    world.values.push_str("kubernetes: {customLabels: {team: other}, partOf: other}\n");
    let server = world.start().await;
    let other = server.acquire(spec()).await.unwrap();
    server.until_state(&other.id, settled(&world)).await;
    until("nothing is left to do", 30, async || server.running.waker().is_idle().then_some(())).await;
    assert_eq!(deployment(&world, &lease.id), before, "no Deployment was written");
    assert_ne!(deployment(&world, &other.id), before, "new leases follow the new configuration");
    server.stop().await;
}

/// The Deployment of a lease as it is, with what counts its changes.
fn deployment(world: &World, id: &str) -> String {
    match world.target {
        Target::Manifests => {
            std::fs::read_to_string(world.manifests().join(id).join("deployment.yaml")).unwrap()
        }
        Target::Kubernetes(_) => {
            let mut deployment =
                world.kubectl(&["get", "deployment", &format!("tms-{id}"), "--show-managed-fields"]);
            let ours = |entry: &serde_json::Value| entry["manager"] == "tms";
            let entries = deployment["metadata"]["managedFields"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|entry| ours(entry));
            let times: Vec<_> = entries.map(|entry| entry["time"].clone()).collect();
            format!("{} {} {times:?}", deployment["spec"].take(), deployment["metadata"]["generation"])
        }
    }
}

async fn an_acquire_that_is_repeated_returns_the_first_lease(mut world: World) {
    let server = world.start().await;
    let request =
        |spec| AcquireRequest { spec: Some(spec), request_id: "build-42".to_owned(), no_wait: true };
    let acquire = async |spec| {
        let mut stream = server.acquire_stream(request(spec)).await?;
        Ok::<_, tonic::Status>(stream.message().await?.unwrap().lease.unwrap().id)
    };
    let first = acquire(autoscaled(1, 2)).await.unwrap();
    assert_eq!(acquire(autoscaled(1, 2)).await.unwrap(), first);
    let refused = acquire(autoscaled(1, 3)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::AlreadyExists);
    server.until_state(&first, settled(&world)).await;
    let names: std::collections::BTreeSet<_> =
        world.objects().iter().map(|object| object.split_once(' ').unwrap().1[..36].to_owned()).collect();
    assert_eq!(names.len(), 1, "one lease has objects");
    server.stop().await;

    world.values = world
        .values
        .replace("limits: {maximum: 8,", "limits: {maximum: 1,")
        .replace("maximum: 4}", "maximum: 1}");
    world.values = world.values.replace("upperBound: 4", "upperBound: 1");
    let server = world.start().await;
    let again = AcquireRequest { no_wait: true, ..request(autoscaled(1, 2)) };
    let lease = server.acquire_stream(again).await.unwrap().message().await.unwrap().unwrap().lease.unwrap();
    assert_eq!(lease.id, first, "tighter bounds do not take back what the request was granted");
    let refused = server.acquire(autoscaled(1, 2)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    server.stop().await;
}

async fn watching_resumes_where_it_stopped(world: World) {
    let server = world.start().await;
    let lease = server.acquire(spec()).await.unwrap();
    server.until_state(&lease.id, settled(&world)).await;
    server.release(&lease.id).await.unwrap();
    server.until_closed(&lease.id).await;
    let watch = async |after_version: i64| {
        let request = WatchRequest { lease_id: lease.id.clone(), after_version };
        let mut stream = server.leases.clone().watch(request).await.unwrap().into_inner();
        let mut events: Vec<Event> = Vec::new();
        while let Some(message) = stream.message().await.unwrap() {
            events.extend(message.event);
            if events.last().is_some_and(|event| event.reason == "Closed") {
                break;
            }
        }
        events
    };
    let all = watch(1).await;
    let versions: Vec<_> = all.iter().map(|event| event.version).collect();
    let expected: Vec<_> = (2..).take(all.len()).collect();
    assert_eq!(versions, expected, "every version once, in order");
    for stopped in 1..=all.len() {
        assert_eq!(watch(stopped as i64).await, all[stopped - 1..], "after version {stopped}");
    }
    server.stop().await;
}

async fn leases_are_listed_by_state_and_label(world: World) {
    let server = world.start().await;
    let labelled = |team: &str| LeaseSpec { labels: [("team".to_owned(), team.to_owned())].into(), ..spec() };
    let (vision, speech) = (
        server.acquire(labelled("vision")).await.unwrap(),
        server.acquire(labelled("speech")).await.unwrap(),
    );
    server.release(&speech.id).await.unwrap();
    let list = async |request: ListRequest| {
        let answer = server.leases.clone().list(request).await.unwrap().into_inner();
        answer.leases.into_iter().map(|lease| lease.id).collect::<Vec<_>>()
    };
    assert_eq!(list(ListRequest::default()).await, std::slice::from_ref(&vision.id));
    let released = ListRequest { states: vec![LeaseState::Released.into()], ..ListRequest::default() };
    assert_eq!(list(released).await, [speech.id]);
    let team = [("team".to_owned(), "speech".to_owned())].into();
    assert_eq!(list(ListRequest { labels: team, ..ListRequest::default() }).await, [""; 0]);
    let status = server.leases.clone().status(StatusRequest { lease_id: vision.id.clone() }).await.unwrap();
    assert_eq!(status.into_inner().events[0].reason, "Acquired");
    server.stop().await;
}
