//! Waiting for a condition, with a deadline; and running a test inside a cluster.

use std::time::Duration;

use crate::cluster::Cluster;

/// Between two looks at a condition.
const PACE: Duration = Duration::from_millis(20);

/// Waits until `condition` gives a value, and fails the test where it does not within `seconds`.
pub async fn until<T, F: Future<Output = Option<T>>>(
    what: &str,
    seconds: u64,
    mut condition: impl FnMut() -> F,
) -> T {
    let wait = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(PACE).await;
        }
    };
    match tokio::time::timeout(Duration::from_secs(seconds), wait).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {seconds} s"),
    }
}

/// Runs a scenario on a thread inside the cluster's network, with a runtime of its own.
pub fn inside<F: Future<Output = ()>>(cluster: &Cluster, scenario: impl FnOnce() -> F + Send) {
    std::thread::scope(|scope| {
        let name = std::thread::current().name().map(str::to_owned).unwrap_or_default();
        let run = || {
            cluster.enter();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be made").block_on(scenario());
        };
        let thread =
            std::thread::Builder::new().name(name).spawn_scoped(scope, run).expect("a thread can be made");
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}
