//! The whole chain of metrics on a real node: Prometheus as its operator runs it, metrics-server, KEDA, GPU figures. What the
//! chain does with leases is in the tests of this file's neighbours; here it proves itself.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod dashboard;
mod gpus;
#[path = "../node/installation.rs"]
#[expect(dead_code, reason = "the tests of the node use the rest")]
mod installation;
mod keda;
mod keda_leases;
mod load;
#[path = "../node/namespace.rs"]
#[expect(dead_code, reason = "the tests of the node use the rest")]
mod namespace;
#[path = "../node/registration.rs"]
mod registration;
mod series;
#[path = "../node/site.rs"]
#[expect(dead_code, reason = "the tests of the node use the rest")]
mod site;
#[path = "../node/traffic.rs"]
#[expect(dead_code, reason = "the tests of the node use the rest")]
mod traffic;

use tms_tests::cluster::Cluster;

/// The cluster that the tests of this file share.
fn cluster() -> Option<&'static Cluster> {
    Cluster::shared_pipeline()
}
