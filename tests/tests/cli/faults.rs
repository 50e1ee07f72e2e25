//! Broken configurations: the server does not start, and says which key on which line, and all of it at once.

use crate::assert_shows;
use crate::harness::{Place, VALUES};

/// The example of TMS's guide to autoscaling, as it stands there.
pub const GUIDE: &str = include_str!("../../guide-autoscaling.yaml");

/// A line of the example, what stands there instead, and the key that must be named.
const BROKEN: [(usize, &str, &str); 36] = [
    // What is not a value of its kind.
    (3, "    enable: perhaps", "server.autoscaling.enable"),
    (4, "    enabled: false\n    replicas:", "server.autoscaling.enable"),
    (6, "        minimum: one", "server.autoscaling.replicas.default.minimum"),
    (6, "        minimum: 1.5", "server.autoscaling.replicas.default.minimum"),
    (6, "        minimum: [1]", "server.autoscaling.replicas.default.minimum"),
    (9, "        maximum: 2147483648", "server.autoscaling.replicas.limits.maximum"),
    (15, "        allowed: 1", "server.autoscaling.metrics.cpuUtilization.allowed"),
    (18, "          default: ninety", "server.autoscaling.metrics.cpuUtilization.threshold.default"),
    // What is out of order.
    (6, "        minimum: 0", "server.autoscaling.replicas.default.minimum"),
    (6, "        minimum: 3", "server.autoscaling.replicas.default.minimum"),
    (6, "        minimum: -1", "server.autoscaling.replicas.default.minimum"),
    (7, "        maximum: 11", "server.autoscaling.replicas.default.maximum"),
    (7, "        maximum: 0", "server.autoscaling.replicas.default.maximum"),
    (9, "        maximum: 4", "server.autoscaling.replicas"),
    (9, "        maximum: 0", "server.autoscaling.replicas.limits.maximum"),
    (11, "          lowerBound: 0", "server.autoscaling.replicas.limits.minimum.lowerBound"),
    (11, "          lowerBound: 3", "server.autoscaling.replicas.limits.minimum.lowerBound"),
    (12, "          upperBound: 11", "server.autoscaling.replicas.limits.minimum.upperBound"),
    // Thresholds.
    (18, "          default: 40", "server.autoscaling.metrics.cpuUtilization.threshold"),
    (18, "          default: 101", "server.autoscaling.metrics.cpuUtilization.threshold.default"),
    (19, "          minimum: 0", "server.autoscaling.metrics.cpuUtilization.threshold.minimum"),
    (20, "          maximum: 0", "server.autoscaling.metrics.cpuUtilization.threshold.maximum"),
    (20, "          maximum: 80", "server.autoscaling.metrics.cpuUtilization.threshold"),
    (27, "          maximum: 120", "server.autoscaling.metrics.gpuUtilization.threshold.maximum"),
    (32, "          default: 9999", "server.autoscaling.metrics.queueTime.threshold"),
    (33, "          minimum: -5", "server.autoscaling.metrics.queueTime.threshold.minimum"),
    (34, "          maximum: 5000", "server.autoscaling.metrics.queueTime.threshold"),
    (34, "          maximum: 9999999999999999", "server.autoscaling.metrics.queueTime.threshold.maximum"),
    // Labels that Kubernetes would refuse, or that belong to TMS.
    (37, "        release: \"two words\"", "server.autoscaling.prometheus.podMonitorLabels"),
    (39, "        tms.internal/lease-id: mine", "server.autoscaling.prometheus.ruleLabels"),
    // Keys that do not exist, or are there twice; text that is not YAML.
    (4, "    replica:", "server.autoscaling.replica"),
    (14, "      cpuUtilisation:", "server.autoscaling.metrics.cpuUtilisation"),
    (18, "          defualt: 90", "server.autoscaling.metrics.cpuUtilization.threshold.defualt"),
    (7, "        minimum: 2", "key minimum twice"),
    (13, "    metrics: }", "YAML"),
    (2, "\tautoscaling:", "YAML"),
];

