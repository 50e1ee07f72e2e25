//! Two servers on one database, of which one leads.

use std::time::Duration;

use futures::future::join_all;
use tms_proto::v1::lease_service_client::LeaseServiceClient;
use tms_proto::v1::{AcquireRequest, LabelSet, LeaseSpec, StatusRequest, UpdateRequest};
use tms_tests::process::Process;
use tms_tests::random::Random;
use tms_tests::server::{Database, Target, VALUES, World, autoscaled, spec};
use tms_tests::wait::until;
use tonic::Code;
use tonic::transport::Channel;

use super::sightings::{Sightings, generation_of};
use super::{applied, on_our_cluster};

/// How often the server that leads is frozen; the other one leads after about ten seconds.
const ROUNDS: u64 = 4;
/// A server is frozen after updating for so long at most, in milliseconds.
const LONGEST_UPDATES: u64 = 400;
/// A server answers within this time whatever the other one does.
const PATIENCE: Duration = Duration::from_secs(10);
/// A frozen leader is replaced within this many seconds.
const REPLACED: u64 = 15;
/// Calls of a server.
pub type Leases = LeaseServiceClient<Channel>;

/// Leases that an owner may hold.
const MAXIMUM: usize = 5;

#[test]
fn a_server_frozen_in_the_middle_of_its_work_wakes_and_undoes_nothing_newer() {
    on_our_cluster(Database::Postgres, "cluster: {}", |world, cluster| async move {
        let seed = Random::seed();
        println!("frozen servers: TMS_TEST_SEED={seed}");
        let mut random = Random::new(seed);
        let mut one = Process::start(&world, "one", &[]);
        let of_one = one.leases().await;
        one.until_leads(10).await;
        let mut other = Process::start(&world, "other", &[]);
        let of_other = other.leases().await;
        let (mut frozen, mut awake) = ((&one, &of_one), (&other, &of_other));
        let request = AcquireRequest { spec: Some(spec()), ..AcquireRequest::default() };
        let mut progress = awake.1.clone().acquire(request).await.unwrap().into_inner();
        let id = progress.message().await.unwrap().unwrap().lease.unwrap().id;
        // The stream ends when the lease is ready.
        while progress.message().await.unwrap().is_some() {}
        let sightings = Sightings::of(&world, cluster, &id).await;

        let mut generation = 0;
        for round in 0..ROUNDS {
            let updates = async {
                for number in 0.. {
                    frozen.1.clone().update(update(&id, number)).await.unwrap();
                }
            };
            let length = Duration::from_millis(random.within(20..LONGEST_UPDATES));
            // They never end by themselves.
            let _ = tokio::time::timeout(length, updates).await;
            frozen.0.freeze();

            // Who answers need not lead.
            let answer = tokio::time::timeout(PATIENCE, awake.1.clone().update(update(&id, round))).await;
            let lease = answer.expect("the other server answers").unwrap().into_inner().lease.unwrap();
            awake.0.until_leads(REPLACED).await;
            sightings.until_generation(lease.generation).await;
            frozen.0.thaw();
            let status = StatusRequest { lease_id: id.clone() };
            let lease = frozen.1.clone().status(status).await.unwrap().into_inner().lease.unwrap();
            assert!(lease.generation > generation);
            generation = lease.generation;
            until("the thawed one leads no more", 15, async || (!frozen.0.leads()).then_some(())).await;
            std::mem::swap(&mut frozen, &mut awake);
        }
        // A server finishes the update that it was frozen in, although nobody waits for it any more.
        let deployment = until("the newest generation is applied", 60, async || {
            let status = StatusRequest { lease_id: id.clone() };
            let lease = of_one.clone().status(status).await.unwrap().into_inner().lease.unwrap();
            applied(&world, &id, lease.generation)
        })
        .await;

        let seen = sightings.until_now(&deployment).await;
        let generations: Vec<_> = seen.iter().map(generation_of).collect();
        assert!(generations.is_sorted(), "{generations:?}");
        println!("frozen servers: {ROUNDS} times, {} generations, none went back", generations.len());
        assert!(one.terminate().await.success());
        assert!(other.terminate().await.success());
    });
}

/// A wish for other replicas. Every one is a change, for no two have the same label.
pub fn update(id: &str, number: u64) -> UpdateRequest {
    let wish = match number % 2 {
        0 => LeaseSpec { replicas: Some(1 + number as u32 % 4), ..LeaseSpec::default() },
        _ => autoscaled(1 + number as u32 % 3, 5),
    };
    let labels = [("update".to_owned(), uuid::Uuid::new_v4().to_string())].into();
    UpdateRequest {
        lease_id: id.to_owned(),
        replicas: wish.replicas,
        autoscaling: wish.autoscaling,
        labels: Some(LabelSet { labels }),
        expected_version: None,
        renewal: None,
    }
}

#[test]
fn two_servers_together_give_an_owner_no_more_leases_than_it_may_hold() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let Some(mut world) = World::new(Database::Postgres, Target::Manifests).await else { return };
        world.values =
            VALUES.replace("loadTimeout: 30m", &format!("loadTimeout: 30m, maximumPerOwner: {MAXIMUM}"));
        let servers = [world.start().await, world.start().await];
        let acquires = (0..6 * MAXIMUM).map(|number| servers[number % 2].acquire(spec()));
        let (granted, refused): (Vec<_>, Vec<_>) =
            join_all(acquires).await.into_iter().partition(Result::is_ok);
        assert_eq!(granted.len(), MAXIMUM);
        let codes: Vec<_> = refused.into_iter().map(|refusal| refusal.unwrap_err().code()).collect();
        assert_eq!(codes, vec![Code::ResourceExhausted; 5 * MAXIMUM]);

        // One that ends makes room for one.
        let [one, other] = servers;
        one.release(&granted[0].as_ref().unwrap().id).await.unwrap();
        other.acquire(spec()).await.unwrap();
        assert_eq!(one.acquire(spec()).await.unwrap_err().code(), Code::ResourceExhausted);
        one.stop().await;
        other.stop().await;
    });
}
