//! Looks closely at the autoscaler of one lease, where a person asks: its pods, the values of its metrics as the autoscaler
//! itself reads them, and its events. One call for each, all at once, bounded like every other.

use std::collections::BTreeMap;

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Event, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use kube::api::{Api, ListParams};
use serde::Deserialize;
use url::form_urlencoded;

use super::Kubernetes;
use super::aggregation::{GROUP, VERSIONS};
use super::autoscaler::milli;
use crate::clock::system_now;
use crate::cluster::ActError;
use crate::domain::autoscaler::explanation::{Evidence, Total};
use crate::domain::autoscaler::metric::{self, Phase, Ready, Requests, Sample, Samples};
use crate::domain::autoscaler::record::{Note, NoteSource};
use crate::domain::lease::{Lease, LeaseId};
use crate::domain::plan::{Kind, LEASE_LABEL, MetricSource, TRITON, metric_source, series};
use crate::domain::scaling::{MetricName, Scaling};

/// Most events that are read of one autoscaler.
const MOST_EVENTS: u32 = 500;
/// Window of a sample that does not name one.
const USUAL_WINDOW: SignedDuration = SignedDuration::from_secs(60);

/// The values of a custom metric.
#[derive(Deserialize)]
struct MetricValues {
    items: Vec<MetricValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetricValue {
    described_object: Described,
    timestamp: Timestamp,
    #[serde(alias = "windowSeconds")]
    window: Option<i64>,
    value: Amount,
}

/// The values of an external metric.
#[derive(Deserialize)]
struct ExternalValues {
    items: Vec<ExternalValue>,
}

#[derive(Deserialize)]
struct ExternalValue {
    value: Amount,
}

#[derive(Deserialize)]
struct Described {
    name: String,
}

/// What pods use, from metrics.k8s.io.
#[derive(Deserialize)]
struct PodsUse {
    items: Vec<PodUse>,
}

#[derive(Deserialize)]
struct PodUse {
    metadata: Described,
    timestamp: Timestamp,
    window: String,
    containers: Vec<ContainerUse>,
}

#[derive(Deserialize)]
struct ContainerUse {
    name: String,
    usage: BTreeMap<String, Amount>,
}

impl Kubernetes {
    /// Returns what is known of the autoscaler of a lease.
    pub(super) async fn inspect_autoscaler(&self, lease: &Lease) -> Evidence {
        let metrics: Vec<_> = match &lease.spec.scaling {
            Scaling::Auto(autoscaling) => autoscaling.metrics.keys().copied().collect(),
            Scaling::Fixed { .. } => Vec::new(),
        };
        let is_of_keda = self.cache.stamp(lease.id, Kind::ScaledObject).is_some();
        let is_total = |name: MetricName| is_of_keda && series(name).is_some();
        let totals = metrics.iter().enumerate().filter(|(_, name)| is_total(**name));
        let totals = totals.map(|(place, name)| async move { (*name, self.total_of(lease.id, place).await) });
        let sampled: Vec<_> = metrics.iter().copied().filter(|name| !is_total(*name)).collect();
        let (pods, events, totals, samples) = tokio::join!(
            self.pods_of(lease.id),
            self.events_of(lease.id),
            join_all(totals),
            join_all(sampled.iter().map(|name| self.samples_of(lease.id, *name)))
        );
        let (record, replicas, troubles) = self.cache.autoscaler(lease.id);
        Evidence {
            at: system_now(),
            record,
            replicas,
            pods,
            troubles,
            samples: sampled.into_iter().zip(samples).collect(),
            totals: totals.into_iter().collect(),
            events,
        }
    }

    async fn pods_of(&self, id: LeaseId) -> Result<Vec<metric::Pod>, String> {
        let api = Api::<Pod>::namespaced(self.client.clone(), &self.namespace);
        // What the API server holds in memory is what the autoscaler looks at, too.
        let params = ListParams::default().labels(&selector(id)).match_any();
        let list = self.calls.make("its pods", api.list(&params)).await.map_err(in_words)?;
        Ok(list.items.into_iter().map(pod).collect())
    }

    async fn events_of(&self, id: LeaseId) -> Result<Vec<Note>, String> {
        let api = Api::<Event>::namespaced(self.client.clone(), &self.namespace);
        let kind = Kind::HorizontalPodAutoscaler;
        let fields =
            format!("involvedObject.kind={},involvedObject.name={}", kind.as_str(), kind.object_name(id));
        let params = ListParams::default().fields(&fields).limit(MOST_EVENTS);
        let list = self.calls.make("its events", api.list(&params)).await.map_err(in_words)?;
        let mut notes: Vec<_> = list.items.into_iter().filter_map(note).collect();
        notes.sort_by_key(|note| note.at);
        Ok(notes)
    }

