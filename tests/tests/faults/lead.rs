//! One of two servers leads, and something happens to it: the other goes on with what it began.

use std::time::Duration;

use futures::future::join;
use tms_proto::v1::{AcquireRequest, Lease, LeaseState, ReleaseRequest, StatusRequest};
use tms_server::clock::stopwatch;
use tms_tests::audit::AuditLine;
use tms_tests::cluster::Cluster;
use tms_tests::process::Process;
use tms_tests::server::{Database, Server, World, autoscaled, spec};
use tms_tests::wait::until;

use super::servers::Leases;
use super::sightings::{Sightings, generation_of};
use super::{applied, on_our_cluster, until_ready};

/// Leases whose writes are counted.
const LEASES: usize = 6;
/// A frozen leader is replaced within this many seconds.
const FROZEN: u64 = 15;
/// RPCs do not wait for a leader.
const PROMPT: Duration = Duration::from_secs(5);

#[test]
fn two_servers_write_what_one_would_and_never_in_each_others_way() {
    on_our_cluster(Database::Postgres, "cluster: {}", |world, cluster| async move {
        let one = world.start().await;
        let alone = writes_for(&[&one], cluster).await;
        let other = world.start().await;
        until("it listens", 10, async || other.running.store().hears_others().then_some(())).await;
        let together = writes_for(&[&one, &other], cluster).await;
        let conflicts = |writes: &[AuditLine]| writes.iter().filter(|line| line.code == 409).count();
        assert_eq!((conflicts(&alone), conflicts(&together)), (0, 0), "{together:?}");
        assert_eq!(kinds_of(&together), kinds_of(&alone), "no object has a second writer");
        one.stop().await;
        other.stop().await;
    });
}

/// Acquires leases at these servers in turn, and returns the writes to their objects until nothing is under way.
async fn writes_for(servers: &[&Server], cluster: &Cluster) -> Vec<AuditLine> {
    let before = servers[0].until_quiet(cluster).await.len();
    let mut ids = Vec::new();
    for number in 0..LEASES {
        ids.push(servers[number % servers.len()].acquire(autoscaled(1, 3)).await.unwrap().id);
    }
    until_ready(servers[0], &ids).await;
    let mut writes = servers[0].until_quiet(cluster).await.split_off(before);
    writes.retain(|line| line.resource != "events");
    writes
}

/// How the writes were answered to each kind of object, sorted.
fn kinds_of(writes: &[AuditLine]) -> Vec<String> {
    let mut kinds: Vec<_> = writes
        .iter()
        .map(|line| format!("{} {}/{} {}", line.verb, line.resource, line.subresource, line.code))
        .collect();
    kinds.sort();
    kinds
}

#[test]
fn a_release_at_either_server_is_acted_on_at_once() {
    on_our_cluster(Database::Postgres, "cluster: {}", |world, _| async move {
        let servers = [world.start().await, world.start().await];
        for server in &servers {
            until("it listens", 10, async || server.running.store().hears_others().then_some(())).await;
        }
        for server in &servers {
            let id = server.acquire(spec()).await.unwrap().id;
            until_ready(server, std::slice::from_ref(&id)).await;
            server.release(&id).await.unwrap();
            // No sweep comes for five minutes.
            let name = format!("metadata.name=tms-{id}");
            until("its Deployment goes", 5, async || {
                let left = world.kubectl(&["get", "deployments", "--field-selector", &name]);
                let left = left["items"].as_array()?;
                let is_going = |item: &serde_json::Value| item["metadata"]["deletionTimestamp"].is_string();
                left.iter().all(is_going).then_some(())
            })
            .await;
            server.until_closed(&id).await;
        }
        for server in servers {
            server.stop().await;
        }
    });
}

#[test]
fn when_the_leader_is_killed_the_other_finishes_what_was_acquired_during_that() {
    on_our_cluster(Database::Postgres, "cluster: {}", |world, _| async move {
        let Pair { mut leader, follower, leases, .. } = Pair::start(&world).await;
        let acquire = acquired(&leases);
        leader.kill();
        let lease = acquire.await;
        follower.until_leads(5).await;
        until_state(&leases, &lease.id, LeaseState::Ready).await;
    });
}

