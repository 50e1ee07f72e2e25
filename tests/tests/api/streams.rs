//! Acquire and Watch: what a caller hears, in which order, and that it hears everything once.

use tms_proto::v1;
use tms_server::domain::lease::{ModelState, Phase};
use tonic::{Code, Streaming};

use crate::harness::{Server, spec, within};

async fn next<T>(stream: &mut Streaming<T>) -> Option<T> {
    within(stream.message()).await.unwrap()
}

async fn watch(server: &Server, lease_id: &str, after_version: i64) -> Streaming<v1::WatchResponse> {
    let request = v1::WatchRequest { lease_id: lease_id.to_owned(), after_version };
    server.leases().await.watch(request).await.unwrap().into_inner()
}

fn states(models: &[v1::ModelStatus]) -> Vec<(&str, v1::ModelState)> {
    models.iter().map(|model| (model.name.as_str(), model.state())).collect()
}

#[tokio::test]
async fn acquire_tells_the_way_to_ready_and_ends() {
    let server = Server::start().await;
    let request = v1::AcquireRequest { spec: Some(spec(&["a", "b"])), ..Default::default() };
    let mut stream = server.leases().await.acquire(request).await.unwrap().into_inner();

    let first = next(&mut stream).await.unwrap();
    let lease = first.lease.unwrap();
    assert_eq!(lease.state(), v1::LeaseState::Pending);
    assert_eq!(states(&first.models), [("a", v1::ModelState::Pending), ("b", v1::ModelState::Pending)]);
    assert_eq!(server.woken.ids(), std::slice::from_ref(&lease.id));

    server.change(&lease, |report, _| report.phase = Phase::Loading).await;
    let second = next(&mut stream).await.unwrap();
    assert_eq!(second.lease.unwrap().state(), v1::LeaseState::Loading);
    assert_eq!(states(&second.models), []);

    server.change(&lease, |report, _| report.models[1].state = ModelState::Loading).await;
    let third = next(&mut stream).await.unwrap();
    assert_eq!(third.lease, None);
    assert_eq!(states(&third.models), [("b", v1::ModelState::Loading)]);

    server.report(&lease, Phase::Ready, ModelState::Ready).await;
    let last = next(&mut stream).await.unwrap();
    assert_eq!(last.lease.unwrap().state(), v1::LeaseState::Ready);
    assert_eq!(states(&last.models), [("a", v1::ModelState::Ready), ("b", v1::ModelState::Ready)]);
    assert_eq!(next(&mut stream).await, None);
}

#[tokio::test]
async fn acquire_ends_when_the_lease_does() {
    let server = Server::start().await;
    let request = v1::AcquireRequest { spec: Some(spec(&["a"])), ..Default::default() };
    let mut stream = server.leases().await.acquire(request).await.unwrap().into_inner();
    let lease = next(&mut stream).await.unwrap().lease.unwrap();
    server.leases().await.release(v1::ReleaseRequest { lease_id: lease.id }).await.unwrap();
    let last = next(&mut stream).await.unwrap();
    assert_eq!(last.lease.unwrap().state(), v1::LeaseState::Released);
    assert_eq!(next(&mut stream).await, None);
}

#[tokio::test]
async fn a_lease_outlives_the_caller_that_left() {
    let server = Server::start().await;
    let request = v1::AcquireRequest { spec: Some(spec(&["a"])), ..Default::default() };
    let mut stream = server.leases().await.acquire(request).await.unwrap().into_inner();
    let lease = next(&mut stream).await.unwrap().lease.unwrap();
    drop(stream);
    server.report(&lease, Phase::Ready, ModelState::Ready).await;
    let request = v1::StatusRequest { lease_id: lease.id[..8].to_owned() };
    let status = server.leases().await.status(request).await.unwrap().into_inner();
    assert_eq!(status.lease.unwrap().state(), v1::LeaseState::Ready);
    let reasons: Vec<_> = status.events.iter().map(|event| event.reason.as_str()).collect();
    assert_eq!(reasons, ["Acquired", "StateChanged"]);
}

#[tokio::test]
async fn a_repeated_request_follows_the_first_lease() {
    let server = Server::start().await;
    let request =
        v1::AcquireRequest { spec: Some(spec(&["a"])), request_id: "r-1".to_owned(), no_wait: false };
    let mut client = server.leases().await;
    let first = next(&mut client.acquire(request.clone()).await.unwrap().into_inner()).await.unwrap();
    let lease = first.lease.unwrap();
    server.report(&lease, Phase::Ready, ModelState::Ready).await;

    let mut stream = client.acquire(request).await.unwrap().into_inner();
    let again = next(&mut stream).await.unwrap().lease.unwrap();
    assert_eq!((again.state(), &again.id), (v1::LeaseState::Ready, &lease.id));
    assert_eq!(
        server.woken.ids(),
        [lease.id.clone(), lease.id],
        "the first wake-up may be lost with its server"
    );
    assert_eq!(next(&mut stream).await, None);
    let listed = client.list(v1::ListRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.leases.len(), 1);
}

