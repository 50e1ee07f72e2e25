//! A release in a cluster: installed, upgraded, rolled back, taken away, and installed again.

use insta::assert_snapshot;
use serde_json::Value;
use tms_tests::cluster::Cluster;

use crate::harness::{CHART, Helm, text};

/// A namespace with a volume for the claim of release `tms`; both go with it.
struct Place {
    cluster: &'static Cluster,
    namespace: String,
}

impl Place {
    fn new(cluster: &'static Cluster) -> Self {
        let namespace = format!("chart-{}", uuid::Uuid::new_v4().simple());
        cluster.kubectl(&["create", "namespace", &namespace]).unwrap();
        let volume = format!(
            "
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {namespace}}}
spec:
  capacity: {{storage: 1Gi}}
  accessModes: [ReadWriteOnce]
  hostPath: {{path: /nowhere}}
  claimRef: {{namespace: {namespace}, name: tms-leases}}
"
        );
        cluster.create(&volume).unwrap();
        Self { cluster, namespace }
    }

    fn helm(&self, helm: &Helm, args: &[&str]) -> Result<String, String> {
        helm.run_in(self.cluster, &[args, &["--namespace", &self.namespace]].concat())
    }

    fn kubectl(&self, args: &[&str]) -> String {
        self.cluster.kubectl(&[&["--namespace", &self.namespace], args].concat()).unwrap()
    }

    fn get(&self, object: &str) -> Value {
        serde_json::from_str(&self.kubectl(&["get", object, "--output=json"])).unwrap()
    }

    /// Kinds and names of what there is, but for pods, and for what Kubernetes puts into every namespace.
    fn objects(&self) -> Vec<String> {
        let kinds = "deployments,services,configmaps,secrets,serviceaccounts,roles,rolebindings,persistentvolumeclaims,\
                     poddisruptionbudgets,networkpolicies";
        let printed = self.kubectl(&["get", kinds, "--output=name"]);
        let mut objects: Vec<_> = printed
            .lines()
            .filter(|object| !["configmap/kube-root-ca.crt", "serviceaccount/default"].contains(object))
            .map(str::to_owned)
            .collect();
        objects.sort();
        objects
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for object in [["namespace", &self.namespace], ["persistentvolume", &self.namespace]] {
            // It may be half gone already, and a failing test has said its word.
            let _ = self.cluster.kubectl(&["delete", object[0], object[1], "--wait=false"]);
        }
    }
}

#[test]
fn a_release_is_installed_upgraded_rolled_back_and_leaves_its_leases() {
    let (Some(helm), Some(cluster)) = (Helm::new(), Cluster::shared()) else { return };
    let place = Place::new(cluster);
    let wait = ["--wait", "--timeout=60s"];
    place.helm(&helm, &[&["install", "tms", CHART], &wait[..]].concat()).unwrap();
    let [values, certificate, file] = ["configmap/tms", "secret/tms-tls", "persistentvolumeclaim/tms-leases"]
        .map(|object| place.get(object));
    let template = place.get("deployment/tms")["spec"]["template"].clone();
    assert_eq!(file["status"]["phase"], "Bound");

    let upgrade =
        ["upgrade", "tms", CHART, "--set", "server.logging.level=debug,images.server=tms-server:next"];
    place.helm(&helm, &[&upgrade[..], &wait].concat()).unwrap();
    assert!(text(&place.get("configmap/tms")["data"]["values.yaml"]).contains("level: debug"));
    let upgraded = place.get("deployment/tms")["spec"]["template"].clone();
    assert_eq!(upgraded["spec"]["containers"][0]["image"], "tms-server:next");
    assert_ne!(upgraded["metadata"]["annotations"], template["metadata"]["annotations"]);
    // People trust the certificate, and the file has their leases.
    assert_eq!(place.get("secret/tms-tls")["data"], certificate["data"]);
    assert_eq!(place.get("persistentvolumeclaim/tms-leases")["metadata"]["uid"], file["metadata"]["uid"]);

    place.helm(&helm, &[&["rollback", "tms", "1"], &wait[..]].concat()).unwrap();
    assert_eq!(place.get("configmap/tms")["data"], values["data"]);
    assert_eq!(place.get("deployment/tms")["spec"]["template"], template);
    assert_eq!(place.get("secret/tms-tls")["data"], certificate["data"]);

    let names = "server.tls.additionalNames={tms.example.com}";
    place.helm(&helm, &[&["upgrade", "tms", CHART, "--set", names], &wait[..]].concat()).unwrap();
    assert_ne!(place.get("secret/tms-tls")["data"], certificate["data"], "the certificate has a new name");

    place.helm(&helm, &[&["uninstall", "tms"], &wait[..]].concat()).unwrap();
    assert_eq!(place.objects(), ["persistentvolumeclaim/tms-leases"]);

    place.helm(&helm, &[&["install", "tms", CHART], &wait[..]].concat()).unwrap();
    assert_eq!(place.get("persistentvolumeclaim/tms-leases")["metadata"]["uid"], file["metadata"]["uid"]);
}

