//! Acts on a cluster and observes it. [`kubernetes`] does so through a Kubernetes API server, [`manifests`] by writing
//! files. Neither knows the store; what they saw they say in words of the domain.

pub mod doctor;
pub mod kubernetes;
pub mod manifests;
pub mod prometheus;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;

use crate::domain::autoscaler::explanation::Evidence;
use crate::domain::capabilities::Capabilities;
use crate::domain::doctor::evidence::Evidence as Chain;
use crate::domain::lease::{Happening, Lease, LeaseId};
use crate::domain::observed::Observed;
use crate::domain::plan::{Kind, Plan};
use crate::domain::scaling::MetricName;
use crate::domain::usage::Served;

/// Sees what there is. Answers come from memory that a watch keeps fresh, never from a call.
pub trait Observe: Send + Sync {
    /// Returns what was seen of `lease`, compared with its plan.
    fn observe(&self, lease: &Lease, plan: &Plan) -> Observed;

    /// Returns the leases of this installation of which objects were seen, whether or not the leases are known.
    fn seen(&self) -> BTreeSet<LeaseId>;

    /// Whether everything is seen, so that what is not seen is not there.
    fn sight(&self) -> Sight;

    /// Waits until everything is seen.
    fn listed(&self) -> BoxFuture<'_, ()>;

    /// Whether objects of the lease were seen.
    fn has_objects(&self, id: LeaseId) -> bool;

    /// Returns what the cluster serves, as far as it was found out.
    fn capabilities(&self) -> Capabilities;
}

/// How much is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Everything.
    Full,
    /// Not everything yet.
    NotYet,
    /// Not everything, for this reason.
    Failing(String),
}

/// Changes what there is. Every call can be repeated, and is bounded in time.
pub trait Act: Send + Sync {
    /// Makes the objects of `lease` those of the plan, unless they carry a newer generation.
    fn apply<'a>(&'a self, lease: &'a Lease, plan: &'a Plan) -> BoxFuture<'a, Result<(), ActError>>;

    /// Deletes the objects of a lease. They may still be seen for a while.
    fn delete(&self, id: LeaseId) -> BoxFuture<'_, Result<(), ActError>>;

    /// Forgets what was seen of a lease that is closed.
    fn forget(&self, id: LeaseId);

    /// Tells people who look at the cluster what happened. Best effort, in the background.
    fn announce(&self, lease: &Lease, happening: &Happening);

    /// Finds out again what the cluster serves; true where that changed. Forgets what was kept of leases that are gone.
    fn refresh(&self) -> BoxFuture<'_, Result<bool, ActError>>;
}

/// Asks the Tritons of leases themselves.
pub trait Measure: Send + Sync {
    /// Returns what each pod of a lease has served: nothing where pods are not observed.
    fn served(&self, id: LeaseId) -> BoxFuture<'_, Vec<Served>>;

    /// Asks pods that load how far they are from now on, or asks none any more.
    fn follow_progress(&self, is_wanted: bool);
}

/// Looks closely at one lease, where a person asks.
pub trait Inspect: Send + Sync {
    /// Returns what is known of the autoscaler of a lease, after a few calls; `None` where objects are not observed.
    fn autoscaler<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Option<Evidence>>;

    /// Returns what the cluster tells of the chain by which leases scale, of a lease or without one, and nothing of what
    /// Prometheus tells; `None` where objects are not observed. `is_wide` allows to look outside the namespace of the leases.
    fn chain<'a>(&'a self, lease: Option<&'a Lease>, is_wide: bool) -> BoxFuture<'a, Option<Chain>>;
}

/// A pod of a lease that scales by itself.
#[derive(Clone, Copy, Debug)]
pub struct ScalingPod<'a> {
    /// Its lease.
    pub lease: LeaseId,
    /// Its name.
    pub name: &'a str,
    /// Its UID.
    pub uid: &'a str,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
}

/// Shows the pods of leases that scale by themselves.
pub trait Show: Send + Sync {
    /// Shows each pod once. What it does with one must be short: watches wait meanwhile.
    fn show_scaling(&self, show: &mut dyn FnMut(ScalingPod<'_>));
}

/// The name by which a value of a pod is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodName {
    /// Its lease.
    pub lease: LeaseId,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// The value of a metric for one pod.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gauged {
    /// The value, a finite number.
    pub value: f64,
    /// When it was measured.
    pub at: Timestamp,
}

/// Tells the values by which leases scale.
pub trait Gauge: Send + Sync {
    /// Returns what the metric is for each of these pods, in their order; nothing where it has no value.
    fn gauge<'a>(
        &'a self,
        metric: MetricName,
        pods: &'a [PodName],
    ) -> BoxFuture<'a, Result<Vec<Option<Gauged>>, GaugeError>>;
}

/// Values cannot be told now.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct GaugeError(pub String);

/// A cluster that can be observed, measured, inspected and acted on.
pub trait Cluster: Observe + Measure + Inspect + Act {}

impl<T: Observe + Measure + Inspect + Act> Cluster for T {}

/// Why an action did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// The object changed since it was seen; look again.
    #[error("{object} has changed meanwhile")]
    Conflict {
        /// Kind and name.
        object: String,
    },
    /// The object carries a newer generation of the lease.
    #[error("{object} carries a newer generation of the lease")]
    Superseded {
        /// Kind and name.
        object: String,
    },
    /// The cluster refused; a person has to mend something.
    #[error("the Kubernetes API refused {object}: {message}")]
    Refused {
        /// Kind and name.
        object: String,
        /// What the API server says.
        message: String,
    },
    /// The cluster will never take the object as it is.
    #[error("the Kubernetes API takes {} {name} for invalid: {message}", .kind.as_str())]
    Invalid {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// What the API server says.
        message: String,
    },
    /// No answer in time, or none at all.
    #[error("the Kubernetes API does not answer{}", .0.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default())]
    Away(Option<String>),
    /// The API server asked to come back later.
    #[error("the Kubernetes API is busy")]
    Busy {
        /// After this long.
        retry_after: Duration,
    },
    /// A file could not be written.
    #[error("cannot write {path}")]
    File {
        /// The file or folder.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Returns the innermost cause of an error, which says most to whoever reads the message of a lease.
fn root_cause(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.last().unwrap_or(error).to_string()
}
