use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::domain::quantity::Quantity;

fn rules() -> impl Strategy<Value = ScalingRules> {
    let policy = (select(vec![PolicyKind::Pods, PolicyKind::Percent]), 1..200_u32, 1..=1800_u32)
        .prop_map(|(kind, value, period_seconds)| ScalingPolicy { kind, value, period_seconds });
    let select_policy = select(vec![SelectPolicy::Max, SelectPolicy::Min, SelectPolicy::Disabled]);
    (0..=3600_u32, select_policy, vec(policy, 1..3), option::of(0..2000_u32)).prop_map(
        |(stabilization_window_seconds, select_policy, policies, tolerance_milli)| ScalingRules {
            stabilization_window_seconds,
            select_policy,
            policies,
            tolerance_milli,
        },
    )
}

fn scaling() -> impl Strategy<Value = Scaling> {
    let metrics = subsequence(MetricName::ALL.to_vec(), 1..=5)
        .prop_flat_map(|names| {
            vec(1..=i64::MAX / 1000, names.len()).prop_map(move |thresholds| (names.clone(), thresholds))
        })
        .prop_map(|(names, thresholds)| {
            let threshold = |(name, asked): (MetricName, i64)| {
                (name, if name.is_percent() { 1 + asked % 100 } else { asked })
            };
            names.into_iter().zip(thresholds).map(threshold).collect()
        });
    let autoscaling = (1..10_u32, 0..10_u32, metrics, rules(), rules()).prop_map(
        |(minimum, more, metrics, scale_up, scale_down)| {
            Scaling::Auto(Autoscaling {
                minimum,
                maximum: minimum + more,
                metrics,
                behavior: Behavior { scale_up, scale_down },
                triggers: Vec::new(),
            })
        },
    );
    prop_oneof![(1..10_u32).prop_map(|replicas| Scaling::Fixed { replicas }), autoscaling]
}