#[test]
fn a_release_moves_from_its_file_to_postgresql_and_back() {
    let (Some(helm), Some(cluster)) = (Helm::new(), Cluster::shared()) else { return };
    let place = Place::new(cluster);
    let wait = ["--wait", "--timeout=60s"];
    place.helm(&helm, &[&["install", "tms", CHART], &wait[..]].concat()).unwrap();
    let example = Helm::example("postgresql");
    place.helm(&helm, &[&["upgrade", "tms", CHART, "--values", &example], &wait[..]].concat()).unwrap();
    let deployment = place.get("deployment/tms");
    assert_eq!(deployment["spec"]["strategy"]["type"], "RollingUpdate");
    assert_eq!(deployment["status"]["readyReplicas"], 2);
    let mut objects = place.objects();
    objects.retain(|object| !object.starts_with("secret/sh.helm.release"));
    // The file stays, in case of a way back.
    assert_eq!(
        objects,
        [
            "configmap/tms",
            "deployment.apps/tms",
            "networkpolicy.networking.k8s.io/tms",
            "persistentvolumeclaim/tms-leases",
            "poddisruptionbudget.policy/tms",
            "role.rbac.authorization.k8s.io/tms",
            "rolebinding.rbac.authorization.k8s.io/tms",
            "service/tms",
            "serviceaccount/tms"
        ]
    );
    place.helm(&helm, &[&["rollback", "tms", "1"], &wait[..]].concat()).unwrap();
    let strategy = place.get("deployment/tms")["spec"]["strategy"].clone();
    assert_eq!(strategy, serde_json::json!({"type": "Recreate"}));
}

#[test]
fn the_schema_stops_an_installation_before_anything_is_there() {
    let (Some(helm), Some(cluster)) = (Helm::new(), Cluster::shared()) else { return };
    let place = Place::new(cluster);
    let refusal = place.helm(&helm, &["install", "tms", CHART, "--set", "server.apiService.prot=1"]);
    assert!(refusal.unwrap_err().contains("additional properties 'prot' not allowed"));
    assert_eq!(place.objects(), [""; 0]);
}

#[test]
fn the_cluster_accepts_every_object_of_the_examples() {
    let (Some(helm), Some(cluster)) = (Helm::new(), Cluster::shared()) else { return };
    let place = Place::new(cluster);
    for example in ["try-out", "postgresql"] {
        let file = Helm::example(example);
        let flags = ["install", example, CHART, "--values", &file, "--dry-run=server"];
        place.helm(&helm, &flags).unwrap();
        let rendered = helm
            .run(&["template", example, CHART, "--values", &file, "--namespace", &place.namespace])
            .unwrap();
        let apply = ["apply", "--dry-run=server", "--namespace", &place.namespace, "-f", "-"];
        cluster.kubectl_as("admin", &apply, &rendered).unwrap();
    }
}

