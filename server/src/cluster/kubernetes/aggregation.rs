//! What a server does in the cluster to serve an API of its own behind the Kubernetes API server: it reads whom to believe,
//! keeps its certificate in a Secret, and registers itself. Nothing is taken over from another server of the same API.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{
    APIService, APIServiceSpec, ServiceReference,
};
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::apply::NO_OBJECT_YET;
use super::calls::Calls;
use super::{FIELD_MANAGER, Kubernetes};
use crate::cluster::ActError;

/// Where every cluster says by which certificate its API server is known to others.
const AUTHENTICATION: (&str, &str) = ("kube-system", "extension-apiserver-authentication");
/// The API.
pub const GROUP: &str = "custom.metrics.k8s.io";
/// Its versions, and the priority of each among them.
pub const VERSIONS: [(&str, i32); 2] = [("v1beta1", 100), ("v1beta2", 200)];
/// Priority of the API among others, as that of other servers of it.
const GROUP_PRIORITY: i32 = 100;
/// Port of the Service.
const PORT: i32 = 443;

/// Serving an API of the Kubernetes API server.
pub struct Aggregation {
    client: Client,
    calls: Arc<Calls>,
    /// Namespace of Service and Secret.
    namespace: String,
    /// Name of Service and Secret.
    name: String,
    found: Arc<Mutex<Option<String>>>,
}

/// By what the Kubernetes API server is known when it passes a request on.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct FrontProxy {
    /// Authorities of its certificate, as PEM; empty where the cluster has none.
    pub authorities: String,
    /// Common names of its certificate; any where there is none.
    pub allowed_names: Vec<String>,
    /// Headers that carry the name of the user.
    pub username_headers: Vec<String>,
}

/// What a Secret holds.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Its entries, as text.
    pub data: BTreeMap<String, String>,
    version: String,
}

/// Who serves the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registration {
    /// This server's Service.
    Ours,
    /// Another one, as NAMESPACE/NAME.
    HeldBy(String),
}

impl Kubernetes {
    /// Returns what serves the API through the Service `name` in `namespace`.
    pub fn aggregation(&self, namespace: String, name: String) -> Aggregation {
        Aggregation {
            client: self.client.clone(),
            calls: Arc::clone(&self.calls),
            namespace,
            name,
            found: Arc::clone(&self.custom_metrics_service),
        }
    }
}

impl Aggregation {
    /// Returns the name by which the Kubernetes API server calls the Service: that of the certificate.
    pub fn host(&self) -> String {
        format!("{}.{}.svc", self.name, self.namespace)
    }

    /// Reads by what the Kubernetes API server is known.
    pub async fn front_proxy(&self) -> Result<FrontProxy, ActError> {
        let (namespace, name) = AUTHENTICATION;
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let found = self.calls.make(&format!("ConfigMap {name}"), api.get_opt(name)).await?;
        Ok(read_front_proxy(&found.and_then(|found| found.data).unwrap_or_default()))
    }

