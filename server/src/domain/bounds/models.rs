//! The models of a request: their names, and the places that they come from.

use std::collections::HashMap;

use super::Bounds;
use super::findings::{Findings, quoted};
use super::names::model_name_fault;
use crate::domain::lease::Model;
use crate::domain::repositories::{AccessMode, Repositories};
use crate::domain::scaling::Scaling;
use crate::domain::uri::ModelUri;

/// Most models of a lease.
const MOST_MODELS: usize = 64;
/// Most bytes of the names and uris of all models as JSON: they travel in one environment variable, and Linux starts no
/// program with one of 128 KiB.
const MOST_MODEL_BYTES: usize = 64 * 1024;
/// Most claims that a refusal names.
const MOST_NAMED: usize = 8;
const FIELD: &str = "spec.models";

/// Returns the models that are granted.
pub(super) fn granted(asked: &[(String, String)], bounds: &Bounds, findings: &mut Findings) -> Vec<Model> {
    check_size(asked, findings);
    let mut first_index = HashMap::new();
    for (index, (name, uri)) in asked.iter().take(MOST_MODELS).enumerate() {
        let field = format!("{FIELD}[{index}]");
        if let Some(fault) = model_name_fault(name) {
            findings.refuse(format!("{field}.name"), format!("{} {fault}", quoted(name)));
        }
        let first = *first_index.entry(name).or_insert(index);
        if first != index {
            findings.refuse(
                format!("{field}.name"),
                format!("{} is the name of {FIELD}[{first}] already, each model needs its own", quoted(name)),
            );
        }
        match ModelUri::parse(uri) {
            Ok(uri) => check_place(&format!("{field}.uri"), &uri, &bounds.repositories, findings),
            // The uri itself is not repeated: it may hold what must not be logged.
            Err(fault) => findings.refuse(format!("{field}.uri"), fault.to_string()),
        }
    }
    asked.iter().map(|(name, uri)| Model { name: name.clone(), uri: uri.clone() }).collect()
}

/// Refuses models of a new lease whose place one node alone can read, where there may be several replicas.
pub(super) fn check_sharing(
    models: &[Model],
    scaling: &Scaling,
    repositories: &Repositories,
    findings: &mut Findings,
) {
    for (index, model) in models.iter().take(MOST_MODELS).enumerate() {
        if let Some((key, fault)) = sharing_fault(model, scaling, repositories) {
            findings.refuse_by(key, format!("{FIELD}[{index}].uri"), format!("the uri {fault}"));
        }
    }
}

/// Refuses replicas of a lease whose models lie where one node alone can read them.
pub(super) fn check_replicas(
    models: &[Model],
    scaling: &Scaling,
    repositories: &Repositories,
    findings: &mut Findings,
) {
    let field = match scaling {
        Scaling::Fixed { .. } => "replicas",
        Scaling::Auto(_) => "autoscaling.max_replicas",
    };
    for model in models {
        if let Some((key, fault)) = sharing_fault(model, scaling, repositories) {
            findings.refuse_by(key, field, format!("the uri of model {} {fault}", quoted(&model.name)));
        }
    }
}

fn check_size(asked: &[(String, String)], findings: &mut Findings) {
    if asked.is_empty() {
        findings.refuse(FIELD, format!("no model asked, 1 to {MOST_MODELS} are allowed"));
    }
    if asked.len() > MOST_MODELS {
        findings.refuse(FIELD, format!("{} models asked, 1 to {MOST_MODELS} are allowed", asked.len()));
    }
    let bytes: usize = asked.iter().map(|(name, uri)| length_in_json(name) + length_in_json(uri)).sum();
    if bytes > MOST_MODEL_BYTES {
        findings.refuse(
            FIELD,
            format!("names and uris of {bytes} bytes asked, at most {MOST_MODEL_BYTES} are allowed in all"),
        );
    }
}

fn length_in_json(text: &str) -> usize {
    serde_json::Value::from(text).to_string().len()
}

fn check_place(field: &str, uri: &ModelUri, repositories: &Repositories, findings: &mut Findings) {
    match uri {
        ModelUri::Claim { claim, .. } if repositories.claim(claim).is_none() => {
            let allowed = allowed_claims(repositories);
            findings.refuse_by(
                "server.modelRepositories.pvc",
                field,
                format!("the uri names the PersistentVolumeClaim {}, {allowed}", quoted(claim)),
            );
        }
        ModelUri::Http(uri) if uri.is_plain && !repositories.allows_http => findings.refuse_by(
            "server.modelRepositories.allowHttp",
            field,
            "the uri begins with http://, which anyone on the way can read and change: use https://",
        ),
        ModelUri::Http(uri) if uri.is_plain => {
            if let Some(secret) = repositories.secret_of_target(uri) {
                findings.warn(format!(
                    "{uri} is fetched without Secret {secret}: credentials are sent over https:// alone"
                ));
            }
        }
        ModelUri::Claim { .. } | ModelUri::Http(_) => {}
    }
}

fn allowed_claims(repositories: &Repositories) -> String {
    let names: Vec<_> = repositories.claims.iter().map(|claim| claim.name.as_str()).collect();
    match (names.len(), names.get(..MOST_NAMED)) {
        (0, _) => "none is allowed".to_owned(),
        (count, Some(first)) if count > MOST_NAMED => {
            format!("allowed are {} and {} more", first.join(", "), count - MOST_NAMED)
        }
        _ => format!("allowed are {}", names.join(", ")),
    }
}

/// Returns the key and the words that refuse to run several replicas on a claim that one node alone can mount.
fn sharing_fault(model: &Model, scaling: &Scaling, repositories: &Repositories) -> Option<(String, String)> {
    let most = scaling.maximum();
    // A lease from before may hold what is no uri today.
    let Ok(ModelUri::Claim { claim, .. }) = ModelUri::parse(&model.uri) else { return None };
    let (index, found) = repositories.claim(&claim)?;
    if most <= 1 || found.access != AccessMode::ReadWriteOnce {
        return None;
    }
    let key = format!("server.modelRepositories.pvc[{index}].accessMode");
    let fault = format!(
        "names the PersistentVolumeClaim {}, which pods of one node alone can mount (ReadWriteOnce): up to {most} replicas \
         asked, 1 is allowed",
        quoted(&claim)
    );
    Some((key, fault))
}
