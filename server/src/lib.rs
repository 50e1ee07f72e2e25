//! The TMS server: hands out leases of Triton Inference Server on Kubernetes.

pub mod agent;
pub mod auth;
pub mod chain;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod custom_metrics;
pub mod domain;
pub mod grpc;
pub mod metrics;
pub mod reconcile;
pub mod serve;
pub mod store;
pub mod telemetry;

/// Version of the server.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