    /// Reads the Secret.
    pub async fn kept(&self) -> Result<Option<Kept>, ActError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = self.calls.make(&format!("Secret {}", self.name), api.get_opt(&self.name)).await?;
        Ok(found.map(|secret| {
            let text = |ByteString(bytes): ByteString| String::from_utf8_lossy(&bytes).into_owned();
            let data = secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, text(value)));
            Kept { data: data.collect(), version: secret.metadata.resource_version.unwrap_or_default() }
        }))
    }

    /// Writes the Secret in the place of what was read, or of nothing; a conflict where somebody else was first.
    pub async fn keep(&self, data: BTreeMap<String, String>, before: Option<&Kept>) -> Result<(), ActError> {
        let bytes = |(key, text): (String, String)| (key, ByteString(text.into_bytes()));
        let secret = Secret {
            metadata: ObjectMeta {
                namespace: Some(self.namespace.clone()),
                ..self.metadata(&self.name, before.map(|before| before.version.clone()), self.owner().await?)
            },
            type_: Some("Opaque".to_owned()),
            data: Some(data.into_iter().map(bytes).collect()),
            ..Secret::default()
        };
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        self.apply(&api, "Secret", &self.name, &secret).await
    }

    /// Registers the Service as the server of the API, known by these authorities (PEM), unless another serves it.
    pub async fn register(&self, authorities: &str) -> Result<Registration, ActError> {
        match self.try_to_register(authorities).await {
            // Another server of this installation, most likely, which wrote the same.
            Err(ActError::Conflict { .. }) => self.try_to_register(authorities).await,
            registration => registration,
        }
    }

    async fn try_to_register(&self, authorities: &str) -> Result<Registration, ActError> {
        let api: Api<APIService> = Api::all(self.client.clone());
        let mut found = Vec::new();
        for (version, _) in VERSIONS {
            let name = object_name(version);
            found.push(self.calls.make(&format!("APIService {name}"), api.get_opt(&name)).await?);
        }
        let is_ours = |spec: &APIServiceSpec| {
            spec.service.as_ref().is_some_and(|service| {
                service.namespace.as_ref() == Some(&self.namespace)
                    && service.name.as_ref() == Some(&self.name)
            })
        };
        let specs = found.iter().flatten().filter_map(|service| service.spec.as_ref());
        let holder = specs.filter(|spec| !is_ours(spec)).map(|spec| place(spec.service.as_ref())).next();
        let registration = match holder {
            Some(holder) => Registration::HeldBy(holder),
            None => {
                for ((version, priority), found) in VERSIONS.into_iter().zip(found) {
                    self.register_version(&api, self.spec(version, priority, authorities), found).await?;
                }
                Registration::Ours
            }
        };
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(match &registration {
            Registration::Ours => format!("{}/{}", self.namespace, self.name),
            Registration::HeldBy(holder) => holder.clone(),
        });
        Ok(registration)
    }

    async fn register_version(
        &self,
        api: &Api<APIService>,
        spec: APIServiceSpec,
        found: Option<APIService>,
    ) -> Result<(), ActError> {
        if found.as_ref().is_some_and(|found| found.spec.as_ref() == Some(&spec)) {
            return Ok(());
        }
        let name = object_name(spec.version.as_deref().unwrap_or_default());
        let version = found.and_then(|found| found.metadata.resource_version);
        let metadata = self.metadata(&name, version, self.owner().await?);
        let service = APIService { metadata, spec: Some(spec), status: None };
        self.apply(api, "APIService", &name, &service).await
    }

    fn spec(&self, version: &str, priority: i32, authorities: &str) -> APIServiceSpec {
        APIServiceSpec {
            ca_bundle: Some(ByteString(authorities.as_bytes().to_vec())),
            group: Some(GROUP.to_owned()),
            group_priority_minimum: GROUP_PRIORITY,
            insecure_skip_tls_verify: None,
            service: Some(ServiceReference {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                port: Some(PORT),
            }),
            version: Some(version.to_owned()),
            version_priority: priority,
        }
    }

    /// Returns the ClusterRole of the chart as the owner of what is made here, so that it goes when the chart does: an
    /// APIService whose server is gone keeps every namespace from being deleted.
    async fn owner(&self) -> Result<Option<OwnerReference>, ActError> {
        let api: Api<ClusterRole> = Api::all(self.client.clone());
        let name = format!("{}:{}", self.namespace, self.name);
        match self.calls.make(&format!("ClusterRole {name}"), api.get_opt(&name)).await {
            Ok(Some(role)) => Ok(Some(OwnerReference {
                api_version: "rbac.authorization.k8s.io/v1".to_owned(),
                kind: "ClusterRole".to_owned(),
                name,
                uid: role.metadata.uid.unwrap_or_default(),
                ..OwnerReference::default()
            })),
            // Rights that somebody else made may have another name.
            Ok(None) | Err(ActError::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn metadata(&self, name: &str, version: Option<String>, owner: Option<OwnerReference>) -> ObjectMeta {
        let labels = [("app.kubernetes.io/name", "tms-server"), ("app.kubernetes.io/managed-by", "tms")];
        ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            owner_references: owner.map(|owner| vec![owner]),
            resource_version: Some(version.unwrap_or_else(|| NO_OBJECT_YET.to_owned())),
            ..ObjectMeta::default()
        }
    }

    async fn apply<K>(&self, api: &Api<K>, kind: &str, name: &str, object: &K) -> Result<(), ActError>
    where
        K: Clone + DeserializeOwned + Serialize + std::fmt::Debug,
    {
        let params = PatchParams::apply(FIELD_MANAGER).force();
        self.calls
            .make(&format!("{kind} {name}"), api.patch(name, &params, &Patch::Apply(object)))
            .await
            .map(drop)
    }
}

fn object_name(version: &str) -> String {
    format!("{version}.{GROUP}")
}

/// One without a Service is served by the API server itself, as one made from a CustomResourceDefinition.
fn place(service: Option<&ServiceReference>) -> String {
    let part = |text: Option<&String>| text.cloned().unwrap_or_default();
    service.map_or_else(
        || "the Kubernetes API server itself".to_owned(),
        |service| format!("{}/{}", part(service.namespace.as_ref()), part(service.name.as_ref())),
    )
}

/// What cannot be read lets nobody in: an empty list of names would let in any.
fn read_front_proxy(data: &BTreeMap<String, String>) -> FrontProxy {
    let list = |key: &str| -> Option<Vec<String>> {
        data.get(key).map_or(Some(Vec::new()), |text| serde_json::from_str(text).ok())
    };
    let lists = list("requestheader-allowed-names").zip(list("requestheader-username-headers"));
    let authorities = data.get("requestheader-client-ca-file");
    let Some((authorities, (allowed_names, username_headers))) = authorities.zip(lists) else {
        return FrontProxy::default();
    };
    FrontProxy { authorities: authorities.clone(), allowed_names, username_headers }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_proxy_is_known_by_what_every_cluster_publishes() {
        let data = [
            ("client-ca-file", "other"),
            ("requestheader-client-ca-file", "PEM"),
            ("requestheader-allowed-names", r#"["front-proxy-client"]"#),
            ("requestheader-username-headers", r#"["X-Remote-User","X-User"]"#),
        ];
        let read = read_front_proxy(&data.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        assert_eq!(read.authorities, "PEM");
        assert_eq!(read.allowed_names, ["front-proxy-client"]);
        assert_eq!(read.username_headers, ["X-Remote-User", "X-User"]);
        assert_eq!(read_front_proxy(&BTreeMap::new()), FrontProxy::default());
        let torn = [("requestheader-client-ca-file", "PEM"), ("requestheader-allowed-names", "[\"front-")];
        let read = read_front_proxy(&torn.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        assert_eq!(read, FrontProxy::default());
    }
}
