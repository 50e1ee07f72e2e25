//! Looks at the Tritons of leases that scale by themselves, and keeps one window of samples of each pod. What the samples
//! mean is `domain::autoscaler::recording`; nothing is kept of pods that are gone.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::cache::Cache;
use super::exposition::samples;
use super::{Kubernetes, http};
use crate::clock::Clock;
use crate::cluster::{Gauge, GaugeError, Gauged, PodName};
use crate::domain::autoscaler::recording::{Family, Scrape, Series, Window};
use crate::domain::plan::TRITON_METRICS;
use crate::domain::scaling::MetricName;

/// Tritons that are looked at at once.
const LOOKS: usize = 32;
/// Most bytes of a page. A Triton with hundreds of models has less.
const LARGEST: usize = 1024 * 1024;
/// Time between two looks for pods that are due.
const TICK: Duration = Duration::from_secs(1);
/// Longest time between two looks at a pod that has not answered twice: until then it has no value.
const EAGER_INTERVAL: SignedDuration = SignedDuration::from_secs(5);
/// Answers that a value takes.
const ENOUGH: u8 = 2;

/// How often Tritons are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Time between two looks at a pod; whole seconds, at least one.
    pub interval: Duration,
    /// Time after which a look is given up; at most the interval.
    pub timeout: Duration,
    /// Time over which values are averaged; at least four intervals.
    pub window: Duration,
}

/// The samples of all pods.
pub struct Samples {
    cache: Arc<Cache>,
    clock: Clock,
    interval: SignedDuration,
    timeout: Duration,
    window: SignedDuration,
    places: Semaphore,
    /// By the UID of the pod.
    pods: Mutex<HashMap<String, Sampled>>,
}

struct Sampled {
    window: Window,
    /// When it is looked at next.
    next: Timestamp,
    /// Answers so far, as far as they matter.
    answers: u8,
    /// Whether it was there at the last look for pods.
    is_there: bool,
}

/// A pod that is due.
struct Due {
    uid: String,
    address: IpAddr,
}

impl Kubernetes {
    /// Returns samples of the pods that this cluster's watches show; they are taken while [`Samples::take`] runs.
    pub fn samples(&self, pace: Pace, clock: Clock) -> Samples {
        Samples::new(Arc::clone(&self.cache), pace, clock)
    }
}

impl Samples {
    fn new(cache: Arc<Cache>, pace: Pace, clock: Clock) -> Self {
        let signed = |duration| SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
        Self {
            cache,
            clock,
            interval: signed(pace.interval),
            timeout: pace.timeout,
            window: signed(pace.window),
            places: Semaphore::new(LOOKS),
            pods: Mutex::default(),
        }
    }

    /// Takes samples, for ever.
    pub async fn take(&self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = FuturesUnordered::new();
        loop {
            tokio::select! {
                _ = ticks.tick() => looks.extend(self.due(self.clock.now()).into_iter().map(|pod| self.look(pod))),
                Some(()) = looks.next(), if !looks.is_empty() => {}
            }
        }
    }

    /// Returns the pods that are to be looked at now, and forgets those that are gone.
    fn due(&self, now: Timestamp) -> Vec<Due> {
        let mut due = Vec::new();
        let mut pods = self.lock();
        self.cache.show_scaling(|_, pod| {
            let Some(address) = pod.address else { return };
            let sampled = match pods.get_mut(pod.uid) {
                Some(sampled) => sampled,
                None => pods.entry(pod.uid.to_owned()).or_insert_with(|| Sampled::new(self.window, now)),
            };
            sampled.is_there = true;
            if sampled.next <= now {
                sampled.next = sampled.after(now, self.interval, pod.uid);
                due.push(Due { uid: pod.uid.to_owned(), address });
            }
        });
        pods.retain(|_, sampled| std::mem::take(&mut sampled.is_there));
        due
    }

    async fn look(&self, pod: Due) {
        let address = SocketAddr::new(pod.address, TRITON_METRICS);
        let page = async {
            let _place = self.places.acquire().await.expect("nobody closes it");
            http::get(address, "/metrics", self.timeout, LARGEST, std::future::ready(())).await
        };
        // A place comes within the time too, so that looks never pile up.
        let page = match timeout(self.timeout, page).await {
            Ok(Ok(page)) => Some(page),
            Ok(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(%address, error, "a Triton does not show its metrics");
                None
            }
            Err(_) => {
                tracing::debug!(%address, "a Triton does not show its metrics in time");
                None
            }
        };
        let values = page.map(|page| values(&String::from_utf8_lossy(&page)));
        self.keep(&pod.uid, self.clock.now(), values);
    }

    /// Keeps what a look at a pod has shown; nothing where it did not answer.
    fn keep(&self, uid: &str, at: Timestamp, values: Option<BTreeMap<Series, f64>>) {
        let mut pods = self.lock();
        let Some(sampled) = pods.get_mut(uid) else { return };
        // The clock may have been set back.
        if sampled.window.latest().is_some_and(|latest| latest >= at) {
            return;
        }
        if values.is_some() {
            sampled.answers = sampled.answers.saturating_add(1);
        }
        sampled.window.push(Scrape { at, values });
    }