/// A lease, the settings and the cluster.
fn situation() -> impl Strategy<Value = (Lease, Settings, Capabilities)> {
    let triton = (0..=8_u32, "[A-Z]{1,8}", any::<String>(), option::of(Just(json!({"nodeAffinity": {}}))));
    let lease = (triton, scaling(), "[a-z]([-a-z0-9]{0,61}[a-z0-9])?", 1..i64::MAX);
    let labels = btree_map("[a-z]{1,12}|tms.internal/lease-id|release", "[a-z0-9]{0,63}", 0..4);
    let cluster = (33..=37_u32, any::<bool>(), any::<bool>(), any::<bool>());
    (lease, labels.clone(), labels, cluster).prop_map(|(lease, lease_labels, custom_labels, cluster)| {
        let ((gpus, variable, value, affinity), scaling, namespace, generation) = lease;
        let (minor, pod_monitor, prometheus_rule, is_dcgm) = cluster;
        let settings = Settings {
            custom_labels,
            gpu_source: if is_dcgm { GpuSource::Dcgm } else { GpuSource::Triton },
            ..settings()
        };
        let mut spec = spec(gpus, scaling);
        spec.labels = lease_labels;
        spec.triton.affinity = affinity;
        spec.triton.environment = BTreeMap::from([(variable, value)]);
        let lease = super::lease(spec, &settings);
        let deployment = render(lease.id, &namespace, &lease.spec, &settings);
        let capabilities = Capabilities {
            kubernetes: Some((1, minor)),
            pod_monitor,
            prometheus_rule,
            ..Capabilities::assumed()
        };
        (Lease { namespace, generation, deployment, ..lease }, settings, capabilities)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn replicas_are_named_by_the_deployment_or_by_an_autoscaler((lease, settings, capabilities) in situation()) {
        let plan = plan(&lease, &settings, &capabilities);
        let fixed = plan.deployment.body["spec"].get("replicas").and_then(Value::as_u64);
        match (&lease.spec.scaling, find(&plan, Kind::HorizontalPodAutoscaler)) {
            (Scaling::Fixed { replicas }, None) => prop_assert_eq!(fixed, Some(u64::from(*replicas))),
            (Scaling::Auto(auto), Some(autoscaler)) => {
                prop_assert_eq!(fixed, None);
                prop_assert_eq!(autoscaler["spec"]["minReplicas"].as_u64(), Some(auto.minimum.into()));
                prop_assert_eq!(autoscaler["spec"]["maxReplicas"].as_u64(), Some(auto.maximum.into()));
                prop_assert_eq!(&autoscaler["spec"]["scaleTargetRef"]["name"], &plan.deployment.body["metadata"]["name"]);
                prop_assert_eq!(autoscaler["spec"]["metrics"].as_array().map(Vec::len), Some(auto.metrics.len()));
                let has_tolerance = autoscaler.to_string().contains("tolerance");
                prop_assert!(!has_tolerance || capabilities.autoscaler_tolerance());
            }
            (scaling, autoscaler) => prop_assert!(false, "{scaling:?} with {autoscaler:?}"),
        }
    }

    #[test]
    fn an_autoscaler_reads_what_the_rules_record((lease, settings, capabilities) in situation()) {
        let plan = plan(&lease, &settings, &Capabilities { prometheus_rule: true, ..capabilities });
        let names = |value: Option<&Value>, pointer: &str, name: &str| -> Vec<String> {
            let list = value.and_then(|value| value.pointer(pointer)).and_then(Value::as_array);
            list.into_iter().flatten().filter_map(|element| element.pointer(name)?.as_str()).map(str::to_owned).collect()
        };
        let read = names(find(&plan, Kind::HorizontalPodAutoscaler), "/spec/metrics", "/pods/metric/name");
        let recorded = names(find(&plan, Kind::PrometheusRule), "/spec/groups/0/rules", "/record");
        prop_assert_eq!(read, recorded);
    }

    #[test]
    fn the_rules_read_what_the_pod_monitor_scrapes((lease, settings, capabilities) in situation()) {
        let plan = plan(&lease, &settings, &Capabilities { pod_monitor: true, prometheus_rule: true, ..capabilities });
        let monitor = find(&plan, Kind::PodMonitor).unwrap();
        let text = |pointer: &str| monitor.pointer(pointer).and_then(Value::as_str).unwrap();
        let job = format!(r#"job="{}/{}""#, text("/metadata/namespace"), text("/metadata/name"));
        if let Some(rule) = find(&plan, Kind::PrometheusRule) {
            for rule in rule["spec"]["groups"][0]["rules"].as_array().unwrap() {
                prop_assert!(rule["expr"].as_str().unwrap().contains(&job), "{rule} lacks {job}");
            }
        }
        let container = &plan.deployment.body["spec"]["template"]["spec"]["containers"][0];
        prop_assert_eq!(&container["name"], "triton");
        let mut ports = container["ports"].as_array().unwrap().iter();
        prop_assert!(ports.any(|port| port["name"] == text("/spec/podMetricsEndpoints/0/port")));
    }

    #[test]
    fn every_selector_is_the_lease_label((lease, settings, capabilities) in situation()) {
        let plan = plan(&lease, &settings, &Capabilities { pod_monitor: true, ..capabilities });
        let expected = json!({ LEASE_LABEL: lease.id.to_string() });
        let deployment = &plan.deployment.body["spec"];
        prop_assert_eq!(&deployment["selector"]["matchLabels"], &expected);
        prop_assert!(covers(&deployment["template"]["metadata"]["labels"], &expected));
        for kind in [Kind::Service, Kind::HeadlessService] {
            prop_assert_eq!(&find(&plan, kind).unwrap()["spec"]["selector"], &expected);
        }
        for kind in [Kind::PodMonitor, Kind::PodDisruptionBudget] {
            prop_assert_eq!(&find(&plan, kind).unwrap()["spec"]["selector"]["matchLabels"], &expected);
        }
    }

    #[test]
    fn every_object_says_whose_it_is((lease, settings, capabilities) in situation()) {
        let plan = plan(&lease, &settings, &capabilities);
        for Object { kind, body } in plan.objects() {
            prop_assert_eq!(&body["apiVersion"], &kind.api_version());
            prop_assert_eq!(&body["kind"], kind.as_str());
            let metadata = &body["metadata"];
            prop_assert_eq!(&metadata["name"], &kind.object_name(lease.id));
            prop_assert_eq!(&metadata["namespace"], &lease.namespace);
            prop_assert_eq!(&metadata["labels"][LEASE_LABEL], &lease.id.to_string());
            prop_assert_eq!(&metadata["labels"][INSTALLATION_LABEL], &settings.installation);
            prop_assert_eq!(&metadata["labels"]["app.kubernetes.io/managed-by"], "tms");
            prop_assert_eq!(&metadata["annotations"][GENERATION_ANNOTATION], &lease.generation.to_string());
            for label in lease.spec.labels.keys() {
                prop_assert!(metadata["labels"].get(label).is_some());
            }
        }
        let order: Vec<_> = plan.objects().map(|object| object.kind).collect();
        prop_assert!(order.is_sorted());
        let names: std::collections::BTreeSet<_> =
            plan.objects().map(|object| (object.body["kind"].to_string(), object.body["metadata"]["name"].to_string())).collect();
        prop_assert_eq!(names.len(), order.len());
    }

    #[test]
    fn names_are_within_the_limits_of_kubernetes((lease, settings, capabilities) in situation()) {
        let plan = plan(&lease, &settings, &capabilities);
        let name = lease.id.object_name();
        prop_assert!(name.len() <= 46 && name.starts_with(|c: char| c.is_ascii_lowercase()));
        for object in plan.objects() {
            for value in object.body["metadata"]["labels"].as_object().unwrap().values() {
                prop_assert!(value.as_str().unwrap().len() <= 63);
            }
        }
    }

    #[test]
    fn quantities_are_canonical((lease, settings, capabilities) in situation()) {
        let plan = plan(&lease, &settings, &capabilities);
        let mut found = 0;
        for object in plan.objects() {
            each_quantity(&object.body, &mut |text| {
                found += 1;
                assert_eq!(Quantity::parse(text).unwrap().to_string(), text);
            });
        }
        prop_assert!(found > 0);
    }

    #[test]
    fn yaml_says_the_same_as_the_object((lease, settings, capabilities) in situation()) {
        for object in plan(&lease, &settings, &capabilities).objects() {
            let read: Value = serde_saphyr::from_str(&to_yaml(&object.body)).unwrap();
            prop_assert_eq!(&read, &object.body);
        }
    }

    #[test]
    fn an_object_covers_itself_also_when_others_add_to_it((lease, settings, capabilities) in situation()) {
        for object in plan(&lease, &settings, &capabilities).objects() {
            let mut live = object.body.clone();
            live["metadata"]["uid"] = json!("1");
            live["metadata"]["labels"]["argocd.argoproj.io/instance"] = json!("x");
            live["status"] = json!({"replicas": 1});
            prop_assert!(covers(&live, &object.body));
        }
    }
}

fn each_quantity(value: &Value, visit: &mut impl FnMut(&str)) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), value) {
                    ("requests" | "limits", Value::Object(amounts)) => {
                        amounts.values().filter_map(Value::as_str).for_each(&mut *visit);
                    }
                    ("averageValue" | "sizeLimit" | "tolerance", Value::String(text)) => visit(text),
                    _ => each_quantity(value, visit),
                }
            }
        }
        Value::Array(elements) => elements.iter().for_each(|element| each_quantity(element, visit)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn other_settings_leave_the_deployment_of_a_lease_as_it_is() {
    let before = settings();
    let lease = lease(spec(1, Scaling::Fixed { replicas: 1 }), &before);
    let after = Settings {
        server_image: "tms-server:2.0.0".to_owned(),
        pull_secrets: Vec::new(),
        custom_labels: texts([("team", "speech")]),
        custom_annotations: BTreeMap::new(),
        part_of: None,
        load_timeout_seconds: 60,
        pre_stop_seconds: 1,
        ..before.clone()
    };
    let planned = plan(&lease, &before, &Capabilities::assumed()).deployment;
    let planned_later = plan(&lease, &after, &Capabilities::assumed()).deployment;
    assert_eq!(planned.body.to_string(), planned_later.body.to_string());
    assert_eq!(planned.body["spec"]["template"], lease.deployment["spec"]["template"]);
}

#[test]
fn the_labels_and_the_scaling_of_a_lease_do_not_touch_its_pods() {
    let mut lease = lease(spec(1, Scaling::Fixed { replicas: 1 }), &settings());
    lease.spec.labels = texts([("experiment", "43"), ("team", "speech")]);
    lease.spec.scaling = auto([(MetricName::CpuUtilization, 80)]);
    lease.generation = 2;
    let deployment = plan(&lease, &settings(), &Capabilities::assumed()).deployment.body;
    assert_eq!(deployment["spec"], lease.deployment["spec"]);
    assert_eq!(deployment["metadata"]["labels"]["experiment"], "43");
    assert_eq!(deployment["metadata"]["labels"]["team"], "vision", "the administrator's label wins");
}

#[test]
fn a_dependent_is_owned_by_its_deployment() {
    let lease = lease(spec(1, Scaling::Fixed { replicas: 1 }), &settings());
    let mut service = plan(&lease, &settings(), &Capabilities::assumed()).dependents.remove(0);
    service.owned_by(&lease.id.object_name(), "5a0f");
    insta::assert_snapshot!(to_yaml(&service.body["metadata"]["ownerReferences"]), @r#"
    - apiVersion: apps/v1
      kind: Deployment
      name: tms-0123456789abcdef0123456789abcdef
      blockOwnerDeletion: true
      controller: true
      uid: 5a0f
    "#);
}

#[test]
fn nothing_is_emitted_that_the_cluster_does_not_serve() {
    let lease = lease(spec(1, auto([(MetricName::QueueTime, 10_000)])), &settings());
    let capabilities = Capabilities { pod_monitor: false, prometheus_rule: false, ..Capabilities::assumed() };
    let kinds: Vec<_> =
        plan(&lease, &settings(), &capabilities).objects().map(|object| object.kind).collect();
    let expected = [
        Kind::Deployment,
        Kind::Service,
        Kind::HeadlessService,
        Kind::HorizontalPodAutoscaler,
        Kind::PodDisruptionBudget,
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn a_lease_that_downloads_believes_the_authorities_of_the_administrator() {
    let mut settings = settings();
    settings.repositories.trust_bundle = Some("authorities".to_owned());
    let downloads = lease(spec(0, auto([])), &settings).deployment;
    let agent = downloads.pointer("/spec/template/spec/initContainers/0").unwrap();
    let is_told =
        |variable: &Value| variable["name"] == "SSL_CERT_FILE" && variable["value"] == "/authorities/ca.crt";
    assert!(agent["env"].as_array().unwrap().iter().any(is_told), "{agent}");
    let volumes = downloads.pointer("/spec/template/spec/volumes").unwrap().as_array().unwrap();
    assert!(volumes.iter().any(|volume| volume["configMap"]["name"] == "authorities"), "{volumes:?}");

    let mut claims_alone = spec(0, auto([]));
    claims_alone.models.truncate(1);
    assert!(claims_alone.models[0].uri.starts_with("pvc://"));
    let needs_none = lease(claims_alone, &settings).deployment.to_string();
    assert!(!needs_none.contains("authorities"), "{needs_none}");
}

#[test]
fn both_containers_see_the_claims_and_the_agent_alone_the_secrets() {
    let mut spec = spec(0, Scaling::Fixed { replicas: 1 });
    let model = |name: &str, uri: &str| Model { name: name.to_owned(), uri: uri.to_owned() };
    spec.models = vec![
        model("a", "pvc://disk/a"),
        model("b", "https://models.example.com/b.zip"),
        model("c", "pvc://models/c"),
        model("d", "pvc://disk/d"),
        model("e", "https://cdn.models.example.com/e.zip"),
        model("f", "https://elsewhere.example.com/f.zip"),
    ];
    let deployment = lease(spec, &settings()).deployment;
    let pod = &deployment["spec"]["template"]["spec"];
    let paths = |container: &Value| -> Vec<String> {
        let mounts = container["volumeMounts"].as_array().unwrap().iter();
        mounts.map(|mount| format!("{} {}", mount["name"], mount["mountPath"]).replace('"', "")).collect()
    };
    let claims = ["claim-0 /claims/disk", "claim-1 /claims/models"];
    let secret = "credentials-0 /credentials/model-credentials";
    assert_eq!(paths(&pod["initContainers"][0]), ["models /models", claims[0], claims[1], secret]);
    let own = ["models /models", "shm /dev/shm", "tmp /tmp"];
    assert_eq!(paths(&pod["containers"][0]), [own.as_slice(), &claims].concat());
    let told: Value =
        serde_json::from_str(pod["initContainers"][0]["env"][0]["value"].as_str().unwrap()).unwrap();
    let secrets: Vec<_> =
        told.as_array().unwrap().iter().map(|model| model.get("secret").is_some()).collect();
    assert_eq!(secrets, [false, true, false, false, true, false]);
}

#[test]
fn a_rollout_lets_go_of_what_another_replica_needs_before_it_starts_one() {
    for (gpus, uri, surge) in
        [(0, "pvc://models/a", 1), (0, "pvc://disk/a", 0), (1, "https://h/a", 0), (0, "https://h/a", 1)]
    {
        let mut spec = spec(gpus, Scaling::Fixed { replicas: 1 });
        spec.models = vec![Model { name: "a".to_owned(), uri: uri.to_owned() }];
        let strategy = &lease(spec, &settings()).deployment["spec"]["strategy"]["rollingUpdate"];
        assert_eq!(strategy, &json!({"maxSurge": surge, "maxUnavailable": 1 - surge}), "{uri}");
    }
}
