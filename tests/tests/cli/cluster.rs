//! Leases on a real control plane, asked for with `tmsctl` and looked at with `kubectl`.

use tms_tests::cluster::Cluster;
use tms_tests::wait::inside;

use crate::assert_shows;
use crate::harness::{CREATE, Place, VALUES, until};

const KINDS: &str = "hpa,deploy,svc,pdb,podmonitor,prometheusrule";

/// Runs a scenario with a server inside the cluster, whose leases have a namespace to themselves.
fn on_the_cluster(scenario: impl FnOnce(&'static Cluster, &str, &Place) + Send) {
    let Some(cluster) = Cluster::shared() else { return };
    let namespace = format!("tms-{}", uuid::Uuid::new_v4().simple());
    cluster.kubectl(&["create", "namespace", &namespace]).unwrap();
    let kubeconfig = cluster.kubeconfig("tms");
    let place = Place::new(&format!(
        "kubernetes: {{namespace: {namespace}}}\n{VALUES}  cluster: {{kind: kubernetes, kubeconfig: {}}}\n",
        kubeconfig.display()
    ));
    inside(cluster, || async { scenario(cluster, &namespace, &place) });
}

/// Returns the kinds that `kubectl get` shows of all leases in a namespace.
fn shown(cluster: &Cluster, namespace: &str) -> Vec<String> {
    let selector = ["-l", "app.kubernetes.io/managed-by=tms", "-o", "name", "-n", namespace];
    let names = cluster.kubectl(&[&["get", KINDS][..], &selector].concat()).unwrap();
    let mut kinds: Vec<_> =
        names.lines().map(|name| name.split(['.', '/']).next().unwrap().to_owned()).collect();
    kinds.sort();
    kinds
}

#[test]
fn an_autoscaled_lease_becomes_ready_has_all_its_objects_and_leaves_none() {
    on_the_cluster(|cluster, namespace, place| {
        let server = place.start();
        let person = server.person();
        let said = person.tmsctl(&format!("{CREATE} --enable-autoscaling --autoscaling-max-replicas 4"));
        let out = said.out.clone();
        assert_eq!(said.code, 0, "{}", said.whole());
        assert_shows!(said.out.replace(namespace, "<namespace>"), @r"
        Lease <lease> is created and ends <when> (<time>)
        Lease <lease> is READY at tms-<lease>.<namespace>.svc (HTTP 8000, gRPC 8001)
        Inside the cluster:  curl -i http://tms-<lease>.<namespace>.svc:8000/v2/models/resnet50/ready
        From here:  tmsctl lease port-forward <short>
        ");
        let expected = [
            "deployment",
            "horizontalpodautoscaler",
            "poddisruptionbudget",
            "podmonitor",
            "prometheusrule",
            "service",
            "service",
        ];
        assert_eq!(shown(cluster, namespace), expected);

        let id = &out[6..38];
        assert_shows!(person.tmsctl("lease list").done(), @r"
        LEASE  STATE  REPLICAS  ENDS  MODELS
        <short>  READY  1/1 (1-4)  <when>  resnet50
        ");
        person.tmsctl(&format!("lease release {id}")).done();
        until("nothing is left of the lease", 60, || shown(cluster, namespace).is_empty().then_some(()));
    });
}

#[test]
fn a_lease_that_fits_nowhere_says_why_until_it_ends() {
    on_the_cluster(|_, _, place| {
        let server = place.start();
        let person = server.person();
        let created = person.tmsctl(&format!("{CREATE} --node-selector tms.test/zone=nowhere --lifetime 6s"));
        assert_eq!(created.code, 4, "{}", created.whole());
        assert!(created.err.contains("ended before it was ready: it is EXPIRED"), "{}", created.err);
        assert!(created.err.contains("node"), "it was not told why: {}", created.err);
    });
}

#[test]
fn a_lease_goes_on_while_its_server_is_killed_and_started_again() {
    on_the_cluster(|cluster, namespace, place| {
        let server = place.start();
        let (port, person) = (server.port(), server.person());
        let mut create = person.starts(CREATE);
        let id = create.line()[6..38].to_owned();
        server.kill();
        let _server = place.start_on(port);
        let said = create.end();
        assert_eq!(said.code, 0, "{}", said.whole());
        assert!(said.out.contains(&format!("Lease {id} is READY")), "{}", said.whole());
        assert_eq!(person.tmsctl("lease list --all -z").done().lines().count(), 1);
        let deployments = |kinds: Vec<String>| kinds.iter().filter(|kind| *kind == "deployment").count();
        assert_eq!(deployments(shown(cluster, namespace)), 1);
    });
}
