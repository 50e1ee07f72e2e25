//! The node itself does what the other tests rely on.

use tms_tests::cluster::{Cluster, Fault, Part};
use tms_tests::models::Model;
use tms_tests::postgres::InCluster;

use crate::namespace::Namespace;
use tms_tests::node::{break_node, use_node};

/// A Triton with the models of the claim `models`, and its Service.
const TRITON: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: triton}
spec:
  selector: {matchLabels: {app: triton}}
  template:
    metadata: {labels: {app: triton}}
    spec:
      automountServiceAccountToken: false
      securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: triton
        image: docker.io/local/triton:2.51
        command: [tritonserver]
        args:
        - --model-repository=/models
        - --model-control-mode=explicit
        - --load-model=first
        - --load-model=second
        - --load-model=both
        ports: [{name: http, containerPort: 8000}, {name: grpc, containerPort: 8001}]
        resources: {requests: {cpu: 100m, memory: 256Mi}, limits: {nvidia.com/gpu: 1}}
        readinessProbe: {httpGet: {path: /v2/health/ready, port: http}, periodSeconds: 1}
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, readOnlyRootFilesystem: true}
        volumeMounts:
        - {name: models, mountPath: /models, readOnly: true}
        - {name: shared-memory, mountPath: /dev/shm}
        - {name: temporary, mountPath: /tmp}
      volumes:
      - {name: models, persistentVolumeClaim: {claimName: models, readOnly: true}}
      - {name: shared-memory, emptyDir: {medium: Memory, sizeLimit: 256Mi}}
      - {name: temporary, emptyDir: {}}
---
apiVersion: v1
kind: Service
metadata: {name: triton}
spec:
  selector: {app: triton}
  ports: [{name: http, port: 8000}, {name: grpc, port: 8001}]
"#;

const ASK_BY_HTTP: &str = r#"
import json, urllib.request
question = {"inputs": [{"name": "INPUT", "datatype": "FP32", "shape": [2], "data": [1.5, 2.5]}]}
url = "http://triton.serves.svc.cluster.local:8000/v2/models/both/infer"
answer = urllib.request.urlopen(urllib.request.Request(url, json.dumps(question).encode()), timeout=10)
print(json.load(answer)["outputs"][0]["data"])
"#;

const ASK_BY_GRPC: &str = r#"
import numpy, tritonclient.grpc as triton
given = triton.InferInput("INPUT", [2], "FP32")
given.set_data_from_numpy(numpy.array([1.5, 2.5], dtype=numpy.float32))
client = triton.InferenceServerClient("triton.serves.svc:8001")
print(client.infer("first", [given], client_timeout=10).as_numpy("OUTPUT").tolist())
"#;

#[test]
fn a_real_triton_serves_a_model_in_a_pod_of_the_node() {
    let _node = use_node();
    let Some(namespace) = Namespace::new("serves") else { return };
    namespace.cluster.claim("serves", "models", "ReadOnlyMany", |folder| {
        Model::echo("first").with("service_time_ms", "20").lay_out(folder);
        Model::echo("second").with("load_time_ms", "500").lay_out(folder);
        Model::pair("both", "first", "second").lay_out(folder);
    });
    namespace.create(TRITON);
    namespace.start_client();
    namespace
        .kubectl(&["rollout", "status", "deployment/triton", "--timeout=120s"])
        .expect("Triton is ready");

    assert_eq!(namespace.ask(ASK_BY_HTTP).as_deref(), Ok("[1.5, 2.5]\n"));
    assert_eq!(namespace.ask(ASK_BY_GRPC).as_deref(), Ok("[1.5, 2.5]\n"));
    let log = namespace.kubectl(&["logs", "deployment/triton"]).expect("kubelet gives the log");
    assert!(log.contains("successfully loaded 'both'"), "{log}");
}

/// A pod that `restricted` allows, and which ends.
const VERSION: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: version}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: server
    image: docker.io/local/tms-server:test
    args: [version]
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, readOnlyRootFilesystem: true}
"#;

