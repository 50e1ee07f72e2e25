//! Replicas go from the lease to an autoscaler and back while all of them go on serving.

use tms_proto::v1::{LeaseSpec, LeaseState, StatusRequest, UpdateRequest};
use tms_tests::server::{Database, autoscaled, spec};

use super::sightings::Sightings;
use super::{on_our_cluster, until_applied, until_ready};

/// Replicas of the lease when they are fixed.
const REPLICAS: u32 = 3;

#[test]
fn an_update_to_autoscaling_and_back_never_takes_a_replica_away() {
    on_our_cluster(Database::Sqlite, "cluster: {}", |world, cluster| async move {
        let server = world.start().await;
        let lease = server.acquire(LeaseSpec { replicas: Some(REPLICAS), ..spec() }).await.unwrap();
        until_ready(&server, std::slice::from_ref(&lease.id)).await;
        let sightings = Sightings::of(&world, cluster, &lease.id).await;

        let (auto, fixed) =
            (autoscaled(2, 5), LeaseSpec { replicas: Some(REPLICAS), ..LeaseSpec::default() });
        let mut deployment = serde_json::Value::Null;
        for wish in [&auto, &fixed, &auto, &fixed] {
            let request = UpdateRequest {
                lease_id: lease.id.clone(),
                autoscaling: wish.autoscaling.clone(),
                replicas: wish.replicas,
                ..UpdateRequest::default()
            };
            let updated = server.leases.clone().update(request).await.unwrap().into_inner().lease.unwrap();
            deployment = until_applied(&world, &lease.id, updated.generation).await;
            assert_eq!(deployment["spec"]["replicas"], REPLICAS);
        }

        let seen = sightings.until_now(&deployment).await;
        for deployment in &seen {
            let (wanted, status) = (deployment.spec.as_ref().unwrap(), deployment.status.as_ref().unwrap());
            assert_eq!(wanted.replicas, Some(REPLICAS as i32));
            assert_eq!(status.ready_replicas, Some(REPLICAS as i32));
        }
        assert!(seen.len() >= 4, "four updates make four versions, {} were seen", seen.len());
        let status = server.leases.clone().status(StatusRequest { lease_id: lease.id }).await.unwrap();
        let events = status.into_inner().events;
        let first_ready = events.iter().position(|event| event.state() == LeaseState::Ready).unwrap();
        assert!(events[first_ready..].iter().all(|event| event.state() == LeaseState::Ready), "{events:?}");
        server.stop().await;
    });
}
