//! What the watches have shown, by lease. An object is held whole only until it was compared with a plan once; after
//! that two hashes say whether anything has changed, so that leases at rest cost little memory and no comparison.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::api::{DynamicObject, TypeMeta};
use serde_json::Value;

use super::autoscaler;
use super::live::{DeploymentStatus, Stamp};
use super::pods::{Agent, Measurable, Pods};
use super::substance::hash_of;
use crate::clock::{stopwatch, system_now};
use crate::domain::autoscaler::record::{Record, Status, Trouble};
use crate::domain::lease::{Lease, LeaseId, ModelReport, Replicas};
use crate::domain::observed::{Objects, Observed};
use crate::domain::plan::{self, INSTALLATION_LABEL, Kind, LEASE_LABEL, Object, Plan};

/// No answer to a call comes later than this.
const LATEST_ANSWER: Duration = Duration::from_secs(5 * 60);

/// What the watches have shown.
pub(super) struct Cache {
    installation: String,
    leases: Mutex<HashMap<LeaseId, Seen>>,
}

/// What was seen of one lease.
#[derive(Default)]
struct Seen {
    objects: BTreeMap<Kind, Live>,
    pods: Pods,
    deployment: DeploymentStatus,
    /// What its autoscaler said, as long as there is one.
    autoscaler: Option<Record>,
    /// When KEDA last took the lease for active.
    active_at: Option<Timestamp>,
    /// Whether a pass waits for KEDA to take it for active.
    is_waking: bool,
    /// The objects deleted last, as they were then, so that a late answer does not bring one back.
    gone: BTreeMap<Kind, Stamp>,
    /// When the last of them was.
    gone_at: Option<Instant>,
}

/// One object as it was seen.
struct Live {
    stamp: Stamp,
    content: Content,
}

enum Content {
    /// Not compared yet: the object itself, as JSON text.
    Unread { live: u64, text: String },
    /// Holds everything that the planned object of this hash says.
    Covers { live: u64, planned: u64 },
}

/// What a watch is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Subject {
    /// Objects of a plan.
    Object(Kind),
    /// Pods.
    Pods,
}

/// One watched object, by its lease, subject and name.
pub(super) type Key = (LeaseId, Subject, String);

impl Cache {
    pub fn new(installation: &str) -> Self {
        Self { installation: installation.to_owned(), leases: Mutex::default() }
    }

    /// Keeps an object that a watch or an answer showed. Returns its key and whether a pass should look at its lease.
    pub fn keep(&self, subject: Subject, object: DynamicObject) -> Option<(Key, bool)> {
        let key = self.key(subject, &object)?;
        let mut leases = self.lock();
        let seen = leases.entry(key.0).or_default();
        let is_news = match key.1 {
            Subject::Pods => seen.pods.keep(&key.2, object),
            Subject::Object(kind) => seen.keep_object(kind, object),
        };
        Some((key, is_news))
    }

    /// Returns the key of an object of this installation; objects of a lease are named after it, so that the name tells
    /// two of one resource apart.
    pub fn key(&self, subject: Subject, object: &DynamicObject) -> Option<Key> {
        let labels = object.metadata.labels.as_ref()?;
        let id: LeaseId = labels.get(LEASE_LABEL)?.parse().ok()?;
        let name = object.metadata.name.clone()?;
        let is_ours = labels.get(INSTALLATION_LABEL) == Some(&self.installation);
        let subject = match subject {
            Subject::Pods => Subject::Pods,
            Subject::Object(watched) => {
                let mut kinds = Kind::ALL.into_iter().filter(|kind| kind.shares_resource(watched));
                Subject::Object(kinds.find(|kind| kind.object_name(id) == name)?)
            }
        };
        is_ours.then_some((id, subject, name))
    }

    /// Whether an object was seen and holds everything that its plan says.
    pub fn covers(&self, id: LeaseId, planned: &Object, owner: Option<&str>) -> bool {
        let mut leases = self.lock();
        leases
            .get_mut(&id)
            .is_some_and(|seen| seen.covers(planned, &id.object_name(), owner.unwrap_or_default()))
    }

