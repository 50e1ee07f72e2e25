//! Applies and deletes the objects of a lease by server-side apply. An apply names the UID and version of what was
//! seen, or demands that there be nothing, so that it never overwrites what it has not seen.

use futures::future::join_all;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy,
};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};

use super::cache::Subject;
use super::calls::is_invalid;
use super::live::Stamp;
use super::{FIELD_MANAGER, Kubernetes};
use crate::cluster::ActError;
use crate::domain::lease::{Lease, LeaseId};
use crate::domain::plan::{Kind, Object, Plan};

/// Helps `spec.replicas` of a Deployment over from the lease to an autoscaler.
const HANDOVER_MANAGER: &str = "tms-replicas-handover";

/// An apply that names this version succeeds only where there is no object yet: no object has it, and the API server
/// ignores it on creation.
pub(super) const NO_OBJECT_YET: &str = "1";

impl Kubernetes {
    /// Makes the objects of `lease` those of the plan.
    pub(super) async fn apply_plan(&self, lease: &Lease, plan: &Plan) -> Result<(), ActError> {
        self.remove_unplanned(lease, plan).await?;
        let wants_autoscaler = plan.deployment.body.pointer("/spec/replicas").is_none();
        let before = self.stamp(lease, Kind::Deployment)?;
        let hands_over = wants_autoscaler && before.as_ref().is_some_and(|stamp| stamp.owns_replicas);
        if let (true, Some(before)) = (hands_over, &before) {
            // The autoscaler must be there before the replicas are let go, and the helper must hold them meanwhile.
            let scales = |kind: Kind| matches!(kind, Kind::HorizontalPodAutoscaler | Kind::ScaledObject);
            for object in plan.dependents.iter().filter(|object| scales(object.kind)) {
                self.apply_object(lease, object, Some(&before.uid)).await?;
            }
            self.hold_replicas(lease, before, before.replicas.unwrap_or(1)).await?;
        }
        let deployment = self.apply_object(lease, &plan.deployment, None).await?;
        self.wake_without_keda(lease, plan, &deployment).await?;
        let starts_at = lease.spec.scaling.minimum();
        if wants_autoscaler && before.is_none() && starts_at > 1 {
            self.hold_replicas(lease, &deployment, starts_at).await?;
        }
        let is_kept_by_keda = |kind: Kind| {
            kind == Kind::HorizontalPodAutoscaler && self.cache.stamp(lease.id, Kind::ScaledObject).is_some()
        };
        let dependents = plan.dependents.iter().filter(|object| !is_kept_by_keda(object.kind));
        let dependents = dependents.map(|object| self.apply_object(lease, object, Some(&deployment.uid)));
        // All of them, whatever becomes of one: a lease can serve without its rules.
        join_all(dependents).await.into_iter().try_for_each(|applied| applied.map(drop))
    }

    /// Gives a lease that sleeps a replica where an autoscaler takes over that leaves one without replicas alone.
    async fn wake_without_keda(
        &self,
        lease: &Lease,
        plan: &Plan,
        deployment: &Stamp,
    ) -> Result<(), ActError> {
        let is_ours = plan.objects().any(|object| object.kind == Kind::HorizontalPodAutoscaler);
        if lease.spec.scaling.minimum() > 0 || !is_ours || deployment.replicas != Some(0) {
            return Ok(());
        }
        let name = lease.id.object_name();
        let patch = Patch::Merge(json!({ "metadata": { "uid": deployment.uid }, "spec": { "replicas": 1 } }));
        let params =
            PatchParams { field_manager: Some(HANDOVER_MANAGER.to_owned()), ..PatchParams::default() };
        let api = self.api(Kind::Deployment);
        let woken = self.calls.make(&format!("Deployment {name}"), api.patch(&name, &params, &patch)).await?;
        self.cache.keep(Subject::Object(Kind::Deployment), woken);
        Ok(())
    }

    /// Deletes the objects of a lease: the Deployment, which takes what it owns with it, or what is there without it.
    pub(super) async fn delete_objects(&self, id: LeaseId) -> Result<(), ActError> {
        let kinds = self.cache.kinds(id);
        let kinds = if kinds.contains(&Kind::Deployment) { vec![Kind::Deployment] } else { kinds };
        let delete = async |kind| match self.cache.stamp(id, kind) {
            Some(stamp) => self.delete_object(id, kind, &stamp, None, deletion(kind)).await,
            None => Ok(()),
        };
        join_all(kinds.into_iter().map(delete)).await.into_iter().collect()
    }

    /// Deletes what is there but no longer planned, such as the autoscaler of a lease whose replicas are fixed now.
    async fn remove_unplanned(&self, lease: &Lease, plan: &Plan) -> Result<(), ActError> {
        // From the last on: without its ScaledObject KEDA makes no new autoscaler.
        for kind in self.cache.kinds(lease.id).into_iter().rev().filter(|kind| !plan.admits(*kind)) {
            if let Some(stamp) = self.stamp(lease, kind)? {
                // Only what was seen: a newer server may have planned it again.
                let version = Some(stamp.resource_version.clone());
                let is_taken_over = kind == Kind::ScaledObject && plan.admits(Kind::HorizontalPodAutoscaler);
                let deletion = if is_taken_over { leaving_the_rest() } else { deletion(kind) };
                self.delete_object(lease.id, kind, &stamp, version, deletion).await?;
            }
        }
        Ok(())
    }

