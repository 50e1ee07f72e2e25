//! Explanations against the controller of Kubernetes: it decides on replicas whose metrics are scripted, and what TMS reads and
//! computes beforehand must be what it then does and says.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod metrics;
mod situations;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use metrics::Scripted;
use serde_json::{Value, json};
use situations::{CPU_REQUEST_MILLI, Situation, Told};
use tms_server::cluster::Inspect;
use tms_server::cluster::kubernetes::{Kubernetes, Limits, Options};
use tms_server::cluster::{Act, Observe};
use tms_server::domain::autoscaler::effect::Effect;
use tms_server::domain::autoscaler::explanation::{Evidence, Explanation, HoldKind, explain};
use tms_server::domain::autoscaler::metric::{Phase, Pod, Ready, Requests, Sample};
use tms_server::domain::autoscaler::record::{Record, Status};
use tms_server::domain::autoscaler::{self};
use tms_server::domain::lease::{Lease, Replicas};
use tms_server::domain::plan::{Kind, plan, render};
use tms_server::domain::scaling::{MetricName, Scaling};
use tms_tests::cluster::Cluster;
use tms_tests::samples::{lease, settings};
use tms_tests::wait::{inside, until};

/// What the controller decided, when it was last asked.
const RECORDED: &str = include_str!("recorded.txt");
/// The controller of the harness looks this often, and begins to trust a pod's CPU after so long.
const SYNC: SignedDuration = SignedDuration::from_secs(5);
const CPU_INITIALIZATION: SignedDuration = SignedDuration::from_secs(10);

fn options() -> autoscaler::Options {
    autoscaler::Options {
        sync_period: SYNC,
        cpu_initialization_period: CPU_INITIALIZATION,
        initial_readiness_delay: SignedDuration::from_secs(5),
        ..autoscaler::Options::default()
    }
}

/// One line of a decision: from how many replicas to how many, and the reasons.
fn line(situation: &Situation, number: usize, to: i64, conditions: &BTreeMap<String, String>) -> String {
    let reasons: Vec<_> = conditions.iter().map(|(kind, reason)| format!("{kind}={reason}")).collect();
    format!("{number:03} {}: {} to {to}: {}", situation.branch, situation.replicas, reasons.join(" "))
}

/// What we say that the controller decides, as it is recorded.
fn ours(explanation: &Explanation) -> (i64, BTreeMap<String, String>) {
    let decision = explanation.decision.as_ref().expect("pods and status are known");
    let condition = |set: &autoscaler::decision::Condition| {
        (format!("{:?}", set.kind), format!("{}/{}", set.status, set.reason))
    };
    (decision.replicas.into(), decision.conditions.iter().map(condition).collect())
}

fn check_hold(situation: &Situation, explanation: &Explanation, faults: &mut Vec<String>) {
    let mut kinds: Vec<_> =
        explanation.holds.iter().filter(|hold| hold.is_computed).map(|hold| hold.kind).collect();
    // At first sight of a server, only the controller can say that an earlier recommendation holds. Here it is new, too.
    let is_held = |effect: &Effect| matches!(effect, Effect::Stabilized { .. });
    let decision = explanation.decision.as_ref().unwrap();
    kinds.extend(decision.effects.iter().any(is_held).then_some(HoldKind::Stabilization));
    let is_right = match situation.hold {
        Some(kind) => kinds.contains(&kind),
        None => kinds.is_empty() || situation.branch == "largest wins",
    };
    if !is_right {
        faults.push(format!("{}: holds are {:?}", situation.branch, explanation.holds));
    }
}

