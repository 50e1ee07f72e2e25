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
    let condition = || {
        let seen = condition();
        async { seen.await.ok_or_else(String::new) }
    };
    until_so(what, seconds, condition).await
}

/// The same, where the condition says how it is as long as it is not so.
pub async fn until_so<T, F: Future<Output = Result<T, String>>>(
    what: &str,
    seconds: u64,
    mut condition: impl FnMut() -> F,
) -> T {
    let mut last = String::new();
    let wait = async {
        loop {
            match condition().await {
                Ok(value) => return value,
                Err(otherwise) => last = otherwise,
            }
            tokio::time::sleep(PACE).await;
        }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(seconds), wait).await;
    outcome.unwrap_or_else(|_| panic!("{what}: not within {seconds} s: {last}"))
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
