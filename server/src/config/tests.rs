use std::path::PathBuf;

use insta::assert_snapshot;
use secrecy::ExposeSecret;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::domain::bounds::{GpuSource, Provider};
use crate::domain::capabilities::Capabilities;
use crate::domain::scaling::MetricName;

/// The example of the guide to autoscaling, as it stands there.
const GUIDE: &str = include_str!("../../../tests/guide-autoscaling.yaml");

/// A directory of values files.
struct Files(TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = TempDir::new().unwrap();
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        Self(directory)
    }

    fn paths(&self) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    }

    /// What was found, with the directory taken out of the names of files.
    fn shown(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.0.path().display()), "")
    }
}

fn environment_of(variables: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    let variables: Vec<_> = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    variables.into_iter()
}

fn reading(files: &[(&str, &str)], variables: &[(&str, &str)]) -> (Option<Config>, String, String) {
    let files = Files::new(files);
    let reading = read(&files.paths(), environment_of(variables));
    let shown = |findings: &[Finding]| {
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        files.shown(&lines.join("\n"))
    };
    let (faults, warnings) = (shown(&reading.faults), shown(&reading.warnings));
    (reading.config, faults, warnings)
}

fn accepted(text: &str) -> (Config, String) {
    let (config, faults, warnings) = reading(&[("values.yaml", text)], &[]);
    assert_eq!(faults, "");
    (config.unwrap(), warnings)
}

fn refused(text: &str) -> String {
    let (config, faults, _) = reading(&[("values.yaml", text)], &[]);
    assert!(config.is_none(), "accepted:\n{text}");
    faults
}

/// The file that says `value` at `key`.
fn setting(key: &str, value: &str) -> String {
    let mut text = String::new();
    for (depth, part) in key.split('.').enumerate() {
        text.push_str(&format!("{}{part}:\n", "  ".repeat(depth)));
    }
    format!("{} {value}\n", text.trim_end())
}

#[test]
fn the_defaults_are_valid_without_a_warning() {
    let (config, warnings) = accepted("");
    assert_eq!(warnings, "");
    assert_eq!(config.listen.address.to_string(), "127.0.0.1:30345");
    assert_eq!(config.database.url, "sqlite://tms.db");
    assert_eq!(config.health_port, None);
    assert_eq!(config.cluster.kind, ClusterKind::Manifests { directory: "manifests".into() });
    assert_eq!(config.cluster.call_timeout, Duration::from_secs(10));
    assert_eq!(config.bounds.lifetime.default, SignedDuration::from_hours(1));
    assert_eq!(config.bounds.lifetime.maximum, SignedDuration::from_hours(168));
    assert_eq!(
        config.leases,
        Leases {
            load_timeout: SignedDuration::from_mins(30),
            maximum_per_owner: None,
            idle_window: SignedDuration::from_mins(30),
            look_interval: SignedDuration::from_mins(1),
            notices: vec![SignedDuration::from_mins(15), SignedDuration::from_mins(2)],
        }
    );
    assert_eq!(config.bounds.resources.default.memory, "16Gi");
    assert_eq!(config.bounds.default_image, "nvcr.io/nvidia/tritonserver:26.07-py3");
    assert_eq!(config.namespace, None);

    let autoscaling = &config.bounds.autoscaling;
    assert!(!autoscaling.enabled);
    assert_eq!((autoscaling.provider, autoscaling.gpu_source), (Provider::Adapter, GpuSource::Triton));
    assert_eq!(autoscaling.metrics.len(), MetricName::ALL.len());
    assert_eq!(autoscaling.behavior.scale_up.policies.len(), 2);
    assert_eq!(autoscaling.behavior.scale_down.tolerance_milli, None);

    let plan = config.plan_settings("one".into());
    assert_eq!(plan.installation, "one");
    assert_eq!(plan.server_image, "tms-server:0.1.0");
    assert_eq!((plan.scrape_interval_seconds, plan.window_seconds), (15, 60));
    assert_eq!((plan.pre_stop_seconds, plan.exit_timeout_seconds), (10, 60));
}

#[test]
fn a_list_of_no_notices_is_none() {
    assert_eq!(accepted("server: {leases: {notices: []}}").0.deadlines().notices, []);
}

#[test]
fn renewal_by_use_needs_a_cluster_that_is_observed() {
    assert_eq!(accepted("").0.bounds.automatic_renewal, None);
    let bounds = accepted("server: {cluster: {kind: kubernetes}}").0.bounds.automatic_renewal.unwrap();
    assert_eq!(bounds.minimum_idle_window(), SignedDuration::from_mins(3));
}

#[test]
fn every_default_may_be_allowed_without_a_warning() {
    let mut text = "server:\n  autoscaling:\n    enable: true\n    metrics:\n".to_owned();
    for metric in MetricName::ALL {
        text.push_str(&format!("      {}: {{allowed: true, enabled: true}}\n", metric.key()));
    }
    assert_eq!(accepted(&text).1, "");
}

#[test]
fn the_demo_is_valid_without_a_warning() {
    let (config, warnings) = accepted(include_str!("../../../helm/examples/demo.yaml"));
    assert_eq!(warnings, "");
    assert_eq!(config.listen.address.port(), 0);
    assert!(config.bounds.autoscaling.enabled);
}

#[test]
fn the_example_of_the_guide_is_accepted_unchanged() {
    let (config, warnings) = accepted(GUIDE);
    assert_eq!(warnings, "");
    let autoscaling = &config.bounds.autoscaling;
    assert_eq!((autoscaling.default_maximum, autoscaling.maximum), (5, 10));
    assert_eq!(autoscaling.metrics[&MetricName::GpuUtilization].default, 90);
    assert_eq!(autoscaling.metrics[&MetricName::GpuUtilization].maximum, Some(100));
    assert_eq!(autoscaling.metrics[&MetricName::QueueTime].maximum, None);
}

