//! What the chart refuses before anything is installed.

use crate::harness::Helm;

/// The file that says `value` at `key`.
fn setting(key: &str, value: &str) -> String {
    let parts: Vec<_> = key.split('.').collect();
    let mut text = String::new();
    for (depth, part) in parts.iter().enumerate() {
        text.push_str(&format!(
            "{}{part}:{}",
            "  ".repeat(depth),
            if depth + 1 < parts.len() { "\n" } else { " " }
        ));
    }
    text + value + "\n"
}

#[test]
fn the_schema_refuses_what_one_value_alone_shows_to_be_wrong() {
    let Some(helm) = Helm::new() else { return };
    let cases = [
        ("server.apiService.prot", "1", "at '/server/apiService': additional properties 'prot' not allowed"),
        ("sever", "{}", "at '': additional properties 'sever' not allowed"),
        ("server.apiService.port", "'30345'", "at '/server/apiService/port': got string, want integer"),
        ("server.apiService.port", "65536", "at '/server/apiService/port': maximum: got 65,536, want 65,535"),
        ("server.apiService.port", "80.5", "at '/server/apiService/port': got number, want integer"),
        (
            "server.apiService.type",
            "nodePort",
            "value must be one of 'ClusterIP', 'NodePort', 'LoadBalancer'",
        ),
        (
            "server.apiService.address",
            "localhost",
            "at '/server/apiService/address': 'localhost' does not match",
        ),
        ("server.tls.insecure", "'yes'", "at '/server/tls/insecure': got string, want boolean"),
        ("server.tls.secretName", "No_name", "at '/server/tls/secretName': 'No_name' does not match"),
        (
            "server.leases.defaultLifetime",
            "3600",
            "at '/server/leases/defaultLifetime': got number, want string",
        ),
        (
            "server.leases.defaultLifetime",
            "'3600'",
            "at '/server/leases/defaultLifetime': '3600' does not match",
        ),
        (
            "server.resources.default.memory",
            "16 GB",
            "at '/server/resources/default/memory': '16 GB' does not",
        ),
        ("server.resources.gpuResource", "gpu", "at '/server/resources/gpuResource': 'gpu' does not match"),
        ("server.autoscaling.replicas", "5", "at '/server/autoscaling/replicas': got number, want object"),
        ("server.autoscaling.replicas.limits.minimum.lowerBound", "-1", "minimum: got -1, want 0"),
        ("server.autoscaling.metrics.gpuUtilization.threshold.maximum", "101", "maximum: got 101, want 100"),
        (
            "server.autoscaling.behavior.scaleUp.policies",
            "[{type: pods}]",
            "at '/server/autoscaling/behavior/scaleUp/policies/0/type': value must be one of",
        ),
        ("server.autoscaling.prometheus.ruleLabels.release", "1", "got number, want null or string"),
        ("server.logging.level", "verbose", "value must be one of 'error', 'warn', 'info', 'debug', 'trace'"),
        ("server.deployment.replicas", "0", "minimum: got 0, want 1"),
        ("server.deployment.tolerations", "[gpu]", "at '/server/deployment/tolerations/0': got string"),
        ("images.secrets", "pull", "at '/images/secrets': got string, want array"),
        ("images.server", "''", "at '/images/server': minLength: got 0, want 1"),
        ("kubernetes.namespace", "Models", "at '/kubernetes/namespace': 'Models' does not match"),
        ("kubernetes.customLabels.a", "1", "at '/kubernetes/customLabels/a': got number"),
    ];
    for (key, value, expected) in cases {
        let refusal = helm.template(&setting(key, value)).expect_err(key);
        assert!(refusal.contains(expected), "{key}: {value} gives\n{refusal}");
    }
}

#[test]
fn the_schema_accepts_every_way_to_write_what_is_right() {
    let Some(helm) = Helm::new() else { return };
    let cases = [
        ("server.leases.defaultLifetime", &["90s", "1h 30m", "2d", "PT2H", "1h30m", "+2h"][..]),
        ("server.resources.default.cpu", &["4", "'4'", "500m", "0.5", "1e0"]),
        ("server.resources.default.memory", &["2147483648", "2Gi", "2e9", "1.5Gi"]),
        ("server.autoscaling.behavior.scaleUp.tolerance", &["0", "0.05", "1", "~"]),
        ("kubernetes.customLabels", &["{}", "{a: b}"]),
        ("server.modelRepositories", &["{https: []}"]),
        ("global", &["{}", "{registry: example.com}"]),
    ];
    for (key, values) in cases {
        for value in values {
            helm.template(&setting(key, value)).unwrap_or_else(|refusal| panic!("{key}: {value}: {refusal}"));
        }
    }
}

#[test]
fn what_no_pod_could_run_with_is_refused_with_what_to_do() {
    let Some(helm) = Helm::new() else { return };
    let cases = [
        ("server.apiService", "{type: NodePort, port: 443}", "must be from 30000 to 32767"),
        ("server.apiService.port", "0", "server.apiService.port: 0: a Service needs a port"),
        ("server.apiService.port", "~", "server.apiService.port: 0: a Service needs a port"),
        ("server.apiService.port", "8080", "server.apiService.healthPort: 8080: must be another port"),
        ("server.deployment.replicas", "2", "server.deployment.replicas: 2: must be 1 with SQLite"),
        ("server.deployment.podLabels", "{app.kubernetes.io/name: x}", "server.deployment.podLabels"),
        (
            "server.tls.certificateFile",
            "/tls.crt",
            "name a Secret of type kubernetes.io/tls in server.tls.secretName",
        ),
        ("server.tls.clientCaFile", "/ca.crt", "name a Secret with ca.crt in server.tls.clientCaSecretName"),
        (
            "server.tls",
            "{insecure: true, clientCaSecretName: people}",
            "only where server.tls.insecure is false",
        ),
        ("server.database.passwordFile", "/password", "name a Secret in server.database.passwordSecret"),
        ("server.cluster.kubeconfig", "/kubeconfig", "uses its ServiceAccount"),
        ("server.tls", "~", "server.tls: its default is missing"),
        ("server", "~", "server: its default is missing"),
        ("images.server", "~", "images.server: its default is missing"),
        ("server.persistence.enabled", "~", "server.persistence.enabled: its default is missing"),
        (
            "server.metrics",
            "{podMonitor: {enabled: true}}",
            "server.metrics.podMonitor.enabled: needs server.metrics.enabled",
        ),
        (
            "server.metrics",
            "{enabled: true, alerts: {enabled: true}}",
            "server.metrics.alerts.enabled: needs server.metrics.podMonitor.enabled",
        ),
        ("server.metrics.alerts", "~", "server.metrics.alerts: its default is missing"),
        ("server.persistence.size", "~", "server.persistence.size: its default is missing"),
        ("server.deployment.replicas", "~", "server.deployment.replicas: its default is missing"),
        (
            "server.database.passwordSecret.key",
            "~",
            "server.database.passwordSecret.key: its default is missing",
        ),
    ];
    for (key, value, expected) in cases {
        let refusal = helm.template(&setting(key, value)).expect_err(key);
        assert!(refusal.contains(expected), "{key}: {value} gives\n{refusal}");
    }
}
