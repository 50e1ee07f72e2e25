//! The Kubernetes back end alone, against a real control plane: what an apply writes, and what it never overwrites.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tms_server::cluster::kubernetes::{Kubernetes, Limits, Options};
use tms_server::cluster::{Act, ActError, Observe};
use tms_server::domain::bounds::Provider;
use tms_server::domain::lease::Lease;
use tms_server::domain::observed::Objects;
use tms_server::domain::plan::{Plan, Settings, plan};
use tms_server::domain::scaling::Scaling;
use tms_tests::cluster::Cluster;
use tms_tests::samples::{autoscaled, lease, settings};
use tms_tests::wait::{inside, until};

struct World {
    cluster: &'static Cluster,
    namespace: String,
    settings: Settings,
}

impl World {
    fn new(cluster: &'static Cluster) -> Self {
        let namespace = format!("objects-{}", uuid::Uuid::new_v4().simple());
        cluster.kubectl(&["create", "namespace", &namespace]).expect("a namespace can be made");
        Self { cluster, settings: settings(&namespace), namespace }
    }

    /// A server's view of the cluster, with its watches complete.
    async fn server(&self) -> Kubernetes {
        let options = Options {
            kubeconfig: Some(self.cluster.kubeconfig("tms")),
            namespace: self.namespace.clone(),
            installation: self.settings.installation.clone(),
            limits: Limits { in_flight: 8, per_second: 0, timeout: Duration::from_secs(10) },
            metrics: Arc::default(),
        };
        let server = Kubernetes::connect(options, Arc::new(|_| {})).await.expect("the kubeconfig is good");
        server.refresh().await.expect("the API server answers");
        server.listed().await;
        server
    }

    fn lease(&self, scaling: Scaling) -> Lease {
        lease(&self.namespace, scaling, &self.settings)
    }

    fn plan(&self, lease: &Lease, server: &Kubernetes) -> Plan {
        plan(lease, &self.settings, &server.capabilities())
    }

    fn get(&self, what: &str) -> Value {
        let answer = self.cluster.kubectl(&[
            "--namespace",
            &self.namespace,
            "get",
            what,
            "--output=json",
            "--show-managed-fields",
        ]);
        serde_json::from_str(&answer.expect("kubectl answers")).expect("kubectl prints JSON")
    }

    fn patch(&self, what: &str, patch: &str) {
        let args = ["--namespace", &self.namespace, "patch", what, "--type=merge", "--patch", patch];
        self.cluster.kubectl(&args).expect("the patch is good");
    }
}

