//! Labels, annotations and metadata. Whose wish counts, least first: the lease's, the administrator's, TMS's own.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::{GENERATION_ANNOTATION, INSTALLATION_LABEL, LEASE_LABEL, Settings};
use crate::domain::lease::{Lease, LeaseId};

/// Labels or annotations.
pub(super) type Map = BTreeMap<String, String>;

/// Returns the labels of the pods and of the Deployment as it is stored: those that no update of the lease changes.
pub(super) fn stored(id: LeaseId, settings: &Settings) -> Map {
    let mut labels = settings.custom_labels.clone();
    labels.extend(own(id, settings));
    labels
}

/// Returns the metadata of an object that comes with the Deployment; `required` are labels that its readers select.
pub(super) fn metadata(lease: &Lease, settings: &Settings, required: &Map) -> ObjectMeta {
    let labels = of_dependent(lease.id, &lease.spec.labels, settings, required);
    let mut annotations = settings.custom_annotations.clone();
    annotations.insert(GENERATION_ANNOTATION.to_owned(), lease.generation.to_string());
    ObjectMeta {
        name: Some(lease.id.object_name()),
        namespace: Some(lease.namespace.clone()),
        labels: Some(labels),
        annotations: Some(annotations),
        ..ObjectMeta::default()
    }
}

/// Returns the labels of an object that comes with the Deployment, of a lease that asked for the labels `wished`.
pub(super) fn of_dependent(id: LeaseId, wished: &Map, settings: &Settings, required: &Map) -> Map {
    let mut labels = wished.clone();
    labels.extend(settings.custom_labels.clone());
    labels.extend(required.clone());
    labels.extend(own(id, settings));
    labels
}

/// Returns the selector of the lease's pods. Nothing but the lease label, so that no two leases' selectors overlap.
pub(super) fn selector(id: LeaseId) -> LabelSelector {
    LabelSelector { match_labels: Some(selected(id)), match_expressions: None }
}

/// Returns the labels that select the lease's pods.
pub(super) fn selected(id: LeaseId) -> Map {
    Map::from([(LEASE_LABEL.to_owned(), id.to_string())])
}

fn own(id: LeaseId, settings: &Settings) -> impl Iterator<Item = (String, String)> {
    let part_of = settings.part_of.clone().map(|part_of| ("app.kubernetes.io/part-of".to_owned(), part_of));
    [
        ("app.kubernetes.io/name".to_owned(), "triton".to_owned()),
        ("app.kubernetes.io/managed-by".to_owned(), "tms".to_owned()),
        (INSTALLATION_LABEL.to_owned(), settings.installation.clone()),
        (LEASE_LABEL.to_owned(), id.to_string()),
    ]
    .into_iter()
    .chain(part_of)
}