#[test]
fn when_the_leader_ends_in_good_order_the_other_leads_within_two_seconds() {
    on_our_cluster(Database::Postgres, "cluster: {}", |world, _| async move {
        let Pair { mut leader, follower, leases, .. } = Pair::start(&world).await;
        let lease = acquired(&leases).await;
        let (ended, ()) = join(leader.terminate(), follower.until_leads(2)).await;
        assert!(ended.success());
        until_state(&leases, &lease.id, LeaseState::Ready).await;
    });
}

#[test]
fn a_frozen_leader_is_replaced_and_when_it_wakes_leads_no_more_and_undoes_nothing() {
    on_our_cluster(Database::Postgres, "cluster: {}", |world, cluster| async move {
        let Pair { leader, follower, leases, of_leader } = Pair::start(&world).await;
        let kept = acquired(&leases).await;
        until_state(&leases, &kept.id, LeaseState::Ready).await;
        let sightings = Sightings::of(&world, cluster, &kept.id).await;

        leader.freeze();
        let begin = stopwatch();
        let lease = acquired(&leases).await;
        let released = acquired(&leases).await;
        leases.clone().release(ReleaseRequest { lease_id: released.id.clone() }).await.unwrap();
        let updated = super::servers::update(&kept.id, 4);
        let updated = leases.clone().update(updated).await.unwrap().into_inner().lease.unwrap();
        assert!(begin.elapsed() < PROMPT, "calls waited for the leader: {:?}", begin.elapsed());
        follower.until_leads(FROZEN).await;
        println!("a frozen leader was replaced after {:?}", begin.elapsed());
        until_state(&leases, &lease.id, LeaseState::Ready).await;
        sightings.until_generation(updated.generation).await;

        leader.thaw();
        until("the thawed one leads no more", 15, async || (!leader.leads()).then_some(())).await;
        assert!(follower.leads());
        let deployment = applied(&world, &kept.id, updated.generation).expect("nothing is undone");
        let generations: Vec<_> = sightings.until_now(&deployment).await.iter().map(generation_of).collect();
        assert!(generations.is_sorted(), "{generations:?}");
        // As a follower it answers, and the leader acts.
        of_leader.clone().release(ReleaseRequest { lease_id: kept.id.clone() }).await.unwrap();
        until("the lease is closed", 30, async || {
            status(&leases, &kept.id).await.closed_at.is_some().then_some(())
        })
        .await;
    });
}

/// Two servers, of which one leads.
struct Pair {
    leader: Process,
    follower: Process,
    /// Calls of the follower.
    leases: Leases,
    of_leader: Leases,
}

impl Pair {
    async fn start(world: &World) -> Self {
        let mut leader = Process::start(world, "leader", &[]);
        let of_leader = leader.leases().await;
        leader.until_leads(10).await;
        let mut follower = Process::start(world, "follower", &[]);
        let leases = follower.leases().await;
        until("the other waits", 10, async || follower.log().contains("another server leads").then_some(()))
            .await;
        Self { leader, follower, leases, of_leader }
    }
}

async fn acquired(leases: &Leases) -> Lease {
    let request = AcquireRequest { spec: Some(spec()), no_wait: true, ..AcquireRequest::default() };
    let mut progress = leases.clone().acquire(request).await.unwrap().into_inner();
    progress.message().await.unwrap().unwrap().lease.unwrap()
}

async fn status(leases: &Leases, id: &str) -> Lease {
    let status = leases.clone().status(StatusRequest { lease_id: id.to_owned() }).await.unwrap();
    status.into_inner().lease.unwrap()
}

async fn until_state(leases: &Leases, id: &str, state: LeaseState) {
    until(&format!("lease {id} is {state:?}"), 60, async || {
        (status(leases, id).await.state() == state).then_some(())
    })
    .await;
}
