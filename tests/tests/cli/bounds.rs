//! Autoscaling by TMS's own guide: its example of a values.yaml, and its two lines of the command line.

use crate::assert_shows;
use crate::faults::GUIDE;
use crate::harness::{CREATE, Place};

#[test]
fn the_example_of_the_guide_enabled_starts_with_a_warning_and_refuses_every_autoscaled_lease() {
    let place = Place::new(&GUIDE.replace("enable: false", "enable: true"));
    assert_shows!(place.check_config().whole(), @r"
    ok, with 1 warning
    warning: values.yaml:13:5: server.autoscaling.metrics
      no metric is enabled or allowed, so every request for autoscaling is refused [A11]
    exit 0
    ");
    let server = place.start();
    assert!(place.log().contains("WARN values.yaml"), "{}", place.log());

    let person = server.person();
    assert!(person.tmsctl(CREATE).done().contains("WRITTEN"), "one without autoscaling is not refused");
    assert_shows!(person.tmsctl(&format!("{CREATE} --enable-autoscaling")).whole(), @r"
    fatal: no metric scales the lease and none may be chosen for it: the administrator has to set server.autoscaling.metrics.<metric>.allowed or .enabled to true for one of cpuUtilization, memoryUtilization, gpuUtilization, gpuMemoryUtilization, queueTime (server.autoscaling.metrics) (spec.autoscaling.metrics @ Acquire)
    hint: look at the flags of the metrics, such as --autoscaling-queue-time; `tmsctl server bounds` shows what this server allows
    exit 1
    ");
    assert_shows!(person.tmsctl(&format!("{CREATE} --enable-autoscaling --autoscaling-queue-time")).whole(), @r#"
    fatal: a change of queueTime asked, but leases are not allowed to change it (server.autoscaling.metrics.queueTime.allowed) (spec.autoscaling.metrics["queueTime"] @ Acquire)
    hint: look at --autoscaling-queue-time; `tmsctl server bounds` shows what this server allows
    exit 1
    "#);
    assert_shows!(person.tmsctl("server bounds").done(), @r"
    Image  nvcr.io/nvidia/tritonserver:26.07-py3
    Models  https://; 100.00 GiB each, 200.00 GiB in all
    Lifetime  1m to 7d, 1h by default
    Replicas  up to 10 where fixed, 1 by default
    GPU  nvidia.com/gpu
    Autoscaling fewest 1 to 2, 1 by default; most 10, 5 by default; by adapter

    Resources of a replica
               GPUS  CPU  MEMORY
      default  1  4  16Gi
      most  8  64  512Gi

    Metrics and their thresholds
      METRIC  ALLOWED  ENABLED  DEFAULT  RANGE
      cpuUtilization  no  no  90%  50% to 100%
      gpuMemoryUtilization  no  no  80%  50% to 85%
      gpuUtilization  no  no  90%  50% to 100%
      memoryUtilization  no  no  80%  50% to 85%
      queueTime  no  no  10ms  10ms or more
    ");
}

#[test]
fn the_example_of_the_guide_as_it_stands_allows_no_autoscaling() {
    let place = Place::new(GUIDE);
    let server = place.start();
    assert_shows!(server.person().tmsctl(&format!("{CREATE} --enable-autoscaling")).whole(), @r"
    fatal: autoscaling asked, but the administrator has not enabled it (server.autoscaling.enable) (spec.autoscaling @ Acquire)
    fatal: no metric scales the lease and none may be chosen for it: the administrator has to set server.autoscaling.metrics.<metric>.allowed or .enabled to true for one of cpuUtilization, memoryUtilization, gpuUtilization, gpuMemoryUtilization, queueTime (server.autoscaling.metrics) (spec.autoscaling.metrics @ Acquire)
    hint: look at --enable-autoscaling, the flags of the metrics, such as --autoscaling-queue-time; `tmsctl server bounds` shows what this server allows
    exit 1
    ");
}

#[test]
fn with_a_metric_allowed_the_lines_of_the_guide_do_what_it_says() {
    let values = GUIDE.replace("enable: false", "enable: true").replacen(
        "allowed: false\n        enabled: false",
        "allowed: true\n        enabled: true",
        1,
    );
    assert_ne!(values.matches("enabled: true").count(), 0);
    let place = Place::new(&values);
    let server = place.start();
    let person = server.person();
    // `$MODEL_OPTIONS` stands for a model, and the tool's name is misspelled `tmscl` there.
    for (flags, range) in [
        ("--enable-autoscaling", "(1-5)"),
        ("--enable-autoscaling --autoscaling-max-replicas 4", "(1-4)"),
        ("--enable-autoscaling --autoscaling-max-replicas 10", "(1-10)"),
    ] {
        person.tmsctl(&format!("{CREATE} {flags}")).done();
        let listed = person.tmsctl("lease list").done();
        assert!(listed.lines().nth(1).unwrap().contains(range), "{listed}");
    }
    let said = person.tmsctl(&format!("{CREATE} --enable-autoscaling --autoscaling-max-replicas 11"));
    assert_shows!(said.whole(), @r"
    fatal: 11 replicas asked, at most 10 are allowed (server.autoscaling.replicas.limits.maximum) (spec.autoscaling.max_replicas @ Acquire)
    hint: look at --autoscaling-max-replicas; `tmsctl server bounds` shows what this server allows
    exit 1
    ");
    person.tmsctl(CREATE).done();
    assert!(!person.tmsctl("lease list").done().lines().nth(1).unwrap().contains('-'), "not autoscaled");
}
