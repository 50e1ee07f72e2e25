//! Acquire: one transaction that makes a lease, and then the story of how it becomes ready.

use std::sync::Arc;

use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tms_proto::v1;

use super::follow::Follower;
use super::status::{Refusal, violation};
use super::{Services, convert};
use crate::auth::Caller;
use crate::domain::bounds::{Accepted, Provider, Violation};
use crate::domain::lease::{Happening, Lease, LeaseId, ModelReport, Placement, Report, Spec, State, Tenure};
use crate::domain::{bounds, life, plan};
use crate::store::{Admission, Admitted, RequestKey};

/// Most bytes of a Deployment as JSON: API servers and etcd refuse objects of 1.5 MiB.
const LARGEST_DEPLOYMENT: usize = 1_000_000;
/// Longest request id.
const LONGEST_REQUEST_ID: usize = 64;

impl Services {
    /// Makes a lease, and returns its way to READY.
    pub(super) async fn acquire(
        self: Arc<Self>,
        caller: Caller,
        request: v1::AcquireRequest,
    ) -> Result<Progress, Refusal> {
        let v1::AcquireRequest { spec, request_id, no_wait } = request;
        let spec = spec.unwrap_or_default();
        let (request, faults) = match request_key(request_id, &spec) {
            Ok(key) => (key, Vec::new()),
            Err(fault) => (None, vec![fault]),
        };
        // Whoever asks the store for changes before the lease exists misses none of them.
        let changes = self.store.changes();
        let (lease, warnings) = match self.grant(spec, faults) {
            Ok(accepted) => (self.admit(&caller, request, accepted.granted).await?, accepted.warnings),
            // What was granted once stays granted to its request, though the bounds have changed since.
            Err(refusal) => match self.admitted(&caller, request).await? {
                Some(lease) => (lease, Vec::new()),
                None => return Err(refusal),
            },
        };
        // A repeated request too: the server that admitted its lease may have gone before it could act.
        self.wake.wake(lease.id);
        Ok(Progress {
            follower: Follower::new(self, lease.id, changes),
            first: Some((lease, warnings)),
            last: None,
            no_wait,
        })
    }

    /// Stores the lease that is granted, or returns the one that the same request got before.
    async fn admit(
        &self,
        caller: &Caller,
        request: Option<RequestKey>,
        granted: Spec,
    ) -> Result<Lease, Refusal> {
        let lease = self.draft(caller, granted)?;
        let message = format!("acquired for {:#}, until {}", lease.spec.lifetime, lease.expires_at);
        let event = Happening { reason: "Acquired", message };
        let admission = Admission { lease, request, actor: caller.to_string(), event };
        Ok(match self.store.admit(&admission).await? {
            Admitted::New(lease) | Admitted::Existing(lease) => lease,
        })
    }

    async fn admitted(&self, caller: &Caller, request: Option<RequestKey>) -> Result<Option<Lease>, Refusal> {
        match request {
            Some(request) => Ok(self.store.admitted(&caller.to_string(), &request).await?),
            None => Ok(None),
        }
    }

    /// Returns what the request is granted, or every fault of it besides those found before.
    pub(super) fn grant(
        &self,
        spec: v1::LeaseSpec,
        mut faults: Vec<Violation>,
    ) -> Result<Accepted<Spec>, Refusal> {
        let (request, unreadable) = convert::request(spec);
        faults.extend(unreadable);
        match bounds::grant(&request, &self.bounds) {
            Ok(accepted) if faults.is_empty() => Ok(accepted),
            Ok(_) => Err(Refusal::Violations(faults)),
            Err(violations) => {
                faults.extend(violations);
                Err(Refusal::Violations(faults))
            }
        }
    }