    /// Keeps the answer to the apply of a planned object, which needs no comparison: what it lacks, an apply does not bring.
    pub fn keep_applied(&self, id: LeaseId, planned: &Object, answer: DynamicObject) {
        let mut leases = self.lock();
        let seen = leases.entry(id).or_default();
        let version = answer.metadata.resource_version.clone().unwrap_or_default();
        seen.keep_object(planned.kind, answer);
        let live = seen.objects.get_mut(&planned.kind);
        if let Some(Live { content, .. }) = live.filter(|live| live.stamp.resource_version == version) {
            *content = Content::Covers { live: content.live(), planned: hash_of(&planned.body) };
        }
    }

    /// Keeps an object that was read by its name, even where it lost its labels. A watch may have shown something newer
    /// before the answer arrived.
    pub fn keep_named(&self, id: LeaseId, kind: Kind, object: DynamicObject) {
        self.lock().entry(id).or_default().keep_object(kind, object);
    }

    /// Forgets an object: the one that is gone, as it was last, unless another of its name has taken its place; or
    /// whatever it was, where a list lacks it.
    pub fn forget(&self, key: &Key, gone: Option<&Stamp>) {
        let (id, subject, name) = key;
        let mut leases = self.lock();
        let Some(seen) = leases.get_mut(id) else { return };
        match subject {
            Subject::Pods => {
                seen.pods.forget(name);
            }
            Subject::Object(kind) => seen.forget_object(*kind, gone),
        }
        if seen.objects.is_empty() && seen.pods.is_empty() && seen.gone.is_empty() {
            leases.remove(id);
        }
    }

    /// Forgets the lease itself, once it is closed and nothing of it is left.
    pub fn forget_lease(&self, id: LeaseId) {
        let mut leases = self.lock();
        if leases.get(&id).is_some_and(|seen| seen.objects.is_empty() && seen.pods.is_empty()) {
            leases.remove(&id);
        }
    }

    /// Forgets the leases of which nothing is left and no answer is under way any more. A server that takes no passes hears
    /// of none that is closed.
    pub fn tidy(&self, now: Instant) {
        let is_late = |seen: &Seen| seen.gone_at.is_none_or(|at| now.duration_since(at) > LATEST_ANSWER);
        let is_empty = |seen: &Seen| seen.objects.is_empty() && seen.pods.is_empty();
        self.lock().retain(|_, seen| !(is_empty(seen) && is_late(seen)));
    }

    /// Forgets what agents have told, since somebody else may have asked them meanwhile.
    pub fn forget_models(&self) {
        self.lock().values_mut().for_each(|seen| seen.pods.forget_models());
    }

    /// Returns the keys of everything that a watch of a subject sees, to be compared with a new list.
    pub fn keys(&self, subject: Subject) -> BTreeSet<Key> {
        let leases = self.lock();
        let names = |(id, seen): (&LeaseId, &Seen)| -> Vec<Key> {
            match subject {
                Subject::Pods => seen.pods.names().map(|name| (*id, subject, name.clone())).collect(),
                Subject::Object(watched) => {
                    let kinds = seen.objects.keys().filter(|kind| kind.shares_resource(watched));
                    kinds.map(|kind| (*id, Subject::Object(*kind), kind.object_name(*id))).collect()
                }
            }
        };
        leases.iter().flat_map(names).collect()
    }

    /// Returns the leases of which objects were seen.
    pub fn leases(&self) -> BTreeSet<LeaseId> {
        self.lock().iter().filter(|(_, seen)| !seen.objects.is_empty()).map(|(id, _)| *id).collect()
    }

    /// Returns what an apply has to know of an object, if it was seen.
    pub fn stamp(&self, id: LeaseId, kind: Kind) -> Option<Stamp> {
        self.lock().get(&id)?.objects.get(&kind).map(|live| live.stamp.clone())
    }

    /// Returns the kinds of which an object of the lease was seen.
    pub fn kinds(&self, id: LeaseId) -> Vec<Kind> {
        self.lock().get(&id).map(|seen| seen.objects.keys().copied().collect()).unwrap_or_default()
    }

    /// Returns what was seen of a lease, compared with its plan.
    pub fn observe(&self, lease: &Lease, plan: &Plan) -> Observed {
        let mut leases = self.lock();
        let Some(seen) = leases.get_mut(&lease.id) else {
            return Observed {
                objects: Objects::Absent,
                replicas: Replicas::default(),
                deployment_fault: None,
                pods: Vec::new(),
                active_at: None,
            };
        };
        seen.is_waking = lease.waking_since.is_some();
        Observed {
            objects: seen.compare(lease, plan),
            replicas: seen.deployment.replicas,
            deployment_fault: seen.deployment.fault.clone(),
            pods: seen.pods.seen(),
            active_at: seen.active_at,
        }
    }

