//! The objects that values become.

use std::fs;

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::harness::{CHART, Helm, text};

fn yaml(value: &Value) -> String {
    serde_yaml::to_string(value).unwrap()
}

#[test]
fn helm_has_no_complaint_about_the_chart_and_its_examples() {
    let Some(helm) = Helm::new() else { return };
    let lint = |flags: &[&str]| helm.run(&[&["lint", "--strict", CHART], flags].concat()).unwrap();
    lint(&[]);
    for file in fs::read_dir(format!("{CHART}/examples")).unwrap() {
        lint(&["--values", file.unwrap().path().to_str().unwrap()]);
    }
}

#[test]
fn the_chart_is_of_the_version_of_the_server() {
    let chart: Value =
        serde_yaml::from_str(&fs::read_to_string(format!("{CHART}/Chart.yaml")).unwrap()).unwrap();
    let values: Value =
        serde_yaml::from_str(&fs::read_to_string(format!("{CHART}/values.yaml")).unwrap()).unwrap();
    assert_eq!([&chart["version"], &chart["appVersion"]], [env!("CARGO_PKG_VERSION"); 2]);
    assert_eq!(values["images"]["server"], format!("tms-server:{}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn without_any_value_there_is_one_server_with_a_file_and_a_certificate() {
    let Some(helm) = Helm::new() else { return };
    let rendered = helm.template("").unwrap();
    assert_eq!(
        rendered.names(),
        [
            "ConfigMap tms",
            "Deployment tms",
            "PersistentVolumeClaim tms-leases",
            "Role tms",
            "RoleBinding tms",
            "Secret tms-tls",
            "Service tms",
            "ServiceAccount tms",
        ]
    );
    for object in rendered.objects() {
        let labels = &object["metadata"]["labels"];
        assert_eq!(
            [&labels["app.kubernetes.io/name"], &labels["app.kubernetes.io/instance"]],
            ["tms-server", "tms"],
            "{object}"
        );
        // Nothing of the release is taken for an object of a lease.
        assert_eq!(labels["app.kubernetes.io/managed-by"], "Helm", "{object}");
    }
    let mut deployment = rendered.one("Deployment")["spec"].clone();
    deployment["template"]["metadata"]["annotations"]["checksum/values"] = json!("(checksum)");
    assert_snapshot!(yaml(&deployment), @r"
    replicas: 1
    selector:
      matchLabels:
        app.kubernetes.io/instance: tms
        app.kubernetes.io/name: tms-server
    strategy:
      type: Recreate
    template:
      metadata:
        annotations:
          checksum/values: (checksum)
        labels:
          app.kubernetes.io/instance: tms
          app.kubernetes.io/managed-by: Helm
          app.kubernetes.io/name: tms-server
          app.kubernetes.io/version: 0.1.0
          helm.sh/chart: tms-0.1.0
      spec:
        automountServiceAccountToken: true
        containers:
        - args:
          - serve
          - --values
          - /etc/tms/values.yaml
          image: tms-server:0.1.0
          imagePullPolicy: IfNotPresent
          livenessProbe:
            failureThreshold: 6
            grpc:
              port: 8080
            periodSeconds: 10
            timeoutSeconds: 5
          name: server
          ports:
          - containerPort: 30345
            name: grpc
          - containerPort: 8080
            name: health
          readinessProbe:
            grpc:
              port: 8080
            periodSeconds: 5
          resources:
            limits:
              memory: 512Mi
            requests:
              cpu: 100m
              memory: 128Mi
          securityContext:
            allowPrivilegeEscalation: false
            capabilities:
              drop:
              - ALL
            readOnlyRootFilesystem: true
          startupProbe:
            failureThreshold: 120
            grpc:
              port: 8080
            periodSeconds: 1
          volumeMounts:
          - mountPath: /etc/tms
            name: values
            readOnly: true
          - mountPath: /tmp
            name: temporary
          - mountPath: /var/lib/tms
            name: leases
          - mountPath: /etc/tms-tls
            name: certificate
            readOnly: true
        enableServiceLinks: false
        securityContext:
          fsGroup: 65532
          fsGroupChangePolicy: OnRootMismatch
          runAsGroup: 65532
          runAsNonRoot: true
          runAsUser: 65532
          seccompProfile:
            type: RuntimeDefault
        serviceAccountName: tms
        volumes:
        - configMap:
            name: tms
          name: values
        - emptyDir:
            sizeLimit: 64Mi
          name: temporary
        - name: leases
          persistentVolumeClaim:
            claimName: tms-leases
        - name: certificate
          secret:
            defaultMode: 288
            items:
            - key: tls.crt
              path: tls.crt
            - key: tls.key
              path: tls.key
            secretName: tms-tls
    ");
    assert_snapshot!(yaml(&rendered.one("Service")["spec"]), @r"
    ports:
    - name: grpc
      port: 30345
      targetPort: grpc
    selector:
      app.kubernetes.io/instance: tms
      app.kubernetes.io/name: tms-server
    type: ClusterIP
    ");
}

#[test]
fn two_servers_on_postgresql_roll_and_keep_one_through_a_drain() {
    let Some(helm) = Helm::new() else { return };
    let rendered = helm.template_with(&["--values", &Helm::example("postgresql")]).unwrap();
    assert!(!rendered.has("PersistentVolumeClaim") && !rendered.has("Secret"), "{:?}", rendered.names());
    let deployment = &rendered.one("Deployment")["spec"];
    assert_eq!(deployment["replicas"], 2);
    assert_eq!(
        deployment["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}})
    );
    let selector = &deployment["selector"];
    let budget = &rendered.one("PodDisruptionBudget")["spec"];
    assert_eq!((&budget["maxUnavailable"], &budget["selector"]), (&json!(1), selector));
    let network = &rendered.one("NetworkPolicy")["spec"];
    assert_eq!(&network["podSelector"], selector);
    assert_eq!(network["ingress"], json!([{"ports": [{"port": "grpc"}]}]));

    let pod = &rendered.pod()["spec"];
    let secrets: Vec<_> =
        pod["volumes"].as_array().unwrap().iter().filter_map(|volume| volume.get("secret")).collect();
    let named: Vec<_> = secrets.iter().map(|secret| text(&secret["secretName"])).collect();
    assert_eq!(named, ["tms-certificate", "tms-clients", "tms-database"]);
    assert_eq!(secrets[2]["items"], json!([{"key": "password", "path": "password"}]));
    for (part, value) in [
        ("certificateFile", "/etc/tms-tls/tls.crt"),
        ("clientCaFile", "/etc/tms-client-ca/ca.crt"),
        ("passwordFile", "/etc/tms-database/password"),
        ("url", "postgres://tms@postgresql.databases.svc:5432/tms"),
    ] {
        assert!(rendered.values().contains(&format!("{part}: {value}\n")), "{part}: {}", rendered.values());
    }
    // What Secrets hold is in no other object.
    assert!(!rendered.values().contains("password: "), "{}", rendered.values());
}

#[test]
fn the_keys_of_tms_do_what_tms_did() {
    let Some(helm) = Helm::new() else { return };
    let values = "
images:
  server: registry.example.com/tms-server:1
  triton: registry.example.com/tritonserver:1
  sidecar: registry.example.com/sidecar:1
  mongodb: mongo:6
  secrets: [pull]
kubernetes:
  namespace: models
  partOf: vision
  customLabels: {team: a}
  customAnnotations: {example.com/cost: '1'}
server:
  apiService: {type: NodePort, port: 31000}
  metrics: {enabled: true}
global: {registry: example.com}
";
    let rendered = helm.template(values).unwrap();
    let pod = &rendered.pod()["spec"];
    assert_eq!(pod["containers"][0]["image"], "registry.example.com/tms-server:1");
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "pull"}]));
    let port = &rendered.one("Service")["spec"]["ports"][0];
    assert_eq!((&port["port"], &port["nodePort"]), (&json!(31000), &json!(31000)));
    assert_eq!(rendered.one("Service")["spec"]["type"], "NodePort");
    for object in rendered.objects() {
        assert_eq!(object["metadata"]["labels"]["app.kubernetes.io/part-of"], "vision", "{object}");
    }
    for kind in ["Role", "RoleBinding"] {
        assert_eq!(rendered.one(kind)["metadata"]["namespace"], "models");
    }
    assert_eq!(
        rendered.one("RoleBinding")["subjects"],
        json!([{"kind": "ServiceAccount", "name": "tms", "namespace": "ours"}])
    );
}

#[test]
fn what_concerns_the_server_s_pod_reaches_it() {
    let Some(helm) = Helm::new() else { return };
    let values = "
server:
  apiService: {type: LoadBalancer, port: 443, healthPort: 9000, annotations: {example.com/internal: 'true'}}
  tls: {insecure: true}
  persistence: {existingClaim: files}
  deployment:
    imagePullPolicy: Always
    resources: {requests: {cpu: 1}, limits: {memory: ~}}
    serviceAccountName: theirs
    podLabels: {team: a, app.kubernetes.io/name: other}
    podAnnotations: {example.com/cost: '1'}
    nodeSelector: {disk: fast}
    tolerations: [{key: infra, operator: Exists}]
    priorityClassName: system-cluster-critical
";
    // A label that would hide the pods from the Service is refused; all else is as asked.
    assert!(helm.template(values).is_err());
    let rendered = helm.template(&values.replace(", app.kubernetes.io/name: other", "")).unwrap();
    assert_eq!(rendered.names(), ["ConfigMap tms", "Deployment tms", "Service tms"]);
    assert_eq!(rendered.one("Service")["metadata"]["annotations"]["example.com/internal"], "true");
    let pod = rendered.pod();
    assert_eq!(pod["metadata"]["labels"]["team"], "a");
    assert_eq!(pod["metadata"]["annotations"]["example.com/cost"], "1");
    let pod = &pod["spec"];
    let server = &pod["containers"][0];
    assert_eq!(server["imagePullPolicy"], "Always");
    assert_eq!(server["resources"], json!({"requests": {"cpu": 1, "memory": "128Mi"}, "limits": {}}));
    assert_eq!(server["livenessProbe"]["grpc"], json!({"port": 9000}));
    assert_eq!(pod["serviceAccountName"], "theirs");
    assert_eq!(pod["nodeSelector"], json!({"disk": "fast"}));
    assert_eq!(pod["tolerations"], json!([{"key": "infra", "operator": "Exists"}]));
    assert_eq!(pod["priorityClassName"], "system-cluster-critical");
    let volumes = pod["volumes"].as_array().unwrap();
    assert!(volumes.contains(&json!({"name": "leases", "persistentVolumeClaim": {"claimName": "files"}})));
    assert!(volumes.iter().all(|volume| volume["name"] != "certificate"));
}

#[test]
fn figures_that_are_served_can_be_reached() {
    let Some(helm) = Helm::new() else { return };
    let values = "
server:
  metrics: {enabled: true, listen: '127.0.0.1:30346'}
  deployment: {networkPolicy: true}
";
    let rendered = helm.template(values).unwrap();
    assert!(rendered.values().contains("listen: 0.0.0.0:30346\n"), "{}", rendered.values());
    let port = json!({"name": "metrics", "containerPort": 30346});
    assert!(rendered.pod()["spec"]["containers"][0]["ports"].as_array().unwrap().contains(&port));
    let ports = &rendered.one("NetworkPolicy")["spec"]["ingress"][0]["ports"];
    assert_eq!(*ports, json!([{"port": "grpc"}, {"port": "metrics"}]));
    let silent = helm.template(&values.replace("enabled: true", "enabled: false")).unwrap();
    assert_eq!(silent.pod()["spec"]["containers"][0]["ports"].as_array().unwrap().len(), 2);
}

const BUILTIN: &str = "
server:
  autoscaling: {enabled: true, provider: builtin}
  deployment: {networkPolicy: true}
";

#[test]
fn custom_metrics_that_the_server_serves_can_be_reached_and_registered() {
    let Some(helm) = Helm::new() else { return };
    let rendered = helm.template(BUILTIN).unwrap();
    for name in [
        "ClusterRole ours:tms-custom-metrics",
        "ClusterRoleBinding ours:tms-custom-metrics",
        "Role tms-custom-metrics",
        "RoleBinding ours:tms-custom-metrics",
        "RoleBinding tms-custom-metrics",
        "Service tms-custom-metrics",
    ] {
        assert!(
            rendered.names().iter().any(|found| found == name),
            "{name} is not in {:?}",
            rendered.names()
        );
    }
    let ports = &rendered.one("NetworkPolicy")["spec"]["ingress"][0]["ports"];
    assert_eq!(*ports, json!([{"port": "grpc"}, {"port": "custom-metrics"}]));
    let port = json!({"name": "custom-metrics", "containerPort": 30347});
    assert!(rendered.pod()["spec"]["containers"][0]["ports"].as_array().unwrap().contains(&port));
    assert!(rendered.values().contains("serviceName: tms-custom-metrics\n"), "{}", rendered.values());
    assert_snapshot!(yaml(&rendered.one("ClusterRole")["rules"]), @r#"
    - apiGroups:
      - apiregistration.k8s.io
      resourceNames:
      - v1beta1.custom.metrics.k8s.io
      - v1beta2.custom.metrics.k8s.io
      resources:
      - apiservices
      verbs:
      - get
      - create
      - patch
    - apiGroups:
      - rbac.authorization.k8s.io
      resourceNames:
      - ours:tms-custom-metrics
      resources:
      - clusterroles
      verbs:
      - get
    "#);
}

#[test]
fn a_server_that_serves_no_custom_metrics_has_no_rights_for_them() {
    let Some(helm) = Helm::new() else { return };
    for other in ["provider: adapter", "enabled: false, provider: builtin"] {
        let rendered = helm.template(&BUILTIN.replace("enabled: true, provider: builtin", other)).unwrap();
        assert!(
            !rendered.has("ClusterRole") && !rendered.has("ClusterRoleBinding"),
            "{other}: {:?}",
            rendered.names()
        );
        rendered.one("Service");
        rendered.one("Role");
    }
    let manifests = format!("{BUILTIN}  cluster: {{kind: manifests, manifests: {{directory: /out}}}}\n");
    assert!(!helm.template(&manifests).unwrap().has("ClusterRole"), "no pods are seen");
}

#[test]
fn custom_metrics_need_a_port_of_their_own() {
    let Some(helm) = Helm::new() else { return };
    for (port, problem) in
        [("0", "a Service needs a port"), ("30345", "must be another port"), ("8080", "must be another port")]
    {
        let values = BUILTIN
            .replace("provider: builtin", &format!("provider: builtin, builtin: {{listenPort: {port}}}"));
        let complaint = helm.template(&values).unwrap_err();
        assert!(complaint.contains(problem), "{port}: {complaint}");
    }
}

#[test]
fn a_changed_value_rolls_the_server_and_nothing_else_does() {
    let Some(helm) = Helm::new() else { return };
    let checksum = |values| {
        let rendered = helm.template(values).unwrap();
        text(&rendered.pod()["metadata"]["annotations"]["checksum/values"]).to_owned()
    };
    // Each rendering makes another certificate.
    assert_eq!(checksum(""), checksum(""));
    assert_ne!(checksum(""), checksum("server: {logging: {level: debug}}"));
}