    async fn apply_object(
        &self,
        lease: &Lease,
        planned: &Object,
        owner: Option<&str>,
    ) -> Result<Stamp, ActError> {
        let name = planned.kind.object_name(lease.id);
        let stamp = self.stamp(lease, planned.kind)?;
        if let Some(stamp) = stamp.as_ref().filter(|_| self.cache.covers(lease.id, planned, owner)) {
            return Ok(stamp.clone());
        }
        let mut object = planned.clone();
        if let Some(uid) = owner {
            object.owned_by(&lease.id.object_name(), uid);
        }
        let metadata = &mut object.body["metadata"];
        match stamp {
            Some(stamp) => {
                metadata["uid"] = Value::String(stamp.uid);
                metadata["resourceVersion"] = Value::String(stamp.resource_version);
            }
            None => metadata["resourceVersion"] = Value::String(NO_OBJECT_YET.to_owned()),
        }
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let what = format!("{} {name}", object.kind.as_str());
        let api = self.api(object.kind);
        let patch = Patch::Apply(&object.body);
        let call = async {
            match api.patch(&name, &params, &patch).await {
                Err(kube::Error::Api(status)) if is_invalid(&status) => Ok(Err(status.message.clone())),
                Ok(applied) => Ok(Ok(applied)),
                Err(error) => Err(error),
            }
        };
        match self.calls.make(&what, call).await {
            Ok(Err(message)) => Err(ActError::Invalid { kind: object.kind, name, message }),
            Ok(Ok(applied)) => {
                let stamp = Stamp::read(&applied);
                self.cache.keep_applied(lease.id, planned, applied);
                Ok(stamp)
            }
            Err(ActError::Conflict { object: what }) => {
                self.look_again(lease.id, object.kind).await?;
                Err(ActError::Conflict { object: what })
            }
            Err(error) => Err(error),
        }
    }

    /// Makes the helper hold `spec.replicas` of the Deployment that was seen, unless an autoscaler holds it already.
    async fn hold_replicas(&self, lease: &Lease, seen: &Stamp, replicas: u32) -> Result<(), ActError> {
        let name = lease.id.object_name();
        let body = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": { "name": name, "uid": seen.uid },
            "spec": { "replicas": replicas },
        });
        let api = self.api(Kind::Deployment);
        let (params, patch) = (PatchParams::apply(HANDOVER_MANAGER), Patch::Apply(&body));
        match self.calls.make(&format!("Deployment {name}"), api.patch(&name, &params, &patch)).await {
            Ok(applied) => {
                self.cache.keep(Subject::Object(Kind::Deployment), applied);
                Ok(())
            }
            // Without force this is also the answer where somebody else holds another number.
            Err(ActError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn delete_object(
        &self,
        id: LeaseId,
        kind: Kind,
        stamp: &Stamp,
        resource_version: Option<String>,
        propagation: DeleteParams,
    ) -> Result<(), ActError> {
        if stamp.is_deleting {
            return Ok(());
        }
        let name = kind.object_name(id);
        let preconditions = Preconditions { uid: Some(stamp.uid.clone()), resource_version };
        let params = DeleteParams { preconditions: Some(preconditions), ..propagation };
        let api = self.api(kind);
        let call = async {
            match api.delete(&name, &params).await {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
                Ok(answer) => Ok(Some(answer)),
                Err(error) => Err(error),
            }
        };
        match self.calls.make(&format!("{} {name}", kind.as_str()), call).await {
            Ok(None) => self.cache.forget(&(id, Subject::Object(kind), name), Some(stamp)),
            Ok(Some(answer)) => {
                answer.map_left(|object| self.cache.keep(Subject::Object(kind), object));
            }
            Err(ActError::Conflict { object }) => {
                self.look_again(id, kind).await?;
                return Err(ActError::Conflict { object });
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Reads an object that is not what the cache says.
    async fn look_again(&self, id: LeaseId, kind: Kind) -> Result<(), ActError> {
        let name = kind.object_name(id);
        let known = self.cache.stamp(id, kind);
        match self.calls.make(&format!("{} {name}", kind.as_str()), self.api(kind).get_opt(&name)).await? {
            Some(object) => self.cache.keep_named(id, kind, object),
            None if known.is_some() => {
                self.cache.forget(&(id, Subject::Object(kind), name), known.as_ref());
            }
            None => {}
        }
        Ok(())
    }

    /// Returns the stamp of an object, unless it is of a newer generation.
    fn stamp(&self, lease: &Lease, kind: Kind) -> Result<Option<Stamp>, ActError> {
        let stamp = self.cache.stamp(lease.id, kind);
        if stamp.as_ref().is_some_and(|stamp| stamp.generation > lease.generation) {
            let object = format!("{} {}", kind.as_str(), kind.object_name(lease.id));
            return Err(ActError::Superseded { object });
        }
        Ok(stamp)
    }

    fn api(&self, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource(kind))
    }
}

/// A Deployment owns the rest, and is to stay until that is gone.
fn deletion(kind: Kind) -> DeleteParams {
    if kind == Kind::Deployment { DeleteParams::foreground() } else { DeleteParams::background() }
}

/// The autoscaler that KEDA has made or taken over stays, and scales on when it is ours again, with its memory of what it
/// recommended.
fn leaving_the_rest() -> DeleteParams {
    DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() }
}

/// Returns how the API server names a kind.
pub(super) fn resource(kind: Kind) -> ApiResource {
    let gvk = GroupVersionKind::gvk(kind.group(), kind.version(), kind.as_str());
    ApiResource::from_gvk_with_plural(&gvk, kind.plural())
}