/// Applies until nothing has changed meanwhile, as passes do.
async fn apply(server: &Kubernetes, lease: &Lease, plan: &Plan) {
    for _ in 0..20 {
        match server.apply(lease, plan).await {
            Ok(()) => return,
            Err(ActError::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the apply never came through");
}

async fn until_objects(server: &Kubernetes, lease: &Lease, plan: &Plan, objects: Objects) {
    until(&format!("objects are {objects:?}"), 20, async || {
        (server.observe(lease, plan).objects == objects).then_some(())
    })
    .await;
}

#[test]
fn an_applied_lease_has_the_objects_of_its_plan_and_matches_it_for_every_server() {
    let Some(cluster) = Cluster::shared() else { return };
    inside(cluster, || async {
        let world = World::new(cluster);
        let server = world.server().await;
        let lease = world.lease(autoscaled(2, 4));
        let plan = world.plan(&lease, &server);
        assert_eq!(server.observe(&lease, &plan).objects, Objects::Absent);
        apply(&server, &lease, &plan).await;
        until_objects(&server, &lease, &plan, Objects::Match).await;

        let kinds = "deployments,services,hpa,pdb,podmonitors,prometheusrules";
        let list = world.get(kinds);
        let mut kinds: Vec<_> =
            list["items"].as_array().unwrap().iter().map(|item| item["kind"].as_str().unwrap()).collect();
        kinds.sort_unstable();
        let expected = [
            "Deployment",
            "HorizontalPodAutoscaler",
            "PodDisruptionBudget",
            "PodMonitor",
            "PrometheusRule",
            "Service",
            "Service",
        ];
        assert_eq!(kinds, expected);
        // A server that starts now compares what it lists with the plan, field by field.
        let another = world.server().await;
        assert_eq!(another.observe(&lease, &plan).objects, Objects::Match);
        until("both replicas are ready", 30, async || {
            (server.observe(&lease, &plan).replicas.ready == 2).then_some(())
        })
        .await;

        until("nothing is left", 20, async || {
            server.delete(lease.id).await.unwrap();
            (server.observe(&lease, &plan).objects == Objects::Absent).then_some(())
        })
        .await;
        assert_eq!(
            world.get("deployments,services,hpa,pdb,podmonitors,prometheusrules")["items"],
            serde_json::json!([])
        );
    });
}

#[test]
fn a_lease_is_handed_to_an_autoscaler_and_back_without_a_dip() {
    let Some(cluster) = Cluster::shared() else { return };
    inside(cluster, || async {
        let world = World::new(cluster);
        let server = world.server().await;
        let mut lease = world.lease(Scaling::Fixed { replicas: 3 });
        let fixed = world.plan(&lease, &server);
        apply(&server, &lease, &fixed).await;
        let deployment = format!("deployment/{}", lease.id.object_name());
        until("three replicas are ready", 30, async || {
            (server.observe(&lease, &fixed).replicas.ready == 3).then_some(())
        })
        .await;
        // The generation of a ReplicaSet counts changes of its spec, replicas included.
        let generation =
            |world: &World| world.get("replicasets")["items"][0]["metadata"]["generation"].clone();
        let before = generation(&world);

        lease.spec.scaling = autoscaled(2, 5);
        lease.generation += 1;
        let scaled = world.plan(&lease, &server);
        apply(&server, &lease, &scaled).await;
        until_objects(&server, &lease, &scaled, Objects::Match).await;
        // There was no change, not even for a moment.
        assert_eq!(generation(&world), before);
        assert_eq!(world.get(&deployment)["spec"]["replicas"], 3);
        world
            .cluster
            .kubectl(&["--namespace", &world.namespace, "scale", &deployment, "--replicas=4"])
            .unwrap();
        until("the scale is seen", 20, async || {
            (server.observe(&lease, &scaled).replicas.desired == 4).then_some(())
        })
        .await;
        until_objects(&server, &lease, &scaled, Objects::Match).await;

        lease.spec.scaling = Scaling::Fixed { replicas: 4 };
        lease.generation += 1;
        let fixed = world.plan(&lease, &server);
        apply(&server, &lease, &fixed).await;
        until_objects(&server, &lease, &fixed, Objects::Match).await;
        assert_eq!(world.get(&deployment)["spec"]["replicas"], 4);
        assert_eq!(world.get("hpa")["items"], serde_json::json!([]));
    });
}

#[test]
fn an_autoscaler_is_handed_to_keda_and_back_as_the_same_object_without_a_dip() {
    let Some(cluster) = Cluster::shared() else { return };
    inside(cluster, || async {
        let world = World::new(cluster);
        let server = world.server().await;
        let lease = world.lease(autoscaled(2, 5));
        let own = world.plan(&lease, &server);
        apply(&server, &lease, &own).await;
        until_objects(&server, &lease, &own, Objects::Match).await;
        let name = lease.id.object_name();
        let (hpa, scaled_object) = (format!("hpa/{name}"), format!("scaledobject/{name}"));
        let (uid, spec) = {
            let before = world.get(&hpa);
            (before["metadata"]["uid"].clone(), before["spec"]["metrics"].clone())
        };
        until("both replicas are ready", 30, async || {
            (server.observe(&lease, &own).replicas.ready == 2).then_some(())
        })
        .await;
        let generation = || world.get("replicasets")["items"][0]["metadata"]["generation"].clone();
        let before = generation();

        let settings = Settings { provider: Provider::Keda, ..world.settings.clone() };
        let scaled = plan(&lease, &settings, &server.capabilities());
        apply(&server, &lease, &scaled).await;
        until_objects(&server, &lease, &scaled, Objects::Match).await;
        // The API server takes it as it is, and a server that starts now finds nothing to put back.
        assert_eq!(world.server().await.observe(&lease, &scaled).objects, Objects::Match);
        assert_eq!(world.get(&hpa)["metadata"]["uid"], uid, "KEDA takes it over");

        // What KEDA does: it marks its own object, and makes the autoscaler its own.
        let owner = world.get(&scaled_object)["metadata"]["uid"].clone();
        world.patch(
            &scaled_object,
            &format!(r#"{{"metadata":{{"finalizers":["finalizer.keda.sh"],"labels":{{"scaledobject.keda.sh/name":"{name}"}}}}}}"#),
        );
        let taken = serde_json::json!({
            "metadata": {
                "annotations": { "tms.internal/triggers": "queueTime" },
                "ownerReferences": [{
                    "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": name, "uid": owner,
                    "controller": true, "blockOwnerDeletion": true,
                }],
            },
            "spec": { "metrics": [{ "type": "External", "external": {
                "metric": { "name": "s0-prometheus" },
                "target": { "type": "AverageValue", "averageValue": "10k" },
            } }] },
        });
        world.patch(&hpa, &taken.to_string());
        until("the change is seen by a server that starts then", 20, async || {
            (world.server().await.observe(&lease, &scaled).objects == Objects::Match).then_some(())
        })
        .await;
        until_objects(&server, &lease, &scaled, Objects::Match).await;

        // And back: the ScaledObject goes first, and leaves the autoscaler.
        until_objects(&server, &lease, &own, Objects::Differ).await;
        apply(&server, &lease, &own).await;
        until_objects(&server, &lease, &own, Objects::Match).await;
        until("the autoscaler belongs to nobody", 30, async || {
            world.get(&hpa)["metadata"]["ownerReferences"].is_null().then_some(())
        })
        .await;
        world.patch(&scaled_object, r#"{"metadata":{"finalizers":null}}"#);
        until_objects(&server, &lease, &own, Objects::Differ).await;
        apply(&server, &lease, &own).await;
        until_objects(&server, &lease, &own, Objects::Match).await;
        let after = world.get(&hpa);
        assert_eq!((&after["metadata"]["uid"], &after["spec"]["metrics"]), (&uid, &spec));
        assert_eq!(after["metadata"]["ownerReferences"][0]["kind"], "Deployment");
        assert_eq!(world.get("scaledobjects")["items"], serde_json::json!([]));
        assert_eq!(generation(), before, "no replica came or went");
    });
}

#[test]
fn a_rivals_edit_is_seen_and_put_back_and_its_own_fields_are_left_alone() {
    let Some(cluster) = Cluster::shared() else { return };
    inside(cluster, || async {
        let world = World::new(cluster);
        let server = world.server().await;
        let lease = world.lease(autoscaled(1, 3));
        let plan = world.plan(&lease, &server);
        apply(&server, &lease, &plan).await;
        until_objects(&server, &lease, &plan, Objects::Match).await;
        let name = lease.id.object_name();

        world.patch(
            &format!("deployment/{name}"),
            r#"{"metadata":{"annotations":{"rival.example.com/note":"mine"}}}"#,
        );
        world.patch(&format!("hpa/{name}"), r#"{"spec":{"maxReplicas":9}}"#);
        until_objects(&server, &lease, &plan, Objects::Differ).await;
        apply(&server, &lease, &plan).await;
        until_objects(&server, &lease, &plan, Objects::Match).await;
        assert_eq!(world.get(&format!("hpa/{name}"))["spec"]["maxReplicas"], 3);
        let annotations = world.get(&format!("deployment/{name}"))["metadata"]["annotations"].clone();
        assert_eq!(annotations["rival.example.com/note"], "mine");

        // Without its labels an object is out of sight; it is found again by its name.
        world.patch(&format!("service/{name}"), r#"{"metadata":{"labels":null}}"#);
        until_objects(&server, &lease, &plan, Objects::Differ).await;
        apply(&server, &lease, &plan).await;
        until_objects(&server, &lease, &plan, Objects::Match).await;
        assert!(world.get(&format!("service/{name}"))["metadata"]["labels"].is_object());
    });
}

#[test]
fn a_server_that_was_frozen_overwrites_nothing_newer() {
    let Some(cluster) = Cluster::shared() else { return };
    inside(cluster, || async {
        let world = World::new(cluster);
        let (frozen, other) = (world.server().await, world.server().await);
        let stale = world.lease(Scaling::Fixed { replicas: 1 });
        let mut fresh = stale.clone();
        fresh.generation += 1;
        fresh.spec.scaling = Scaling::Fixed { replicas: 2 };
        let (stale_plan, fresh_plan) = (world.plan(&stale, &frozen), world.plan(&fresh, &other));
        // The frozen server had seen nothing when it decided to apply; the other one has created everything since.
        apply(&other, &fresh, &fresh_plan).await;
        let mut outcome = frozen.apply(&stale, &stale_plan).await;
        while matches!(outcome, Err(ActError::Conflict { .. })) {
            outcome = frozen.apply(&stale, &stale_plan).await;
        }
        assert!(matches!(outcome, Err(ActError::Superseded { .. })), "{outcome:?}");
        until_objects(&frozen, &stale, &stale_plan, Objects::Superseded(2)).await;
        let deployment = world.get(&format!("deployment/{}", stale.id.object_name()));
        assert_eq!(deployment["spec"]["replicas"], 2);
        assert_eq!(deployment["metadata"]["annotations"]["tms.internal/generation"], "2");
    });
}
