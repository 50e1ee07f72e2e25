//! Update, Renew, Release, List and Plan.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use tms_proto::v1;
use tms_server::domain::lease::{ModelState, Phase};

use crate::harness::{Server, Wishes, acquire, lifetime, spec};

#[tokio::test]
async fn a_renewal_counts_from_now_and_grants_no_more_than_the_maximum() {
    let server = Server::start().await;
    let lease = server.acquire(spec(&["a"])).await;
    server.clock.advance(SignedDuration::from_mins(10));
    let mut client = server.leases().await;

    let request = v1::RenewRequest { lease_id: lease.id.clone(), lifetime: None };
    let renewed = client.renew(request).await.unwrap().into_inner();
    assert_eq!(renewed.granted, lease.spec.unwrap().lifetime);
    assert_eq!(renewed.warnings, [""; 0]);
    let expires_at = |lease: &v1::Lease| lease.expires_at.unwrap().seconds;
    let renewed = renewed.lease.unwrap();
    assert_eq!(expires_at(&renewed) - lease.expires_at.unwrap().seconds, 600);
    assert_eq!(renewed.generation, 1, "its objects know nothing of its end");

    let request = v1::RenewRequest { lease_id: lease.id.clone(), lifetime: lifetime(365 * 24 * 3600) };
    let renewed = client.renew(request).await.unwrap().into_inner();
    assert_eq!(renewed.granted, lifetime(7 * 24 * 3600));
    insta::assert_snapshot!(renewed.warnings.join("\n"), @"granted 168h, which is the longest (server.leases.maximumLifetime)");
    assert_eq!(server.woken.ids(), [lease.id.clone(), lease.id.clone(), lease.id]);
}

#[tokio::test]
async fn an_update_makes_a_fixed_lease_autoscaled_and_back() {
    let server = Server::start().await;
    let lease = server.acquire(spec(&["a"])).await;
    let mut client = server.leases().await;
    let autoscaling = v1::Autoscaling { max_replicas: Some(4), ..Default::default() };
    let request = v1::UpdateRequest {
        lease_id: lease.id.clone(),
        autoscaling: Some(autoscaling),
        expected_version: Some(lease.version),
        ..Default::default()
    };
    let updated = client.update(request).await.unwrap().into_inner().lease.unwrap();
    assert_eq!(updated.replicas.unwrap().maximum, 4);
    assert_eq!(updated.active_metrics, BTreeMap::from([("queueTime".to_owned(), 10_000)]));

    let request = v1::UpdateRequest { lease_id: lease.id.clone(), replicas: Some(2), ..Default::default() };
    let updated = client.update(request).await.unwrap().into_inner().lease.unwrap();
    assert_eq!(updated.spec.as_ref().unwrap().replicas, Some(2));
    assert_eq!(updated.spec.as_ref().unwrap().autoscaling, None);

    let labels = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
    let request = v1::UpdateRequest {
        lease_id: lease.id.clone(),
        labels: Some(v1::LabelSet { labels: labels.clone() }),
        ..Default::default()
    };
    let updated = client.update(request).await.unwrap().into_inner().lease.unwrap();
    assert_eq!(updated.spec.unwrap().labels, labels);
    assert_eq!(updated.generation, 4);
}

#[tokio::test]
async fn an_update_turns_renewal_by_use_on_within_the_bounds_and_off() {
    let values = "server: {cluster: {kind: kubernetes}, leases: {automaticRenewal: {idleWindow: 10m, lookInterval: 1m}}}";
    let server = Server::start_with(Wishes { values: Some(values), ..Wishes::default() }).await;
    let lease = server.acquire(spec(&["a"])).await;
    let mut client = server.leases().await;
    let request = |automatic_renewal| v1::UpdateRequest {
        lease_id: lease.id.clone(),
        renewal: Some(v1::RenewalChange { automatic_renewal }),
        ..Default::default()
    };
    let window = |lease: &v1::Lease| lease.spec.as_ref()?.automatic_renewal?.idle_window;
    let asked = request(Some(v1::AutomaticRenewal::default()));
    let on = client.update(asked.clone()).await.unwrap().into_inner().lease.unwrap();
    assert_eq!(window(&on), lifetime(600));
    assert_eq!((on.generation, on.expires_at, on.version), (1, lease.expires_at, lease.version + 1));
    let again = client.update(asked).await.unwrap().into_inner().lease.unwrap();
    assert_eq!(again.version, on.version, "nothing has changed");

    let short = request(Some(v1::AutomaticRenewal { idle_window: lifetime(60) }));
    let refusal = client.update(short).await.unwrap_err();
    assert_eq!(refusal.code(), tonic::Code::InvalidArgument);
    assert!(refusal.message().contains("an idle window of 1m asked, 3m to "), "{}", refusal.message());

    let off = client.update(request(None)).await.unwrap().into_inner().lease.unwrap();
    assert_eq!((window(&off), off.generation), (None, 1));
}

#[tokio::test]
async fn releasing_twice_succeeds() {
    let server = Server::start().await;
    let lease = server.acquire(spec(&["a"])).await;
    let mut client = server.leases().await;
    let request = v1::ReleaseRequest { lease_id: lease.id };
    let first = client.release(request.clone()).await.unwrap().into_inner();
    let second = client.release(request).await.unwrap().into_inner();
    assert_eq!(first.lease.as_ref().unwrap().state(), v1::LeaseState::Released);
    assert_eq!(first, second);
}