#[test]
fn pod_security_restricted_lets_the_server_in() {
    let (Some(helm), Some(cluster)) = (Helm::new(), Cluster::shared()) else { return };
    let place = Place::new(cluster);
    let enforce = "pod-security.kubernetes.io/enforce=restricted";
    cluster.kubectl(&["label", "namespace", &place.namespace, enforce]).unwrap();
    place.helm(&helm, &["install", "tms", CHART, "--wait", "--timeout=60s"]).unwrap();
    assert_eq!(place.get("deployment/tms")["status"]["readyReplicas"], 1);
}

/// What Helm tells after an installation.
fn notes(helm: &Helm, flags: &[&str]) -> String {
    let install = ["install", "tms", CHART, "--namespace", "ours", "--dry-run=client"];
    let printed = helm.run(&[&install[..], flags].concat()).unwrap();
    printed.split_once("NOTES:\n").unwrap().1.to_owned()
}

#[test]
fn the_notes_say_how_to_reach_the_server_and_what_is_off() {
    let Some(helm) = Helm::new() else { return };
    assert_snapshot!(notes(&helm, &[]), @r#"
    TMS 0.1.0 is release tms in namespace ours. Its leases go to namespace ours.

    Wait for the server:

      kubectl rollout status deployment/tms --namespace ours

    Reach it from this machine, and leave that running:

      kubectl port-forward service/tms 30345 --namespace ours

    In a second terminal, tell tmsctl where it is and create a lease:

      kubectl get secret tms-tls --namespace ours \
        --output go-template='{{index .data "ca.crt" | base64decode}}' > tms-ca.pem
      tmsctl target add tms https://localhost:30345 --ca tms-ca.pem
      tmsctl server info
      tmsctl lease create -m name=NAME,uri=https://HOST/PATH.tar.gz

    To know:
    * Whoever reaches the server is anonymous, and sees and releases the leases of all. With server.tls.clientCaSecretName people are known by
      their certificates.
    * Leases are kept in a SQLite file on claim tms-leases, by one server. For more servers set server.database.url to a PostgreSQL
      database.
    * Autoscaling is off. server.autoscaling says what leases may ask for, and where the numbers come from; the server's log says what it
      does not find in the cluster. docs/autoscaling.md says which provider suits whom.
    * `helm uninstall` leaves leases running, with nobody to end them, and leaves the claim. Release them first:

      tmsctl lease list
    "#);
    assert_snapshot!(notes(&helm, &["--values", &Helm::example("postgresql")]), @r"
    TMS 0.1.0 is release tms in namespace ours. Its leases go to namespace ours.

    Wait for the server:

      kubectl rollout status deployment/tms --namespace ours

    Reach it from this machine, and leave that running:

      kubectl port-forward service/tms 30345 --namespace ours

    In a second terminal, tell tmsctl where it is and create a lease:

      # CA.pem: the authority that signed the certificate in Secret tms-certificate
      tmsctl target add tms https://localhost:30345 --ca CA.pem --certificate ME.pem --key ME.key
      tmsctl server info
      tmsctl lease create -m name=NAME,uri=https://HOST/PATH.tar.gz

    To know:
    * Autoscaling is off. server.autoscaling says what leases may ask for, and where the numbers come from; the server's log says what it
      does not find in the cluster. docs/autoscaling.md says which provider suits whom.
    * `helm uninstall` leaves leases running, with nobody to end them. Release them first:

      tmsctl lease list
    ");
    let try_out = notes(&helm, &["--values", &Helm::example("try-out")]);
    assert!(try_out.contains("answers on port 30345 of every node"), "{try_out}");
    assert!(try_out.contains("Put it into server.tls.additionalNames"), "{try_out}");
    let insecure = notes(&helm, &["--set", "server.tls.insecure=true,server.persistence.enabled=false"]);
    assert!(insecure.contains("tmsctl target add tms http://localhost:30345\n"), "{insecure}");
    assert!(
        insecure.contains("There is no TLS") && insecure.contains("ends with the server's pod"),
        "{insecure}"
    );
    let scaling = notes(&helm, &["--set", "server.autoscaling.enabled=true"]);
    assert!(!scaling.contains("Autoscaling is off"), "{scaling}");
}
