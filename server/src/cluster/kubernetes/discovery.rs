//! Finds out what the cluster serves.

use kube::Client;

use super::aggregation::GROUP;
use super::calls::Calls;
use crate::cluster::ActError;
use crate::domain::capabilities::Capabilities;

/// Asks the API server what it serves.
pub(super) async fn discover(client: &Client, calls: &Calls) -> Result<Capabilities, ActError> {
    let version = calls.make("its version", client.apiserver_version()).await?;
    let monitoring = kinds(client, calls, "monitoring.coreos.com/v1").await?;
    let keda = kinds(client, calls, "keda.sh/v1alpha1").await?;
    let groups = calls.make("its API groups", client.list_api_groups()).await?;
    let has_group = |name: &str| groups.groups.iter().any(|group| group.name == name);
    Ok(Capabilities {
        kubernetes: number(&version.major).zip(number(&version.minor)),
        pod_monitor: monitoring.iter().any(|kind| kind == "PodMonitor"),
        prometheus_rule: monitoring.iter().any(|kind| kind == "PrometheusRule"),
        scaled_object: keda.iter().any(|kind| kind == "ScaledObject"),
        custom_metrics: has_group(GROUP),
        resource_metrics: has_group("metrics.k8s.io"),
        custom_metrics_service: None,
    })
}

async fn kinds(client: &Client, calls: &Calls, group_version: &str) -> Result<Vec<String>, ActError> {
    let answer = calls.make(group_version, async {
        match client.list_api_group_resources(group_version).await {
            Ok(list) => Ok(list.resources.into_iter().map(|resource| resource.kind).collect()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    });
    answer.await
}

/// Returns the number that a version part such as `36` or `33+` begins with.
fn number(text: &str) -> Option<u32> {
    text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
}