#[tokio::test]
async fn a_list_comes_in_pages_newest_first_without_what_has_ended() {
    let server = Server::start().await;
    let mut wanted = Vec::new();
    for number in 0..5 {
        server.clock.advance(SignedDuration::from_secs(1));
        let lease = server.acquire(spec(&["a"])).await;
        match number {
            2 => {
                let request = v1::ReleaseRequest { lease_id: lease.id };
                server.leases().await.release(request).await.unwrap();
            }
            _ => wanted.insert(0, lease.id),
        }
    }
    let mut client = server.leases().await;
    let (mut listed, mut pages, mut page_token) = (Vec::new(), 0, String::new());
    loop {
        let request = v1::ListRequest { page_size: 2, page_token, ..Default::default() };
        let page = client.list(request).await.unwrap().into_inner();
        listed.extend(page.leases.into_iter().map(|lease| lease.id));
        (pages, page_token) = (pages + 1, page.next_page_token);
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!((listed, pages), (wanted, 2));
    let released = v1::ListRequest { states: vec![v1::LeaseState::Released.into()], ..Default::default() };
    assert_eq!(client.list(released).await.unwrap().into_inner().leases.len(), 1);
}

#[tokio::test]
async fn a_plan_is_what_acquire_would_make_and_makes_nothing() {
    let server = Server::start().await;
    let wish = v1::LeaseSpec {
        autoscaling: Some(v1::Autoscaling { max_replicas: Some(4), ..Default::default() }),
        ..spec(&["a"])
    };
    let mut client = server.leases().await;
    let plan = client.plan(v1::PlanRequest { spec: Some(wish.clone()) }).await.unwrap().into_inner();
    let kinds: Vec<_> = plan
        .manifests
        .iter()
        .flat_map(|manifest| manifest.lines())
        .filter_map(|line| line.strip_prefix("kind: "))
        .collect();
    assert_eq!(
        kinds,
        [
            "Deployment",
            "Service",
            "Service",
            "HorizontalPodAutoscaler",
            "PodMonitor",
            "PrometheusRule",
            "PodDisruptionBudget"
        ]
    );
    assert_eq!(client.list(v1::ListRequest::default()).await.unwrap().into_inner().leases, []);
    assert_eq!(server.woken.ids(), [""; 0]);

    let planned = plan.lease.unwrap();
    let acquired = server.acquire(wish).await;
    assert_eq!(planned.spec, acquired.spec);
    let granted = acquired.spec.unwrap();
    assert_eq!(granted.bespoke.unwrap().gpus, Some(1));
    assert_eq!(granted.lifetime, lifetime(3600));
}

#[tokio::test]
async fn the_server_says_what_it_is_and_allows() {
    let server = Server::start().await;
    let mut client = server.about().await;
    let version = client.version(v1::VersionRequest {}).await.unwrap().into_inner();
    assert_eq!((version.version.as_str(), version.caller.as_str()), (tms_server::VERSION, "anonymous"));
    let bounds = client.bounds(v1::BoundsRequest {}).await.unwrap().into_inner();
    let queue_time = bounds.autoscaling.unwrap().metrics["queueTime"];
    assert!(queue_time.allowed);
    assert_eq!(queue_time.threshold_maximum, None);
    assert_eq!(bounds.lifetime.unwrap().maximum_seconds, 7 * 24 * 3600);
    let found = client.capabilities(v1::CapabilitiesRequest {}).await.unwrap().into_inner();
    assert_eq!((found.cluster_kind.as_str(), found.kubernetes_version.as_str()), ("kubernetes", "1.33"));
    assert!(found.pod_monitor && found.scaled_object);
}

#[tokio::test]
async fn a_ready_lease_says_where_it_is_reached() {
    let server = Server::start().await;
    let lease = server.acquire(spec(&["a"])).await;
    server.report(&lease, Phase::Ready, ModelState::Ready).await;
    let request = v1::StatusRequest { lease_id: lease.id.clone() };
    let lease = server.leases().await.status(request).await.unwrap().into_inner().lease.unwrap();
    let endpoint = lease.endpoint.unwrap();
    assert_eq!(endpoint.host, format!("tms-{}.models.svc", lease.id));
    assert_eq!((endpoint.http_port, endpoint.grpc_port), (8000, 8001));
}

#[tokio::test]
async fn a_page_of_large_leases_ends_before_clients_refuse_it() {
    const LEASES: usize = 20;
    let server = Server::start().await;
    let environment = (0..7).map(|name| (format!("V{name}"), "x".repeat(32 * 1024))).collect();
    let large = v1::LeaseSpec {
        bespoke: Some(v1::BespokeTriton { environment, ..Default::default() }),
        ..spec(&["a"])
    };
    let mut client = server.leases().await;
    for _ in 0..LEASES {
        acquire(&mut client, large.clone()).await;
    }
    let (mut ids, mut pages, mut page_token) = (std::collections::BTreeSet::new(), 0, String::new());
    loop {
        let request = v1::ListRequest { page_token, page_size: 500, ..Default::default() };
        let page = client.list(request).await.unwrap().into_inner();
        ids.extend(page.leases.into_iter().map(|lease| lease.id));
        (pages, page_token) = (pages + 1, page.next_page_token);
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!((ids.len(), pages), (LEASES, 3));
}
