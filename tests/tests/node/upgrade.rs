//! The server is upgraded and rolled back by helm, and no Triton notices.

use tms_proto::v1::LeaseState;
use tms_tests::models::Model;

use crate::installation::{Installation, models};
use crate::site::Store;
use crate::traffic::Traffic;
use tms_tests::node::use_node;

#[test]
fn an_upgrade_and_a_rollback_of_the_server_restart_no_triton() {
    let _node = use_node();
    // An installation of its own: the others would lose their server for a moment.
    let Some(installation) = Installation::install("tms-upgrade", None) else { return };
    let cluster = installation.cluster;
    let next = cluster.add_server_image(&tms_tests::process::program(), "next");
    tms_tests::wait::inside(cluster, || async {
        let client = installation.client();
        let store = Store::start(&[Model::echo("echo").with("service_time_ms", "20")]).await;
        let lease = client.ready(models([("echo", &store.uri("echo"))])).await;
        let before = installation.pods(&lease.id);
        let traffic = Traffic::start(&installation, &lease, "echo");

        let image = format!("images.server={next}");
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../helm");
        for change in
            [&["upgrade", "tms", chart, "--reuse-values", "--set", &image][..], &["rollback", "tms"]]
        {
            installation.helm(change);
            let again = client.until(&lease.id, "is ready", |lease| lease.state() == LeaseState::Ready).await;
            assert_eq!(again.generation, lease.generation);
            assert_eq!(installation.pods(&lease.id), before, "{change:?}");
        }
        let second = client.ready(models([("echo", &store.uri("echo"))])).await;
        println!("an upgrade and a rollback of the server: {}", traffic.end().all_good());
        client.release(&lease.id).await;
        client.release(&second.id).await;
    });
}