    fn gauged(&self, metric: MetricName, uid: &str, now: Timestamp) -> Option<Gauged> {
        let pods = self.lock();
        let window = &pods.get(uid)?.window;
        let value = window.value(metric, now).filter(|value| value.is_finite())?;
        Some(Gauged { value, at: window.latest()? })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Sampled>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gauge for Samples {
    fn gauge<'a>(
        &'a self,
        metric: MetricName,
        pods: &'a [PodName],
    ) -> BoxFuture<'a, Result<Vec<Option<Gauged>>, GaugeError>> {
        let now = self.clock.now();
        let gauged = pods.iter().map(|pod| self.gauged(metric, &pod.uid, now)).collect();
        Box::pin(std::future::ready(Ok(gauged)))
    }
}

impl Sampled {
    fn new(window: SignedDuration, now: Timestamp) -> Self {
        Self { window: Window::new(window), next: now, answers: 0, is_there: true }
    }

    /// Returns when a pod is looked at after now. Each has its own moment in the interval, which is the same on every server:
    /// looks are spread, and servers see alike.
    fn after(&self, now: Timestamp, interval: SignedDuration, uid: &str) -> Timestamp {
        if self.answers < ENOUGH {
            return now
                .saturating_add(interval.min(EAGER_INTERVAL))
                .expect("a duration has no calendar units");
        }
        let mut hasher = DefaultHasher::new();
        uid.hash(&mut hasher);
        let length = interval.as_secs().max(1);
        let phase = i64::try_from(hasher.finish() % length.unsigned_abs()).unwrap_or(0);
        let second = now.as_second();
        let wait = length - (second - phase).rem_euclid(length);
        Timestamp::from_second(second + wait).unwrap_or(Timestamp::MAX)
    }
}

/// Returns what the recording rules read of a page.
fn values(page: &str) -> BTreeMap<Series, f64> {
    let wanted = samples(page).filter(|sample| sample.value.is_finite()).filter_map(|sample| {
        let series = Series { family: Family::from_name(sample.name)?, labels: sample.labels.to_owned() };
        Some((series, sample.value))
    });
    wanted.collect()
}

#[cfg(test)]
mod tests {
    use kube::api::DynamicObject;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::cache::Subject;
    use super::*;
    use crate::domain::lease::LeaseId;
    use crate::domain::plan::{INSTALLATION_LABEL, Kind, LEASE_LABEL};

    const PACE: Pace = Pace {
        interval: Duration::from_secs(15),
        timeout: Duration::from_secs(2),
        window: Duration::from_secs(60),
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("a moment")
    }

    fn lease() -> LeaseId {
        "0123456789abcdef0123456789abcdef".parse().expect("an id")
    }