    /// Returns the lease that the spec means, as it would be stored now.
    pub(super) fn draft(&self, caller: &Caller, spec: Spec) -> Result<Lease, Refusal> {
        let id = LeaseId::random();
        let now = self.clock.now();
        let deployment = plan::render(id, &self.namespace, &spec, &self.settings);
        let bytes = deployment.to_string().len();
        if bytes > LARGEST_DEPLOYMENT {
            let rule = format!(
                "its Deployment has {bytes} bytes, and Kubernetes keeps at most {LARGEST_DEPLOYMENT}: ask for less \
                 environment or affinity"
            );
            return Err(Refusal::Violations(vec![violation("spec", rule)]));
        }
        Ok(Lease {
            id,
            owner: caller.to_string(),
            namespace: self.namespace.clone(),
            placement: Placement::Bespoke,
            deployment,
            created_at: now,
            expires_at: life::later(now, spec.lifetime),
            tenure: Tenure::starting(now),
            waking_since: self.may_sleep(&spec).then_some(now),
            end: None,
            generation: 1,
            version: 1,
            report: Report::nothing_seen(spec.models.iter().map(|model| model.name.as_str())),
            spec,
        })
    }
}

impl Services {
    /// Whether a lease may fall asleep, so that it has to be kept awake until it was ready once. What becomes of manifests is not
    /// observed.
    fn may_sleep(&self, spec: &Spec) -> bool {
        spec.scaling.minimum() == 0 && self.wakes_leases()
    }

    /// Whether leases are woken here: by KEDA, where it is seen that they are awake.
    pub(super) fn wakes_leases(&self) -> bool {
        self.settings.provider == Provider::Keda && self.cluster_kind == "kubernetes"
    }
}

/// The way of a lease from its admission to where waiting for it ends.
pub(super) struct Progress {
    follower: Follower,
    /// The lease as it was admitted, until it is told.
    first: Option<(Lease, Vec<String>)>,
    /// The lease as it was told last, while there is more to tell.
    last: Option<Lease>,
    no_wait: bool,
}

impl Progress {
    /// The lease that this is about.
    pub fn lease_id(&self) -> LeaseId {
        self.follower.lease_id()
    }

    /// Returns the next message, or `None` where the story ends.
    pub async fn next(&mut self) -> Result<Option<v1::AcquireResponse>, Refusal> {
        if let Some((lease, warnings)) = self.first.take() {
            let message = v1::AcquireResponse { warnings, ..everything(&lease) };
            self.last = (!self.no_wait && !is_settled(lease.state())).then_some(lease);
            return Ok(Some(message));
        }
        let Some(before) = self.last.take() else { return Ok(None) };
        let after = self.follower.changed_since(before.version).await?;
        if is_settled(after.state()) {
            return Ok(Some(everything(&after)));
        }
        let message = difference(&before, &after);
        self.last = Some(after);
        Ok(Some(message))
    }
}

fn request_key(id: String, spec: &v1::LeaseSpec) -> Result<Option<RequestKey>, Violation> {
    if id.is_empty() {
        return Ok(None);
    }
    let is_printable = id.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if id.len() > LONGEST_REQUEST_ID || !is_printable {
        let rule = format!("a request id has 1 to {LONGEST_REQUEST_ID} characters of printable ASCII");
        return Err(violation("request_id", rule));
    }
    // The same spec has the same bytes: fields are encoded in order, and maps are sorted.
    let digest = Sha256::digest(spec.encode_to_vec());
    let digest = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Some(RequestKey { id, digest }))
}

/// Whether waiting for a lease ends in this state.
fn is_settled(state: State) -> bool {
    match state {
        State::Ready | State::Asleep | State::Written => true,
        State::Released | State::Expired | State::Invalid => true,
        State::Pending | State::Provisioning | State::Loading | State::Degraded => false,
    }
}

fn everything(lease: &Lease) -> v1::AcquireResponse {
    v1::AcquireResponse {
        lease: Some(convert::lease(lease)),
        models: convert::models(&lease.report.models),
        warnings: Vec::new(),
    }
}

/// Returns what a caller that knows `before` must hear: models that changed, and the lease if anything else did.
fn difference(before: &Lease, after: &Lease) -> v1::AcquireResponse {
    let is_news = |model: &&ModelReport| !before.report.models.contains(model);
    let models: Vec<_> = after.report.models.iter().filter(is_news).cloned().collect();
    let apart_from_models = |lease: &Lease| {
        let mut lease = lease.clone();
        lease.version = 0;
        lease.report.models.clear();
        lease
    };
    let lease_changed = apart_from_models(before) != apart_from_models(after);
    v1::AcquireResponse {
        lease: lease_changed.then(|| convert::lease(after)),
        models: convert::models(&models),
        warnings: Vec::new(),
    }
}
