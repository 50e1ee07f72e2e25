//! `tms.v1.LeaseService`: names each RPC, says what runs to its end whatever the caller does, and turns refusals into
//! statuses.

use std::future::Future;
use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt as _};
use tms_proto::v1;
use tms_proto::v1::lease_service_server::LeaseService;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use super::Services;
use super::acquire::Progress;
use super::status::Refusal;
use super::watch::Watch;
use crate::auth::Caller;

/// The service of leases.
pub struct Leases(pub Arc<Services>);

#[tonic::async_trait]
impl LeaseService for Leases {
    type AcquireStream = BoxStream<'static, Result<v1::AcquireResponse, Status>>;
    type WatchStream = BoxStream<'static, Result<v1::WatchResponse, Status>>;

    async fn acquire(
        &self,
        request: Request<v1::AcquireRequest>,
    ) -> Result<Response<Self::AcquireStream>, Status> {
        let services = Arc::clone(&self.0);
        let begun =
            answer("Acquire", "", request, |caller, request| to_the_end(services.acquire(caller, request)));
        let progress = begun.await?.into_inner();
        let lease = progress.lease_id().to_string();
        let messages = stream::try_unfold(progress, |mut progress: Progress| async {
            let message = progress.next().await?;
            Ok(message.map(|message| (message, progress)))
        });
        let refused = move |refusal: Refusal| refusal.into_status("Acquire", &lease);
        Ok(Response::new(messages.map(move |message| message.map_err(&refused)).boxed()))
    }

    async fn update(
        &self,
        request: Request<v1::UpdateRequest>,
    ) -> Result<Response<v1::UpdateResponse>, Status> {
        let services = Arc::clone(&self.0);
        let lease = request.get_ref().lease_id.clone();
        answer("Update", &lease, request, |caller, request| to_the_end(services.update(caller, request)))
            .await
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        let services = Arc::clone(&self.0);
        let lease = request.get_ref().lease_id.clone();
        answer("Renew", &lease, request, |caller, request| to_the_end(services.renew(caller, request))).await
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseResponse>, Status> {
        let services = Arc::clone(&self.0);
        let lease = request.get_ref().lease_id.clone();
        answer("Release", &lease, request, |caller, request| to_the_end(services.release(caller, request)))
            .await
    }

    async fn activate(
        &self,
        request: Request<v1::ActivateRequest>,
    ) -> Result<Response<v1::ActivateResponse>, Status> {
        let services = Arc::clone(&self.0);
        let lease = request.get_ref().lease_id.clone();
        answer("Activate", &lease, request, |caller, request| to_the_end(services.activate(caller, request)))
            .await
    }

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        let services = Arc::clone(&self.0);
        let lease = request.get_ref().lease_id.clone();
        answer("Status", &lease, request, |caller, request| services.status(caller, request)).await
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        let services = Arc::clone(&self.0);
        answer("List", "", request, |caller, request| services.list(caller, request)).await
    }

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let services = Arc::clone(&self.0);
        let lease = request.get_ref().lease_id.clone();
        let begun = answer("Watch", &lease, request, |caller, request| services.watch(caller, request));
        let messages = stream::try_unfold(begun.await?.into_inner(), |mut watch: Watch| async {
            let message = watch.next().await?;
            Ok(message.map(|message| (message, watch)))
        });
        let refused = move |refusal: Refusal| refusal.into_status("Watch", &lease);
        Ok(Response::new(messages.map(move |message| message.map_err(&refused)).boxed()))
    }

    async fn plan(&self, request: Request<v1::PlanRequest>) -> Result<Response<v1::PlanResponse>, Status> {
        let services = Arc::clone(&self.0);
        answer("Plan", "", request, |caller, request| services.plan(caller, request)).await
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        let services = Arc::clone(&self.0);
        let lease = request.get_ref().lease_id.clone();
        answer("Explain", &lease, request, |caller, request| services.explain(caller, request)).await
    }

    async fn simulate(
        &self,
        request: Request<v1::SimulateRequest>,
    ) -> Result<Response<v1::SimulateResponse>, Status> {
        let services = Arc::clone(&self.0);
        let lease = request.get_ref().lease_id.clone();
        answer("Simulate", &lease, request, |caller, request| services.simulate(caller, request)).await
    }
}

/// Finds out who calls, and returns the answer or the status of the refusal. `lease` is the lease that the request names.
pub(super) async fn answer<Q, A, F>(
    rpc: &'static str,
    lease: &str,
    request: Request<Q>,
    serve: impl FnOnce(Caller, Q) -> F,
) -> Result<Response<A>, Status>
where
    F: Future<Output = Result<A, Refusal>>,
{
    let answer = match Caller::of(request.extensions()) {
        Ok(caller) => serve(caller, request.into_inner()).await,
        Err(unnamed) => Err(Refusal::Unnamed(unnamed)),
    };
    answer.map(Response::new).map_err(|refusal| refusal.into_status(rpc, lease))
}

/// Runs what changes a lease to its end, even where the caller goes meanwhile: no commit without its wake-up.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    let work = tokio::spawn(work.in_current_span());
    work.await.unwrap_or_else(|failure| Err(Refusal::Internal(Box::new(failure))))
}