    /// Returns what was seen of the autoscaler of a lease, its replicas, and what keeps pods from becoming ready.
    pub fn autoscaler(&self, id: LeaseId) -> (Option<Record>, Replicas, Vec<String>) {
        let leases = self.lock();
        let Some(seen) = leases.get(&id) else { return Default::default() };
        let troubles: BTreeSet<_> =
            seen.pods.seen().into_iter().filter_map(|pod| pod.trouble).map(|it| it.sentence()).collect();
        let fault = seen.deployment.fault.clone();
        let record = seen.autoscaler.clone();
        (record, seen.deployment.replicas, fault.into_iter().chain(troubles).collect())
    }

    /// Returns how many autoscalers say that they are in this trouble.
    pub fn autoscalers_in(&self, trouble: Trouble) -> u32 {
        let leases = self.lock();
        let records = leases.values().filter_map(|seen| seen.autoscaler.as_ref());
        let count = records.filter(|record| record.status.is_in(trouble)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Returns the agent of a pod that is not ready yet, if it can be asked.
    pub fn agent(&self, (id, _, name): &Key) -> Option<Agent> {
        self.lock().get(id)?.pods.agent(name)
    }

    /// Returns how many bytes of its first model the agent of a pod has told.
    #[cfg(test)]
    pub fn downloaded(&self, (id, _, name): &Key) -> Option<u64> {
        self.lock().get(id)?.pods.downloaded(name)
    }

    /// Keeps what the agent of a pod tells of its models, and returns whether a pass should look at its lease.
    pub fn keep_models(&self, key: &Key, agent: &Agent, told: Vec<ModelReport>, now: Timestamp) -> bool {
        let (id, _, name) = key;
        self.lock().get_mut(id).is_some_and(|seen| seen.pods.keep_models(name, agent, told, now))
    }

    /// Returns the UID of each pod of a lease, and where it is reached if it serves.
    pub fn serving(&self, id: LeaseId) -> Vec<(String, Option<IpAddr>)> {
        self.lock().get(&id).map(|seen| seen.pods.serving()).unwrap_or_default()
    }

    /// Shows the pods of every lease of which an autoscaler was seen.
    pub fn show_scaling(&self, mut show: impl FnMut(LeaseId, Measurable<'_>)) {
        let leases = self.lock();
        let scaling =
            leases.iter().filter(|(_, seen)| seen.objects.contains_key(&Kind::HorizontalPodAutoscaler));
        for (id, seen) in scaling {
            seen.pods.measurable().for_each(|pod| show(*id, pod));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LeaseId, Seen>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn keep_object(&mut self, kind: Kind, mut object: DynamicObject) -> bool {
        let stamp = Stamp::read(&object);
        let gone = self.gone.get(&kind).filter(|gone| gone.uid == stamp.uid);
        // One that only lost its labels is gone for the watch, and has the version of that moment when it is read.
        if gone.is_some_and(|gone| gone.is_newer_than(&stamp)) {
            return false;
        }
        let known = self.objects.get(&kind);
        if known.is_some_and(|known| known.stamp.is_newer_than(&stamp)) {
            return false;
        }
        if kind == Kind::HorizontalPodAutoscaler
            && let Some(status) = autoscaler::read(&object)
        {
            self.note_autoscaler(status, system_now());
        }
        let is_active_anew = kind == Kind::ScaledObject && self.note_activity(&object);
        let known = self.objects.get(&kind);
        let status = (kind == Kind::Deployment).then(|| DeploymentStatus::read(&object, &stamp));
        object.metadata.managed_fields = None;
        // Items of a list come without their type.
        object.types = Some(TypeMeta { api_version: kind.api_version(), kind: kind.as_str().to_owned() });
        let live = hash_of(&object);
        let is_same = known.is_some_and(|known| {
            known.content.live() == live
                && known.stamp.uid == stamp.uid
                && known.stamp.is_deleting == stamp.is_deleting
                && known.stamp.owns_replicas == stamp.owns_replicas
        });
        match self.objects.get_mut(&kind).filter(|_| is_same) {
            Some(known) => known.stamp = stamp,
            None => {
                // No plan says anything of the status, and it is long.
                if let Some(fields) = object.data.as_object_mut() {
                    fields.remove("status");
                }
                let text = serde_json::to_string(&object).unwrap_or_default();
                self.objects.insert(kind, Live { stamp, content: Content::Unread { live, text } });
            }
        }
        let has_status_news = status.is_some_and(|status| {
            let is_news =
                status.replicas != self.deployment.replicas || status.fault != self.deployment.fault;
            self.deployment = status;
            is_news
        });
        !is_same || has_status_news || (is_active_anew && self.is_waking)
    }

    /// Keeps when KEDA took the lease for active, which it tells whenever it looks and finds it so. Only one that is to wake waits
    /// for that.
    fn note_activity(&mut self, object: &DynamicObject) -> bool {
        let told = object.data.pointer("/status/lastActiveTime").and_then(Value::as_str);
        let told = told.and_then(|time| time.parse().ok());
        std::mem::replace(&mut self.active_at, told) != told
    }

    /// Keeps what an autoscaler says. No pass needs it: its replicas are seen at the Deployment.
    fn note_autoscaler(&mut self, status: Status, now: Timestamp) {
        match &mut self.autoscaler {
            Some(record) => record.note(status, now),
            None => self.autoscaler = Some(Record::begin(status, now)),
        }
    }

    fn forget_object(&mut self, kind: Kind, gone: Option<&Stamp>) {
        let Some(live) = self.objects.get(&kind) else { return };
        if gone.is_some_and(|gone| gone.uid != live.stamp.uid) {
            return;
        }
        if let Some(gone) = gone {
            self.gone.insert(kind, gone.clone());
            self.gone_at = Some(stopwatch());
        }
        self.objects.remove(&kind);
        if kind == Kind::Deployment {
            self.deployment = DeploymentStatus::default();
        }
        if kind == Kind::HorizontalPodAutoscaler {
            self.autoscaler = None;
        }
        if kind == Kind::ScaledObject {
            self.active_at = None;
        }
    }

    fn compare(&mut self, lease: &Lease, plan: &Plan) -> Objects {
        let Some(deployment) = self.objects.get(&Kind::Deployment) else {
            return self.without_deployment(lease);
        };
        if let Some(newer) = self.newest_generation().filter(|newest| *newest > lease.generation) {
            return Objects::Superseded(newer);
        }
        if deployment.stamp.is_deleting {
            return Objects::Deleting;
        }
        let (name, uid) = (lease.id.object_name(), deployment.stamp.uid.clone());
        let leaves_keda = !plan.admits(Kind::ScaledObject)
            && self.objects.get(&Kind::ScaledObject).is_some_and(|live| live.stamp.is_deleting);
        // KEDA has the autoscaler until it has let go of its own object.
        let waits =
            |kind: Kind| leaves_keda && matches!(kind, Kind::ScaledObject | Kind::HorizontalPodAutoscaler);
        let matches = plan.objects().all(|object| waits(object.kind) || self.covers(object, &name, &uid));
        if matches && self.objects.keys().all(|kind| waits(*kind) || plan.admits(*kind)) {
            Objects::Match
        } else {
            Objects::Differ
        }
    }

    fn newest_generation(&self) -> Option<i64> {
        self.objects.values().map(|live| live.stamp.generation).max()
    }

    fn without_deployment(&self, lease: &Lease) -> Objects {
        if self.objects.is_empty() {
            Objects::Absent
        } else if let Some(newer) = self.newest_generation().filter(|newest| *newest > lease.generation) {
            Objects::Superseded(newer)
        } else if lease.end.is_some() && self.objects.values().all(|live| live.stamp.is_deleting) {
            Objects::Deleting
        } else {
            Objects::Differ
        }
    }

    fn covers(&mut self, object: &Object, deployment: &str, uid: &str) -> bool {
        let Some(live) = self.objects.get_mut(&object.kind) else { return false };
        let planned = hash_of(&object.body);
        match &live.content {
            Content::Covers { planned: known, .. } => *known == planned,
            Content::Unread { live: hash, text } => {
                let mut object = object.clone();
                if object.kind != Kind::Deployment {
                    object.owned_by(deployment, uid);
                }
                let owns_too_much =
                    live.stamp.owns_replicas && object.body.pointer("/spec/replicas").is_none();
                let covers = !owns_too_much
                    && serde_json::from_str(text).is_ok_and(|text: Value| plan::covers(&text, &object.body));
                if covers {
                    live.content = Content::Covers { live: *hash, planned };
                }
                covers
            }
        }
    }
}

impl Content {
    fn live(&self) -> u64 {
        match self {
            Self::Unread { live, .. } | Self::Covers { live, .. } => *live,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KEPT: Subject = Subject::Object(Kind::Deployment);

    fn deployment(id: LeaseId, version: u64, ready: u32) -> DynamicObject {
        serde_json::from_value(json!({
            "metadata": {
                "name": id.object_name(), "uid": "one", "resourceVersion": version.to_string(),
                "labels": { LEASE_LABEL: id.to_string(), INSTALLATION_LABEL: "tms" },
            },
            "spec": { "replicas": 1 },
            "status": { "replicas": 1, "readyReplicas": ready },
        }))
        .expect("it is an object")
    }

    fn ready(cache: &Cache, id: LeaseId) -> u32 {
        cache.lock()[&id].deployment.replicas.ready
    }

    #[test]
    fn an_answer_that_a_watch_has_overtaken_changes_nothing() {
        let (cache, id) = (Cache::new("tms"), LeaseId::random());
        cache.keep(KEPT, deployment(id, 8, 1));
        cache.keep_named(id, Kind::Deployment, deployment(id, 7, 0));
        assert_eq!(ready(&cache, id), 1);

        let (key, _) = cache.keep(KEPT, deployment(id, 9, 0)).expect("it is ours");
        cache.forget(&key, Some(&Stamp::read(&deployment(id, 10, 0))));
        cache.keep_named(id, Kind::Deployment, deployment(id, 9, 0));
        assert_eq!(cache.kinds(id), []);
    }

    #[test]
    fn one_watch_tells_the_two_services_of_a_lease_apart() {
        let (cache, id) = (Cache::new("tms"), LeaseId::random());
        let watched = Subject::Object(Kind::Service);
        let service = |name: String| {
            let mut service = deployment(id, 8, 0);
            (service.metadata.uid, service.metadata.name) = (Some(name.clone()), Some(name));
            service
        };
        let [plain, headless] =
            [Kind::Service, Kind::HeadlessService].map(|kind| service(kind.object_name(id)));
        let (key, _) = cache.keep(watched, plain.clone()).expect("it is ours");
        let (headless_key, _) = cache.keep(watched, headless).expect("it is ours");
        assert_eq!(cache.kinds(id), [Kind::Service, Kind::HeadlessService]);
        assert_eq!(cache.keys(watched), BTreeSet::from([key.clone(), headless_key]));
        assert_eq!(cache.keys(KEPT), BTreeSet::new());

        cache.forget(&key, Some(&Stamp::read(&plain)));
        assert_eq!(cache.kinds(id), [Kind::HeadlessService]);
        assert!(cache.key(watched, &service(format!("{}-other", id.object_name()))).is_none());
    }

    #[test]
    fn nothing_is_kept_of_a_lease_that_is_gone_once_no_late_answer_can_bring_it_back() {
        let (cache, id, other) = (Cache::new("tms"), LeaseId::random(), LeaseId::random());
        cache.keep(KEPT, deployment(other, 8, 1)).expect("it is ours");
        let (key, _) = cache.keep(KEPT, deployment(id, 8, 1)).expect("it is ours");
        cache.forget(&key, Some(&Stamp::read(&deployment(id, 9, 1))));
        let kept = || cache.lock().keys().copied().collect::<BTreeSet<_>>();
        cache.tidy(stopwatch());
        assert_eq!(kept(), BTreeSet::from([id, other]), "an answer may be late");
        cache.tidy(stopwatch() + LATEST_ANSWER + Duration::from_secs(1));
        assert_eq!(kept(), BTreeSet::from([other]));
    }

    #[test]
    fn an_object_that_lost_its_labels_is_seen_again_when_it_is_read() {
        let (cache, id) = (Cache::new("tms"), LeaseId::random());
        let (key, _) = cache.keep(KEPT, deployment(id, 8, 1)).expect("it is ours");
        // This is how a watch of labels shows it.
        cache.forget(&key, Some(&Stamp::read(&deployment(id, 9, 1))));
        let mut bare = deployment(id, 9, 1);
        bare.metadata.labels = None;
        cache.keep_named(id, Kind::Deployment, bare);
        assert_eq!(cache.kinds(id), [Kind::Deployment]);
    }
}
