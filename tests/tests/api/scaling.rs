//! Explain and Simulate: what they answer, and what they refuse.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use tms_proto::v1::{
    self, Autoscaling, ExplainRequest, LeaseSpec, ScaledBy, SimulateRequest, UpdateRequest, Workload,
};
use tms_server::domain::autoscaler::explanation::Evidence;
use tms_server::domain::autoscaler::metric::{Phase, Pod, Ready, Requests, Sample};
use tms_server::domain::autoscaler::record::{Record, Reported, Stated, Status};
use tms_server::domain::lease::Replicas;
use tms_server::domain::scaling::MetricName;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::harness::{Server, spec};

/// Two calm minutes, two busy ones and ten idle ones.
const LOAD: &str = "time,requests_per_second\n0,2\n120,30\n240,0\n840,0\n";

fn workload() -> Option<Workload> {
    let service_time = Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 });
    Some(Workload { service_time, ..Workload::default() })
}

fn wishes(maximum: u32) -> Option<LeaseSpec> {
    let autoscaling = Autoscaling { max_replicas: Some(maximum), ..Autoscaling::default() };
    Some(LeaseSpec { autoscaling: Some(autoscaling), ..LeaseSpec::default() })
}

fn simulate(spec: Option<LeaseSpec>) -> SimulateRequest {
    SimulateRequest { spec, load_csv: LOAD.to_owned(), workload: workload(), ..SimulateRequest::default() }
}

/// Two ready pods whose requests wait so many microseconds, and an autoscaler that has just looked at them.
fn evidence(queue_us: i64) -> Evidence {
    let now: Timestamp = "2026-01-01T00:00:30Z".parse().unwrap();
    let pod = |name: &str| Pod {
        name: name.to_owned(),
        phase: Phase::Running,
        is_deleting: false,
        started_at: Some(now - SignedDuration::from_mins(9)),
        ready: Some(Ready { is_ready: Some(true), since: now - SignedDuration::from_mins(8) }),
        requests: Requests::default(),
    };
    let sample = Sample {
        milli: queue_us * 1000,
        at: now - SignedDuration::from_secs(12),
        window: SignedDuration::from_mins(1),
    };
    let samples = ["a", "b"].map(|name| (name.to_owned(), sample));
    let reported = Reported { value_milli: Some(queue_us * 1000), target_milli: 10_000_000 };
    let status = Status {
        current: 2,
        desired: 2,
        last_scaled_at: Some(now - SignedDuration::from_mins(3)),
        metrics: BTreeMap::from([(MetricName::QueueTime, reported)]),
        conditions: vec![Stated {
            kind: "ScalingLimited".to_owned(),
            holds: true,
            reason: "TooManyReplicas".to_owned(),
            message: "the desired replica count is more than the maximum replica count".to_owned(),
            since: Some(now),
        }],
    };
    Evidence {
        at: now,
        record: Some(Record::begin(status, now)),
        replicas: Replicas { desired: 2, current: 2, ready: 2 },
        pods: Ok(vec![pod("a"), pod("b")]),
        troubles: Vec::new(),
        samples: BTreeMap::from([(MetricName::QueueTime, Ok(samples.into()))]),
        totals: BTreeMap::new(),
        events: Err("the Kubernetes API refused its events: forbidden".to_owned()),
    }
}

async fn explained(server: &Server, lease_id: &str) -> Result<v1::ExplainResponse, tonic::Status> {
    let request = ExplainRequest { lease_id: lease_id.to_owned() };
    server.leases().await.explain(request).await.map(tonic::Response::into_inner)
}

async fn autoscaled(server: &Server, maximum: u32) -> String {
    let autoscaling = Autoscaling { max_replicas: Some(maximum), ..Autoscaling::default() };
    server.acquire(LeaseSpec { autoscaling: Some(autoscaling), ..spec(&["bert"]) }).await.id
}

#[tokio::test]
async fn an_autoscaled_lease_is_explained_with_its_metrics_and_what_holds_them() {
    let mut server = Server::start().await;
    let id = autoscaled(&server, 2).await;
    *server.evidence.lock().unwrap() = Some(evidence(80_000));
    let answer = explained(&server, &id[..8]).await.unwrap();
    assert_eq!((answer.lease_id.as_str(), answer.scaled_by()), (id.as_str(), ScaledBy::Autoscaler));
    assert_eq!(
        answer.summary,
        "2 replicas, though queueTime proposes 16; 16 asked, 2 allowed: that is the maximum."
    );
    let metric = &answer.metrics[0];
    assert_eq!((metric.value, metric.target, metric.proposal), (Some(80_000.0), 10_000, Some(16)));
    assert!(metric.wins && metric.counted_pods == ["a", "b"]);
    assert_eq!(metric.source, "custom.metrics.k8s.io/tms_avg_request_queue_duration");
    assert_eq!(metric.age.as_ref().unwrap().seconds, 12);
    let kinds: Vec<_> = answer.holds.iter().map(|hold| (hold.kind.as_str(), hold.computed)).collect();
    assert_eq!(kinds, [("maximum", true)], "what the controller says too is said once");
    assert_eq!(answer.conditions[0].meaning, "It wants more replicas than the maximum of the lease.");
    assert!(answer.unknowns[0].contains("forbidden"), "{:?}", answer.unknowns);
    assert_eq!(answer.replicas.unwrap().ready, 2);
    server.stop().await;
}

