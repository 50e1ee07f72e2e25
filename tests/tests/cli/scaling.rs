//! Why a lease has its replicas, and what autoscaling would do: as people read it, and as documented.

use crate::assert_shows;
use crate::documents::blocks;
use crate::harness::{CREATE, Place, VALUES};

const DOCUMENT: &str = include_str!("../../../docs/explain.md");

#[test]
fn a_lease_that_nothing_scales_is_explained_in_a_sentence() {
    let place = Place::new(VALUES);
    let server = place.start();
    let person = server.person();
    let fixed = person.tmsctl(CREATE).done()[6..38].to_owned();
    assert_shows!(person.tmsctl(&format!("lease explain {fixed}")).whole(), @r"
    Lease  <lease>
    State  WRITTEN
    Replicas  0 of 0 ready
    Why  The lease asked for 1 replica, and nothing scales it; `tmsctl lease update --enable-autoscaling` would.
    exit 0
    ");
    let scaled = person.tmsctl(&format!("{CREATE} --enable-autoscaling --autoscaling-max-replicas 3")).done();
    let scaled = &scaled[6..38];
    assert_shows!(person.tmsctl(&format!("lease explain {scaled}")).whole(), @r"
    Lease  <lease>
    State  WRITTEN
    Replicas  scaled from 1 to 3, not observed
    Why  Its manifests are written to a folder, and what becomes of them is not observed (server.cluster.kind: manifests): ask the cluster that they reach, with `kubectl describe hpa`.
    exit 0
    ");
    assert_shows!(person.tmsctl(&format!("lease explain {scaled} -z")).done().replace('\t', " | "), @r"
    lease | <lease> | WRITTEN | UNOBSERVED | 0 | 0 | 1 | 3 | 
    summary | Its manifests are written to a folder, and what becomes of them is not observed (server.cluster.kind: manifests): ask the cluster that they reach, with `kubectl describe hpa`.
    ");
    let refused = person.tmsctl(&format!("lease activate {scaled}"));
    assert!(refused.code != 0 && refused.err.contains("provider keda"), "{}", refused.whole());
    let trigger = "--autoscaling-min-replicas 0 --trigger kind=orders,queueName=eu";
    let refused = person.tmsctl(&format!("{CREATE} --enable-autoscaling {trigger}"));
    assert!(refused.code != 0 && refused.err.contains("KEDA alone reads"), "{}", refused.whole());
    assert_shows!(person.tmsctl("lease explain ffffffff").whole(), @r#"
    fatal: you have no lease "ffffffff" (@ Explain)
    hint: `tmsctl lease list --all` shows your leases, those that have ended too
    exit 1
    "#);
}

#[test]
fn the_simulations_of_the_document_work() {
    let place = Place::new(VALUES);
    let server = place.start();
    place.write("trace.csv", blocks(DOCUMENT, "csv")[0]);
    let script = blocks(DOCUMENT, "sh")[0];
    let folder = place.path("");
    let said = server.person().shell(&format!("cd {}\nset -eux\n{script}", folder.display()));
    assert_eq!(said.code, 0, "{}", said.whole());
    let (page, json) = said.out.split_at(said.out.find("\n{").unwrap() + 1);
    assert!(page.starts_with("Requests    ") && page.contains("The model takes for granted"), "{page}");
    assert!(!page.contains('█'), "a plot is for a terminal: {page}");
    let simulation: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(simulation["summary"]["most_replicas"], 4);
    assert_eq!(simulation["rows"].as_array().unwrap().len(), 161);
    assert_eq!(simulation["summary"]["seconds"], 2400);
}

#[test]
fn a_simulation_is_refused_as_a_lease_is() {
    let place = Place::new(VALUES);
    let server = place.start();
    let person = server.person();
    let trace = place.write("trace.csv", blocks(DOCUMENT, "csv")[0]);
    let simulate = format!("lease simulate --load {} --service-time 80ms", trace.display());
    let said =
        person.tmsctl(&format!("{simulate} --autoscaling-max-replicas 99 --autoscaling-cpu-utilization=3"));
    assert_shows!(said.whole(), @r#"
    fatal: 99 replicas asked, at most 8 are allowed (server.autoscaling.replicas.limits.maximum) (spec.autoscaling.max_replicas @ Simulate)
    fatal: 3 percent asked, 50 to 85 are allowed (server.autoscaling.metrics.cpuUtilization.threshold.minimum) (spec.autoscaling.metrics["cpuUtilization"].threshold @ Simulate)
    hint: look at --autoscaling-max-replicas, --autoscaling-cpu-utilization; `tmsctl server bounds` shows what this server allows
    exit 1
    "#);
    assert_shows!(person.tmsctl(&format!("{simulate} --lease abc --autoscaling-max-replicas 3")).whole(), @r#"
    fatal: --autoscaling-max-replicas and --lease exclude each other
    hint: leave --lease out to simulate other autoscaling
    exit 2
    "#);
    assert_shows!(person.tmsctl("lease simulate --load /nowhere/trace.csv --service-time 80ms").whole(), @r#"
    fatal: the load /nowhere/trace.csv cannot be read: No such file or directory (os error 2)
    exit 2
    "#);
    let wrong = place.write("wrong.csv", "time,requests\n0,1\n");
    assert_shows!(person.tmsctl(&format!("lease simulate --load {} --service-time 80ms", wrong.display())).whole(), @r#"
    fatal: line 1: there is no column requests_per_second; the header names `time` and `requests_per_second` (load_csv @ Simulate)
    hint: look at --load; `tmsctl server bounds` shows what this server allows
    exit 1
    "#);
}