#[test]
fn the_example_of_the_guide_switched_on_warns_that_no_metric_is_usable() {
    let (config, warnings) = accepted(&GUIDE.replace("enable: false", "enable: true"));
    assert!(config.bounds.autoscaling.enabled);
    assert_snapshot!(warnings, @r"
    values.yaml:13:5: server.autoscaling.metrics
      no metric is enabled or allowed, so every request for autoscaling is refused [A11]
    ");
}

#[test]
fn both_spellings_of_the_guides_are_read() {
    let text = "
server:
  autoscaling:
    enabled: true
    metrics:
      gpuUtilization: {enable: true, allowed: true}
    prometheus:
      ruleLables: {team: vision}
";
    let (config, warnings) = accepted(text);
    assert_eq!(warnings, "");
    assert!(config.bounds.autoscaling.enabled);
    assert!(config.bounds.autoscaling.metrics[&MetricName::GpuUtilization].enabled);
    let labels = config.plan_settings(String::new()).rule_labels;
    assert_eq!(
        labels.into_iter().collect::<Vec<_>>(),
        [("release".to_owned(), "prometheus".to_owned()), ("team".to_owned(), "vision".to_owned())]
    );
}

#[test]
fn two_spellings_of_a_key_must_agree() {
    assert_eq!(accepted("server: {autoscaling: {enable: false, enabled: false}}").1, "");
    assert_snapshot!(refused("server: {autoscaling: {enable: true, enabled: false}}"), @r"
    values.yaml:1:38: server.autoscaling.enabled
      says otherwise than server.autoscaling.enable, which is the same key
      help: keep server.autoscaling.enable alone
    ");
    let metrics = "server: {autoscaling: {metrics: {queueTime: {enable: true, enabled: false}}}}";
    assert!(refused(metrics).contains("server.autoscaling.metrics.queueTime.enabled"));
    let labels = "server: {autoscaling: {prometheus: {ruleLables: {a: b}, ruleLabels: {a: c}}}}";
    assert!(refused(labels).contains("server.autoscaling.prometheus.ruleLabels"));
}

#[test]
fn a_broken_value_stops_the_start_with_its_key_and_rule() {
    let replicas = "server.autoscaling.replicas";
    let metrics = "server.autoscaling.metrics";
    let behavior = "server.autoscaling.behavior";
    let prometheus = "server.autoscaling.prometheus";
    let cases: &[(&str, &str, &str)] = &[
        (&format!("{replicas}.limits.maximum"), "0", "[A1]"),
        (&format!("{replicas}.limits.maximum"), "-1", "[A1]"),
        (&format!("{replicas}.limits.maximum"), "2.5", "[A1]"),
        (&format!("{replicas}.limits.maximum"), "many", "[A1]"),
        (&format!("{replicas}.limits.maximum"), "'10'", "without quotes [A1]"),
        (&format!("{replicas}.limits.maximum"), "2147483648", "[A1]"),
        (&format!("{replicas}.limits.maximum"), "99999999999999999999999", "[A1]"),
        (&format!("{replicas}.limits.minimum.lowerBound"), "0", "[A2]"),
        (&format!("{replicas}.limits.minimum.lowerBound"), "2", "[A3]"),
        (&format!("{replicas}.limits.minimum.upperBound"), "11", "[A3]"),
        (&format!("{replicas}.default.minimum"), "3", "[A3]"),
        (&format!("{replicas}.default.maximum"), "11", "[A4]"),
        (&format!("{replicas}.limits.maximum"), "4", "[A4]"),
        (&format!("{metrics}.gpuUtilization.threshold.minimum"), "81", "[A5]"),
        (&format!("{metrics}.gpuUtilization.threshold.default"), "86", "[A5]"),
        (&format!("{metrics}.queueTime.threshold.maximum"), "9999", "[A5]"),
        (&format!("{metrics}.gpuUtilization.threshold.maximum"), "0", "[A6]"),
        (&format!("{metrics}.cpuUtilization.threshold.maximum"), "0", "[A6]"),
        (&format!("{metrics}.queueTime.threshold.minimum"), "0", "[A7]"),
        (&format!("{metrics}.gpuUtilization.threshold.maximum"), "101", "[A8]"),
        (&format!("{metrics}.memoryUtilization.threshold.maximum"), "150", "[A8]"),
        (&format!("{metrics}.queueTime.threshold.maximum"), "9223372036854776", "[A10]"),
        (&format!("{metrics}.gpuUtilization.allowed"), "maybe", "true or false"),
        (&format!("{prometheus}.podMonitorLabels.release"), "pro metheus", "[A13]"),
        (&format!("{prometheus}.ruleLabels.release"), "1", "quotes"),
        (&format!("{prometheus}.ruleLabels.release"), "on", "quotes"),
        (&format!("{prometheus}.scrapeInterval"), "20s", "[A14]"),
        (&format!("{prometheus}.scrapeInterval"), "2m", "[A14]"),
        (&format!("{prometheus}.scrapeTimeout"), "16s", "[A14]"),
        (&format!("{prometheus}.window"), "59s", "[A14]"),
        (&format!("{prometheus}.window"), "60", "unit"),
        (&format!("{behavior}.scaleUp.stabilizationWindowSeconds"), "3601", "[A15]"),
        (&format!("{behavior}.scaleUp.policies"), "[]", "[A15]"),
        (&format!("{behavior}.scaleUp.selectPolicy"), "max", "[A15]"),
        (&format!("{behavior}.scaleDown.tolerance"), "-0.1", "[A15]"),
        ("server.autoscaling.provider", "hpa", "adapter, builtin or keda"),
        ("server.autoscaling.keda.prometheusUrl", "prometheus:9090", "must be a URL"),
        ("server.autoscaling.keda.pollingInterval", "0s", "from 1s to 1h"),
        ("server.autoscaling.keda.pollingInterval", "1500ms", "whole seconds"),
        ("server.autoscaling.keda.cooldownPeriod", "25h", "from 0s to 24h"),
        ("server.autoscaling.keda.triggers", "[{type: rabbitmq}]", "kind"),
        ("server.autoscaling.keda.triggers", "[{kind: orders}]", "type"),
        ("server.autoscaling.keda.triggers", "[{kind: queueTime, type: rabbitmq}]", "name of a metric"),
        ("server.autoscaling.keda.triggers", "[{kind: Orders, type: rabbitmq}]", "1 to 63"),
        ("server.autoscaling.keda.triggers", "[{kind: load, type: cpu}]", "cannot wake"),
        ("server.autoscaling.keda.triggers", "[{kind: a, type: b}, {kind: a, type: c}]", "must not repeat"),
        (
            "server.autoscaling.keda.triggers",
            "[{kind: a, type: b, metricType: Utilization}]",
            "AverageValue or Value",
        ),
        ("server.autoscaling.keda.triggers", "[{kind: a, type: b, metadata: {value: 5}}]", "quotes"),
        (
            "server.autoscaling.keda.triggers",
            "[{kind: a, type: b, leaseMetadata: {value: 5..1}}]",
            "a range of integers",
        ),
        (
            "server.autoscaling.keda.triggers",
            "[{kind: a, type: b, metadata: {value: '7'}, leaseMetadata: {value: 1..5}}]",
            "must be one of the integers from 1 to 5",
        ),
        ("server.autoscaling.keda.triggers", "[{kind: a, type: b, secret: c}]", "is not a key of TMS"),
        ("server.autoscaling.builtin.listenPort", "65536", "from 0 to 65535"),
        ("server.autoscaling.builtin.serviceName", "1st", "is not the name of a Service"),
        ("server.autoscaling.builtin.prometheusUrl", "prometheus:9090", "must be a URL"),
        ("server.autoscaling.builtin.prometheusUrl", "http://p/?q=1", "must be a URL"),
        ("server.autoscaling.builtin.prometheusUrl", "http://me:secret@p", "must not hold a user"),
        ("server.autoscaling.gpuSource", "nvml", "triton or dcgm"),
        ("server.autoscaling.replicas", "5", "must be a map"),
        ("server.apiService.port", "65536", "from 0 to 65535"),
        ("server.apiService.type", "nodePort", "ClusterIP, NodePort or LoadBalancer"),
        ("server.apiService.address", "localhost", "IP address"),
        ("server.apiService.address", "0.0.0.0", "TLS"),
        ("server.tls.clientCaFile", "ca.pem", "certificateFile"),
        ("server.tls.insecure", "1", "true or false"),
        ("server.database.url", "mysql://db/tms", "sqlite: or postgres:"),
        ("server.cluster.kind", "nomad", "manifests or kubernetes"),
        ("server.cluster.callsInFlight", "0", "from 1 to 1000"),
        ("server.cluster.manifests.directory", "''", "must be given"),
        ("server.leases.defaultLifetime", "3600", "unit"),
        ("server.leases.defaultLifetime", "an hour", "such as 90s"),
        ("server.leases.defaultLifetime", "30s", "minimumLifetime"),
        ("server.leases.maximumLifetime", "30m", "defaultLifetime"),
        ("server.leases.loadTimeout", "2d", "duration from"),
        ("server.leases.maximumPerOwner", "-1", "from 0"),
        ("server.leases.automaticRenewal.lookInterval", "0s", "from 1s to"),
        ("server.leases.automaticRenewal.lookInterval", "1500ms", "whole seconds"),
        ("server.leases.automaticRenewal.lookInterval", "11m", "must be at least 33m"),
        ("server.leases.automaticRenewal.idleWindow", "2m", "must be at least 3m"),
        ("server.leases.notices", "15m", "must be a list"),
        ("server.leases.notices", "[15m, soon]", "such as 90s"),
        ("server.leases.notices", "[1m, 2m, 3m, 4m, 5m, 6m, 7m, 8m, 9m]", "at most 8"),
        ("server.resources.default.gpus", "9", "server.resources.maximum.gpus"),
        ("server.resources.default.cpu", "65", "server.resources.maximum.cpu"),
        ("server.resources.default.memory", "16 GB", "quantity"),
        ("server.resources.default.memory", "16", "bytes"),
        ("server.resources.default.cpu", "-1", "more than nothing"),
        ("server.resources.default.sharedMemory", "17Gi", "server.resources.default.memory"),
        ("server.resources.maximum.memory", "8Gi", "server.resources.default.memory"),
        ("server.resources.gpuResource", "gpu", "extended resource"),
        ("server.modelRepositories.pvc", "models", "must be a list"),
        ("server.modelRepositories.pvc", "[models]", "must be a map"),
        (
            "server.modelRepositories.pvc",
            "[{claimName: Models, accessMode: ReadOnlyMany}]",
            "PersistentVolumeClaim",
        ),
        (
            "server.modelRepositories.pvc",
            "[{claimName: m, accessMode: ReadWriteOncePod}]",
            "ReadOnlyMany or ReadWriteMany",
        ),
        ("server.modelRepositories.pvc", "[{claimName: m}]", "accessMode\n  must be given"),
        (
            "server.modelRepositories.pvc",
            "[{claimName: m, accessMode: ReadOnlyMany}, {claimName: m, accessMode: ReadWriteOnce}]",
            "pvc[1].claimName: \"m\"\n  must not repeat server.modelRepositories.pvc[0].claimName",
        ),
        ("server.modelRepositories.https", "[{targetUri: h/a, secretName: Not}]", "name of a Secret"),
        (
            "server.modelRepositories.https",
            "[{targetUri: 'https://h/a', secretName: s}]",
            "without its scheme",
        ),
        (
            "server.modelRepositories.https",
            "[{targetUri: h/a/, secretName: s}, {targetUri: H/a, secretName: t}]",
            "must not repeat",
        ),
        (
            "server.modelRepositories.https",
            "[{targetURI: h/a, secretName: s}]",
            "did you mean server.modelRepositories.https[0].targetUri?",
        ),
        ("server.modelRepositories.allowHttp", "1", "true or false"),
        ("server.modelRepositories.maximumSize", "100", "bytes"),
        ("server.modelRepositories.maximumSize", "1048576500m", "whole bytes"),
        (
            "server.modelRepositories.maximumTotalSize",
            "1Gi",
            "must be at least server.modelRepositories.maximumSize",
        ),
        ("server.modelRepositories.maximumTotalSize", "100", "bytes"),
        ("server.triton.exitTimeoutSeconds", "0", "from 1 to 3600"),
        ("server.metrics.enabled", "1", "true or false"),
        ("server.metrics.podMonitor.enabled", "true", "needs server.metrics.enabled"),
        ("server.metrics.alerts.enabled", "true", "needs server.metrics.podMonitor.enabled"),
        ("server.metrics.dashboards.labels", "{a: '?'}", "label value"),
        ("server.metrics.listen", "localhost:1", "IP address and a port"),
        ("server.metrics.listen", "0.0.0.0:65536", "IP address and a port"),
        ("server.logging.level", "verbose", "error, warn, info, debug or trace"),
        ("server.apiService.healthPort", "30345", "server.apiService.port"),
        ("server.tls.secretName", "No_name", "name of an object"),
        ("server.tls.additionalNames", "[a b]", "host name"),
        ("server.database.passwordSecret.key", "''", "empty"),
        ("server.deployment.replicas", "2", "SQLite"),
        ("server.deployment.imagePullPolicy", "Sometimes", "Always, IfNotPresent or Never"),
        ("server.deployment.resources.limits.cpu", "much", "quantity"),
        ("server.deployment.podLabels", "{tms.internal/x: one}", "belongs to TMS"),
        ("server.deployment.tolerations", "[gpu]", "must be a map"),
        ("server.persistence.size", "big", "quantity"),
        ("images.triton", "''", "image"),
        ("images.secrets", "pull", "must be a list"),
        ("kubernetes.namespace", "TMS", "namespace"),
        ("kubernetes.partOf", "a b", "label value"),
        ("kubernetes.customLabels", "{tms.internal/lease-id: x}", "belongs to TMS"),
    ];
    for (key, value, expected) in cases {
        let faults = refused(&setting(key, value));
        let blames = |line: &str| line.starts_with("values.yaml:") && line.contains(&format!(": {key}"));
        assert!(faults.lines().any(blames), "{key}: {value} gives\n{faults}");
        assert!(faults.contains(expected), "{key}: {value} gives\n{faults}");
    }
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_one() {
    let cases = [
        ("sever.apiService.port", "sever", "server"),
        ("server.apiservice.port", "server.apiservice", "server.apiService"),
        ("server.apiService.prot", "server.apiService.prot", "server.apiService.port"),
        ("server.autoscaling.enalbe", "server.autoscaling.enalbe", "server.autoscaling.enable"),
        (
            "server.autoscaling.metrics.gpuUtilisation",
            "server.autoscaling.metrics.gpuUtilisation",
            "server.autoscaling.metrics.gpuUtilization",
        ),
        (
            "server.autoscaling.replicas.limits.min",
            "server.autoscaling.replicas.limits.min",
            "server.autoscaling.replicas.limits.minimum",
        ),
        ("kubernetes.labels", "kubernetes.labels", "kubernetes.customLabels"),
        ("server.port", "server.port", "server.apiService.port"),
        ("autoscaling.enable", "autoscaling", "server.autoscaling"),
    ];
    for (key, blamed, meant) in cases {
        let faults = refused(&setting(key, "1"));
        assert!(faults.contains(&format!(": {blamed}\n  is not a key of TMS")), "{faults}");
        assert!(faults.contains(&format!("did you mean {meant}?")), "{faults}");
    }
    assert_snapshot!(refused("server: {logging: {zzz: 1}}"), @r"
    values.yaml:1:20: server.logging.zzz
      is not a key of TMS
      help: known here: format, level
    ");
    let policy =
        "server: {autoscaling: {behavior: {scaleDown: {policies: [{type: Pods, value: 1, period: 60}]}}}}";
    assert_snapshot!(refused(policy), @r"
    values.yaml:1:58: server.autoscaling.behavior.scaleDown.policies[0].periodSeconds
      must be given
    values.yaml:1:81: server.autoscaling.behavior.scaleDown.policies[0].period
      is not a key of TMS
      help: did you mean server.autoscaling.behavior.scaleDown.policies[0].periodSeconds?
    ");
}

#[test]
fn keys_that_have_retired_only_warn() {
    let text = "
global: {registry: example.com}
images: {mongodb: mongo, rest: rest, sidecar: sidecar}
server:
  metrics: {enabled: true, reportingWindow: 1m, minimumVisibility: high}
  modelRepositories: {s3: []}
";
    assert_snapshot!(accepted(text).1, @r"
    values.yaml:2:1: global
      is Helm's own and means nothing to TMS
    values.yaml:3:10: images.mongodb
      has retired: leases are kept in server.database
    values.yaml:3:26: images.rest
      has retired: the server has no image for HTTP of its own
    values.yaml:3:38: images.sidecar
      has retired: the server's own image runs beside Triton
    values.yaml:5:28: server.metrics.reportingWindow
      has retired: the figures are counters, and whoever reads them chooses the window
    values.yaml:5:49: server.metrics.minimumVisibility
      has retired: all figures are served
    values.yaml:6:23: server.modelRepositories.s3
      is not read by this version, which has no object stores
    ");
}

#[test]
fn repositories_are_read_as_tms_wrote_them() {
    let text = "
server:
  modelRepositories:
    pvc:
      - {claimName: models, accessMode: ReadWriteMany}
    https:
      - secretName: ngc-model-pull
        targetUri: api.ngc.nvidia.com/v2
    maximumSize: 1.5Gi
";
    let (config, warnings) = accepted(text);
    assert_eq!(warnings, "");
    let repositories = &config.bounds.repositories;
    assert_eq!(repositories.claims[0].name, "models");
    assert!(!repositories.is_for_one_node("models"));
    assert_eq!(repositories.credentials[0].secret, "ngc-model-pull");
    assert_eq!((repositories.allows_http, repositories.maximum_bytes), (false, 3 << 29));
    assert_eq!(repositories.maximum_total_bytes, 3 << 30, "twice that of one");
    assert_eq!(config.plan_settings(String::new()).repositories, *repositories);
}

#[test]
fn yaml_that_cannot_be_read_is_refused_with_line_and_column() {
    assert_snapshot!(refused("server:\n  tls:\n    insecure: false\n  tls:\n    insecure: true\n"), @r"
    values.yaml:4:3
      gives the key tls twice
    ");
    assert_snapshot!(refused("server:\n  apiService: [1,\n"), @r"
    values.yaml:2:15
      is not valid YAML: unclosed bracket '['
    ");
    assert_snapshot!(refused("server:\n\tport: 1\n"), @r"
    values.yaml:2:2
      is not valid YAML: tabs disallowed within this context (block indentation)
    ");
    assert_snapshot!(refused("- 1\n"), @r"
    values.yaml:1:1
      must be a map, and is a list
    ");
}

#[test]
fn a_file_that_is_missing_is_refused_and_an_empty_one_is_not() {
    for text in ["", "\n", "# nothing\n", "---\n", "server:\n", "~\n"] {
        assert_eq!(accepted(text).1, "");
    }
    let Err(invalid) = load(&[PathBuf::from("no/such.yaml")], environment_of(&[])) else {
        panic!("accepted")
    };
    assert_snapshot!(invalid, @r"
    the configuration has 1 fault
    no/such.yaml
      cannot be read: No such file or directory (os error 2)
    ");
}

#[test]
fn a_later_file_wins_over_an_earlier_one_and_the_environment_over_both() {
    let files = [
        ("1.yaml", "server: {apiService: {port: 1}, cluster: {callsInFlight: 1, callsPerSecond: 1}}"),
        ("2.yaml", "server: {apiService: {port: 2}, cluster: {callsInFlight: 2}}"),
    ];
    let (config, faults, _) = reading(&files, &[("TMS__SERVER__APISERVICE__PORT", "3")]);
    assert_eq!(faults, "");
    let config = config.unwrap();
    assert_eq!(config.listen.address.port(), 3);
    assert_eq!((config.cluster.calls_in_flight, config.cluster.calls_per_second), (2, 1));
    assert_eq!(config.cluster.sweep_interval, Duration::from_secs(300));
}

#[test]
fn null_takes_the_layer_below_and_takes_a_label_away() {
    let files = [
        ("1.yaml", "server: {apiService: {port: 7}}\nkubernetes: {customLabels: {a: b, c: d}}"),
        ("2.yaml", "server: {apiService: {port: ~}}\nkubernetes: {customLabels: {a: ~}}"),
    ];
    let (config, faults, _) = reading(&files, &[]);
    assert_eq!(faults, "");
    let config = config.unwrap();
    assert_eq!(config.listen.address.port(), 7);
    assert_eq!(config.plan_settings(String::new()).custom_labels.into_keys().collect::<Vec<_>>(), ["c"]);
}

#[test]
fn a_variable_takes_the_type_of_its_key() {
    let variables = [
        ("TMS__KUBERNETES__PARTOF", "0123"),
        ("TMS__KUBERNETES__CUSTOMLABELS__team", "true"),
        ("TMS__KUBERNETES__CUSTOMANNOTATIONS", "{example.com/cost: '1'}"),
        ("TMS__SERVER__AUTOSCALING__ENABLED", "true"),
        ("TMS__SERVER__AUTOSCALING__METRICS__GPUUTILIZATION__ENABLE", "TRUE"),
        ("TMS__SERVER__AUTOSCALING__METRICS__GPUUTILIZATION__ALLOWED", "true"),
        ("TMS__SERVER__AUTOSCALING__BEHAVIOR__SCALEUP__TOLERANCE", "0.05"),
        ("TMS__SERVER__RESOURCES__DEFAULT__CPU", "2"),
        ("tms__server__leases__defaultLifetime", "90m"),
        ("TMS__IMAGES__SECRETS", "[one, two]"),
        // What Kubernetes says about a Service named tms-server is not for us.
        ("TMS_SERVER_PORT", "tcp://10.0.0.1:30345"),
        ("TMS_SERVER_SERVICE_HOST", "10.0.0.1"),
    ];
    let (config, faults, warnings) = reading(&[], &variables);
    assert_eq!((faults.as_str(), warnings.as_str()), ("", ""));
    let config = config.unwrap();
    let plan = config.plan_settings(String::new());
    assert_eq!(plan.part_of.as_deref(), Some("0123"));
    assert_eq!(plan.custom_labels["team"], "true");
    assert_eq!(plan.custom_annotations["example.com/cost"], "1");
    assert_eq!(plan.pull_secrets, ["one", "two"]);
    assert!(config.bounds.autoscaling.enabled);
    assert!(config.bounds.autoscaling.metrics[&MetricName::GpuUtilization].enabled);
    assert_eq!(config.bounds.autoscaling.behavior.scale_up.tolerance_milli, Some(50));
    assert_eq!(config.bounds.resources.default.cpu, "2");
    assert_eq!(config.bounds.lifetime.default, SignedDuration::from_mins(90));
}

#[test]
fn faults_of_the_environment_name_the_variable() {
    let variables = [
        ("TMS__SERVER__APISERVICE__PORT", "tcp://10.0.0.1:1"),
        ("TMS__SERVER__APISERVICE__PROT", "1"),
        ("TMS__SERVER__AUTOSCALING__ENABLE", "true"),
        ("TMS__SERVER__AUTOSCALING__ENABLED", "false"),
        ("TMS__IMAGES__SECRETS", "[one"),
        ("TMS__SERVER__DATABASE__PASSWORD", "hunter2"),
    ];
    assert_snapshot!(reading(&[], &variables).1, @r#"
    environment variable TMS__IMAGES__SECRETS
      is not valid YAML: unclosed bracket '['
    environment variable TMS__SERVER__APISERVICE__PORT: server.apiService.port: "tcp://10.0.0.1:1"
      must be an integer from 0 to 65535
    environment variable TMS__SERVER__APISERVICE__PROT: server.apiService.prot
      is not a key of TMS
      help: did you mean server.apiService.port?
    environment variable TMS__SERVER__AUTOSCALING__ENABLED: server.autoscaling.enable
      says otherwise than TMS__SERVER__AUTOSCALING__ENABLE, which sets the same key
      help: keep one of them
    environment variable TMS__SERVER__DATABASE__PASSWORD: server.database.password
      is not a key of TMS
      help: keep passwords out of values: server.database.passwordFile or TMS_DATABASE_PASSWORD
    "#);
}

#[test]
fn passwords_are_neither_read_from_values_nor_printed() {
    for url in ["postgres://tms:hunter2@db/tms", "postgres://tms@db/tms?sslmode=require&password=hunter2"] {
        let faults = refused(&setting("server.database.url", url));
        assert!(faults.contains("server.database.url\n  must not hold a password"), "{faults}");
        assert!(!faults.contains("hunter2"), "{faults}");
    }
    let faults = refused(&setting("server.database.password", "hunter2"));
    assert!(
        faults.contains("passwordFile or TMS_DATABASE_PASSWORD") && !faults.contains("hunter2"),
        "{faults}"
    );
    let faults = refused("server:\n  database:\n    password: hunter2\n   url: x\n");
    assert!(!faults.contains("hunter2"), "{faults}");

    let values = [("values.yaml", "server: {database: {url: 'postgres://tms@db/tms'}}")];
    let (config, _, _) = reading(&values, &[("TMS_DATABASE_PASSWORD", "hunter2")]);
    let config = config.unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    assert_eq!(config.database.password().unwrap().unwrap().expose_secret(), "hunter2");
}

#[test]
fn the_password_file_is_read_without_its_last_newline_and_yields_to_the_environment() {
    let files = Files::new(&[("password", "hunter2\n")]);
    let path = files.paths().remove(0);
    let values = setting("server.database.passwordFile", &path.display().to_string());
    let password = |variables: &[(&str, &str)]| {
        let (config, _, _) = reading(&[("values.yaml", values.as_str())], variables);
        config.unwrap().database.password().map(|password| password.unwrap().expose_secret().to_owned())
    };
    assert_eq!(password(&[]).unwrap(), "hunter2");
    assert_eq!(password(&[("TMS_DATABASE_PASSWORD", "hunter3")]).unwrap(), "hunter3");
    drop(files);
    assert!(password(&[]).unwrap_err().to_string().contains("server.database.passwordFile"));
}

#[test]
fn tls_takes_a_certificate_with_its_key() {
    let tls = |text: &str| format!("server:\n  apiService: {{address: 0.0.0.0}}\n  tls: {text}\n");
    let (config, warnings) = accepted(&tls("{certificateFile: c.pem, keyFile: k.pem, clientCaFile: a.pem}"));
    assert_eq!(warnings, "");
    assert_eq!(
        config.listen.tls,
        Some(Tls {
            certificate_file: "c.pem".into(),
            key_file: "k.pem".into(),
            client_ca_file: Some("a.pem".into())
        })
    );
    assert!(refused(&tls("{certificateFile: c.pem}")).contains(": server.tls.keyFile"));
    assert!(refused(&tls("{keyFile: k.pem}")).contains(": server.tls.certificateFile"));
    assert_snapshot!(accepted(&tls("{certificateFile: c.pem, keyFile: k.pem, clientCaFile: ''}")).1, @r#"
    values.yaml:3:49: server.tls.clientCaFile: ""
      names no authority of clients: whoever reaches the server is anonymous, and anonymous sees and releases the leases of all
    "#);
    assert_snapshot!(accepted(&tls("{insecure: true}")).1, @r"
    values.yaml:3:9: server.tls.insecure: true
      listens on 0.0.0.0 without TLS: everyone on the way can read and change what is said
    ");
}

#[test]
fn a_node_port_is_of_the_range_of_node_ports() {
    let faults = refused("server: {apiService: {type: NodePort, port: 8001}}");
    assert!(
        faults.contains("server.apiService.port: 8001\n  must be an integer from 30000 to 32767"),
        "{faults}"
    );
    assert_eq!(accepted("server: {apiService: {type: NodePort}}").1, "");
}

#[test]
fn thresholds_that_cannot_trigger_warn() {
    let metrics = |more: &str, metrics: &str| {
        accepted(&format!("server: {{autoscaling: {{enable: true{more}, metrics: {{{metrics}}}}}}}")).1
    };
    let gpu = |threshold: &str| format!("gpuUtilization: {{allowed: true, threshold: {threshold}}}");
    assert_snapshot!(metrics("", &gpu("{default: 91, maximum: 91}")), @r"
    values.yaml:1:92: server.autoscaling.metrics.gpuUtilization.threshold.default: 91
      can never add a replica: the mean would have to exceed 100.1 %, tolerance included; choose at most 85, or set server.autoscaling.behavior.scaleUp.tolerance [A9]
    ");
    assert_snapshot!(metrics("", &gpu("{default: 80, maximum: 90}")), @r"
    values.yaml:1:105: server.autoscaling.metrics.gpuUtilization.threshold.maximum: 90
      hardly ever adds a replica: the mean must exceed 99.0 %, tolerance included; choose at most 85, or set server.autoscaling.behavior.scaleUp.tolerance [A9]
    ");
    assert_eq!(metrics("", &gpu("{default: 85, maximum: 85}")), "");
    let tolerance = ", behavior: {scaleUp: {tolerance: 0.02}}";
    assert_eq!(metrics(tolerance, &gpu("{default: 90, maximum: 91}")), "");
    assert!(metrics(tolerance, &gpu("{default: 90, maximum: 99}")).contains("can never"));
    assert_snapshot!(metrics("", "queueTime: {enabled: true, threshold: {default: 3600000001}}"), @r"
    values.yaml:1:60: server.autoscaling.metrics.queueTime.enabled: true
      scales every autoscaled lease, and no lease can change that: it is not allowed [A12]
    values.yaml:1:87: server.autoscaling.metrics.queueTime.threshold.default: 3600000001
      is more than an hour; the unit is microseconds [A10]
    ");
}

#[test]
fn labels_that_nobody_selects_warn() {
    let text = "
server:
  autoscaling:
    enable: true
    metrics: {queueTime: {allowed: true}}
    prometheus: {podMonitorLabels: {release: ~}, ruleLabels: {release: ~}}
";
    assert_snapshot!(accepted(text).1, @r"
    values.yaml:6:18: server.autoscaling.prometheus.podMonitorLabels
      is empty: Prometheus probably selects no PodMonitors of TMS [A13]
    values.yaml:6:50: server.autoscaling.prometheus.ruleLabels
      is empty: Prometheus probably selects no PrometheusRules of TMS [A13]
    ");
}

#[test]
fn what_the_cluster_lacks_warns() {
    let text = "
server:
  cluster: {kind: kubernetes}
  autoscaling:
    enable: true
    metrics: {cpuUtilization: {allowed: true}, queueTime: {allowed: true}}
    behavior: {scaleUp: {tolerance: 0.05}}
";
    let (config, _) = accepted(text);
    let capabilities = Capabilities {
        kubernetes: Some((1, 34)),
        pod_monitor: true,
        prometheus_rule: false,
        scaled_object: false,
        custom_metrics: false,
        resource_metrics: false,
        custom_metrics_service: None,
    };
    let shown: Vec<String> =
        check_capabilities(&config, &capabilities).iter().map(ToString::to_string).collect();
    assert_snapshot!(shown.join("\n"), @r"
    cluster: server.autoscaling.enable
      is on, but the cluster does not serve PrometheusRule of monitoring.coreos.com/v1, without which leases do not scale [A16]
      help: install Prometheus Operator
    cluster: server.autoscaling.enable
      is on, but the cluster does not serve custom.metrics.k8s.io, without which leases do not scale [A16]
      help: install a custom-metrics adapter, such as prometheus-adapter
    cluster: server.autoscaling.enable
      is on, but the cluster does not serve metrics.k8s.io, without which leases do not scale [A16]
      help: install metrics-server
    cluster: server.autoscaling.behavior
      a tolerance needs Kubernetes 1.35 and is left out: the cluster is Kubernetes 1.34 [A15]
      help: remove it, or upgrade the cluster
    ");
    let everything =
        Capabilities { kubernetes: Some((1, 35)), resource_metrics: true, ..Capabilities::assumed() };
    assert_eq!(check_capabilities(&config, &everything), []);
    let (without, _) = accepted("");
    assert_eq!(check_capabilities(&without, &capabilities), []);
}

const BUILTIN: &str = "
server:
  cluster: {kind: kubernetes}
  autoscaling:
    enable: true
    provider: builtin
    metrics: {queueTime: {allowed: true}}
";

#[test]
fn custom_metrics_are_served_where_the_provider_is_builtin_and_pods_are_seen() {
    let (config, warnings) = accepted(BUILTIN);
    let served = config.custom_metrics.expect("they are served");
    assert_eq!(
        (served.address.to_string().as_str(), served.service_name.as_str()),
        ("127.0.0.1:30347", "tms-custom-metrics")
    );
    assert_eq!(
        (served.scrape_interval.as_secs(), served.scrape_timeout.as_secs(), served.window.as_secs()),
        (15, 10, 60)
    );
    assert_eq!((served.prometheus_url, warnings.as_str()), (None, ""));
    for other in ["provider: adapter", "enable: false, provider: builtin"] {
        let text = format!("server: {{cluster: {{kind: kubernetes}}, autoscaling: {{{other}}}}}");
        assert_eq!(accepted(&text).0.custom_metrics, None, "{other}");
    }
    let (config, warnings) = accepted(&BUILTIN.replace("kind: kubernetes", "kind: manifests"));
    assert_eq!(config.custom_metrics, None);
    assert!(warnings.contains("serves no metrics while server.cluster.kind is manifests"), "{warnings}");
}

#[test]
fn builtin_needs_a_prometheus_only_for_what_tritons_do_not_tell() {
    let dcgm = format!("{BUILTIN}    gpuSource: dcgm\n");
    assert_snapshot!(refused(&dcgm), @r#"
    values.yaml:8:5: server.autoscaling.gpuSource: "dcgm"
      is not possible with server.autoscaling.provider builtin and no Prometheus: Tritons do not tell what DCGM measures
      help: set server.autoscaling.builtin.prometheusUrl, or server.autoscaling.gpuSource: triton
    "#);
    let (config, _) =
        accepted(&format!("{dcgm}    builtin: {{prometheusUrl: 'https://prometheus.monitoring:9090/at'}}\n"));
    let lacking = Capabilities { pod_monitor: false, ..Capabilities::assumed() };
    assert_eq!(check_capabilities(&config, &lacking).len(), 1, "Prometheus has to find the Tritons");
    let nothing = Capabilities { kubernetes: Some((1, 33)), ..Capabilities::unknown() };
    assert_eq!(check_capabilities(&accepted(BUILTIN).0, &nothing), []);
}

#[test]
fn custom_metrics_have_a_port_of_their_own() {
    let text = format!("{BUILTIN}    builtin: {{listenPort: 30345}}\n");
    assert!(
        refused(&text).contains("must be another port than server.apiService.port"),
        "{}",
        refused(&text)
    );
    accepted(&text.replace("provider: builtin", "provider: adapter"));
}

#[test]
fn check_prints_every_fault_and_warning_at_once() {
    let text = "\
global: {}
server:
  apiService:
    port: 70000
    adress: 127.0.0.1
  database:
    url: postgres://tms:hunter2@db/tms
  leases:
    defaultLifetime: 90
  autoscaling:
    enabled: 'yes'
    replicas:
      default: {minimum: 3}
      limits: {maximum: 4}
    metrics:
      gpuUtilization:
        threshold: {default: 0, maximum: 200}
    prometheus:
      podMonitorLabels: {app.kubernetes.io/part-of: x}
";
    let files = Files::new(&[("values.yaml", text)]);
    let report = check::check(&files.paths(), environment_of(&[]));
    assert_eq!(report.exit_code(), 1);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    report.write(&mut out, &mut err).unwrap();
    assert_snapshot!(files.shown(&String::from_utf8(err).unwrap()), @r#"
    error: values.yaml:4:5: server.apiService.port: 70000
      must be an integer from 0 to 65535
    error: values.yaml:5:5: server.apiService.adress
      is not a key of TMS
      help: did you mean server.apiService.address?
    error: values.yaml:7:5: server.database.url
      must not hold a password
      help: give the password by server.database.passwordFile or TMS_DATABASE_PASSWORD
    error: values.yaml:9:5: server.leases.defaultLifetime: 90
      must be a duration from 1s to 87600h, with its unit, such as 90s or 1h
    error: values.yaml:11:5: server.autoscaling.enable: "yes"
      must be true or false, without quotes
    error: values.yaml:13:17: server.autoscaling.replicas.default.minimum: 3
      must be at most server.autoscaling.replicas.limits.minimum.upperBound, which is 2 (default) [A3]
      help: lower it, or set server.autoscaling.replicas.limits.minimum.upperBound too
    error: values.yaml:14:16: server.autoscaling.replicas.limits.maximum: 4
      must be at least server.autoscaling.replicas.default.maximum, which is 5 (default) [A4]
      help: raise it, or set server.autoscaling.replicas.default.maximum too
    error: values.yaml:17:21: server.autoscaling.metrics.gpuUtilization.threshold.default: 0
      must be an integer from 1 to 100 [A7]
    error: values.yaml:17:33: server.autoscaling.metrics.gpuUtilization.threshold.maximum: 200
      must be an integer from 1 to 100 [A8]
    error: values.yaml:19:26: server.autoscaling.prometheus.podMonitorLabels.app.kubernetes.io/part-of
      must not be set: kubernetes.partOf sets it [A13]
    warning: values.yaml:1:1: global
      is Helm's own and means nothing to TMS
    "#);
    assert_snapshot!(String::from_utf8(out).unwrap(), @r"10 faults, 1 warning");
}

#[test]
fn check_ends_well_where_there_are_only_warnings() {
    let printed = |text: &str| {
        let files = Files::new(&[("values.yaml", text)]);
        let report = check::check(&files.paths(), environment_of(&[]));
        let (mut out, mut err) = (Vec::new(), Vec::new());
        report.write(&mut out, &mut err).unwrap();
        (report.exit_code(), String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    };
    assert_eq!(printed(""), (0, "ok\n".to_owned(), String::new()));
    let (code, out, err) = printed("global: {}");
    assert_eq!((code, out.as_str()), (0, "ok, with 1 warning\n"));
    assert!(err.starts_with("warning: "), "{err}");
}

/// The schema at a key, whose list items are written `list[]`.
fn schema_at(key: &str) -> serde_json::Value {
    let mut found: serde_json::Value = serde_json::from_str(&schema::schema()).unwrap();
    for part in key.split('.') {
        let (name, items) = part.strip_suffix("[]").map_or((part, false), |name| (name, true));
        found = found["properties"][name].clone();
        if items {
            found = found["items"].clone();
        }
    }
    found
}

#[test]
fn the_schema_of_the_chart_is_the_one_that_the_server_prints() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../helm/values.schema.json");
    assert!(
        std::fs::read_to_string(path).unwrap() == schema::schema(),
        "cargo run --package tms-server -- schema > helm/values.schema.json"
    );
}

#[test]
fn the_schema_demands_what_the_reader_demands() {
    let cases = [
        ("server.apiService.port", json!({"type": "integer", "minimum": 0, "maximum": 65535})),
        ("server.apiService.address", json!({"type": "string", "pattern": "^[0-9a-fA-F.:]+$"})),
        ("server.logging.format", json!({"type": "string", "enum": ["text", "json"]})),
        ("server.tls.insecure", json!({"type": "boolean"})),
        ("images.server", json!({"type": "string", "minLength": 1})),
        ("kubernetes.partOf", json!({"type": "string"})),
        (
            "server.autoscaling.metrics.queueTime.threshold.maximum",
            json!({"type": "integer", "minimum": 0, "maximum": 9_223_372_036_854_775_i64}),
        ),
        // The spelling of the guides, beside that of values.yaml.
        ("server.autoscaling.metrics.queueTime.enable", json!({"type": "boolean"})),
        // Null is its default.
        (
            "server.autoscaling.behavior.scaleUp.tolerance",
            json!({"type": ["number", "null"], "minimum": 0, "maximum": 1}),
        ),
        (
            "server.autoscaling.behavior.scaleUp.policies[].value",
            json!({"type": "integer", "minimum": 1, "maximum": i32::MAX}),
        ),
        (
            "server.autoscaling.prometheus.ruleLables",
            json!({"type": "object", "additionalProperties": {"type": ["string", "null"]}}),
        ),
        // A list that is empty by default.
        ("server.tls.additionalNames[]", json!({"type": "string", "minLength": 1})),
        ("server.deployment.tolerations[]", json!({"type": "object"})),
        ("images.rest", json!({"description": "has retired: the server has no image for HTTP of its own"})),
    ];
    for (key, expected) in cases {
        assert_eq!(schema_at(key), expected, "{key}");
    }
    for map in ["server", "server.apiService", "server.autoscaling.behavior.scaleUp.policies[]"] {
        assert_eq!(schema_at(map)["additionalProperties"], json!(false), "{map}");
    }
}

#[test]
fn every_key_of_the_schema_is_read_by_the_server() {
    fn unread(schema: &serde_json::Value, key: &str, found: &mut Vec<String>) {
        for (name, below) in schema["properties"].as_object().into_iter().flatten() {
            let key = shape::join(key, name);
            let is_known = below.get("type").is_some() || below.get("description").is_some();
            if !is_known {
                found.push(key.clone());
            }
            unread(below, &key, found);
        }
    }
    let mut found = Vec::new();
    unread(&serde_json::from_str(&schema::schema()).unwrap(), "", &mut found);
    assert_eq!(found, [""; 0]);
}

#[test]
fn keda_is_a_provider_with_a_prometheus_and_lets_leases_sleep() {
    let values = |more: &str| {
        format!(
            "server: {{autoscaling: {{enable: true, provider: keda, replicas: {{limits: {{minimum: {{lowerBound: 0}}}}}}, \
             metrics: {{queueTime: {{allowed: true}}}}{more}}}}}"
        )
    };
    assert!(
        refused(&values("")).contains("server.autoscaling.keda.prometheusUrl"),
        "{}",
        refused(&values(""))
    );
    let triggers = "{kind: orders, type: rabbitmq, authenticationName: rabbitmq, metadata: {mode: QueueLength}, \
                    leaseMetadata: {queueName: orders-*, value: 1..100}}";
    let keda = format!(", keda: {{prometheusUrl: 'http://prometheus:9090', triggers: [{triggers}]}}");
    let (config, warnings) = accepted(&values(&keda));
    assert_eq!(warnings, "");
    let bounds = &config.bounds.autoscaling;
    assert_eq!((bounds.provider, bounds.minimum_lower_bound), (Provider::Keda, 0));
    let [trigger] = bounds.triggers.as_slice() else { panic!("{:?}", bounds.triggers) };
    assert_eq!(trigger.authentication.as_ref().map(|it| it.name.as_str()), Some("rabbitmq"));
    assert!(trigger.settable["queueName"].admits("orders-eu") && trigger.settable["value"].admits("20"));
    let plan = config.plan_settings("one".into());
    assert_eq!((plan.keda.polling_interval_seconds, plan.keda.cooldown_seconds), (15, 300));
}