/// The evidence of a situation, without a cluster.
fn made_up(situation: &Situation) -> Evidence {
    let at = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24);
    let since = at - SignedDuration::from_hours(1);
    let pod = |name: String, phase| Pod {
        name,
        phase,
        is_deleting: false,
        started_at: (phase == Phase::Running).then_some(since),
        ready: Some(Ready { is_ready: Some(phase == Phase::Running), since }),
        requests: Requests::both(CPU_REQUEST_MILLI),
    };
    let ready = (0..situation.replicas).map(|number| pod(format!("ready-{number}"), Phase::Running));
    let pending = (0..situation.pending).map(|number| pod(format!("pending-{number}"), Phase::Pending));
    let samples = situation.told.iter().map(|(name, told)| {
        let samples = match told {
            Told::Fault => Err("the script says so".to_owned()),
            Told::Values(values) => Ok(values
                .iter()
                .enumerate()
                .filter_map(|(number, value)| {
                    let milli = metrics::milli(*name, (*value)?);
                    let sample = Sample { milli, at, window: SignedDuration::from_secs(1) };
                    Some((format!("ready-{number}"), sample))
                })
                .collect()),
        };
        (*name, samples)
    });
    Evidence {
        at,
        record: None,
        replicas: Replicas {
            desired: situation.replicas,
            current: situation.replicas,
            ready: situation.replicas,
        },
        pods: Ok(ready.chain(pending).collect()),
        troubles: Vec::new(),
        samples: samples.collect(),
        totals: BTreeMap::new(),
        events: Ok(Vec::new()),
    }
}

/// Explains what an autoscaler will decide that has not looked yet.
fn at_first_sight(situation: &Situation, evidence: &Evidence) -> Explanation {
    let record = Some(Record::begin(Status::default(), evidence.at));
    explain(&situation.autoscaling, &Evidence { record, ..evidence.clone() }, &options())
}

#[test]
fn what_the_controller_once_decided_is_still_what_is_computed() {
    let situations = situations::all();
    let mut lines = String::new();
    let mut faults = Vec::new();
    for (number, situation) in situations.iter().enumerate() {
        let explanation = at_first_sight(situation, &made_up(situation));
        let (to, conditions) = ours(&explanation);
        writeln!(lines, "{}", line(situation, number, to, &conditions)).unwrap();
        check_hold(situation, &explanation, &mut faults);
    }
    assert!(faults.is_empty(), "{faults:#?}");
    let differ: Vec<_> =
        lines.lines().zip(RECORDED.lines()).filter(|(ours, theirs)| ours != theirs).collect();
    assert!(differ.is_empty(), "{differ:#?}");
    assert_eq!(lines.lines().count(), RECORDED.lines().count());
    assert!(situations.len() >= 100, "{}", situations.len());
}

/// The cluster with the leases of all situations, their metrics scripted.
struct World {
    cluster: &'static Cluster,
    namespace: String,
    server: Kubernetes,
    scripted: Scripted,
    leases: Vec<Lease>,
}

impl World {
    async fn start(cluster: &'static Cluster, situations: &[Situation]) -> Self {
        let namespace = format!("explain-{}", uuid::Uuid::new_v4().simple());
        cluster.kubectl(&["create", "namespace", &namespace]).unwrap();
        let settings = settings(&namespace);
        let options = Options {
            kubeconfig: Some(cluster.kubeconfig("tms")),
            namespace: namespace.clone(),
            installation: namespace.clone(),
            limits: Limits { in_flight: 8, per_second: 0, timeout: Duration::from_secs(20) },
            metrics: Arc::default(),
        };
        let server = Kubernetes::connect(options, Arc::new(|_| {})).await.unwrap();
        server.refresh().await.unwrap();
        server.listed().await;
        let lease_of = |situation: &Situation| {
            let mut lease = lease(&namespace, Scaling::Auto(situation.autoscaling.clone()), &settings);
            // There are few GPUs, and none is needed.
            lease.spec.triton.gpus = 0;
            lease.deployment = render(lease.id, &namespace, &lease.spec, &settings);
            lease
        };
        let leases = situations.iter().map(lease_of).collect();
        let scripted = Scripted::start(cluster, &namespace).await;
        Self { cluster, namespace, server, scripted, leases }
    }

