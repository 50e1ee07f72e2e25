//! Reads the recorded series of pods from Prometheus, as a custom-metrics adapter does.

use std::collections::BTreeMap;
use std::io;

use futures::future::BoxFuture;
use jiff::Timestamp;

use crate::cluster::prometheus::{Element, Prometheus as Asked};
use crate::cluster::{Gauge, GaugeError, Gauged, PodName};
use crate::domain::plan;
use crate::domain::scaling::MetricName;

/// Most pods that a query names; one for more asks for all of the namespace.
const MOST_NAMES: usize = 200;

/// Reads the recorded series.
pub struct Prometheus {
    asked: Asked,
    namespace: String,
}

impl Prometheus {
    /// Returns a reader of the series of pods in `namespace`, from the Prometheus at `url`. No connection is made yet.
    pub fn new(url: &str, namespace: String) -> io::Result<Self> {
        Ok(Self { asked: Asked::new(url)?, namespace })
    }
}

impl Gauge for Prometheus {
    fn gauge<'a>(
        &'a self,
        metric: MetricName,
        pods: &'a [PodName],
    ) -> BoxFuture<'a, Result<Vec<Option<Gauged>>, GaugeError>> {
        Box::pin(async move {
            let Some(query) = plan::series(metric).and_then(|series| query(series, &self.namespace, pods))
            else {
                return Ok(vec![None; pods.len()]);
            };
            let answer = self.asked.query(&query).await.map_err(|trouble| {
                tracing::warn!(url = self.asked.url(), "Prometheus cannot be read: {trouble}");
                GaugeError(format!("Prometheus cannot be read: {trouble}"))
            })?;
            let values = values(answer);
            Ok(pods.iter().map(|pod| values.get(&pod.name).copied()).collect())
        })
    }
}

/// Returns the query for the values of these pods; nothing where there are none.
fn query(series: &str, namespace: &str, pods: &[PodName]) -> Option<String> {
    // The dot is the only character in the name of a pod that means something to a pattern, within a text in quotes.
    let names: Vec<_> = pods.iter().map(|pod| pod.name.replace('.', r"\\.")).collect();
    let of_pods = match names.len() {
        0 => return None,
        1..=MOST_NAMES => format!(r#",pod=~"{}""#, names.join("|")),
        _ => String::new(),
    };
    Some(format!(r#"sum by (pod) ({series}{{namespace="{namespace}"{of_pods}}})"#))
}

/// Returns the values by pod; what is no number is left out.
fn values(elements: Vec<Element>) -> BTreeMap<String, Gauged> {
    let values = elements.into_iter().filter_map(|mut element| {
        let (seconds, text) = element.value;
        let value = text.parse().ok().filter(|value: &f64| value.is_finite())?;
        let at = Timestamp::from_millisecond((seconds * 1000.0) as i64).ok()?;
        Some((element.labels.remove("pod")?, Gauged { value, at }))
    });
    values.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(names: impl Iterator<Item = String>) -> Vec<PodName> {
        let lease = "0123456789abcdef0123456789abcdef".parse().unwrap();
        names.map(|name| PodName { lease, name, uid: String::new() }).collect()
    }

    #[test]
    fn a_query_names_the_pods_or_asks_for_all_of_the_namespace() {
        let asked =
            |names: &[&str]| query("tms_x", "leases", &pods(names.iter().map(|name| (*name).to_owned())));
        assert_eq!(asked(&[]), None);
        assert_eq!(
            asked(&["tms-1-a", "tms-1-b.c"]).unwrap(),
            r#"sum by (pod) (tms_x{namespace="leases",pod=~"tms-1-a|tms-1-b\\.c"})"#
        );
        let many = query("tms_x", "leases", &pods((0..=MOST_NAMES).map(|index| index.to_string()))).unwrap();
        assert_eq!(many, r#"sum by (pod) (tms_x{namespace="leases"})"#);
    }

    #[test]
    fn values_are_read_by_pod_and_what_is_no_number_is_left_out() {
        let elements = serde_json::json!([
            {"metric": {"pod": "a"}, "value": [1_800_000_000.25, "12.5"]},
            {"metric": {"pod": "b"}, "value": [1_800_000_000, "NaN"]},
            {"metric": {}, "value": [1_800_000_000, "1"]},
        ]);
        let read_values = values(serde_json::from_value(elements).unwrap());
        let at = Timestamp::from_millisecond(1_800_000_000_250).unwrap();
        assert_eq!(read_values, BTreeMap::from([("a".to_owned(), Gauged { value: 12.5, at })]));
    }
}
