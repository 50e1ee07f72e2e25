//! Objects that carry our labels but belong to no lease that lives.

use serde_json::json;
use tms_tests::cluster::Cluster;
use tms_tests::server::{Database, World, spec};
use tms_tests::wait::until;

use super::{KINDS, on_our_cluster, until_ready};

#[test]
fn objects_of_no_lease_are_removed_and_those_of_another_installation_stay() {
    on_our_cluster(Database::Sqlite, "cluster: {sweepIntervalSeconds: 1}", |world, cluster| async move {
        let server = world.start().await;
        let lease = server.acquire(spec()).await.unwrap();
        until_ready(&server, std::slice::from_ref(&lease.id)).await;
        let living = world.objects();

        let (unknown, foreign) = (copy_id(), copy_id());
        copy(&world, cluster, &lease.id, &unknown, None);
        copy(&world, cluster, &lease.id, &foreign, Some("another"));
        until_gone(&world, &unknown).await;
        server.stop().await;

        // While no server looks, too.
        let unseen = copy_id();
        copy(&world, cluster, &lease.id, &unseen, None);
        let server = world.start().await;
        until_gone(&world, &unseen).await;

        let objects = world.objects();
        let theirs = objects.iter().filter(|object| object.contains(&foreign)).count();
        assert_eq!(theirs, living.len(), "every object of another installation is left");
        assert!(living.iter().all(|object| objects.contains(object)), "so are those of the lease that lives");
        server.stop().await;
    });
}

fn copy_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// Makes copies of all objects of a lease under another lease's id, perhaps as another installation's.
fn copy(world: &World, cluster: &Cluster, id: &str, copy: &str, installation: Option<&str>) {
    let mut list = world.kubectl(&["get", KINDS, "--selector", &format!("tms.internal/lease-id={id}")]);
    for object in list["items"].as_array_mut().unwrap() {
        let (name, labels) = (object["metadata"]["name"].clone(), object["metadata"]["labels"].clone());
        object["metadata"] = json!({"name": name, "labels": labels});
        object.as_object_mut().unwrap().remove("status");
        if object["kind"] == "Service" && object["spec"]["clusterIP"] != "None" {
            let spec = object["spec"].as_object_mut().unwrap();
            spec.retain(|field, _| !field.starts_with("clusterIP"));
        }
        if let Some(installation) = installation {
            object["metadata"]["labels"]["tms.internal/installation"] = json!(installation);
        }
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": list["items"]}).to_string();
    let args = ["--namespace", &world.namespace, "create", "-f", "-"];
    cluster.kubectl_as("admin", &args, &list.replace(id, copy)).unwrap();
}

async fn until_gone(world: &World, id: &str) {
    until(&format!("nothing of {id} is left"), 30, async || {
        (!world.objects().iter().any(|object| object.contains(id))).then_some(())
    })
    .await;
}
