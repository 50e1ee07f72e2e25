//! Asks a Prometheus over its HTTP API.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::form_urlencoded;

use super::root_cause;

/// Time for a question in all: autoscalers wait for the answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of an answer.
const LARGEST: usize = 4 * 1024 * 1024;

/// A Prometheus.
pub struct Prometheus {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: String,
}

/// One element of an instant vector.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Element {
    /// Its labels.
    #[serde(rename = "metric")]
    pub labels: BTreeMap<String, String>,
    /// When it was evaluated, in seconds since 1970, and its value as Prometheus writes it.
    pub value: (f64, String),
}

/// A rule that is loaded.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadedRule {
    /// What it records.
    pub name: String,
    /// What went wrong when it was evaluated last; empty where nothing did.
    #[serde(default)]
    pub last_error: String,
}

/// Why Prometheus told nothing.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// No connection.
    #[error("it cannot be reached: {0}")]
    Away(String),
    /// No answer in time.
    #[error("no answer within {TIMEOUT:?}")]
    Late,
    /// It refused.
    #[error("it refuses: {0}")]
    Refused(String),
    /// It answered, and not as Prometheus does.
    #[error("its answer cannot be understood")]
    Strange(#[from] serde_json::Error),
    /// The question cannot be put.
    #[error("it cannot be asked")]
    Unaskable(#[from] hyper::http::Error),
}

#[derive(Deserialize)]
struct Answer<T> {
    #[serde(default)]
    error: String,
    data: Option<T>,
}

#[derive(Deserialize)]
struct Vector {
    result: Vec<Element>,
}

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    name: String,
    rules: Vec<LoadedRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Targets {
    active_targets: Vec<Target>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    scrape_pool: String,
    #[serde(default)]
    last_error: String,
}

impl Prometheus {
    /// Returns the Prometheus at `url`. No connection is made yet.
    pub fn new(url: &str) -> io::Result<Self> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(TIMEOUT));
        let https = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::ring::default_provider())?
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new()).build(https);
        Ok(Self { client, url: url.trim_end_matches('/').to_owned() })
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the instant vector of a query, now.
    pub async fn query(&self, query: &str) -> Result<Vec<Element>, Trouble> {
        let form = form_urlencoded::Serializer::new(String::new()).append_pair("query", query).finish();
        let request = Request::post(format!("{}/api/v1/query", self.url))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
            .body(Full::from(form))?;
        Ok(self.ask::<Vector>(request).await?.result)
    }

    /// Returns the recording rules of a group.
    pub async fn rules(&self, group: &str) -> Result<Vec<LoadedRule>, Trouble> {
        // Older ones do not know the second, and tell of all groups.
        let wish = [("type", "record"), ("rule_group[]", group)];
        let groups: Groups = self.get("rules", &wish).await?;
        Ok(groups.groups.into_iter().filter(|one| one.name == group).flat_map(|one| one.rules).collect())
    }

    /// Returns why scrapes of a pool of targets go wrong, each reason once.
    pub async fn scrape_errors(&self, pool: &str) -> Result<Vec<String>, Trouble> {
        let targets: Targets = self.get("targets", &[("state", "active"), ("scrapePool", pool)]).await?;
        let ours = targets.active_targets.into_iter().filter(|target| target.scrape_pool == pool);
        let mut errors: Vec<_> =
            ours.map(|target| target.last_error).filter(|text| !text.is_empty()).collect();
        errors.sort();
        errors.dedup();
        Ok(errors)
    }

    async fn get<T: DeserializeOwned>(&self, what: &str, wish: &[(&str, &str)]) -> Result<T, Trouble> {
        let wish = form_urlencoded::Serializer::new(String::new()).extend_pairs(wish).finish();
        let request = Request::get(format!("{}/api/v1/{what}?{wish}", self.url))
            .header(header::ACCEPT, "application/json")
            .body(Full::default())?;
        self.ask(request).await
    }

    async fn ask<T: DeserializeOwned>(&self, request: Request<Full<Bytes>>) -> Result<T, Trouble> {
        let answer = async {
            let answer = self.client.request(request).await;
            let answer = answer.map_err(|error| Trouble::Away(root_cause(&error)))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), LARGEST).collect().await;
            let body = body.map_err(|error| Trouble::Away(error.to_string()))?.to_bytes();
            read(status, &body)
        };
        tokio::time::timeout(TIMEOUT, answer).await.unwrap_or(Err(Trouble::Late))
    }
}

fn read<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> Result<T, Trouble> {
    let answer: Answer<T> = match serde_json::from_slice(body) {
        Err(_) if status != StatusCode::OK => return Err(Trouble::Refused(status.to_string())),
        read => read?,
    };
    let refused = || Trouble::Refused(format!("{status}: {}", answer.error));
    answer.data.filter(|_| status == StatusCode::OK).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prometheus_refuses_is_told_in_its_words() {
        let told = |code, body: &str| {
            let read = read::<Vector>(StatusCode::from_u16(code).unwrap(), body.as_bytes());
            read.map(|vector| vector.result).unwrap_err().to_string()
        };
        assert_eq!(
            told(400, r#"{"status":"error","error":"parse error"}"#),
            "it refuses: 400 Bad Request: parse error"
        );
        assert_eq!(told(502, "<html>"), "it refuses: 502 Bad Gateway");
        assert_eq!(told(200, "<html>"), "its answer cannot be understood");
    }

    #[test]
    fn rules_and_targets_are_read_as_prometheus_tells_them() {
        let rules = br#"{"status":"success","data":{"groups":[{"name":"g","file":"f","rules":[
            {"name":"tms_x","query":"1","health":"err","lastError":"no","type":"recording"}]}]}}"#;
        let groups: Groups = read(StatusCode::OK, rules).unwrap();
        assert_eq!(
            groups.groups[0].rules,
            [LoadedRule { name: "tms_x".to_owned(), last_error: "no".to_owned() }]
        );
        let targets = br#"{"status":"success","data":{"activeTargets":[
            {"labels":{"pod":"a"},"scrapePool":"podMonitor/n/m/0","lastError":"refused","health":"down"}]}}"#;
        let targets: Targets = read(StatusCode::OK, targets).unwrap();
        assert_eq!(targets.active_targets[0].last_error, "refused");
    }
}
