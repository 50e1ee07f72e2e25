//! `tms.v1.ServerService`: what this server is, allows and has found.

use std::sync::Arc;

use tms_proto::v1;
use tms_proto::v1::server_service_server::ServerService;
use tonic::{Request, Response, Status};

use super::lease_service::answer;
use super::{Services, convert};

/// The service of questions about the server.
pub struct About(pub Arc<Services>);

#[tonic::async_trait]
impl ServerService for About {
    async fn version(
        &self,
        request: Request<v1::VersionRequest>,
    ) -> Result<Response<v1::VersionResponse>, Status> {
        answer("Version", "", request, async |caller, _| {
            Ok(v1::VersionResponse { version: crate::VERSION.to_owned(), caller: caller.to_string() })
        })
        .await
    }

    async fn bounds(
        &self,
        request: Request<v1::BoundsRequest>,
    ) -> Result<Response<v1::BoundsResponse>, Status> {
        answer("Bounds", "", request, async |_, _| Ok(convert::bounds(&self.0.bounds))).await
    }

    async fn capabilities(
        &self,
        request: Request<v1::CapabilitiesRequest>,
    ) -> Result<Response<v1::CapabilitiesResponse>, Status> {
        answer("Capabilities", "", request, async |_, _| {
            Ok(convert::capabilities(self.0.cluster_kind, &(self.0.capabilities)()))
        })
        .await
    }

    async fn diagnose(
        &self,
        request: Request<v1::DiagnoseRequest>,
    ) -> Result<Response<v1::DiagnoseResponse>, Status> {
        let services = Arc::clone(&self.0);
        let lease = request.get_ref().lease_id.clone();
        answer("Diagnose", &lease, request, |caller, request| services.diagnose(caller, request)).await
    }
}
