//! Somebody else with every right edits what a server has made: what the lease says is put back at a bounded cost, and
//! what it does not say stays.

use serde_json::Value;
use tms_proto::v1::{Lease, LeaseSpec};
use tms_tests::cluster::Cluster;
use tms_tests::server::{Database, Server, World, autoscaled, spec};
use tms_tests::wait::until;

use super::{on_our_cluster, until_ready};

/// Writes that an edit may cost: one for each object, and one more for each where it was in motion.
const MOST_WRITES: usize = 12;

#[test]
fn what_a_rival_changes_is_put_back_at_a_bounded_cost() {
    on_our_cluster(Database::Sqlite, "cluster: {}", |world, cluster| async move {
        let server = world.start().await;
        let lease = server.acquire(LeaseSpec { replicas: Some(2), ..spec() }).await.unwrap();
        until_ready(&server, std::slice::from_ref(&lease.id)).await;
        let rival = Rival::new(&world, cluster, &server, lease).await;
        let deployment = &format!("deployment/{}", rival.name);
        let service = &format!("service/{}", rival.name);

        rival.does(&["annotate", deployment, "rival.example.com/note=mine"]);
        rival.does(&["label", deployment, "rival.example.com/team=theirs"]);
        rival.does(&["patch", deployment, "--patch", r#"{"spec": {"minReadySeconds": 1}}"#]);
        assert_eq!(rival.cost().await, 0, "fields of others are none of ours");

        let mut table = String::new();
        let mut note = |edit: &str, cost: usize| {
            assert!((1..=MOST_WRITES).contains(&cost), "{edit}: {cost} writes");
            table += &format!("{edit}: {cost} writes\n");
        };
        rival.does(&["scale", deployment, "--replicas=5"]);
        rival.until(deployment, |now| now["spec"]["replicas"] == 2).await;
        note("replicas", rival.cost().await);

        rival.does(&["label", deployment, "app.kubernetes.io/managed-by-"]);
        rival
            .until(deployment, |now| now["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "tms")
            .await;
        note("a label", rival.cost().await);

        // Without it the object is out of the server's sight.
        rival.does(&["label", deployment, "tms.internal/installation-"]);
        rival
            .until(deployment, |now| now["metadata"]["labels"]["tms.internal/installation"].is_string())
            .await;
        note("the label of the installation", rival.cost().await);

        let image = "/spec/template/spec/containers/0/image";
        let ours = rival.get(deployment).unwrap().pointer(image).unwrap().clone();
        let patch = format!(r#"[{{"op": "replace", "path": "{image}", "value": "rival:1"}}]"#);
        rival.does(&["patch", deployment, "--type=json", "--patch", &patch]);
        rival.until(deployment, |now| now.pointer(image) == Some(&ours)).await;
        note("the image", rival.cost().await);

        rival.does(&["delete", service]);
        rival.until(service, |_| true).await;
        note("a deleted Service", rival.cost().await);

        let now = rival.get(deployment).unwrap();
        assert_eq!(now["metadata"]["annotations"]["rival.example.com/note"], "mine");
        assert_eq!(now["metadata"]["labels"]["rival.example.com/team"], "theirs");
        assert_eq!(now["spec"]["minReadySeconds"], 1);

        let before = world.objects();
        rival.does(&["delete", deployment]);
        until_ready(&server, std::slice::from_ref(&rival.lease.id)).await;
        note("a deleted Deployment", rival.cost().await);
        until("every object is back, once", 30, async || (world.objects() == before).then_some(())).await;
        print!("{table}");
        server.stop().await;
    });
}

#[test]
fn replicas_of_an_autoscaled_lease_are_left_to_whoever_scales_them() {
    on_our_cluster(Database::Sqlite, "cluster: {}", |world, cluster| async move {
        let server = world.start().await;
        let lease = server.acquire(autoscaled(1, 4)).await.unwrap();
        until_ready(&server, std::slice::from_ref(&lease.id)).await;
        let rival = Rival::new(&world, cluster, &server, lease).await;
        let deployment = &format!("deployment/{}", rival.name);

        rival.does(&["scale", deployment, "--replicas=3"]);
        until("the server has seen three replicas", 30, async || {
            let replicas = server.lease(&rival.lease.id).await.replicas?;
            (replicas.desired == 3 && replicas.ready == 3).then_some(())
        })
        .await;
        assert_eq!(rival.cost().await, 0);
        assert_eq!(rival.get(deployment).unwrap()["spec"]["replicas"], 3);

        rival.does(&["patch", &format!("hpa/{}", rival.name), "--patch", r#"{"spec": {"maxReplicas": 9}}"#]);
        rival.until(&format!("hpa/{}", rival.name), |now| now["spec"]["maxReplicas"] == 4).await;
        let cost = rival.cost().await;
        assert!((1..=MOST_WRITES).contains(&cost), "{cost} writes");
        assert_eq!(rival.get(deployment).unwrap()["spec"]["replicas"], 3);
        server.stop().await;
    });
}

/// Somebody else with every right, and what its edits cost.
struct Rival<'a> {
    world: &'a World,
    cluster: &'a Cluster,
    server: &'a Server,
    lease: Lease,
    name: String,
    paid: std::cell::Cell<usize>,
}

impl<'a> Rival<'a> {
    async fn new(world: &'a World, cluster: &'a Cluster, server: &'a Server, lease: Lease) -> Self {
        server.until_quiet(cluster).await;
        let name = format!("tms-{}", lease.id);
        let paid = writes(cluster, &name).into();
        Self { world, cluster, server, lease, name, paid }
    }

    fn does(&self, args: &[&str]) {
        let namespaced: Vec<_> = ["--namespace", &self.world.namespace].iter().chain(args).copied().collect();
        self.cluster.kubectl_as("rival", &namespaced, "").unwrap();
    }

    fn get(&self, object: &str) -> Option<Value> {
        let args = ["--namespace", &self.world.namespace, "get", object, "--output=json"];
        self.cluster.kubectl(&args).ok().map(|answer| serde_json::from_str(&answer).unwrap())
    }

    async fn until(&self, object: &str, is_so: impl Fn(&Value) -> bool) {
        until(&format!("{object} is put back"), 30, async || self.get(object).filter(&is_so).map(drop)).await;
    }

    /// Returns how many writes to the lease's objects there were since it was asked last, once they are over.
    async fn cost(&self) -> usize {
        self.server.until_quiet(self.cluster).await;
        let writes = writes(self.cluster, &self.name);
        writes - self.paid.replace(writes)
    }
}

/// How often a server has written to the objects of a name, refused writes included.
fn writes(cluster: &Cluster, name: &str) -> usize {
    cluster.writes_of("tms").iter().filter(|line| line.name == name && line.resource != "events").count()
}