#[tokio::test]
async fn a_watch_begins_with_the_lease_and_ends_when_it_is_closed() {
    let server = Server::start().await;
    let lease = server.acquire(spec(&["a"])).await;
    let mut stream = watch(&server, &lease.id, 0).await;
    let first = next(&mut stream).await.unwrap();
    assert_eq!(first, v1::WatchResponse { event: None, lease: Some(lease.clone()), started: true });

    server.report(&lease, Phase::Ready, ModelState::Ready).await;
    let ready = next(&mut stream).await.unwrap();
    assert_eq!(ready.lease.unwrap().state(), v1::LeaseState::Ready);
    assert_eq!(ready.event.unwrap().message, "PENDING → READY");

    server.leases().await.release(v1::ReleaseRequest { lease_id: lease.id.clone() }).await.unwrap();
    assert_eq!(next(&mut stream).await.unwrap().event.unwrap().reason, "Released");
    server.close(&lease).await;
    assert_eq!(next(&mut stream).await.unwrap().event.unwrap().reason, "Closed");
    assert_eq!(next(&mut stream).await, None);

    let mut late = watch(&server, &lease.id, 0).await;
    assert!(next(&mut late).await.unwrap().lease.unwrap().closed_at.is_some());
    assert_eq!(next(&mut late).await, None);
}

/// Changes a lease many times while it is watched by streams that end and resume at random places.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumed_watch_misses_nothing_and_repeats_nothing() {
    const CHANGES: u32 = 300;
    let server = Server::start().await;
    let lease = server.acquire(spec(&["a"])).await;
    let changing = async {
        for number in 1..=CHANGES {
            server.change(&lease, |report, _| report.replicas.current = number).await;
        }
    };
    let last_version = lease.version + i64::from(CHANGES);
    let watching = async {
        let mut versions = vec![lease.version];
        while versions.last() < Some(&last_version) {
            let mut stream = watch(&server, &lease.id, *versions.last().unwrap()).await;
            assert!(next(&mut stream).await.unwrap().started);
            for _ in 0..versions.len() % 7 + 1 {
                if versions.last() == Some(&last_version) {
                    break;
                }
                let message = next(&mut stream).await.unwrap();
                let event = message.event.unwrap();
                assert!(message.lease.unwrap().version >= event.version);
                versions.push(event.version);
            }
        }
        versions
    };
    let ((), versions) = tokio::join!(changing, watching);
    assert_eq!(versions, (lease.version..=last_version).collect::<Vec<_>>());
}

/// A caller that reads nothing while more happens than announcements are kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_watch_of_all_leases_misses_nothing_and_repeats_nothing() {
    const LEASES: usize = 4;
    const CHANGES: u32 = 1_100;
    let server = Server::start().await;
    let old = server.acquire(spec(&["old"])).await;
    let mut stream = watch(&server, "", 0).await;
    assert_eq!(next(&mut stream).await, Some(v1::WatchResponse { event: None, lease: None, started: true }));

    let mut leases = vec![old.clone()];
    for _ in 1..LEASES {
        leases.push(server.acquire(spec(&["new"])).await);
    }
    let change = async |lease: &v1::Lease| {
        for number in 1..=CHANGES {
            server.change(lease, |report, _| report.replicas.current = number).await;
        }
    };
    futures::future::join_all(leases.iter().map(change)).await;
    server.leases().await.release(v1::ReleaseRequest { lease_id: old.id.clone() }).await.unwrap();
    server.close(&old).await;

    let mut heard = std::collections::BTreeMap::<String, Vec<i64>>::new();
    let all = LEASES * CHANGES as usize + (LEASES - 1) + 2;
    for _ in 0..all {
        let event = next(&mut stream).await.unwrap().event.unwrap();
        heard.entry(event.lease_id).or_default().push(event.version);
    }
    let changes = i64::from(CHANGES);
    assert_eq!(heard.remove(&old.id), Some((2..=1 + changes + 2).collect()));
    assert_eq!(heard.len(), LEASES - 1);
    for versions in heard.into_values() {
        assert_eq!(versions, (1..=1 + changes).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn streams_end_when_the_server_does() {
    let mut server = Server::start().await;
    let request = v1::AcquireRequest { spec: Some(spec(&["a"])), ..Default::default() };
    let mut acquiring = server.leases().await.acquire(request).await.unwrap().into_inner();
    let mut watching = watch(&server, "", 0).await;
    next(&mut acquiring).await.unwrap();
    next(&mut watching).await.unwrap();
    server.stop().await;
    for ended in [within(acquiring.message()).await.err(), within(watching.message()).await.err()] {
        assert_eq!(ended.unwrap().code(), Code::Unavailable);
    }
}
