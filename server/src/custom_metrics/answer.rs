//! What is answered, in the words of Kubernetes: resources, values and `Status`.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cluster::Gauged;
use crate::cluster::kubernetes::aggregation::{GROUP, VERSIONS};
use crate::domain::plan;
use crate::domain::quantity::Quantity;
use crate::domain::scaling::MetricName;

/// A version of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1Beta1,
    V1Beta2,
}

impl Version {
    pub fn read(text: &str) -> Option<Self> {
        [Self::V1Beta1, Self::V1Beta2].into_iter().find(|version| version.name() == text)
    }

    fn name(self) -> &'static str {
        match self {
            Self::V1Beta1 => "v1beta1",
            Self::V1Beta2 => "v1beta2",
        }
    }

    fn group_version(self) -> String {
        format!("{GROUP}/{}", self.name())
    }
}

/// The value of one pod.
pub(super) struct Item<'a> {
    pub pod: &'a str,
    pub gauged: Gauged,
}

/// Returns the answer to `/apis`.
pub(super) fn groups() -> Value {
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": [group()] })
}

/// Returns the answer to `/apis/custom.metrics.k8s.io`.
pub(super) fn group() -> Value {
    let version = |version: &str| json!({ "groupVersion": format!("{GROUP}/{version}"), "version": version });
    let [(first, _), (preferred, _)] = VERSIONS;
    json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": GROUP,
        "versions": [version(preferred), version(first)],
        "preferredVersion": version(preferred),
    })
}

/// Returns a description of nothing: the Kubernetes API server complains in its log where there is none.
pub(super) fn openapi_v2() -> Value {
    json!({ "swagger": "2.0", "info": { "title": GROUP, "version": crate::VERSION }, "paths": {} })
}

/// The same of the newer form.
pub(super) fn openapi_v3() -> Value {
    json!({ "paths": {} })
}

/// Returns the resources of a version: each metric of pods.
pub(super) fn resources(version: Version) -> Value {
    let resource = |series: &str| {
        json!({
            "name": format!("pods/{series}"), "singularName": "", "namespaced": true, "kind": "MetricValueList", "verbs": ["get"],
        })
    };
    let resources: Vec<_> = MetricName::ALL.into_iter().filter_map(plan::series).map(resource).collect();
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version.group_version(), "resources": resources,
    })
}

/// Returns the values of a metric.
pub(super) fn values(
    version: Version,
    namespace: &str,
    series: &str,
    window_seconds: u64,
    items: &[Item<'_>],
) -> Value {
    let item = |item: &Item<'_>| {
        let mut value = json!({
            "describedObject": { "kind": "Pod", "namespace": namespace, "name": item.pod, "apiVersion": "/v1" },
            "timestamp": seconds(item.gauged.at),
            "value": quantity(item.gauged.value),
        });
        match version {
            Version::V1Beta1 => {
                value["metricName"] = json!(series);
                value["window"] = json!(window_seconds);
                value["selector"] = Value::Null;
            }
            Version::V1Beta2 => {
                value["metric"] = json!({ "name": series, "selector": null });
                value["windowSeconds"] = json!(window_seconds);
            }
        }
        value
    };
    json!({
        "kind": "MetricValueList", "apiVersion": version.group_version(), "metadata": {},
        "items": items.iter().map(item).collect::<Vec<_>>(),
    })
}

/// Thousandths, as custom-metrics adapters have them: what is smaller is cut off.
fn quantity(value: f64) -> String {
    Quantity::from_milli((value * 1000.0) as i64).to_string()
}

fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Returns a document as an answer.
pub(super) fn ok(document: &Value) -> Response<Body> {
    response(StatusCode::OK, document)
}

/// Returns a refusal as Kubernetes' clients expect it.
pub(super) fn status(code: StatusCode, reason: &str, message: &str) -> Response<Body> {
    let document = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code.as_u16(),
    });
    response(code, &document)
}

fn response(code: StatusCode, document: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(document.to_string()));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The labels of the value of a pod: those of the recorded series, by which a query may select it.
pub(super) fn labels_of_value(namespace: &str, pod: &str, lease: &str) -> BTreeMap<String, String> {
    let labels = [("namespace", namespace), ("pod", pod), ("tms_lease_id", lease)];
    labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_exact_to_the_thousandth() {
        let table = [
            (0.0, "0"),
            (0.0009, "0"),
            (0.001, "1m"),
            (12.345, "12345m"),
            (12.3456, "12345m"),
            (80.0, "80"),
            (10_000.0, "10k"),
            (1_234_567.0, "1234567"),
        ];
        for (value, expected) in table {
            assert_eq!(quantity(value), expected, "{value}");
        }
    }
}
