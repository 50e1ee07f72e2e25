//! The whole chain of metrics on a real node: Prometheus as its operator runs it, metrics-server, KEDA, GPU figures. What the
//! chain does with leases is in the tests of this file's neighbours; here it proves itself.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod dashboard;
mod doctor;
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

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tms_tests::cluster::Cluster;

/// The cluster that the tests of this file share.
fn cluster() -> Option<&'static Cluster> {
    Cluster::shared_pipeline()
}

/// Held for reading by tests that measure, for writing by one that breaks what they measure by.
static PIPELINE: RwLock<()> = RwLock::new(());

/// Keeps the pipeline whole until the test ends.
fn use_node() -> RwLockReadGuard<'static, ()> {
    PIPELINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until nobody uses the pipeline, and keeps others from it until the test ends.
fn break_node() -> RwLockWriteGuard<'static, ()> {
    PIPELINE.write().unwrap_or_else(PoisonError::into_inner)
}