    fn create(&self, objects: Vec<Value>) {
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects }).to_string();
        let arguments = ["create", "--namespace", &self.namespace, "-f", "-"];
        self.cluster.kubectl_as("admin", &arguments, &list).unwrap();
    }

    fn list(&self, what: &str) -> Vec<Value> {
        let answer =
            self.cluster.kubectl(&["get", what, "--namespace", &self.namespace, "-o", "json"]).unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        answer["items"].as_array().unwrap().clone()
    }

    fn planned(&self, lease: &Lease, kind: Kind) -> Value {
        let plan = plan(lease, &settings(&self.namespace), &self.server.capabilities());
        plan.objects().find(|object| object.kind == kind).unwrap().body.clone()
    }

    /// Creates the Deployments and pods, waits until they run, and scripts their metrics.
    async fn populate(&self, situations: &[Situation]) {
        let mut objects = Vec::new();
        for (lease, situation) in self.leases.iter().zip(situations) {
            let mut deployment = self.planned(lease, Kind::Deployment);
            deployment["spec"]["replicas"] = json!(situation.replicas);
            objects.push(deployment);
            objects.extend((0..situation.pending).map(|number| pending_pod(lease, number)));
        }
        self.create(objects);
        let wanted: u32 = situations.iter().map(|situation| situation.replicas).sum();
        let pods = until("every replica is ready", 120, async || {
            let pods = self.list("pods");
            let ready = pods.iter().filter(|pod| is_ready(pod)).count();
            (ready == wanted as usize).then_some(pods)
        })
        .await;
        let mut names = HashMap::<String, Vec<String>>::new();
        for pod in pods.iter().filter(|pod| is_ready(pod)) {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let lease = text(&pod["metadata"]["labels"]["tms.internal/lease-id"]);
            names.entry(lease).or_default().push(text(&pod["metadata"]["name"]));
        }
        for (lease, situation) in self.leases.iter().zip(situations) {
            let mut pods = names.remove(&lease.id.to_string()).unwrap_or_default();
            pods.sort();
            self.scripted.tell(lease.id, &pods, &situation.told);
        }
    }

    /// Waits until the controller trusts every pod's CPU.
    async fn ripen(&self) {
        tokio::time::timeout(Duration::from_secs(60), async {
            loop {
                let now = tms_server::clock::system_now();
                let pods = self.list("pods");
                let is_ripe = |pod: &Value| {
                    let started: Option<Timestamp> =
                        pod["status"]["startTime"].as_str().and_then(|text| text.parse().ok());
                    started.is_none_or(|at| at + CPU_INITIALIZATION + SignedDuration::from_secs(1) < now)
                };
                if pods.iter().all(is_ripe) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        })
        .await
        .expect("pods grow older");
    }

    /// Creates the autoscalers, and returns what each said first.
    async fn first_decisions(&self) -> Vec<Value> {
        self.create(
            self.leases.iter().map(|lease| self.planned(lease, Kind::HorizontalPodAutoscaler)).collect(),
        );
        let first = RefCell::new(HashMap::<String, Value>::new());
        until("every autoscaler has looked", 60, async || {
            for autoscaler in self.list("hpa") {
                if autoscaler["status"]["conditions"].is_array() {
                    let name = autoscaler["metadata"]["name"].as_str().unwrap().to_owned();
                    first.borrow_mut().entry(name).or_insert_with(|| autoscaler["status"].clone());
                }
            }
            (first.borrow().len() == self.leases.len()).then_some(())
        })
        .await;
        let mut first = first.into_inner();
        self.leases.iter().map(|lease| first.remove(&lease.id.object_name()).unwrap()).collect()
    }
}

fn is_ready(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn pending_pod(lease: &Lease, number: u32) -> Value {
    let name = format!("{}-pending-{number}", lease.id.object_name());
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "labels": { "tms.internal/lease-id": lease.id.to_string() } },
        "spec": {
            "nodeSelector": { "tms.test/node": "nowhere" },
            "containers": [{
                "name": "triton", "image": "triton", "resources": { "requests": { "cpu": "100m" } },
            }],
        },
    })
}

