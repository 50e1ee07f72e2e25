//! Where the models of a lease lie in its pods: the repository that the agent fills, claims, Secrets of the places that
//! models come from, and the volumes that Triton itself needs.

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, EmptyDirVolumeSource, EnvVar, PersistentVolumeClaimVolumeSource,
    SecretVolumeSource, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Serialize;

use crate::domain::lease::{Model, Triton};
use crate::domain::repositories::Repositories;
use crate::domain::uri::ModelUri;

/// Where both containers see the models.
pub(super) const REPOSITORY: &str = "/models";
/// Where both containers see the claims, each under its name.
const CLAIMS: &str = "/claims";
/// Where the agent sees the Secrets, each under its name.
const CREDENTIALS: &str = "/credentials";

/// Where the agent sees the authorities by which servers are believed.
const AUTHORITIES: &str = "/authorities";
/// Variable that names the file of the authorities, as programs of OpenSSL have it too.
const AUTHORITIES_VARIABLE: &str = "SSL_CERT_FILE";

/// Volume of the models.
const MODELS: &str = "models";
/// Volume of the authorities.
const AUTHORITIES_VOLUME: &str = "authorities";
/// Volume behind /dev/shm.
const SHARED_MEMORY: &str = "shm";
/// Volume behind /tmp.
const TMP: &str = "tmp";
/// Bounds what backends and cloud libraries may leave on a node's disk.
const TMP_SIZE: &str = "50Gi";

/// What the volume of models may hold beyond what the agent lets in: names, and files that do not fill their last block.
const SLACK_MEBIBYTES: u64 = 512;

/// The places that the models of a lease come from.
pub(super) struct Storage<'a> {
    models: Vec<ToFetch<'a>>,
    /// Claims in the order of their first use.
    claims: Vec<String>,
    /// Secrets in the order of their first use.
    secrets: Vec<&'a str>,
    /// ConfigMap with the authorities by which servers are believed, if models are downloaded.
    trust_bundle: Option<&'a str>,
    /// Most bytes of the volume that models are laid out on.
    size_limit: String,
    /// Whether pods of one node alone can mount them all.
    pub is_for_one_node: bool,
}

/// A model, as the agent is told of it.
#[derive(Serialize)]
struct ToFetch<'a> {
    name: &'a str,
    uri: &'a str,
    /// Secret whose content is sent with the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'a str>,
}

impl<'a> Storage<'a> {
    /// Finds out what `models` need.
    pub fn of(models: &'a [Model], repositories: &'a Repositories) -> Self {
        let mut storage = Self {
            models: Vec::new(),
            claims: Vec::new(),
            secrets: Vec::new(),
            trust_bundle: None,
            size_limit: size_limit(repositories.maximum_total_bytes),
            is_for_one_node: false,
        };
        for model in models {
            let mut secret = None;
            match ModelUri::parse(&model.uri).expect("the uris of a lease were parsed when it was granted") {
                ModelUri::Claim { claim, .. } => {
                    storage.is_for_one_node |= repositories.is_for_one_node(&claim);
                    keep(&mut storage.claims, claim);
                }
                ModelUri::Http(uri) => {
                    storage.trust_bundle = repositories.trust_bundle.as_deref();
                    secret = repositories.secret(&uri);
                    if let Some(secret) = secret {
                        keep(&mut storage.secrets, secret);
                    }
                }
            }
            storage.models.push(ToFetch { name: &model.name, uri: &model.uri, secret });
        }
        storage
    }

    /// Returns the models as JSON, in the order in which they are loaded.
    pub fn models_as_json(&self) -> String {
        serde_json::to_string_pretty(&self.models).expect("names and uris are JSON")
    }

    /// Returns how the agent is told which servers to believe.
    pub fn trust(&self) -> Option<EnvVar> {
        self.trust_bundle.map(|_| EnvVar {
            name: AUTHORITIES_VARIABLE.to_owned(),
            value: Some(format!("{AUTHORITIES}/ca.crt")),
            value_from: None,
        })
    }

    /// Returns every volume of a pod.
    pub fn volumes(&self, triton: &Triton) -> Vec<Volume> {
        let own = [
            // The agent refuses before: a kubelet would end the whole pod.
            empty(MODELS, None, Some(&self.size_limit)),
            empty(SHARED_MEMORY, Some("Memory"), Some(&triton.shared_memory)),
            empty(TMP, None, Some(TMP_SIZE)),
        ];
        let claims = self.claims.iter().enumerate().map(|(index, claim)| Volume {
            name: claim_volume(index),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.clone(),
                read_only: Some(true),
            }),
            ..Volume::default()
        });
        let secrets = self.secrets.iter().enumerate().map(|(index, secret)| Volume {
            name: secret_volume(index),
            secret: Some(SecretVolumeSource {
                secret_name: Some((*secret).to_owned()),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        });
        let authorities = self.trust_bundle.map(|name| Volume {
            name: AUTHORITIES_VOLUME.to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: name.to_owned(),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        });
        own.into_iter().chain(claims).chain(secrets).chain(authorities).collect()
    }

    /// Returns what the agent sees: it alone writes models and reads Secrets.
    pub fn mounts_of_agent(&self) -> Vec<VolumeMount> {
        let secrets = self
            .secrets
            .iter()
            .enumerate()
            .map(|(index, secret)| read_only(&secret_volume(index), &format!("{CREDENTIALS}/{secret}")));
        let authorities = self.trust_bundle.map(|_| read_only(AUTHORITIES_VOLUME, AUTHORITIES));
        let own = [mount(MODELS, REPOSITORY)].into_iter();
        own.chain(self.mounts_of_claims()).chain(secrets).chain(authorities).collect()
    }

    /// Returns what Triton sees.
    pub fn mounts_of_triton(&self) -> Vec<VolumeMount> {
        let own = [read_only(MODELS, REPOSITORY), mount(SHARED_MEMORY, "/dev/shm"), mount(TMP, "/tmp")];
        own.into_iter().chain(self.mounts_of_claims()).collect()
    }

    /// One path in both containers, so that a link that the agent makes leads Triton to the same place.
    fn mounts_of_claims(&self) -> impl Iterator<Item = VolumeMount> {
        let mount = |(index, claim)| read_only(&claim_volume(index), &format!("{CLAIMS}/{claim}"));
        self.claims.iter().enumerate().map(mount)
    }
}

fn size_limit(total_bytes: u64) -> String {
    format!("{}Mi", total_bytes.div_ceil(1 << 20).saturating_add(SLACK_MEBIBYTES))
}

fn keep<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

fn claim_volume(index: usize) -> String {
    format!("claim-{index}")
}

fn secret_volume(index: usize) -> String {
    format!("credentials-{index}")
}

fn empty(name: &str, medium: Option<&str>, size: Option<&str>) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: medium.map(str::to_owned),
            size_limit: size.map(|size| Quantity(size.to_owned())),
        }),
        ..Volume::default()
    }
}

fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount { name: volume.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() }
}

fn read_only(volume: &str, path: &str) -> VolumeMount {
    VolumeMount { read_only: Some(true), ..mount(volume, path) }
}
