//! What a Triton counts, on its own page of metrics.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tms_server::domain::plan::TRITON_METRICS;

use crate::http;

/// For an answer; one that ends gives none.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was counted since it started.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counters {
    /// Requests that were answered, by model.
    pub answered: BTreeMap<String, u64>,
    /// Microseconds that all of them waited.
    pub queue_us: u64,
    /// Microseconds that all of them took, waiting included.
    pub request_us: u64,
}

/// Asks a Triton, from inside the cluster's network. `None` where it does not answer.
pub async fn counters(address: IpAddr) -> Option<Counters> {
    let page = http::try_get(SocketAddr::new(address, TRITON_METRICS), "/metrics");
    let page = tokio::time::timeout(PATIENCE, page).await.ok()?.ok()?;
    Some(read(&page))
}

fn read(page: &str) -> Counters {
    let mut counters = Counters::default();
    for line in page.lines() {
        let Some((family, labels)) = line.split_once('{') else { continue };
        let Some((labels, value)) = labels.rsplit_once("} ") else { continue };
        let Ok(value) = value.parse::<f64>() else { continue };
        let value = value as u64;
        let model = labels.split_once("model=\"").and_then(|(_, rest)| rest.split('"').next());
        match (family, model) {
            ("nv_inference_request_success", Some(model)) => {
                *counters.answered.entry(model.to_owned()).or_default() += value;
            }
            ("nv_inference_queue_duration_us", _) => counters.queue_us += value,
            ("nv_inference_request_duration_us", _) => counters.request_us += value,
            _ => {}
        }
    }
    counters
}

#[cfg(test)]
mod tests {
    use super::{Counters, read};

    #[test]
    fn counters_are_read_by_model_and_in_sum() {
        let page = "# HELP nv_inference_request_success Number\n\
            nv_inference_request_success{model=\"a\",version=\"1\"} 3\n\
            nv_inference_request_success{model=\"b\",version=\"1\"} 1.5e1\n\
            nv_inference_queue_duration_us{model=\"a\",version=\"1\"} 40\n\
            nv_inference_queue_duration_us{model=\"b\",version=\"1\"} 2\n\
            nv_inference_request_duration_us{model=\"a\",version=\"1\"} 300\n";
        let answered = [("a".to_owned(), 3), ("b".to_owned(), 15)].into();
        assert_eq!(read(page), Counters { answered, queue_us: 42, request_us: 300 });
    }
}
