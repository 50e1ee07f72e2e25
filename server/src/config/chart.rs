//! Checks the keys that the Helm chart alone uses, so that `check-config` finds their faults too.

use std::collections::BTreeMap;

use super::labels;
use super::reader::Reader;

/// Reads them, and keeps nothing but what is wrong.
pub(super) fn check(reader: &mut Reader) {
    labels::annotations(reader, "server.apiService.annotations");
    tls(reader);
    database(reader);
    deployment(reader);
    persistence(reader);
    monitoring(reader);
}

fn tls(reader: &mut Reader) {
    reader.optional("server.tls.secretName", labels::object_fault);
    reader.optional("server.tls.clientCaSecretName", labels::object_fault);
    for index in 0..reader.length("server.tls.additionalNames") {
        reader.required(&format!("server.tls.additionalNames[{index}]"), host_fault);
    }
}

fn database(reader: &mut Reader) {
    reader.optional("server.database.passwordSecret.name", labels::object_fault);
    reader.required("server.database.passwordSecret.key", empty_fault);
}

fn deployment(reader: &mut Reader) {
    let key = |part: &str| format!("server.deployment.{part}");
    let replicas = reader.small(&key("replicas"), 1..=100);
    let policies = [("Always", ()), ("IfNotPresent", ()), ("Never", ())];
    reader.choice(&key("imagePullPolicy"), &policies, None);
    for part in ["requests.cpu", "requests.memory", "limits.cpu", "limits.memory"] {
        let key = key(&format!("resources.{part}"));
        if reader.is_given(&key) {
            reader.quantity(&key);
        }
    }
    reader.optional(&key("serviceAccountName"), labels::object_fault);
    reader.optional(&key("priorityClassName"), labels::object_fault);
    labels::labels(reader, &key("podLabels"), None);
    labels::annotations(reader, &key("podAnnotations"));
    reader.texts(&key("nodeSelector"));
    reader.boolean(&key("networkPolicy"));
    let is_sqlite = reader.text("server.database.url").is_some_and(|url| url.starts_with("sqlite:"));
    if is_sqlite && replicas.is_some_and(|replicas| replicas > 1) {
        let problem = "must be 1 with SQLite, whose file has one server".to_owned();
        reader.fault::<()>(&key("replicas"), problem, None);
        reader.advise("set server.database.url to a PostgreSQL database for more servers");
    }
}

fn persistence(reader: &mut Reader) {
    reader.boolean("server.persistence.enabled");
    reader.optional("server.persistence.existingClaim", labels::object_fault);
    reader.optional("server.persistence.storageClass", labels::object_fault);
    reader.quantity("server.persistence.size");
}

fn monitoring(reader: &mut Reader) {
    let is_on: BTreeMap<_, _> = ["podMonitor", "alerts", "dashboards"]
        .into_iter()
        .map(|part| {
            labels::labels(reader, &format!("server.metrics.{part}.labels"), None);
            (part, reader.boolean(&format!("server.metrics.{part}.enabled")) == Some(true))
        })
        .collect();
    labels::annotations(reader, "server.metrics.dashboards.annotations");
    let is_served = reader.boolean("server.metrics.enabled") == Some(true);
    for (part, needed, has_it) in
        [("podMonitor", "enabled", is_served), ("alerts", "podMonitor.enabled", is_on["podMonitor"])]
    {
        if is_on[part] && !has_it {
            let problem = format!("needs server.metrics.{needed}: nobody would read the figures");
            reader.fault::<()>(&format!("server.metrics.{part}.enabled"), problem, None);
        }
    }
}

/// What is wrong with a host name, which may begin with `*.`, or an IP address.
fn host_fault(text: &str) -> Option<&'static str> {
    let is_address = text.parse::<std::net::IpAddr>().is_ok();
    let name = text.strip_prefix("*.").unwrap_or(text);
    (!is_address && labels::object_fault(name).is_some())
        .then_some("is neither a host name nor an IP address")
}

fn empty_fault(text: &str) -> Option<&'static str> {
    text.is_empty().then_some("must not be empty")
}
