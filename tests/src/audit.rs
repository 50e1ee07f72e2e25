//! What the API server of a cluster was asked and answered, by its audit log.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::cluster::{Cluster, unique};

/// One answered write of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLine {
    pub timestamp: jiff::Timestamp,
    pub verb: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    /// The HTTP status that was answered.
    pub code: u16,
}

impl Cluster {
    /// Returns every answered write of a user since the cluster was started, oldest first.
    pub fn writes_of(&self, user: &str) -> Vec<AuditLine> {
        let mut lines = self.answers_to(user);
        lines.retain(|line| !matches!(line.verb.as_str(), "get" | "list" | "watch"));
        lines
    }

    /// Returns every write of a user, and of an account of a pod every request, with how it was answered.
    pub fn answers_to(&self, user: &str) -> Vec<AuditLine> {
        self.let_audit_log_catch_up(self.audit_log());
        let log = fs::read_to_string(self.audit_log()).expect("the audit log is readable");
        let complete = log.rfind('\n').map_or("", |end| &log[..end]);
        let events = complete
            .lines()
            .map(|line| serde_json::from_str::<Event>(line).expect("a line of the audit log"));
        events.filter(|event| event.user.username == user).map(AuditLine::from).collect()
    }

    /// A line is written when its request ends, a moment after the answer. So a last write is made, and awaited.
    fn let_audit_log_catch_up(&self, audit_log: &Path) {
        let marker = format!("marker-{}", unique());
        self.kubectl(&["delete", "configmap", &marker]).expect_err("there is none of this name");
        for _ in 0..100 {
            if fs::read_to_string(audit_log).is_ok_and(|log| log.contains(&marker) && log.ends_with('\n')) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the audit log stands still; does the apiserver run?");
    }
}

/// A line of the audit log, as Kubernetes writes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    stage_timestamp: jiff::Timestamp,
    verb: String,
    user: User,
    #[serde(default)]
    object_ref: ObjectRef,
    #[serde(default)]
    response_status: ResponseStatus,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ObjectRef {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ResponseStatus {
    code: u16,
}

impl From<Event> for AuditLine {
    fn from(event: Event) -> Self {
        Self {
            timestamp: event.stage_timestamp,
            verb: event.verb,
            resource: event.object_ref.resource,
            subresource: event.object_ref.subresource,
            namespace: event.object_ref.namespace,
            name: event.object_ref.name,
            code: event.response_status.code,
        }
    }
}