fn broken(line: usize, text: &str) -> String {
    let guide = GUIDE.replace("enable: false", "enable: true");
    let lines = guide.lines().enumerate().map(|(at, old)| if at + 1 == line { text } else { old });
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_broken_example_of_the_guide_stops_the_start_with_its_key_and_line() {
    for (line, text, key) in BROKEN {
        let place = Place::new(&broken(line, text));
        for said in [place.refused(), place.check_config()] {
            assert_eq!(said.code, 1, "{text}: {}", said.whole());
            let place = format!("values.yaml:{line}:");
            assert!(said.err.contains(&place), "{text} is not found at {place} {}", said.err);
            assert!(said.err.contains(key), "{text} does not name {key}: {}", said.err);
        }
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let mut values = GUIDE.replace("enable: false", "enable: perhaps");
    for (good, bad) in [
        ("        maximum: 5", "        maximum: 11"),
        ("cpuUtilization", "cpuUtilisation"),
        ("          maximum: 0", "          maximum: 5000"),
        ("lowerBound: 1", "lowerBound: none"),
    ] {
        values = values.replacen(good, bad, 1);
    }
    values += "  leases: {defaultLifetime: 3600, loadTimeout: 5s}\n  cluster: {kind: nomad}\nimage: {}\n";
    let place = Place::new(&values);
    let said = place.check_config();
    assert_shows!(said.whole(), @r#"
    10 faults
    error: values.yaml:3:5: server.autoscaling.enable: "perhaps"
      must be true or false
    error: values.yaml:7:9: server.autoscaling.replicas.default.maximum: 11
      must be at most server.autoscaling.replicas.limits.maximum, which is 10 (values.yaml:9:9) [A4]
    error: values.yaml:11:11: server.autoscaling.replicas.limits.minimum.lowerBound: "none"
      must be an integer from 0 to 2147483647 [A1]
    error: values.yaml:14:7: server.autoscaling.metrics.cpuUtilisation
      is not a key of TMS
      help: did you mean server.autoscaling.metrics.cpuUtilization?
    error: values.yaml:32:11: server.autoscaling.metrics.queueTime.threshold.default: 10000
      must be at most server.autoscaling.metrics.queueTime.threshold.maximum, which is 5000 (values.yaml:34:11) [A5]
    error: values.yaml:33:11: server.autoscaling.metrics.queueTime.threshold.minimum: 10000
      must be at most server.autoscaling.metrics.queueTime.threshold.maximum, which is 5000 (values.yaml:34:11) [A5]
    error: values.yaml:40:12: server.leases.defaultLifetime: 3600
      must be a duration from 1s to 87600h, with its unit, such as 90s or 1h
    error: values.yaml:40:35: server.leases.loadTimeout: "5s"
      must be a duration from 1m to 24h
    error: values.yaml:41:13: server.cluster.kind: "nomad"
      must be manifests or kubernetes
    error: values.yaml:42:1: image
      is not a key of TMS
      help: did you mean images?
    exit 1
    "#);
    let started = place.refused();
    let of = |said: &str| said.lines().filter(|line| line.contains("values.yaml:")).count();
    assert_eq!((started.code, of(&started.err)), (1, of(&said.err)), "{}", started.err);
}

#[test]
fn files_that_are_missing_and_variables_that_are_wrong_are_named() {
    let place = Place::new(VALUES).variable("TMS__SERVER__APISERVICE__ADDRESS", "everywhere");
    assert_shows!(place.check_config().whole(), @r#"
    1 fault
    error: environment variable TMS__SERVER__APISERVICE__ADDRESS: server.apiService.address: "everywhere"
      must be an IP address, such as 127.0.0.1, 0.0.0.0 or ::
    exit 1
    "#);
    let place = Place::new(VALUES).variable("TMS__SERVER__APISERVICE__PROT", "1");
    assert_shows!(place.check_config().whole(), @r"
    1 fault
    error: environment variable TMS__SERVER__APISERVICE__PROT: server.apiService.prot
      is not a key of TMS
      help: did you mean server.apiService.port?
    exit 1
    ");
    let place = Place::new(VALUES);
    std::fs::remove_file(place.path("values.yaml")).unwrap();
    assert_shows!(place.check_config().whole(), @r"
    1 fault
    error: values.yaml
      cannot be read: No such file or directory (os error 2)
    exit 1
    ");
}