#[tokio::test]
async fn a_lease_that_nothing_scales_gets_an_answer_and_no_error() {
    let mut server = Server::start().await;
    let fixed = server.acquire(LeaseSpec { replicas: Some(1), ..spec(&["bert"]) }).await.id;
    let answer = explained(&server, &fixed).await.unwrap();
    assert_eq!(answer.scaled_by(), ScaledBy::Nothing);
    assert!(
        answer.summary.starts_with("The lease asked for 1 replica, and nothing scales it"),
        "{}",
        answer.summary
    );

    let written = autoscaled(&server, 2).await;
    let answer = explained(&server, &written).await.unwrap();
    assert_eq!(answer.scaled_by(), ScaledBy::Unobserved);
    assert!(answer.summary.contains("server.cluster.kind: manifests"), "{}", answer.summary);

    *server.evidence.lock().unwrap() = Some(Evidence { record: None, ..evidence(0) });
    let answer = explained(&server, &written).await.unwrap();
    assert_eq!(answer.scaled_by(), ScaledBy::AbsentAutoscaler);
    assert!(answer.summary.contains("not decided anything yet"), "{}", answer.summary);

    let release = v1::ReleaseRequest { lease_id: written.clone() };
    server.leases().await.release(release).await.unwrap();
    let answer = explained(&server, &written).await.unwrap();
    assert!(answer.summary.starts_with("The lease has ended"), "{}", answer.summary);
    let unknown = explained(&server, "abcdef").await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    server.stop().await;
}

#[tokio::test]
async fn a_load_is_played_against_what_would_be_granted() {
    let mut server = Server::start().await;
    let mut leases = server.leases().await;
    let answer = leases.simulate(simulate(wishes(3))).await.unwrap().into_inner();
    let summary = answer.summary.unwrap();
    assert_eq!((summary.seconds, summary.most_replicas), (840, 3));
    assert!(summary.share_over_target > 0.0 && summary.share_over_target < 1.0, "{summary:?}");
    assert!(summary.queue_time_50_us <= summary.queue_time_95_us, "{summary:?}");
    assert!(summary.replica_hours > 840.0 / 3600.0, "{summary:?}");
    assert_eq!(answer.rows.len(), 57, "one for each sync of 15 s");
    assert_eq!(answer.autoscaling.unwrap().max_replicas, Some(3));
    assert!(answer.assumptions.iter().any(|text| text.contains("Each request takes 0.1 s")));

    let few = SimulateRequest { most_rows: 10, ..simulate(wishes(3)) };
    let few = leases.simulate(few).await.unwrap().into_inner();
    assert!(few.rows.len() <= 10 && few.rows.last().unwrap().second == 840);
    assert_eq!(few.rows.iter().map(|row| row.replicas).max(), Some(3));
    assert_eq!(few.summary.unwrap(), summary);

    let lease_id = autoscaled(&server, 2).await;
    let of_lease = SimulateRequest { lease_id, ..simulate(None) };
    let of_lease = leases.simulate(of_lease).await.unwrap().into_inner();
    assert_eq!(of_lease.summary.unwrap().most_replicas, 2);
    server.stop().await;
}

#[tokio::test]
async fn every_fault_of_a_simulation_is_told_at_once() {
    let mut server = Server::start().await;
    let mut leases = server.leases().await;
    let request = SimulateRequest {
        spec: wishes(999),
        load_csv: "time,requests_per_second\n0,2\n0,3\n".to_owned(),
        workload: None,
        most_rows: 1,
        ..SimulateRequest::default()
    };
    let refused = leases.simulate(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let fields: Vec<_> = refused
        .get_details_bad_request()
        .unwrap()
        .field_violations
        .into_iter()
        .map(|violation| violation.field)
        .collect();
    assert_eq!(
        fields,
        ["most_rows", "load_csv", "workload.service_time", "spec.autoscaling.max_replicas"],
        "{refused}"
    );

    let fixed = server.acquire(LeaseSpec { replicas: Some(1), ..spec(&["bert"]) }).await.id;
    let of_fixed = SimulateRequest { lease_id: fixed, ..simulate(None) };
    let refused = leases.simulate(of_fixed).await.unwrap_err();
    assert!(refused.message().contains("1 replicas, always"), "{refused}");

    let long = "time,requests_per_second\n0,1\n2600000,1\n".to_owned();
    let refused =
        leases.simulate(SimulateRequest { load_csv: long, ..simulate(wishes(8)) }).await.unwrap_err();
    assert!(refused.message().contains("at most 5000000 are allowed"), "{refused}");
    let nothing = leases.simulate(simulate(None)).await.unwrap_err();
    assert!(nothing.message().contains("nothing to simulate"), "{nothing}");
    server.stop().await;
}

#[tokio::test]
async fn what_no_lease_may_have_is_refused_by_a_simulation_too() {
    let mut server = Server::start().await;
    let id = server.acquire(LeaseSpec { replicas: Some(1), ..spec(&["bert"]) }).await.id;
    let autoscaling = Autoscaling { max_replicas: Some(999), ..Autoscaling::default() };
    let update = UpdateRequest { lease_id: id, autoscaling: Some(autoscaling), ..UpdateRequest::default() };
    let mut leases = server.leases().await;
    let updated = leases.update(update).await.unwrap_err();
    let simulated = leases.simulate(simulate(wishes(999))).await.unwrap_err();
    let told = |status: &tonic::Status| {
        status.get_details_bad_request().unwrap().field_violations[0].description.clone()
    };
    assert_eq!(told(&simulated), told(&updated));
    server.stop().await;
}
