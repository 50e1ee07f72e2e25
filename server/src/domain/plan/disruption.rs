//! The PodDisruptionBudget: drains of nodes take a lease's pods one at a time.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::labels::{self, Map};
use super::{Kind, Object, Settings};
use crate::domain::lease::Lease;

/// Returns the PodDisruptionBudget. It counts what may be missing, since a minimum of one would block the drain of a
/// lease with one replica for ever; pods that load or crash do not count.
pub(super) fn budget(lease: &Lease, settings: &Settings) -> Object {
    let budget = PodDisruptionBudget {
        metadata: labels::metadata(lease, settings, &Map::new()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(labels::selector(lease.id)),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    };
    Object::new(Kind::PodDisruptionBudget, &budget)
}
