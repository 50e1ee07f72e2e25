//! Looks at the chain by which leases scale, where a person asks: what the cluster serves, who serves it, and whether a
//! Prometheus takes what TMS emits. Each look is one call, all at once, bounded like every other.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use serde::de::IgnoredAny;

use super::aggregation::GROUP;
use super::inspect::selector;
use super::{Kubernetes, pods};
use crate::cluster::ActError;
use crate::domain::doctor::evidence::{
    Api as Served, ApiState, Evidence, Found, LeaseEvidence, Missing, Prometheus,
};
use crate::domain::lease::{Lease, LeaseId};
use crate::domain::observed::Trouble;

impl Kubernetes {
    /// Returns what the cluster tells of the chain; what only Prometheus can tell is missing.
    pub(super) async fn inspect_chain(&self, lease: Option<&Lease>, is_wide: bool) -> Evidence {
        let (monitoring_kinds, keda_kinds, prometheuses, namespace_labels, custom, resource, external, lease) = tokio::join!(
            self.kinds_of("monitoring.coreos.com/v1"),
            self.kinds_of("keda.sh/v1alpha1"),
            self.prometheuses(is_wide),
            self.namespace_labels(is_wide),
            self.api_of(GROUP, is_wide),
            self.api_of("metrics.k8s.io", is_wide),
            self.api_of("external.metrics.k8s.io", is_wide),
            self.lease_in_chain(lease),
        );
        let own = super::Observe::capabilities(self).custom_metrics_service;
        Evidence {
            monitoring_kinds,
            keda_kinds,
            prometheuses,
            namespace_labels,
            prometheus_api: Err(Missing::NoAddress),
            custom_metrics: custom.map(|api| Served { service: api.service.or(own), ..api }),
            resource_metrics: resource,
            external_metrics: external,
            lease,
        }
    }

    async fn lease_in_chain(&self, lease: Option<&Lease>) -> Option<LeaseEvidence> {
        let lease = lease?;
        let (seen, unschedulable) =
            tokio::join!(self.inspect_autoscaler(lease), self.unschedulable(lease.id));
        Some(LeaseEvidence {
            seen,
            unschedulable,
            up: Err(Missing::NoAddress),
            scrape_errors: Vec::new(),
            rules: Err(Missing::NoAddress),
            series: BTreeMap::new(),
        })
    }

    async fn kinds_of(&self, group_version: &str) -> Found<BTreeSet<String>> {
        let list = async {
            let list = self.client.list_api_group_resources(group_version).await;
            or_absent(list.map(|list| list.resources.into_iter().map(|resource| resource.kind).collect()))
        };
        let kinds: Option<BTreeSet<String>> = self.calls.make(group_version, list).await.map_err(missing)?;
        Ok(kinds.unwrap_or_default())
    }

    async fn prometheuses(&self, is_wide: bool) -> Found<Vec<Prometheus>> {
        if !is_wide {
            return Err(Missing::NoRights);
        }
        let kind = GroupVersionKind::gvk("monitoring.coreos.com", "v1", "Prometheus");
        let resource = ApiResource::from_gvk_with_plural(&kind, "prometheuses");
        let api = Api::<DynamicObject>::all_with(self.client.clone(), &resource);
        let params = ListParams::default().match_any();
        let list = async { or_absent(api.list(&params).await) };
        let list = self.calls.make("Prometheus objects", list).await.map_err(missing)?;
        Ok(list.map(|list| list.items.into_iter().map(prometheus).collect()).unwrap_or_default())
    }

    async fn namespace_labels(&self, is_wide: bool) -> Found<BTreeMap<String, String>> {
        if !is_wide {
            return Err(Missing::NoRights);
        }
        let api = Api::<Namespace>::all(self.client.clone());
        let what = format!("Namespace {}", self.namespace);
        let namespace = self.calls.make(&what, api.get(&self.namespace)).await.map_err(missing)?;
        Ok(namespace.metadata.labels.unwrap_or_default())
    }

    async fn api_of(&self, group: &str, is_wide: bool) -> Found<Served> {
        let (state, registered) = tokio::join!(self.state_of(group), self.registered(group, is_wide));
        let (service, complaint) = registered.unwrap_or_default();
        Ok(Served { state: state?, service, complaint })
    }

    async fn state_of(&self, group: &str) -> Found<ApiState> {
        let request = hyper::Request::get(format!("/apis/{group}/v1beta1")).body(Vec::new());
        let request = request.expect("the group is a name");
        let ask = async {
            match self.client.request::<IgnoredAny>(request).await {
                Ok(_) => Ok(ApiState::Served),
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(ApiState::Absent),
                Err(kube::Error::Api(status)) if status.code >= 500 => {
                    Ok(ApiState::Silent(status.message.trim().to_owned()))
                }
                Err(error) => Err(error),
            }
        };
        self.calls.make(group, ask).await.map_err(missing)
    }

    /// Returns who is registered for an API, and why it is not available; nothing where nobody is, or where that may not be read.
    async fn registered(&self, group: &str, is_wide: bool) -> Option<(Option<String>, Option<String>)> {
        if !is_wide {
            return None;
        }
        let (api, name) = (Api::<APIService>::all(self.client.clone()), format!("v1beta1.{group}"));
        let found = self.calls.make(&format!("APIService {name}"), api.get_opt(&name)).await.ok()??;
        let service = found.spec.and_then(|spec| spec.service);
        let part = |text: Option<String>| text.unwrap_or_default();
        let service = service.map(|service| format!("{}/{}", part(service.namespace), part(service.name)));
        let conditions = found.status.and_then(|status| status.conditions).unwrap_or_default();
        let unavailable = conditions
            .into_iter()
            .find(|condition| condition.type_ == "Available" && condition.status != "True");
        Some((service, unavailable.map(|it| format!("{}: {}", part(it.reason), part(it.message)))))
    }

    async fn unschedulable(&self, id: LeaseId) -> Found<BTreeMap<String, String>> {
        let api = Api::<Pod>::namespaced(self.client.clone(), &self.namespace);
        let params = ListParams::default().labels(&selector(id)).fields("status.phase=Pending");
        let list = self.calls.make("its pods", api.list(&params)).await.map_err(missing)?;
        let detail = |pod: Pod| match pods::unschedulable(&pod.status?)? {
            Trouble::Unschedulable { detail } => Some((pod.metadata.name?, detail)),
            _ => None,
        };
        Ok(list.items.into_iter().filter_map(detail).collect())
    }
}

/// Returns nothing where the API does not serve what was asked for.
fn or_absent<T>(answer: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

fn prometheus(object: DynamicObject) -> Prometheus {
    let spec = object.data.get("spec").cloned().unwrap_or_default();
    // One that cannot be read selects nothing, as far as is known.
    let read: Prometheus = serde_json::from_value(spec).unwrap_or_default();
    Prometheus {
        namespace: object.metadata.namespace.unwrap_or_default(),
        name: object.metadata.name.unwrap_or_default(),
        ..read
    }
}

fn missing(error: ActError) -> Missing {
    match error {
        ActError::Away(_) | ActError::Busy { .. } => Missing::Away(error.to_string()),
        ActError::Refused { .. }
        | ActError::Conflict { .. }
        | ActError::Superseded { .. }
        | ActError::Invalid { .. }
        | ActError::File { .. } => Missing::Refused(error.to_string()),
    }
}
