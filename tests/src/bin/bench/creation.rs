//! Creation of autoscaled leases until every object exists, beside the same objects applied bare with as many calls at
//! once. Both are timed by the cluster's audit log, so that nobody has to ask the API server meanwhile.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use futures::future::try_join_all;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, TypeMeta};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde::Deserialize;
use serde_json::{Value, json};
use tms_proto::v1::PlanRequest;
use tms_server::clock::system_now;
use tms_tests::cluster::Cluster;
use tms_tests::server::{Database, Target, World, autoscaled};
use tms_tests::wait::until;
use tokio::sync::Semaphore;

use crate::process::{Process, acquire};
use crate::table::Table;
use crate::{Sizes, median, say};

/// Calls to the API server at once: the default of `server.cluster.callsInFlight`, for both.
const IN_FLIGHT: usize = 16;
/// Leases under way at once, as in the server.
const LEASES_AT_ONCE: usize = 32;
/// Callers of Acquire.
const CALLERS: usize = 16;

/// What one round took, and its writes to the API server by what was written.
struct Round {
    seconds: f64,
    writes: BTreeMap<String, usize>,
}

/// Measures rounds of both kinds in turn.
pub async fn measure(cluster: &'static Cluster, sizes: &Sizes, table: &mut Table) {
    let (leases, rounds) = sizes.creation;
    say(&format!("creation: {leases} leases, {rounds} rounds of each kind, and one of each to warm up"));
    let (mut by_server, mut bare) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let objects = planned(cluster).await;
        // Whoever comes second finds a cluster that is a little fuller: they take turns.
        let (one, other) = if round % 2 == 0 {
            let one = created_by_server(cluster, leases, objects.len()).await;
            (one, applied_bare(cluster, leases, &objects).await)
        } else {
            let other = applied_bare(cluster, leases, &objects).await;
            (created_by_server(cluster, leases, objects.len()).await, other)
        };
        say(&format!("server {:.2} s, bare {:.2} s", one.seconds, other.seconds));
        if round > 0 {
            by_server.push(one);
            bare.push(other);
        }
    }
    let seconds = |rounds: &[Round]| median(rounds.iter().map(|round| round.seconds));
    let ratios = by_server.iter().zip(&bare).map(|(one, other)| one.seconds / other.seconds);
    table.add(
        &format!("creation of {leases} autoscaled leases"),
        &format!("{:.2} s", seconds(&by_server)),
        &format!("bare apply: {:.2} s", seconds(&bare)),
        &format!("{:.2} times (aim: 1.15 at most)", median(ratios)),
    );
    for (name, rounds) in [("server", &by_server), ("bare", &bare)] {
        let writes = rounds.iter().flat_map(|round| &round.writes);
        let mut per_lease: BTreeMap<&str, f64> = BTreeMap::new();
        for (what, count) in writes {
            *per_lease.entry(what).or_default() += *count as f64 / (leases * rounds.len()) as f64;
        }
        let list: Vec<_> = per_lease.iter().map(|(what, count)| format!("{what} {count:.2}")).collect();
        let all: f64 = per_lease.values().sum();
        table.add(&format!("  writes per lease, {name}"), &format!("{all:.2}"), "", &list.join(", "));
    }
}

