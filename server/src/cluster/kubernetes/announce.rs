//! Writes Kubernetes Events on the Deployment of a lease, in the background: what people see with `kubectl describe`.
//! Best effort: calls that change something go first, and when the API server cannot follow, announcements are dropped,
//! never waited for.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::sync::mpsc;

use super::calls::Calls;
use crate::clock::system_now;
use crate::cluster::ActError;
use crate::domain::lease::{Happening, Lease, State};
use crate::domain::life::EXPIRING_SOON;

/// Announcements that may wait.
const CAPACITY: usize = 1024;
/// Longest note that the API server takes, in bytes.
const LONGEST_NOTE: usize = 1024;

/// Takes announcements and publishes them one by one.
pub(super) struct Announcer {
    queue: mpsc::Sender<Event>,
    namespace: String,
    installation: String,
}

impl Announcer {
    /// Starts publishing; ends when the announcer is dropped.
    pub fn start(client: Client, namespace: &str, installation: &str, calls: Arc<Calls>) -> Self {
        let (queue, mut waiting) = mpsc::channel::<Event>(CAPACITY);
        let api = Api::<Event>::namespaced(client, namespace);
        tokio::spawn(async move {
            while let Some(event) = waiting.recv().await {
                let create = async { api.create(&PostParams::default(), &event).await };
                match calls.make_late("Event", create).await {
                    Ok(_) => {}
                    Err(error @ ActError::Refused { .. }) => {
                        tracing::warn!(%error, "an event could not be written");
                    }
                    Err(error) => tracing::debug!(%error, "an event could not be written"),
                }
            }
        });
        Self { queue, namespace: namespace.to_owned(), installation: installation.to_owned() }
    }

    /// Says what happened to a lease, whose Deployment has this UID, if it is known.
    pub fn announce(&self, lease: &Lease, uid: Option<String>, happening: &Happening) {
        if self.queue.try_send(self.event(lease, uid, happening)).is_err() {
            tracing::debug!(lease.id = %lease.id, "too many events wait; one is dropped");
        }
    }

    fn event(&self, lease: &Lease, uid: Option<String>, happening: &Happening) -> Event {
        let name = lease.id.object_name();
        let is_bad =
            matches!(lease.state(), State::Degraded | State::Invalid) || happening.reason == EXPIRING_SOON;
        let deployment = ObjectReference {
            api_version: Some("apps/v1".to_owned()),
            kind: Some("Deployment".to_owned()),
            name: Some(name.clone()),
            namespace: Some(self.namespace.clone()),
            uid,
            ..ObjectReference::default()
        };
        let end = happening.message.floor_char_boundary(LONGEST_NOTE);
        Event {
            metadata: ObjectMeta {
                generate_name: Some(format!("{name}-")),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(system_now())),
            type_: Some(if is_bad { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(happening.reason.to_owned()),
            action: Some("Follow".to_owned()),
            note: Some(happening.message[..end].to_owned()),
            regarding: Some(deployment),
            reporting_controller: Some(super::FIELD_MANAGER.to_owned()),
            reporting_instance: Some(self.installation.clone()),
            ..Event::default()
        }
    }
}
