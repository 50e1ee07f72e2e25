//! Answers custom.metrics.k8s.io for the pods of leases that scale by themselves.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::{HeaderMap, Request, Response, StatusCode};
use axum::middleware::{self, Next};
use axum::routing::get;
use kube::core::{Selector, SelectorExt};
use url::form_urlencoded;

use super::answer::{self, Item, Version};
use super::caller::Peer;
use super::selector;
use crate::cluster::{Gauge, PodName, Show};
use crate::domain::plan;
use crate::metrics::Metrics;

/// What answers are made of.
pub(super) struct Desk {
    /// Namespace of the leases.
    pub namespace: String,
    /// Seconds over which values are averaged.
    pub window_seconds: u64,
    /// Shows the pods.
    pub pods: Arc<dyn Show>,
    /// Tells their values.
    pub values: Arc<dyn Gauge>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// Returns what answers the requests of a connection, whose [`Peer`] comes as an extension.
pub(super) fn router(desk: Arc<Desk>) -> Router {
    let api = Router::new()
        .route("/apis", get(async || answer::ok(&answer::groups())))
        .route("/apis/custom.metrics.k8s.io", get(async || answer::ok(&answer::group())))
        .route("/apis/custom.metrics.k8s.io/{version}", get(resources))
        .route(
            "/apis/custom.metrics.k8s.io/{version}/namespaces/{namespace}/pods/{name}/{metric}",
            get(values),
        )
        .route("/openapi/v2", get(async || answer::ok(&answer::openapi_v2())))
        .route("/openapi/v3", get(async || answer::ok(&answer::openapi_v3())))
        .fallback(async || not_found("there is nothing here"))
        .method_not_allowed_fallback(only_get)
        .layer(middleware::from_fn(admit))
        .layer(middleware::from_fn_with_state(Arc::clone(&desk), count))
        .with_state(desk);
    let health =
        Router::new().route("/healthz", get("ok")).route("/readyz", get("ok")).route("/livez", get("ok"));
    health.merge(api)
}

/// Lets the Kubernetes API server in, and nobody else.
async fn admit(
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    request: Request<Body>,
    next: Next,
) -> Response<Body> {
    if peer.may_ask(&headers) {
        return next.run(request).await;
    }
    let message =
        "only the Kubernetes API server is answered, by the certificate of its front proxy and for a user";
    answer::status(StatusCode::UNAUTHORIZED, "Unauthorized", message)
}

async fn count(State(desk): State<Arc<Desk>>, request: Request<Body>, next: Next) -> Response<Body> {
    let answer = next.run(request).await;
    desk.metrics.count_custom_metrics_answer(answer.status().as_u16());
    answer
}

async fn only_get() -> Response<Body> {
    answer::status(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "metrics can be read only")
}

async fn resources(Path(version): Path<String>) -> Response<Body> {
    match Version::read(&version) {
        Some(version) => answer::ok(&answer::resources(version)),
        None => not_found(&format!("there is no version {version:?}")),
    }
}

/// What is asked for.
struct Question {
    pods: Selector,
    values: Selector,
}

async fn values(
    State(desk): State<Arc<Desk>>,
    Path((version, namespace, name, series)): Path<(String, String, String, String)>,
    RawQuery(query): RawQuery,
) -> Response<Body> {
    let Some(version) = Version::read(&version) else {
        return not_found(&format!("there is no version {version:?}"));
    };
    let Some(metric) = plan::metric_of(&series) else {
        return not_found(&format!("the server could not find the metric {series} for pods"));
    };
    let question = match question(query.as_deref().unwrap_or_default()) {
        Ok(question) => question,
        Err(error) => return answer::status(StatusCode::BAD_REQUEST, "BadRequest", &error.to_string()),
    };
    let pods = if namespace == desk.namespace { desk.asked_for(&name, &question) } else { Vec::new() };
    let gauged = match desk.values.gauge(metric, &pods).await {
        Ok(gauged) => gauged,
        Err(error) => {
            return answer::status(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", &error.to_string());
        }
    };
    let known =
        pods.iter().zip(gauged).filter_map(|(pod, gauged)| Some(Item { pod: &pod.name, gauged: gauged? }));
    let items: Vec<_> = known.collect();
    if items.is_empty() && name != "*" {
        return not_found(&format!("the server could not find the metric {series} for pods {name}"));
    }
    answer::ok(&answer::values(version, &namespace, &series, desk.window_seconds, &items))
}

impl Desk {
    /// Returns the pods that are asked for, by name.
    fn asked_for(&self, name: &str, question: &Question) -> Vec<PodName> {
        let mut pods = Vec::new();
        self.pods.show_scaling(&mut |pod| {
            let is_meant = if name == "*" { question.pods.matches(pod.labels) } else { name == pod.name };
            if !is_meant {
                return;
            }
            let lease = pod.lease.to_string();
            let of_value = answer::labels_of_value(&self.namespace, pod.name, &lease);
            if question.values.selects_all() || question.values.matches(&of_value) {
                pods.push(PodName { lease: pod.lease, name: pod.name.to_owned(), uid: pod.uid.to_owned() });
            }
        });
        pods.sort_by(|one, other| one.name.cmp(&other.name));
        pods
    }
}

fn question(query: &str) -> Result<Question, selector::Unreadable> {
    let value = |key: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find(|(name, _)| name == key).map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    Ok(Question {
        pods: selector::parse(&value("labelSelector"))?,
        values: selector::parse(&value("metricLabelSelector"))?,
    })
}

fn not_found(message: &str) -> Response<Body> {
    answer::status(StatusCode::NOT_FOUND, "NotFound", message)
}
