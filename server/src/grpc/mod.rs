//! Translates and answers: the gRPC interface over the domain and the store. An RPC changes a row and wakes whoever makes
//! the cluster follow; it never waits for the cluster.

mod acquire;
mod change;
pub mod convert;
mod diagnose;
mod explain;
mod follow;
mod lease_service;
mod look;
mod requests;
mod server_service;
mod simulate;
mod status;
mod watch;

use std::sync::Arc;

use futures::future::BoxFuture;
use tms_proto::v1::lease_service_server::LeaseServiceServer;
use tms_proto::v1::server_service_server::ServerServiceServer;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::server::HealthReporter;

use crate::clock::Clock;
use crate::domain::autoscaler::explanation::Evidence;
use crate::domain::bounds::Bounds;
use crate::domain::capabilities::Capabilities;
use crate::domain::doctor::Diagnosis;
use crate::domain::lease::{Lease, LeaseId};
use crate::domain::plan::Settings;
use crate::metrics::Metrics;
use crate::store::Store;

pub use lease_service::Leases;
pub use requests::LogRequests;
pub use server_service::About;
pub use simulate::Simulations;

/// Largest request that is read, in bytes.
const LARGEST_REQUEST: usize = 1024 * 1024;

/// Says that a lease needs a pass.
pub trait Wake: Send + Sync {
    /// Says that this lease needs a pass, now.
    fn wake(&self, id: LeaseId);
}

/// What the RPCs work with.
pub struct Services {
    /// Where leases are kept.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// What leases may ask for.
    pub bounds: Bounds,
    /// What plans depend on.
    pub settings: Settings,
    /// Kubernetes namespace of new leases.
    pub namespace: String,
    /// "kubernetes" or "manifests".
    pub cluster_kind: &'static str,
    /// What the cluster is found to serve, at the moment of the question.
    pub capabilities: Box<dyn Fn() -> Capabilities + Send + Sync>,
    /// Looks at the autoscaler of a lease; nothing where objects are not observed.
    pub inspect: Box<dyn Fn(Lease) -> BoxFuture<'static, Option<Evidence>> + Send + Sync>,
    /// Looks at the chain by which leases scale, of a lease or without one.
    pub diagnose: Box<dyn Fn(Option<Lease>) -> BoxFuture<'static, Diagnosis> + Send + Sync>,
    /// Bounds how many simulations run at once.
    pub simulations: Simulations,
    /// Who makes the cluster follow the rows.
    pub wake: Box<dyn Wake>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Cancelled when the server ends: streams end then.
    pub stop: CancellationToken,
}

/// What a server answers.
pub struct Answers {
    /// Every service.
    pub all: Routes,
    /// Health alone.
    pub health: Routes,
    /// By which health is told.
    pub reporter: HealthReporter,
}

/// Returns what a server answers.
pub async fn answers(services: Services) -> Answers {
    let services = Arc::new(services);
    let leases =
        LeaseServiceServer::new(Leases(Arc::clone(&services))).max_decoding_message_size(LARGEST_REQUEST);
    let about = ServerServiceServer::new(About(services)).max_decoding_message_size(LARGEST_REQUEST);
    let (reporter, health) = tonic_health::server::health_reporter();
    let [v1, v1alpha] = [(); 2].map(|()| {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(tms_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // Without these no tool can read the details of an error.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    });
    let all = Routes::new(leases)
        .add_service(about)
        .add_service(health.clone())
        .add_service(v1.build_v1().expect("the descriptors were made by the build"))
        .add_service(v1alpha.build_v1alpha().expect("the descriptors were made by the build"));
    Answers { all, health: Routes::new(health), reporter }
}