#[test]
fn the_servers_image_runs_without_root_and_with_a_read_only_root_file_system() {
    let _node = use_node();
    let Some(namespace) = Namespace::new("image") else { return };
    namespace.create(VERSION);
    let ended = ["wait", "pod/version", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s"];
    namespace.kubectl(&ended).expect("it ends well");
    let said = namespace.kubectl(&["logs", "version"]).expect("kubelet gives the log");
    assert!(said.contains(tms_server::VERSION), "{said}");
}

#[test]
fn a_killed_container_is_started_again() {
    let _node = use_node();
    let Some(namespace) = Namespace::new("killed") else { return };
    namespace.start_client();
    namespace.cluster.kill_container("killed", "client", "client");
    let restarted = "--for=jsonpath={.status.containerStatuses[0].restartCount}=1";
    namespace.kubectl(&["wait", "pod/client", restarted, "--timeout=60s"]).expect("kubelet starts it again");
    namespace.kubectl(&["wait", "pod/client", "--for=condition=Ready", "--timeout=60s"]).expect("it runs");
    assert_eq!(namespace.ask("print(1)").as_deref(), Ok("1\n"));
}

/// A pod that writes into a volume as a user without rights of its own, and reads the API server by its account.
const WRITES: &str = r#"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Gi}}
---
apiVersion: v1
kind: Pod
metadata: {name: writes}
spec:
  restartPolicy: Never
  securityContext: {runAsNonRoot: true, runAsUser: 65532, fsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: writes
    image: docker.io/local/client:1
    command: [python3, -c]
    args:
    - |
      import ssl, urllib.error, urllib.request
      open("/data/file", "x").write("kept")
      account = "/var/run/secrets/kubernetes.io/serviceaccount/"
      trust = ssl.create_default_context(cafile=account + "ca.crt")
      token = {"Authorization": "Bearer " + open(account + "token").read()}
      try:
          request = urllib.request.Request("https://kubernetes.default.svc/api/v1/namespaces", headers=token)
          urllib.request.urlopen(request, context=trust, timeout=10)
      except urllib.error.HTTPError as error:
          print(open("/data/file").read(), error.code, "serviceaccount" in error.read().decode())
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, readOnlyRootFilesystem: true}
    volumeMounts: [{name: data, mountPath: /data}]
  volumes:
  - {name: data, persistentVolumeClaim: {claimName: data}}
"#;

#[test]
fn a_pod_without_root_writes_its_volume_and_is_known_to_the_apiserver() {
    let _node = use_node();
    let Some(namespace) = Namespace::new("writes") else { return };
    namespace.create(WRITES);
    let ended = ["wait", "pod/writes", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s"];
    namespace.kubectl(&ended).expect("it ends well");
    assert_eq!(namespace.kubectl(&["logs", "writes"]).as_deref(), Ok("kept 403 True\n"));
}

#[test]
fn a_pod_reaches_a_postgresql_of_the_tests() {
    let _node = use_node();
    let Some(namespace) = Namespace::new("postgres") else { return };
    let Some(postgres) = InCluster::start(namespace.cluster) else { return };
    namespace.start_client();
    let address =
        postgres.url().rsplit_once('@').and_then(|(_, rest)| rest.split_once('/')).expect("a URL").0;
    // Whether TLS is spoken is the first thing that PostgreSQL's protocol asks: it is not.
    let program = format!(
        "import socket; host, port = '{address}'.split(':'); connection = socket.create_connection((host, int(port)), 10); \
         connection.send(b'\\0\\0\\0\\x08\\x04\\xd2\\x16\\x2f'); print(connection.recv(1))"
    );
    assert_eq!(namespace.ask(&program).as_deref(), Ok("b'N'\n"));
}

#[test]
fn the_node_has_its_gpus_again_after_a_restart_of_its_kubelet() {
    let _node = break_node();
    let Some(cluster) = Cluster::shared_node() else { return };
    cluster.fault(Part::Kubelet, Fault::Restart);
    for gpus in ["status.capacity", "status.allocatable"] {
        let is_eight = format!("--for=jsonpath={{.{gpus}.nvidia\\.com/gpu}}=8");
        cluster.kubectl(&["wait", "node/node-0", &is_eight, "--timeout=60s"]).expect("it has 8 GPUs");
    }
    cluster.kubectl(&["wait", "node/node-0", "--for=condition=Ready", "--timeout=60s"]).expect("it is ready");
}
