//! Asks the Tritons of a lease how many requests they have answered.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::join_all;

use super::exposition::samples;
use super::{Kubernetes, http};
use crate::domain::autoscaler::recording::Family;
use crate::domain::lease::LeaseId;
use crate::domain::plan::TRITON_METRICS;
use crate::domain::usage::Served;

/// Time for a question in all. A look has many, and those that do not answer keep others waiting.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Most bytes of an answer. A Triton with hundreds of models has less.
const LARGEST: usize = 1024 * 1024;

impl Kubernetes {
    /// Returns what each pod of a lease has served.
    pub(super) async fn ask_served(&self, id: LeaseId) -> Vec<Served> {
        let pods = self.cache.serving(id).into_iter().map(async |(pod, address)| {
            let requests = match address {
                Some(address) => self.requests(id, address).await,
                None => None,
            };
            Served { pod, requests }
        });
        join_all(pods).await
    }

    async fn requests(&self, id: LeaseId, address: IpAddr) -> Option<u64> {
        let _place = self.looks.acquire().await.ok()?;
        let address = SocketAddr::new(address, TRITON_METRICS);
        match http::get(address, "/metrics", TIMEOUT, LARGEST, std::future::ready(())).await {
            Ok(text) => Some(count(&String::from_utf8_lossy(&text))),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(lease.id = %id, %address, error, "a Triton does not tell its use");
                None
            }
        }
    }
}

/// Returns the sum of the counter in metrics in the text format of Prometheus.
fn count(metrics: &str) -> u64 {
    // One line for each model and version.
    let succeeded = Family::Success.name();
    let counted = samples(metrics).filter(|sample| sample.name == succeeded && sample.value >= 0.0);
    let values = counted.map(|sample| sample.value);
    // A counter beyond the integers of f64 is none of this world.
    values.sum::<f64>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_requests_that_succeeded_are_counted_over_all_models() {
        let metrics = "\
            # HELP nv_inference_request_success Number of successful inference requests, all batch sizes\n\
            # TYPE nv_inference_request_success counter\n\
            nv_inference_request_success{model=\"a } 9\",version=\"1\"} 3\n\
            nv_inference_request_success{model=\"b\",version=\"1\"} 1.5e+03 1395066363000\n\
            nv_inference_request_success 2\n\
            nv_inference_request_success_total{model=\"c\"} 100\n\
            nv_inference_request_failure{model=\"a\",version=\"1\"} 7\n\
            nv_inference_request_success{model=\"d\"} NaN\n\
            nv_inference_request_success{model=\"e\"\n";
        assert_eq!(count(metrics), 1505);
        assert_eq!(count(""), 0);
    }
}
