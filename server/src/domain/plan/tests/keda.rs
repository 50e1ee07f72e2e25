//! What KEDA is told of a lease.

use super::*;
use crate::domain::scaling::{AuthenticationKind, Trigger, TriggerAuthentication, TriggerMetric};

fn keda() -> Settings {
    Settings { provider: Provider::Keda, ..settings() }
}

/// A lease that may sleep, and that the length of a queue wakes.
fn sleepy() -> Lease {
    let Scaling::Auto(mut autoscaling) =
        auto([(MetricName::CpuUtilization, 75), (MetricName::QueueTime, 10_000)])
    else {
        panic!("it is autoscaled")
    };
    autoscaling.minimum = 0;
    autoscaling.triggers = vec![Trigger {
        kind: "orders".to_owned(),
        trigger_type: "rabbitmq".to_owned(),
        metric_type: TriggerMetric::AverageValue,
        authentication: Some(TriggerAuthentication {
            kind: AuthenticationKind::TriggerAuthentication,
            name: "rabbitmq".to_owned(),
        }),
        fixed: texts([("mode", "QueueLength"), ("value", "20")]),
        metadata: texts([("queueName", "orders-eu"), ("value", "5")]),
    }];
    lease(spec(1, Scaling::Auto(autoscaling)), &keda())
}

fn scaled_object(lease: &Lease) -> Value {
    let plan = plan(lease, &keda(), &Capabilities::assumed());
    assert_eq!(find(&plan, Kind::HorizontalPodAutoscaler), None, "never both");
    find(&plan, Kind::ScaledObject).unwrap().clone()
}

#[test]
fn keda_gets_a_scaled_object_in_place_of_the_autoscaler() {
    insta::assert_snapshot!(to_yaml(&scaled_object(&sleepy())), @r#"
    apiVersion: keda.sh/v1alpha1
    kind: ScaledObject
    metadata:
      name: tms-0123456789abcdef0123456789abcdef
      namespace: tms
      annotations:
        example.com/contact: vision@example.com
        scaledobject.keda.sh/transfer-hpa-ownership: "true"
        tms.internal/generation: "1"
        tms.internal/triggers: cpuUtilization,queueTime,orders
      labels:
        app.kubernetes.io/managed-by: tms
        app.kubernetes.io/name: triton
        app.kubernetes.io/part-of: inference
        experiment: "42"
        team: vision
        tms.internal/installation: main
        tms.internal/lease-id: 0123456789abcdef0123456789abcdef
    spec:
      advanced:
        horizontalPodAutoscalerConfig:
          name: tms-0123456789abcdef0123456789abcdef
          behavior:
            scaleDown:
              policies:
              - type: Pods
                periodSeconds: 120
                value: 1
              selectPolicy: Min
              stabilizationWindowSeconds: 300
            scaleUp:
              policies:
              - type: Percent
                periodSeconds: 60
                value: 100
              - type: Pods
                periodSeconds: 60
                value: 2
              selectPolicy: Max
              stabilizationWindowSeconds: 15
      cooldownPeriod: 300
      maxReplicaCount: 5
      minReplicaCount: 0
      pollingInterval: 15
      scaleTargetRef:
        name: tms-0123456789abcdef0123456789abcdef
      triggers:
      - metadata:
          containerName: triton
          value: "75"
        name: cpuUtilization
        type: cpu
        metricType: Utilization
      - metadata:
          activationThreshold: "0"
          ignoreNullValues: "false"
          query: |-
            clamp_min(
              sum(tms_avg_request_queue_duration{namespace="tms",tms_lease_id="0123456789abcdef0123456789abcdef"}),
              scalar(clamp_max(
                sum(tms_avg_request_queue_duration{namespace="tms",tms_lease_id="0123456789abcdef0123456789abcdef"}) + 10000 * (count(up{job="tms/tms-0123456789abcdef0123456789abcdef"} unless on (namespace, pod) tms_avg_request_queue_duration{namespace="tms",tms_lease_id="0123456789abcdef0123456789abcdef"}) or vector(0)),
                10000 * scalar(count(tms_avg_request_queue_duration{namespace="tms",tms_lease_id="0123456789abcdef0123456789abcdef"}) + (count(up{job="tms/tms-0123456789abcdef0123456789abcdef"} unless on (namespace, pod) tms_avg_request_queue_duration{namespace="tms",tms_lease_id="0123456789abcdef0123456789abcdef"}) or vector(0)))
              ))
            )
            or
            sum(0 * absent(up{job="tms/tms-0123456789abcdef0123456789abcdef"}) and on () (count(up offset 5m) > 0))
          serverAddress: http://prometheus.monitoring.svc:9090
          threshold: "10000"
        name: queueTime
        type: prometheus
        metricType: AverageValue
      - metadata:
          mode: QueueLength
          queueName: orders-eu
          value: "5"
        name: orders
        type: rabbitmq
        authenticationRef:
          kind: TriggerAuthentication
          name: rabbitmq
        metricType: AverageValue
    "#);
}

#[test]
fn a_lease_that_wakes_is_held_awake_until_it_is() {
    let mut lease = sleepy();
    let annotation =
        |object: &Value| object["metadata"]["annotations"]["autoscaling.keda.sh/force-activation"].clone();
    let asleep = scaled_object(&lease);
    assert_eq!((asleep["spec"]["minReplicaCount"].as_i64(), annotation(&asleep)), (Some(0), Value::Null));
    lease.waking_since = Some(Timestamp::UNIX_EPOCH);
    let waking = scaled_object(&lease);
    assert_eq!((waking["spec"]["minReplicaCount"].as_i64(), annotation(&waking)), (Some(1), "true".into()));
}

#[test]
fn models_that_hold_gpu_memory_keep_no_lease_awake_and_what_keeps_its_replicas_has_no_value_without_pods() {
    let lease = lease(spec(1, auto([(MetricName::GpuMemoryUtilization, 80)])), &keda());
    let object = scaled_object(&lease);
    let metadata = &object["spec"]["triggers"][0]["metadata"];
    assert_eq!(metadata["activationThreshold"], "9223372036854775");
    assert!(!metadata["query"].as_str().unwrap().contains("absent"), "{metadata}");
}

#[test]
fn without_keda_in_the_cluster_there_is_nothing_to_scale_by() {
    let bare = Capabilities { scaled_object: false, ..Capabilities::assumed() };
    let plan = plan(&sleepy(), &keda(), &bare);
    assert!(plan.objects().all(|object| object.kind != Kind::ScaledObject));
    assert!(plan.objects().all(|object| object.kind != Kind::HorizontalPodAutoscaler));
    assert!(!plan.admits(Kind::HorizontalPodAutoscaler));
}

#[test]
fn the_autoscaler_that_keda_makes_belongs_to_the_lease() {
    let plan_of = |settings: &Settings| plan(&sleepy(), settings, &Capabilities::assumed());
    assert!(plan_of(&keda()).admits(Kind::HorizontalPodAutoscaler));
    let own = plan_of(&settings());
    assert!(own.admits(Kind::HorizontalPodAutoscaler) && !own.admits(Kind::ScaledObject));
    let autoscaler = find(&own, Kind::HorizontalPodAutoscaler).unwrap();
    assert_eq!(autoscaler["spec"]["minReplicas"], 1, "nothing but KEDA wakes it");
}
