//! Parts of the cluster that are away. `TMS_TEST_FREEZE_SECONDS` says for how long the API server stands still.

use std::time::Duration;

use tms_proto::v1::{LeaseState, ListRequest, ReleaseRequest, RenewRequest, StatusRequest};
use tms_server::clock::stopwatch;
use tms_tests::cluster::{Fault, Part};
use tms_tests::random::number;
use tms_tests::server::{Database, Server, autoscaled, spec};
use tms_tests::wait::until;
use tonic::Status;

use super::{fault, on_our_cluster, until_ready};

/// For how long the API server stands still, unless `TMS_TEST_FREEZE_SECONDS` says.
const FREEZE_SECONDS: u64 = 10;
/// Every call is answered in less.
const PROMPT: Duration = Duration::from_secs(1);
/// Between two rounds of calls.
const PACE: Duration = Duration::from_millis(500);
/// The server gives its own calls up early, so that leases soon say so.
const SETTINGS: &str = "cluster: {callTimeoutSeconds: 2}";
/// What the message of a lease begins with while the API server is away.
const AWAY: &str = "the Kubernetes API does not answer";

#[test]
fn while_the_api_server_is_frozen_calls_are_answered_and_afterwards_objects_follow() {
    on_our_cluster(Database::Sqlite, SETTINGS, |world, cluster| async move {
        let server = world.start().await;
        let (kept, released) =
            (server.acquire(spec()).await.unwrap().id, server.acquire(spec()).await.unwrap().id);
        until_ready(&server, &[kept.clone(), released.clone()]).await;

        let freeze = Duration::from_secs(number("TMS_TEST_FREEZE_SECONDS").unwrap_or(FREEZE_SECONDS));
        fault(cluster, Part::Apiserver, Fault::Freeze).await;
        let begin = stopwatch();
        let mut calls = Calls { server: &server, count: 0, longest: Duration::ZERO };
        let mut acquired = Vec::new();
        let release = ReleaseRequest { lease_id: released.clone() };
        calls.make("Release", server.leases.clone().release(release)).await;
        while begin.elapsed() < freeze {
            acquired.push(calls.round(&kept).await);
            tokio::time::sleep(PACE).await;
        }
        let waiting = server.lease(&acquired[0]).await;
        assert_eq!(waiting.state(), LeaseState::Pending);
        assert!(waiting.message.starts_with(AWAY), "{}", waiting.message);
        let leaving = server.lease(&released).await;
        assert_eq!((leaving.state(), leaving.closed_at), (LeaseState::Released, None));
        println!("frozen for {freeze:?}: {} calls, the slowest took {:?}", calls.count, calls.longest);
        fault(cluster, Part::Apiserver, Fault::Thaw).await;

        until_ready(&server, &acquired).await;
        server.until_closed(&released).await;
        until_ready(&server, &[kept]).await;
        let objects = world.objects();
        assert!(!objects.iter().any(|object| object.contains(&released)), "{objects:?}");
        server.stop().await;
    });
}

/// Calls whose answers are timed.
struct Calls<'a> {
    server: &'a Server,
    count: u32,
    longest: Duration,
}

impl Calls<'_> {
    /// Makes one call of each kind about a lease, and acquires another, whose id it returns.
    async fn round(&mut self, id: &str) -> String {
        let lease_id = id.to_owned();
        let leases = || self.server.leases.clone();
        let (mut renews, mut asks, mut lists) = (leases(), leases(), leases());
        self.make("Renew", renews.renew(RenewRequest { lease_id: lease_id.clone(), lifetime: None })).await;
        self.make("Status", asks.status(StatusRequest { lease_id })).await;
        self.make("List", lists.list(ListRequest::default())).await;
        self.make("Acquire", self.server.acquire(autoscaled(1, 2))).await.id
    }

    async fn make<T>(&mut self, rpc: &str, call: impl Future<Output = Result<T, Status>>) -> T {
        let begin = stopwatch();
        let answer = call.await.unwrap_or_else(|status| panic!("{rpc}: {status}"));
        let took = begin.elapsed();
        assert!(took < PROMPT, "{rpc} took {took:?}");
        self.count += 1;
        self.longest = self.longest.max(took);
        answer
    }
}

#[test]
fn leases_acquired_and_released_while_etcd_is_away_follow_when_it_is_back() {
    on_our_cluster(Database::Postgres, SETTINGS, |world, cluster| async move {
        let server = world.start().await;
        let (kept, released) =
            (server.acquire(autoscaled(1, 2)).await.unwrap().id, server.acquire(spec()).await.unwrap().id);
        until_ready(&server, &[kept.clone(), released.clone()]).await;

        fault(cluster, Part::Etcd, Fault::Stop).await;
        let acquired = server.acquire(spec()).await.unwrap().id;
        server.release(&released).await.unwrap();
        until("the new lease says what holds it up", 30, async || {
            (!server.lease(&acquired).await.message.is_empty()).then_some(())
        })
        .await;
        fault(cluster, Part::Etcd, Fault::Restart).await;

        until_ready(&server, &[kept, acquired]).await;
        server.until_closed(&released).await;
        server.stop().await;
    });
}

#[test]
fn leases_acquired_while_the_api_server_restarts_get_their_objects_once() {
    on_our_cluster(Database::Sqlite, SETTINGS, |world, cluster| async move {
        let server = world.start().await;
        let restart = tokio::spawn(fault(cluster, Part::Apiserver, Fault::Restart));
        let mut acquired = Vec::new();
        while !restart.is_finished() {
            acquired.push(server.acquire(autoscaled(1, 2)).await.unwrap().id);
            tokio::time::sleep(PACE / 2).await;
        }
        restart.await.unwrap();
        until_ready(&server, &acquired).await;
        assert_eq!(world.objects().len(), 7 * acquired.len());
        server.stop().await;
    });
}

#[test]
fn a_server_that_starts_while_the_api_server_is_away_answers_and_follows_later() {
    on_our_cluster(Database::Sqlite, SETTINGS, |world, cluster| async move {
        let server = world.start().await;
        let released = server.acquire(spec()).await.unwrap().id;
        until_ready(&server, std::slice::from_ref(&released)).await;
        server.stop().await;

        fault(cluster, Part::Apiserver, Fault::Stop).await;
        let server = world.start().await;
        let mut calls = Calls { server: &server, count: 0, longest: Duration::ZERO };
        let acquired = calls.round(&released).await;
        calls.make("Release", server.release(&released)).await;
        // It ends in good order too, and the next one knows what this one was told.
        server.stop().await;
        let server = world.start().await;
        let mut calls = Calls { server: &server, count: 0, longest: Duration::ZERO };
        let another = calls.round(&acquired).await;
        assert_eq!(server.lease(&acquired).await.state(), LeaseState::Pending);
        fault(cluster, Part::Apiserver, Fault::Restart).await;

        until_ready(&server, &[acquired, another]).await;
        server.until_closed(&released).await;
        server.stop().await;
    });
}
