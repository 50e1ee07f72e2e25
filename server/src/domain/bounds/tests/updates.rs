use jiff::Timestamp;

use super::*;
use crate::domain::lease::{AutomaticRenewal, Lease, LeaseId, Placement, Report, Tenure};
use crate::domain::life::{Renewal, Update};

fn lease() -> Lease {
    let spec = grant(&request(), &bounds()).unwrap().granted;
    Lease {
        id: LeaseId::random(),
        owner: "ada".to_owned(),
        namespace: "models".to_owned(),
        placement: Placement::Bespoke,
        deployment: serde_json::Value::Null,
        created_at: Timestamp::UNIX_EPOCH,
        expires_at: Timestamp::MAX,
        tenure: Tenure::starting(Timestamp::UNIX_EPOCH),
        waking_since: None,
        end: None,
        generation: 1,
        version: 1,
        report: Report::nothing_seen(spec.models.iter().map(|model| model.name.as_str())),
        spec,
    }
}

fn fixed(replicas: u32) -> UpdateRequest {
    UpdateRequest { replicas: Some(replicas), ..UpdateRequest::default() }
}

fn autoscaled(autoscaling: Option<AutoscalingRequest>) -> UpdateRequest {
    UpdateRequest { autoscaling, ..UpdateRequest::default() }
}

#[test]
fn renewal_by_use_is_turned_on_within_the_bounds_of_creation_and_off() {
    let asked = |renewal| UpdateRequest { renewal: Some(renewal), ..UpdateRequest::default() };
    let update = |renewal| grant_update(&lease(), &asked(renewal), &bounds()).unwrap().granted.renewal;
    let mut created = request();
    created.automatic_renewal = Some(AutomaticRenewalRequest::default());
    let at_creation = grant(&created, &bounds()).unwrap().granted.automatic_renewal;
    let on = RenewalRequest::On(AutomaticRenewalRequest::default());
    assert_eq!(update(on), at_creation.map(Renewal::On));
    let idle_window = SignedDuration::from_hours(1);
    let on = RenewalRequest::On(AutomaticRenewalRequest { idle_window: Some(idle_window) });
    assert_eq!(update(on), Some(Renewal::On(AutomaticRenewal { idle_window })));
    assert_eq!(update(RenewalRequest::Off), Some(Renewal::Off));

    let unobserved = Bounds { automatic_renewal: None, ..bounds() };
    let refusal = |renewal| grant_update(&lease(), &asked(renewal), &unobserved);
    insta::assert_snapshot!(faults(&refusal(on).unwrap_err()), @"renewal.automatic_renewal until server.cluster.kind");
    assert!(refusal(RenewalRequest::Off).is_ok());
}

#[test]
fn an_update_without_wishes_changes_nothing() {
    let accepted = grant_update(&lease(), &UpdateRequest::default(), &bounds()).unwrap();
    assert_eq!(accepted.granted, Update::default());
}

#[test]
fn an_update_names_its_faults_from_its_own_root() {
    let mut asked = request();
    scaling(&mut asked).maximum = Some(11);
    ask(&mut asked, "queueTime", None, Some(1));
    let short = AutomaticRenewalRequest { idle_window: Some(SignedDuration::from_secs(1)) };
    let update = UpdateRequest {
        autoscaling: asked.autoscaling,
        replicas: Some(0),
        labels: Some(map([("a b", "x")])),
        renewal: Some(RenewalRequest::On(short)),
    };
    let violations = grant_update(&lease(), &update, &bounds()).unwrap_err();
    insta::assert_snapshot!(faults(&violations), @r#"
    replicas
    replicas
    autoscaling.max_replicas by server.autoscaling.replicas.limits.maximum
    autoscaling.metrics["queueTime"].threshold by server.autoscaling.metrics.queueTime.threshold.minimum
    labels.labels["a b"]
    renewal.automatic_renewal.idle_window by server.leases.automaticRenewal.lookInterval
    "#);
}

#[test]
fn a_metric_has_to_work_on_the_triton_that_the_lease_has() {
    let mut lease = lease();
    lease.spec.triton.gpus = 0;
    let mut asked = request();
    ask(&mut asked, "gpuUtilization", Some(true), None);
    let violations = grant_update(&lease, &autoscaled(asked.autoscaling), &bounds()).unwrap_err();
    insta::assert_snapshot!(messages(&violations), @r#"autoscaling.metrics["gpuUtilization"]: gpuUtilization asked, but the lease has no GPUs"#);
}

#[test]
fn replicas_become_fixed_or_autoscaled() {
    let update = grant_update(&lease(), &fixed(3), &bounds()).unwrap().granted;
    assert_eq!(update.scaling, Some(Scaling::Fixed { replicas: 3 }));
    let asked = autoscaled(Some(AutoscalingRequest::default()));
    let update = grant_update(&lease(), &asked, &bounds()).unwrap().granted;
    assert!(matches!(update.scaling, Some(Scaling::Auto(auto)) if (auto.minimum, auto.maximum) == (1, 5)));
}

#[test]
fn a_lease_whose_models_one_node_alone_can_read_keeps_one_replica() {
    let mut lease = lease();
    lease.spec.models[0].uri = "pvc://disk/resnet".to_owned();
    let update = |lease: &Lease, replicas| grant_update(lease, &fixed(replicas), &bounds());
    assert!(update(&lease, 1).is_ok());
    insta::assert_snapshot!(messages(&update(&lease, 2).unwrap_err()), @r#"replicas: the uri of model "resnet" names the PersistentVolumeClaim "disk", which pods of one node alone can mount (ReadWriteOnce): up to 2 replicas asked, 1 is allowed (server.modelRepositories.pvc[1].accessMode)"#);
    let mut asked = request();
    scaling(&mut asked).maximum = Some(4);
    let violations = grant_update(&lease, &autoscaled(asked.autoscaling), &bounds()).unwrap_err();
    insta::assert_snapshot!(faults(&violations), @"autoscaling.max_replicas by server.modelRepositories.pvc[1].accessMode");
    lease.spec.models[0].uri = "s3://what/once/was".to_owned();
    assert!(update(&lease, 2).is_ok());
}
