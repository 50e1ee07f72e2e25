//! Triton's faults, played by a server that answers as a test says.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::harness::Pod;
use tms_tests::site::{Asked, Reply, Site, answer};

fn pod(triton: &Site) -> Pod {
    let pod = Pod::new().claim("a/1/x", b"").claim("b/1/x", b"");
    let pod = pod.model("a", "pvc://c/a").model("b", "pvc://c/b");
    pod.with("TMS_TRITON_URL", format!("http://{}", triton.address))
}

/// A Triton whose answers to loads a test gives; it serves what it has loaded until it is told to forget.
struct Triton {
    site: Site,
    loaded: Arc<Mutex<Vec<String>>>,
}

impl Triton {
    async fn new(load: impl Fn(&str, usize) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let loaded = Arc::new(Mutex::new(Vec::new()));
        let (kept, count) = (loaded.clone(), AtomicUsize::new(0));
        let site = Site::http(move |asked: &Asked, _| match asked.path.split('/').collect::<Vec<_>>()[1..] {
            ["v2", "health", "live"] => answer(200, &[], b""),
            ["v2", "repository", "models", name, "load"] => {
                let refused = load(name, count.fetch_add(1, Ordering::SeqCst));
                refused.unwrap_or_else(|| {
                    kept.lock().unwrap().push(name.to_owned());
                    answer(200, &[], b"")
                })
            }
            ["v2", "models", name, "ready"] if kept.lock().unwrap().iter().any(|kept| kept == name) => {
                answer(200, &[], b"")
            }
            _ => answer(400, &[], b"{}"),
        })
        .await;
        Self { site, loaded }
    }

    fn loads(&self) -> Vec<String> {
        let name = |path: String| path.split('/').nth(4).unwrap().to_owned();
        self.site.paths("POST").into_iter().map(name).collect()
    }
}

#[tokio::test]
async fn a_fault_that_passes_is_tried_again_and_the_order_holds() {
    let triton = Triton::new(|name, before| match (name, before) {
        ("a", 0) => Some(answer(500, &[], br#"{"error":"out of shared memory"}"#)),
        ("b", 2) => Some(Reply::Bytes(Vec::new())),
        ("b", 3) => Some(answer(400, &[], br#"{"error":"CUDA out of memory"}"#)),
        _ => None,
    })
    .await;
    let pod = pod(&triton.site);
    let mut agent = pod.start().await;
    agent.answers("/ready").await;
    assert_eq!(triton.loads(), ["a", "a", "b", "b", "b"]);
    assert!(pod.log().contains("out of shared memory"), "{}", pod.log());
}

#[tokio::test]
async fn a_triton_that_hangs_in_a_load_is_waited_for() {
    let triton = Triton::new(|name, _| (name == "b").then_some(Reply::Silence)).await;
    let pod = pod(&triton.site);
    let agent = pod.start().await;
    let status = agent
        .shows("b is being loaded", |status| {
            status["models"][1]["state"] == "loading" && status["models"][1]["message"] == ""
        })
        .await;
    assert_eq!(status["models"][0]["state"], "ready");
    assert_eq!(agent.get("/ready").await, (503, "b is being loaded".to_owned()));
    assert_eq!(agent.get("/fetched").await.0, 200);
}

#[tokio::test]
async fn a_model_that_triton_refuses_ends_the_agent_with_its_reason() {
    let triton = Triton::new(|name, _| {
        let error = br#"{"error":"load failed for model 'b': version 1 is at UNAVAILABLE state: Internal: ValueError: no weights\n\nAt:\n  /models/b/1/model.py(3): initialize\n;\n"}"#;
        (name == "b").then(|| answer(400, &[], error))
    })
    .await;
    let pod = pod(&triton.site);
    let mut agent = pod.start().await;
    assert_eq!(agent.ended().await.code(), Some(3));
    let expected = r#"{"failed":[{"name":"b","message":"ValueError: no weights (1/model.py, line 3)"}]}"#;
    assert_eq!(pod.termination(), expected);
}

#[tokio::test]
async fn after_all_were_ready_no_fault_ends_the_agent() {
    let refuses = Arc::new(AtomicBool::new(false));
    let told = refuses.clone();
    let triton = Triton::new(move |_, _| {
        told.load(Ordering::SeqCst).then(|| answer(400, &[], br#"{"error":"no GPU"}"#))
    })
    .await;
    let pod = pod(&triton.site);
    let mut agent = pod.start().await;
    agent.answers("/ready").await;

    refuses.store(true, Ordering::SeqCst);
    triton.loaded.lock().unwrap().clear();
    agent.shows("a has failed", |status| status["models"][0]["state"] == "failed").await;
    assert_eq!(agent.get("/ready").await, (503, "a cannot be loaded: no GPU".to_owned()));

    // An agent that is started again in the pod knows that all were ready once.
    agent.kill();
    let mut agent = pod.start().await;
    agent.shows("a has failed", |status| status["models"][0]["state"] == "failed").await;
    refuses.store(false, Ordering::SeqCst);
    agent.answers("/ready").await;
    assert_eq!(pod.termination(), "");
    let loads = triton.loads();
    assert_eq!(loads[loads.len() - 2..], ["a", "b"]);
}
