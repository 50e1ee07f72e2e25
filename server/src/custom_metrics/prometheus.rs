//! Reads the recorded series of pods from Prometheus, as a custom-metrics adapter does.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use serde::Deserialize;
use url::form_urlencoded;

use crate::cluster::{Gauge, GaugeError, Gauged, PodName};
use crate::domain::plan;
use crate::domain::scaling::MetricName;

/// Time for a query in all: the autoscaler waits for it.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of an answer.
const LARGEST: usize = 4 * 1024 * 1024;
/// Most pods that a query names; one for more asks for all of the namespace.
const MOST_NAMES: usize = 200;

/// Reads the recorded series.
pub struct Prometheus {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// Of queries.
    url: String,
    namespace: String,
}

impl Prometheus {
    /// Returns a reader of the series of pods in `namespace`, from the Prometheus at `url`. No connection is made yet.
    pub fn new(url: &str, namespace: String) -> io::Result<Self> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(TIMEOUT));
        let https = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::ring::default_provider())?
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let url = format!("{}/api/v1/query", url.trim_end_matches('/'));
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(https), url, namespace })
    }

    async fn ask(&self, query: &str) -> Result<BTreeMap<String, Gauged>, Trouble> {
        let form = form_urlencoded::Serializer::new(String::new()).append_pair("query", query).finish();
        let request = Request::post(&self.url)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
            .body(Full::from(form))?;
        let answer = self.client.request(request).await.map_err(|error| Trouble::Away(root_cause(&error)))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LARGEST).collect().await;
        let body = body.map_err(|error| Trouble::Away(error.to_string()))?.to_bytes();
        read(status, &body)
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
            let answer = tokio::time::timeout(TIMEOUT, self.ask(&query)).await.unwrap_or(Err(Trouble::Late));
            let values = answer.map_err(|trouble| {
                tracing::warn!(url = self.url, "Prometheus cannot be read: {trouble}");
                GaugeError(format!("Prometheus cannot be read: {trouble}"))
            })?;
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

/// Why Prometheus told nothing.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("it cannot be reached: {0}")]
    Away(String),
    #[error("no answer within {TIMEOUT:?}")]
    Late,
    #[error("it refuses: {0}")]
    Refused(String),
    #[error("its answer cannot be understood")]
    Strange(#[from] serde_json::Error),
    #[error("it cannot be asked")]
    Unaskable(#[from] hyper::http::Error),
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.last().unwrap_or(error).to_string()
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    error: String,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Element>,
}

#[derive(Deserialize)]
struct Element {
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

fn read(status: StatusCode, body: &[u8]) -> Result<BTreeMap<String, Gauged>, Trouble> {
    let answer: Answer = match serde_json::from_slice(body) {
        Err(_) if status != StatusCode::OK => return Err(Trouble::Refused(status.to_string())),
        read => read?,
    };
    let Some(data) = answer.data.filter(|_| status == StatusCode::OK) else {
        return Err(Trouble::Refused(format!("{status}: {}", answer.error)));
    };
    let values = data.result.into_iter().filter_map(|mut element| {
        let (seconds, text) = element.value;
        let value = text.parse().ok().filter(|value: &f64| value.is_finite())?;
        let at = Timestamp::from_millisecond((seconds * 1000.0) as i64).ok()?;
        Some((element.metric.remove("pod")?, Gauged { value, at }))
    });
    Ok(values.collect())
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
        let body = br#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"pod":"a"},"value":[1800000000.25,"12.5"]},
            {"metric":{"pod":"b"},"value":[1800000000,"NaN"]},
            {"metric":{},"value":[1800000000,"1"]}]}}"#;
        let read_values = read(StatusCode::OK, body).unwrap();
        let at = Timestamp::from_millisecond(1_800_000_000_250).unwrap();
        assert_eq!(read_values, BTreeMap::from([("a".to_owned(), Gauged { value: 12.5, at })]));
    }

    #[test]
    fn what_prometheus_refuses_is_told_in_its_words() {
        let told = |code, body: &str| {
            read(StatusCode::from_u16(code).unwrap(), body.as_bytes()).unwrap_err().to_string()
        };
        assert_eq!(
            told(400, r#"{"status":"error","error":"parse error"}"#),
            "it refuses: 400 Bad Request: parse error"
        );
        assert_eq!(told(502, "<html>"), "it refuses: 502 Bad Gateway");
        assert_eq!(told(200, "<html>"), "its answer cannot be understood");
    }
}
