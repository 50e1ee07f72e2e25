//! Writes Kubernetes Events on the Deployment of a lease, in the background: what people see with `kubectl describe`.
//! Best effort: calls that change something go first, and when the API server cannot follow, announcements are dropped,
//! never waited for.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;

use super::calls::Calls;
use crate::domain::lease::{Happening, Lease, State};

/// Announcements that may wait.
const CAPACITY: usize = 1024;

/// Takes announcements and publishes them one by one.
pub(super) struct Announcer {
    queue: mpsc::Sender<(Event, ObjectReference)>,
    namespace: String,
}

impl Announcer {
    /// Starts publishing; ends when the announcer is dropped.
    pub fn start(client: Client, namespace: &str, calls: Arc<Calls>) -> Self {
        let (queue, mut waiting) = mpsc::channel::<(Event, ObjectReference)>(CAPACITY);
        tokio::spawn(async move {
            let reporter = Reporter { controller: super::FIELD_MANAGER.to_owned(), instance: None };
            let recorder = Recorder::new(client, reporter);
            while let Some((event, reference)) = waiting.recv().await {
                let publish = recorder.publish(&event, &reference);
                if let Err(error) = calls.make_late("Event", publish).await {
                    tracing::debug!(error = &error as &dyn std::error::Error, "an event could not be written");
                }
            }
        });
        Self { queue, namespace: namespace.to_owned() }
    }

    pub fn announce(&self, lease: &Lease, uid: Option<String>, happening: &Happening) {
        let is_bad = matches!(lease.state(), State::Degraded | State::Invalid);
        let event = Event {
            type_: if is_bad { EventType::Warning } else { EventType::Normal },
            reason: happening.reason.to_owned(),
            note: Some(happening.message.chars().take(1000).collect()),
            action: "Lease".to_owned(),
            secondary: None,
        };
        let reference = ObjectReference {
            api_version: Some("apps/v1".to_owned()),
            kind: Some("Deployment".to_owned()),
            name: Some(lease.id.object_name()),
            namespace: Some(self.namespace.clone()),
            uid,
            ..ObjectReference::default()
        };
        if self.queue.try_send((event, reference)).is_err() {
            tracing::debug!(lease.id = %lease.id, "too many events wait; one is dropped");
        }
    }
}