    /// Returns the number that KEDA tells an autoscaler for the trigger at this place.
    async fn total_of(&self, id: LeaseId, place: usize) -> Total {
        let name = format!("s{place}-prometheus");
        let selector = format!("scaledobject.keda.sh/name={}", id.object_name());
        let path = format!(
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/{}/{name}?labelSelector={}",
            self.namespace,
            encoded(&selector)
        );
        let answer = self.get::<ExternalValues>("external.metrics.k8s.io", &path).await;
        let first = |answer: ExternalValues| milli(&answer.items.first()?.value);
        let nothing = || "KEDA tells no value".to_owned();
        let milli = answer.map_err(in_words).and_then(|answer| first(answer).ok_or_else(nothing));
        Total { name, milli }
    }

    /// Returns the values of a metric, by pod.
    async fn samples_of(&self, id: LeaseId, name: MetricName) -> Result<Samples, String> {
        match metric_source(name) {
            MetricSource::Container(resource) => self.used(id, resource).await,
            MetricSource::Recorded(series) => self.recorded(id, series).await,
        }
    }

    async fn used(&self, id: LeaseId, resource: &str) -> Result<Samples, String> {
        let path = format!(
            "/apis/metrics.k8s.io/v1beta1/namespaces/{}/pods?labelSelector={}",
            self.namespace,
            encoded(&selector(id))
        );
        let answer: PodsUse = self.get("metrics.k8s.io", &path).await.map_err(in_words)?;
        let sample = |pod: PodUse| {
            let container = pod.containers.into_iter().find(|container| container.name == TRITON)?;
            let milli = milli(container.usage.get(resource)?)?;
            let window = pod.window.parse().unwrap_or(USUAL_WINDOW);
            Some((pod.metadata.name, Sample { milli, at: pod.timestamp, window }))
        };
        Ok(answer.items.into_iter().filter_map(sample).collect())
    }

    async fn recorded(&self, id: LeaseId, series: &str) -> Result<Samples, String> {
        let mut refused = None;
        for (version, _) in VERSIONS {
            let path = format!(
                "/apis/{GROUP}/{version}/namespaces/{}/pods/*/{series}?labelSelector={}",
                self.namespace,
                encoded(&selector(id))
            );
            match self.get::<MetricValues>(GROUP, &path).await {
                Ok(answer) => return Ok(answer.items.into_iter().filter_map(sample).collect()),
                Err(error) => refused = refused.or(Some(in_words(error))),
            }
        }
        Err(refused.unwrap_or_default())
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, api: &str, path: &str) -> Result<T, ActError> {
        let request = hyper::Request::get(path).body(Vec::new());
        let request = request.expect("the namespace and the label are those of names");
        self.calls.make(api, self.client.request(request)).await
    }
}

pub(super) fn selector(id: LeaseId) -> String {
    format!("{LEASE_LABEL}={id}")
}

fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn in_words(error: ActError) -> String {
    error.to_string()
}

fn sample(item: MetricValue) -> Option<(String, Sample)> {
    let window = item.window.map_or(USUAL_WINDOW, SignedDuration::from_secs);
    Some((item.described_object.name, Sample { milli: milli(&item.value)?, at: item.timestamp, window }))
}

fn pod(pod: Pod) -> metric::Pod {
    let status = pod.status.unwrap_or_default();
    let phase = match status.phase.as_deref() {
        Some("Running") => Phase::Running,
        Some("Succeeded") => Phase::Succeeded,
        Some("Failed") => Phase::Failed,
        Some("Unknown") => Phase::Unknown,
        Some(_) | None => Phase::Pending,
    };
    let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
    let ready = ready.map(|condition| Ready {
        is_ready: match condition.status.as_str() {
            "True" => Some(true),
            "False" => Some(false),
            _ => None,
        },
        since: condition.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
    });
    let containers = pod.spec.map(|spec| spec.containers).unwrap_or_default();
    metric::Pod {
        name: pod.metadata.name.unwrap_or_default(),
        phase,
        is_deleting: pod.metadata.deletion_timestamp.is_some(),
        started_at: status.start_time.map(|time| time.0),
        ready,
        requests: containers
            .iter()
            .find(|container| container.name == TRITON)
            .map(requests)
            .unwrap_or_default(),
    }
}

fn requests(container: &Container) -> Requests {
    let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let of = |resource: &str| milli(requests?.get(resource)?);
    Requests { cpu_milli: of("cpu"), memory_milli: of("memory") }
}

fn note(event: Event) -> Option<Note> {
    let message = event.message.unwrap_or_default();
    let reason = event.reason.unwrap_or_default();
    let series = event.series.and_then(|series| Some((series.last_observed_time?.0, series.count?)));
    let times = [event.last_timestamp.map(|time| time.0), event.event_time.map(|time| time.0)];
    let at = series.map(|(at, _)| at).or(times.into_iter().flatten().next())?;
    let count = series.map(|(_, count)| count).or(event.count).unwrap_or(1);
    // `New size: 4; reason: …` is how the controller writes it.
    let size =
        message.strip_prefix("New size: ").and_then(|rest| rest.split(';').next()?.trim().parse().ok());
    let to = size.filter(|_| reason == "SuccessfulRescale");
    let count = u32::try_from(count).unwrap_or(1).max(1);
    Some(Note { at, from: None, to, reason, message, source: NoteSource::Event, count })
}