    fn object(subject: Subject, name: &str, status: &serde_json::Value) -> DynamicObject {
        let kind = if subject == Subject::Pods { "Pod" } else { "HorizontalPodAutoscaler" };
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": kind,
            "metadata": {
                "name": name, "uid": format!("uid-{name}"), "resourceVersion": "7",
                "labels": { LEASE_LABEL: lease().to_string(), INSTALLATION_LABEL: "here" },
            },
            "status": status,
        }))
        .expect("an object")
    }

    fn pod(name: &str, address: &str, state: &serde_json::Value) -> DynamicObject {
        let triton = json!([{ "name": "triton", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state }]);
        object(
            Subject::Pods,
            name,
            &json!({ "phase": "Running", "podIP": address, "containerStatuses": triton }),
        )
    }

    const AUTOSCALER: Subject = Subject::Object(Kind::HorizontalPodAutoscaler);

    /// Samples of one lease that scales, with one pod whose Triton runs at this address.
    fn with_pod(address: &str, clock: Clock) -> (Arc<Cache>, Samples) {
        let cache = Arc::new(Cache::new("here"));
        cache.keep(AUTOSCALER, object(AUTOSCALER, &lease().object_name(), &json!({})));
        cache.keep(Subject::Pods, pod("a", address, &json!({ "running": {} })));
        (Arc::clone(&cache), Samples::new(cache, PACE, clock))
    }

    fn due(samples: &Samples, second: i64) -> Vec<String> {
        samples.due(at(second)).into_iter().map(|due| due.uid).collect()
    }

    fn page(waited: u32, answered: u32, pending: u32) -> BTreeMap<Series, f64> {
        let page = [
            format!(r#"nv_inference_queue_duration_us{{model="m",version="1"}} {waited}"#),
            format!(r#"nv_inference_request_success{{model="m",version="1"}} {answered}"#),
            format!(r#"nv_inference_pending_request_count{{model="m",version="1"}} {pending}"#),
            r#"nv_inference_request_failure{model="m",version="1"} 7"#.to_owned(),
            "nv_gpu_utilization NaN".to_owned(),
        ];
        values(&page.join("\n"))
    }

    #[test]
    fn a_pod_is_looked_at_when_its_triton_runs_and_twice_soon_and_then_at_its_own_moment_of_each_interval() {
        let (cache, samples) = with_pod("10.0.0.7", Clock::manual(at(0)));
        cache.keep(Subject::Pods, pod("b", "10.0.0.8", &json!({ "waiting": {} })));
        assert_eq!(due(&samples, 0), ["uid-a"]);
        assert_eq!(due(&samples, 4), [""; 0]);
        assert_eq!(due(&samples, 5), ["uid-a"], "it has not answered");
        samples.keep("uid-a", at(5), Some(page(0, 0, 0)));
        assert_eq!(due(&samples, 10), ["uid-a"], "it has answered once");
        samples.keep("uid-a", at(10), Some(page(0, 0, 0)));
        assert_eq!(due(&samples, 15), ["uid-a"]);
        let looked: Vec<_> = (16..76).filter(|second| !due(&samples, *second).is_empty()).collect();
        assert!(matches!(looked[..], [first, _, _, last] if last - first == 45), "{looked:?}");
    }

    #[test]
    fn nothing_is_kept_of_a_pod_that_is_gone_or_of_a_lease_that_scales_no_more() {
        let (cache, samples) = with_pod("10.0.0.7", Clock::manual(at(0)));
        assert_eq!(due(&samples, 0), ["uid-a"]);
        let key = (lease(), Subject::Pods, "a".to_owned());
        cache.forget(&key, None);
        assert_eq!(due(&samples, 1), [""; 0]);
        assert!(samples.lock().is_empty());
        samples.keep("uid-a", at(1), Some(page(1, 1, 0)));
        assert!(samples.lock().is_empty(), "a late answer brings nothing back");

        cache.keep(Subject::Pods, pod("a", "10.0.0.7", &json!({ "running": {} })));
        assert_eq!(due(&samples, 2), ["uid-a"]);
        cache.forget(&(lease(), AUTOSCALER, lease().object_name()), None);
        assert_eq!(due(&samples, 3), [""; 0]);
        assert!(samples.lock().is_empty());
    }

    #[test]
    fn a_pod_that_was_looked_at_once_has_no_value_and_then_the_one_of_the_rules() {
        let (_cache, samples) = with_pod("10.0.0.7", Clock::manual(at(0)));
        let value = |second| {
            samples.gauged(MetricName::QueueTime, "uid-a", at(second)).map(|gauged| (gauged.value, gauged.at))
        };
        due(&samples, 0);
        samples.keep("uid-a", at(0), Some(page(100_000, 1000, 0)));
        assert_eq!(value(0), None);
        samples.keep("uid-a", at(5), Some(page(100_000, 1000, 0)));
        assert_eq!(value(5), Some((0.0, at(5))), "nothing completed, nothing waits");
        samples.keep("uid-a", at(20), Some(page(105_000, 1010, 3)));
        assert_eq!(value(20), Some((500.0, at(20))));
        samples.keep("uid-a", at(19), Some(page(0, 0, 0)));
        assert_eq!(value(20), Some((500.0, at(20))), "a clock that was set back brings nothing");
        assert_eq!(samples.gauged(MetricName::GpuUtilization, "uid-a", at(20)), None);
        assert_eq!(value(81), None, "everything is older than a window");
    }

    #[tokio::test]
    async fn samples_come_from_the_port_of_metrics_of_each_pod() {
        let clock = Clock::manual(at(0));
        // Its own address of this machine, since the port is not to be chosen.
        let listener = TcpListener::bind(("127.81.3.9", TRITON_METRICS)).await.unwrap();
        let (_cache, samples) = with_pod("127.81.3.9", clock.clone());
        let serve = async {
            for answered in [10, 30] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let read = stream.read(&mut request).await.unwrap();
                assert!(request[..read].starts_with(b"GET /metrics HTTP/1.1\r\n"));
                let page = format!(
                    "nv_inference_queue_duration_us{{model=\"m\"}} {}\nnv_inference_request_success{{model=\"m\"}} {answered}\n",
                    answered * 100
                );
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", page.len());
                stream.write_all(format!("{head}{page}").as_bytes()).await.unwrap();
            }
        };
        let look = async {
            for second in [0, 5] {
                clock.advance(SignedDuration::from_secs(second));
                for pod in samples.due(clock.now()) {
                    samples.look(pod).await;
                }
            }
        };
        tokio::join!(serve, look);
        let pods = [PodName { lease: lease(), name: "a".to_owned(), uid: "uid-a".to_owned() }];
        let told = samples.gauge(MetricName::QueueTime, &pods).await.unwrap();
        assert_eq!(told, [Some(Gauged { value: 100.0, at: at(5) })]);
    }
}
