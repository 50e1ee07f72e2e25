//! What runs in pods of a real node: real Tritons, and TMS itself as its chart installs it. The node is shared by the tests
//! of this file; Pod Security `restricted` is enforced wherever they have pods.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod changes;
mod custom_metrics;
mod failures;
mod installation;
mod leases;
mod namespace;
mod node;
mod people;
mod registration;
mod site;
mod traffic;
mod upgrade;

use tms_tests::cluster::Cluster;

/// The cluster that the tests of this file share.
fn cluster() -> Option<&'static Cluster> {
    Cluster::shared_node()
}
