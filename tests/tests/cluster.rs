//! The test cluster itself does what scenarios rely on.

use kube::config::{KubeConfigOptions, Kubeconfig};
use tms_tests::cluster::{Cluster, Fault, Part};

/// A Deployment of one pod whose native sidecar runs beside its container.
fn deployment(name: &str) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      initContainers:
      - {{name: prepare, image: none}}
      - {{name: sidecar, image: none, restartPolicy: Always}}
      containers:
      - {{name: main, image: none, resources: {{limits: {{nvidia.com/gpu: 1}}}}}}
"#
    )
}

fn field(cluster: &Cluster, object: &[&str], path: &str) -> String {
    cluster
        .kubectl(&[&["get"], object, &["-o", &format!("jsonpath={path}")]].concat())
        .expect("the object is there")
}

#[test]
fn a_pod_with_a_native_sidecar_becomes_ready() {
    let Some(cluster) = Cluster::shared() else { return };
    cluster.create(&deployment("sidecar")).expect("created");
    cluster.kubectl(&["rollout", "status", "deployment/sidecar", "--timeout=20s"]).expect("ready");

    let pod = ["pods", "-l", "app=sidecar"];
    assert_eq!(field(cluster, &["deployment", "sidecar"], "{.status.readyReplicas}"), "1");
    assert_eq!(field(cluster, &pod, "{.items[0].status.conditions[?(@.type=='Ready')].status}"), "True");
    assert_eq!(field(cluster, &pod, "{.items[0].status.initContainerStatuses[*].ready}"), "true true");
    assert_eq!(field(cluster, &pod, "{.items[0].status.initContainerStatuses[1].started}"), "true");
    assert_ne!(field(cluster, &pod, "{.items[0].status.initContainerStatuses[1].state.running}"), "");

    cluster
        .kubectl(&["delete", "deployment", "sidecar", "--cascade=foreground", "--timeout=10s"])
        .expect("its pods end and so does it");
    assert_eq!(field(cluster, &pod, "{.items}"), "[]");
}

#[test]
fn a_test_can_play_the_kubelet_of_the_unmanaged_node() {
    let Some(cluster) = Cluster::shared() else { return };
    cluster
        .create(
            r#"
apiVersion: v1
kind: Pod
metadata: {name: played}
spec:
  nodeSelector: {tms.test/node: unmanaged}
  tolerations: [{key: tms.test/unmanaged, operator: Exists}]
  containers: [{name: main, image: none}]
"#,
        )
        .expect("created");
    cluster
        .kubectl(&["wait", "pod/played", "--for=condition=PodScheduled", "--timeout=20s"])
        .expect("the node takes pods");
    assert_eq!(field(cluster, &["pod", "played"], "{.spec.nodeName} {.status.phase}"), "unmanaged Pending");

    let ready = r#"{"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}"#;
    cluster.kubectl(&["patch", "pod", "played", "--subresource=status", "-p", ready]).expect("patched");
    assert_eq!(field(cluster, &["pod", "played"], "{.status.phase}"), "Running");
    cluster.kubectl(&["delete", "pod", "played", "--force", "--timeout=10s"]).expect("nobody has to agree");
}

#[test]
fn user_tms_has_the_rights_of_a_server_and_no_others() {
    let Some(cluster) = Cluster::shared() else { return };
    let may = |verb: &str, resource: &str| {
        cluster.kubectl_as("tms", &["auth", "can-i", verb, resource], "").is_ok()
    };
    for allowed in
        ["deployments.apps", "services", "scaledobjects.keda.sh", "podmonitors.monitoring.coreos.com"]
    {
        for verb in ["get", "list", "watch", "create", "patch", "delete"] {
            assert!(may(verb, allowed), "{verb} {allowed}");
        }
    }
    assert!(may("watch", "pods") && may("create", "events") && may("patch", "deployments.apps/scale"));
    for (verb, resource) in [
        ("delete", "pods"),
        ("get", "secrets"),
        ("create", "pods"),
        ("update", "deployments.apps"),
        ("deletecollection", "services"),
        ("create", "namespaces"),
        ("get", "nodes"),
        ("create", "clusterroles.rbac.authorization.k8s.io"),
    ] {
        assert!(!may(verb, resource), "{verb} {resource}");
    }
}

#[test]
fn the_audit_log_tells_who_wrote_what() {
    let Some(cluster) = Cluster::shared() else { return };
    let name = format!("audited-{}", std::process::id());
    let ports = r#""spec": {"ports": [{"port": 80}]}"#;
    let service =
        format!(r#"{{"apiVersion": "v1", "kind": "Service", "metadata": {{"name": "{name}"}}, {ports}}}"#);
    cluster.kubectl_as("tms", &["create", "-f", "-"], &service).expect("created");
    cluster.kubectl_as("tms", &["get", "service", &name], "").expect("read");
    cluster.kubectl_as("tms", &["delete", "pod", &name], "").expect_err("refused");
    cluster.kubectl_as("rival", &["delete", "service", &name], "").expect("deleted");

    let lines = |user: &str| {
        let writes = cluster.writes_of(user).into_iter().filter(|write| write.name == name);
        writes.map(|write| format!("{} {} {}", write.verb, write.resource, write.code)).collect::<Vec<_>>()
    };
    assert_eq!(lines("tms"), ["create services 201", "delete pods 403"]);
    assert_eq!(lines("rival"), ["delete services 200"]);
}

#[test]
fn a_client_with_rustls_trusts_the_apiserver() {
    let Some(cluster) = Cluster::shared() else { return };
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig("tms")).expect("a kubeconfig");
    let ask = || {
        cluster.enter();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let options = KubeConfigOptions::default();
            let config =
                kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("a configuration");
            let client = kube::Client::try_from(config).expect("a client");
            client.apiserver_version().await.expect("an answer").git_version
        })
    };
    let version = std::thread::scope(|scope| scope.spawn(ask).join().expect("no panic"));
    assert!(version.starts_with("v1."), "{version}");
}

#[test]
fn a_frozen_apiserver_answers_again_after_thaw() {
    let Some(cluster) = Cluster::start("frozen") else { return };
    cluster.fault(Part::Apiserver, Fault::Freeze);
    cluster.kubectl(&["get", "nodes", "--request-timeout=1s"]).expect_err("nobody answers");
    cluster.fault(Part::Apiserver, Fault::Thaw);
    cluster.kubectl(&["get", "nodes", "--request-timeout=10s"]).expect("it answers");
}

#[test]
fn objects_outlive_the_parts_that_keep_them() {
    let Some(cluster) = Cluster::start("restarted") else { return };
    cluster.create(&deployment("kept")).expect("created");
    cluster.kubectl(&["rollout", "status", "deployment/kept", "--timeout=20s"]).expect("ready");

    cluster.fault(Part::Apiserver, Fault::Stop);
    cluster.kubectl(&["get", "nodes"]).expect_err("nobody listens");
    for part in [Part::Etcd, Part::Apiserver, Part::Controllers, Part::Scheduler, Part::Kwok] {
        cluster.fault(part, Fault::Restart);
    }
    cluster.kubectl(&["scale", "deployment/kept", "--replicas=3"]).expect("scaled");
    cluster
        .kubectl(&["rollout", "status", "deployment/kept", "--timeout=60s"])
        .expect("every part works again");
    assert_eq!(field(&cluster, &["deployment", "kept"], "{.status.readyReplicas}"), "3");
}