/// Creates leases through a server of its own.
async fn created_by_server(cluster: &'static Cluster, leases: usize, objects: usize) -> Round {
    let world = world(cluster).await;
    let server = Process::start(&world).await;
    until("the server has its lists", 30, async || {
        std::fs::read_to_string(world.folder.path().join("log"))
            .is_ok_and(|log| log.contains("the cluster answers"))
            .then_some(())
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..CALLERS {
        clients.push(server.leases().await);
    }
    let mut log = AuditLog::of(cluster, &world.namespace);
    let started = system_now();
    let share = |caller: usize| (0..leases).filter(move |number| number % CALLERS == caller);
    let callers = clients.into_iter().enumerate().map(|(caller, mut client)| async move {
        for _ in share(caller) {
            acquire(&mut client, autoscaled(1, 4), false).await?;
        }
        Ok::<_, tonic::Status>(())
    });
    try_join_all(callers).await.expect("leases are granted");
    let ended = log.until_created(leases * objects).await;
    settle(&world, leases).await;
    server.stop().await;
    finish(cluster, &world, log, started, ended)
}

/// Applies the objects of as many leases, each Deployment before what it owns.
async fn applied_bare(cluster: &'static Cluster, leases: usize, objects: &[Value]) -> Round {
    let world = world(cluster).await;
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig("bench")).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let client = kube::Client::try_from(config.expect("a kubeconfig")).expect("a client");
    let apply =
        Arc::new(Apply { client, namespace: world.namespace.clone(), calls: Semaphore::new(IN_FLIGHT) });
    let mut log = AuditLog::of(cluster, &world.namespace);
    let started = system_now();
    stream::iter(0..leases)
        .for_each_concurrent(LEASES_AT_ONCE, |_| {
            let apply = Arc::clone(&apply);
            let objects = objects.to_vec();
            async move {
                tokio::spawn(async move { apply.lease(objects).await }).await.expect("objects are applied");
            }
        })
        .await;
    let ended = log.until_created(leases * objects.len()).await;
    settle(&world, leases).await;
    finish(cluster, &world, log, started, ended)
}

/// A plain client of the API server.
struct Apply {
    client: kube::Client,
    namespace: String,
    calls: Semaphore,
}

impl Apply {
    /// Applies the objects of one lease under a name of their own.
    async fn lease(&self, objects: Vec<Value>) {
        let name = format!("tms-{}", uuid::Uuid::new_v4().simple());
        let mut objects = objects.into_iter().map(|object| renamed(&object, &name, &self.namespace));
        let deployment = objects.next().expect("the Deployment comes first");
        let uid = self.object(&name, deployment).await.metadata.uid.expect("what was applied has a UID");
        let dependents = objects.map(|mut object| {
            object["metadata"]["ownerReferences"] = json!([{
                "apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": uid, "blockOwnerDeletion": true,
            }]);
            self.object(&name, object)
        });
        futures::future::join_all(dependents).await;
    }

    async fn object(&self, name: &str, body: Value) -> DynamicObject {
        let types: TypeMeta = serde_json::from_value(body.clone()).expect("an object has a type");
        let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
        let gvk = kube::core::GroupVersionKind::gvk(group, version, &types.kind);
        let api = Api::<DynamicObject>::namespaced_with(
            self.client.clone(),
            &self.namespace,
            &ApiResource::from_gvk(&gvk),
        );
        let _turn = self.calls.acquire().await.expect("nobody closes it");
        let params = PatchParams::apply("bench").force();
        api.patch(name, &params, &Patch::Apply(&body)).await.expect("it is applied")
    }
}

/// Returns the objects that a server would apply for such a lease, as it prints them.
async fn planned(cluster: &'static Cluster) -> Vec<Value> {
    let world = world(cluster).await;
    let server = Process::start(&world).await;
    let leases = server.leases().await;
    // Before it knows what the cluster serves, a server plans no objects of Prometheus Operator.
    let manifests = until("the server plans every object", 30, async || {
        let request = PlanRequest { spec: Some(autoscaled(1, 4)) };
        let plan = leases.clone().plan(request).await.expect("a plan").into_inner();
        (plan.manifests.len() == 6).then_some(plan.manifests)
    })
    .await;
    server.stop().await;
    remove(cluster, &world.namespace);
    manifests.iter().map(|manifest| serde_yaml::from_str(manifest).expect("a manifest is YAML")).collect()
}

/// Returns an object with the name of another lease, in all places.
fn renamed(object: &Value, name: &str, namespace: &str) -> Value {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let id = |name: &str| name.trim_start_matches("tms-").to_owned();
    let (old_name, old_namespace) = (text("/metadata/name"), text("/metadata/namespace"));
    let mut json = object.to_string().replace(&id(old_name), &id(name));
    if !old_namespace.is_empty() {
        json = json.replace(old_namespace, namespace);
    }
    serde_json::from_str(&json).expect("names do not change the form")
}

async fn world(cluster: &'static Cluster) -> World {
    World::new(Database::Sqlite, Target::Kubernetes(cluster)).await.expect("the cluster runs")
}

/// Waits until the controllers have nothing to do with these leases any more.
async fn settle(world: &World, leases: usize) {
    until("every lease is ready", 120, async || {
        let list = world.kubectl(&["get", "deployments"]);
        let items = list["items"].as_array().into_iter().flatten();
        (items.filter(|item| item["status"]["readyReplicas"] == 1).count() == leases).then_some(())
    })
    .await;
}

fn finish(
    cluster: &Cluster,
    world: &World,
    mut log: AuditLog,
    started: Timestamp,
    ended: Timestamp,
) -> Round {
    log.read();
    remove(cluster, &world.namespace);
    Round { seconds: ended.duration_since(started).as_secs_f64(), writes: log.writes }
}

fn remove(cluster: &Cluster, namespace: &str) {
    cluster
        .kubectl(&["delete", "namespace", namespace, "--timeout=180s"])
        .expect("a namespace can be deleted");
}

/// What `tms` and `bench` write in one namespace, read as it grows.
struct AuditLog {
    file: File,
    namespace: String,
    unfinished: Vec<u8>,
    /// By resource.
    writes: BTreeMap<String, usize>,
    /// When each object was created.
    created: Vec<Timestamp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    stage_timestamp: Timestamp,
    verb: String,
    user: User,
    #[serde(default)]
    object_ref: Object,
    #[serde(default)]
    response_status: Answer,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Object {
    resource: String,
    namespace: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Answer {
    code: u16,
}

impl AuditLog {
    /// Reads from here on.
    fn of(cluster: &Cluster, namespace: &str) -> Self {
        let mut file = File::open(cluster.audit_log()).expect("the audit log is readable");
        file.seek(SeekFrom::End(0)).expect("a file has an end");
        Self {
            file,
            namespace: namespace.to_owned(),
            unfinished: Vec::new(),
            writes: BTreeMap::new(),
            created: Vec::new(),
        }
    }

    /// Waits until so many objects were created, and returns when the last one was.
    async fn until_created(&mut self, objects: usize) -> Timestamp {
        for _ in 0..6000 {
            self.read();
            if self.created.len() >= objects {
                return self.created.iter().copied().max().expect("objects were created");
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("{} of {objects} objects were created", self.created.len());
    }

    fn read(&mut self) {
        self.file.read_to_end(&mut self.unfinished).expect("the audit log is readable");
        let Some(end) = self.unfinished.iter().rposition(|byte| *byte == b'\n') else { return };
        let rest = self.unfinished.split_off(end + 1);
        let lines = std::mem::replace(&mut self.unfinished, rest);
        // Most lines are of others, and need not be understood.
        let namespace = self.namespace.clone();
        for line in lines.split(|byte| *byte == b'\n').filter(|line| contains(line, namespace.as_bytes())) {
            self.note(serde_json::from_slice(line).expect("a line of the audit log"));
        }
    }

    fn note(&mut self, line: Line) {
        let is_ours = matches!(line.user.username.as_str(), "tms" | "bench");
        if !is_ours || line.object_ref.namespace != self.namespace {
            return;
        }
        if line.verb == "patch" && line.response_status.code == 201 {
            self.created.push(line.stage_timestamp);
        }
        *self.writes.entry(line.object_ref.resource).or_default() += 1;
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