/// What the controller says, for the conditions that we speak of.
fn theirs(status: &Value, of: &BTreeMap<String, String>) -> (i64, BTreeMap<String, String>) {
    let conditions = status["conditions"].as_array().unwrap().iter().filter_map(|condition| {
        let kind = condition["type"].as_str()?.to_owned();
        let holds = condition["status"] == "True";
        of.contains_key(&kind).then(|| (kind, format!("{holds}/{}", condition["reason"].as_str().unwrap())))
    });
    let conditions: BTreeMap<_, _> = conditions.collect();
    // Where it cannot use its metrics it decides nothing, and leaves what it wanted before: at first nothing.
    let has_decided = conditions.get("ScalingActive").is_none_or(|active| active.starts_with("true"));
    let replicas = if has_decided { "desiredReplicas" } else { "currentReplicas" };
    (status[replicas].as_i64().unwrap(), conditions)
}

#[test]
fn the_controller_does_and_says_what_was_computed_from_what_tms_reads() {
    let Some(cluster) = Cluster::own("explain") else { return };
    let situations = situations::all();
    inside(cluster, || async {
        let world = World::start(cluster, &situations).await;
        world.populate(&situations).await;
        world.ripen().await;
        let mut before = Vec::new();
        for (lease, situation) in world.leases.iter().zip(&situations) {
            let evidence = world.server.autoscaler(lease).await.unwrap();
            assert_eq!(evidence.events, Ok(Vec::new()));
            before.push(at_first_sight(situation, &evidence));
        }
        let decided = world.first_decisions().await;
        let (mut faults, mut lines) = (Vec::new(), String::new());
        for (number, ((situation, explanation), status)) in
            situations.iter().zip(&before).zip(&decided).enumerate()
        {
            let (our_replicas, our_conditions) = ours(explanation);
            let (their_replicas, their_conditions) = theirs(status, &our_conditions);
            writeln!(lines, "{}", line(situation, number, their_replicas, &their_conditions)).unwrap();
            if (our_replicas, &our_conditions) != (their_replicas, &their_conditions) {
                let ours = line(situation, number, our_replicas, &our_conditions);
                faults.push(format!("{ours} here, {status} there: {explanation:?}"));
            }
            check_hold(situation, explanation, &mut faults);
        }
        if let Some(file) = std::env::var_os("TMS_TEST_RECORD") {
            std::fs::write(file, &lines).unwrap();
        }
        assert!(
            faults.is_empty(),
            "{} of {}: {:#?}",
            faults.len(),
            situations.len(),
            &faults[..faults.len().min(8)]
        );
        said_afterwards(&world, &situations, &decided).await;
    });
}

/// What happened is told: the change with its reason, and what holds it in the controller's own words.
async fn said_afterwards(world: &World, situations: &[Situation], decided: &[Value]) {
    for ((lease, situation), status) in world.leases.iter().zip(situations).zip(decided) {
        let desired = i32::try_from(status["desiredReplicas"].as_i64().unwrap()).unwrap();
        if desired == 0 || desired == i32::try_from(situation.replicas).unwrap() {
            continue;
        }
        until("the change is told", 20, async || {
            let evidence = world.server.autoscaler(lease).await.unwrap();
            let explanation = explain(&situation.autoscaling, &evidence, &options());
            let is_told = |note: &autoscaler::record::Note| {
                note.reason == "SuccessfulRescale"
                    && note.to == Some(desired)
                    && note.message.contains("New size")
            };
            explanation.notes.iter().any(is_told).then_some(())
        })
        .await;
    }
    let held = situations.iter().position(|situation| situation.branch == "window, down").unwrap();
    let evidence = world.server.autoscaler(&world.leases[held]).await.unwrap();
    let explanation = explain(&situations[held].autoscaling, &evidence, &options());
    let holds: Vec<_> = explanation.holds.iter().map(|hold| hold.kind).collect();
    assert!(holds.contains(&HoldKind::Stabilization), "{holds:?}");
    let blocked = situations.iter().position(|situation| situation.branch == "blocked").unwrap();
    let evidence = world.server.autoscaler(&world.leases[blocked]).await.unwrap();
    let explanation = explain(&situations[blocked].autoscaling, &evidence, &options());
    assert!(explanation.summary.contains("cannot be used"), "{}", explanation.summary);
    let gpu = explanation.metrics.iter().find(|metric| metric.name == MetricName::GpuUtilization).unwrap();
    assert!(gpu.error.as_ref().is_some_and(|error| error.contains("the script says so")), "{gpu:?}");
}
