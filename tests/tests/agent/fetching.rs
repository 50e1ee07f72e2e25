//! Models are fetched from claims and web servers, whatever these do.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tms_server::clock::stopwatch;

use crate::archives::{model, sha256};
use crate::harness::Pod;
use tms_tests::site::{Asked, Reply, Site, answer, cut, file};

/// A Triton that takes every model.
async fn willing_triton() -> Site {
    let loaded = Arc::new(Mutex::new(Vec::new()));
    Site::http(move |asked: &Asked, _| {
        let mut loaded = loaded.lock().unwrap();
        match asked.path.split('/').collect::<Vec<_>>()[1..] {
            ["v2", "health", "live"] => answer(200, &[], b""),
            ["v2", "repository", "models", name, "load"] if asked.header("tms-key") == Some("the-key") => {
                loaded.push(name.to_owned());
                answer(200, &[], b"")
            }
            ["v2", "models", name, "ready"] if loaded.iter().any(|loaded| loaded == name) => {
                answer(200, &[], b"")
            }
            _ => answer(400, &[], b"{}"),
        }
    })
    .await
}

#[tokio::test]
async fn models_from_claims_and_https_are_laid_out_and_loaded_in_order() {
    let pod = Pod::new().claim("sets/b/1/model.py", b"x").claim("c.tar.gz", &model("c", 10));
    let archive = model("a", 100_000);
    let sum = sha256(&archive);
    let site = Site::https(&pod.path("certificates"), move |asked, _| file(asked, &archive, "\"1\"")).await;
    let triton = willing_triton().await;
    let port = site.address.port();
    let pod = pod
        .model("a", &format!("https://localhost:{port}/dir/any-name?signature=hush#sha256={sum}"))
        .model("b", "pvc://c/sets/b")
        .model("c", "pvc://c/c.tar.gz")
        .with("TMS_TRITON_URL", format!("http://{}", triton.address));
    let mut agent = pod.start().await;
    agent.answers("/ready").await;

    assert_eq!(agent.get("/fetched").await.0, 200);
    assert_eq!(pod.files("a"), ["1/weights.bin 100000", "config.pbtxt 28"]);
    assert_eq!(
        fs::read_link(pod.path("models/b")).unwrap(),
        pod.path("claims/c/sets/b").canonicalize().unwrap()
    );
    assert_eq!(pod.files("c"), ["1/weights.bin 10", "config.pbtxt 28"]);
    let loads = triton.paths("POST");
    assert_eq!(loads, ["a", "b", "c"].map(|name| format!("/v2/repository/models/{name}/load")));
    assert_eq!(site.asked()[0].path, "/dir/any-name?signature=hush", "the fragment is not sent");
    assert!(!pod.log().contains("hush") && !pod.log().contains("the-key"), "{}", pod.log());
    let status = agent.status().await;
    assert!(status["models"].as_array().unwrap().iter().all(|model| model["state"] == "ready"), "{status}");
    assert!(agent.terminate().await.success());
}

#[tokio::test]
async fn a_download_that_fails_and_is_cut_goes_on_where_it_ended() {
    let archive = model("a", 200_000);
    let sum = sha256(&archive);
    let length = archive.len();
    let site = Site::http(move |asked, before| match before {
        0 => answer(503, &[("retry-after", "0")], b""),
        1 => cut(&archive, length / 2, "\"v1\""),
        2 => answer(429, &[("retry-after", "1")], b""),
        _ => file(asked, &archive, "\"v1\""),
    })
    .await;
    let pod = Pod::new().with("TMS_ALLOW_HTTP", "true");
    let pod = pod.model("a", &format!("http://{}/a#sha256={sum}", site.address));
    let stopwatch = stopwatch();
    let mut agent = pod.start().await;
    let seen = agent.shows("a message on the model", |status| status["models"][0]["message"] != "").await;
    assert_eq!(seen["models"][0]["state"], "downloading");
    let (code, why) = agent.get("/fetched").await;
    assert_eq!(code, 503, "{why}");
    agent.answers("/fetched").await;
    assert_eq!(pod.files("a"), ["1/weights.bin 200000", "config.pbtxt 28"]);
    assert!(stopwatch.elapsed() >= Duration::from_secs(1), "Retry-After was obeyed");
    let asked = site.asked();
    let ranges: Vec<_> =
        asked.iter().map(|asked| (asked.header("range"), asked.header("if-range"))).collect();
    let range = format!("bytes={}-", length / 2);
    let resumed = (Some(range.as_str()), Some("\"v1\""));
    assert_eq!(ranges, [(None, None), (None, None), resumed, resumed]);
}

#[tokio::test]
async fn a_file_that_changed_between_two_tries_is_fetched_anew() {
    let (old, new) = (model("a", 50_000), model("a", 60_000));
    let site = Site::http(move |asked, before| match before {
        0 => cut(&old, old.len() - 10, "\"old\""),
        1 => file(asked, &new, "\"new\""),
        _ => Reply::Silence,
    })
    .await;
    let pod = Pod::new().with("TMS_ALLOW_HTTP", "true").model("a", &format!("http://{}/a", site.address));
    pod.start().await.answers("/fetched").await;
    assert_eq!(pod.files("a"), ["1/weights.bin 60000", "config.pbtxt 28"]);
}

#[tokio::test]
async fn a_file_of_two_pieces_that_do_not_fit_is_fetched_anew() {
    let archive = model("a", 50_000);
    // It is the checksum that tells, or else the archive.
    for fragment in [format!("#sha256={}", sha256(&archive)), String::new()] {
        let (archive, other) = (archive.clone(), vec![0; archive.len()]);
        let site = Site::http(move |asked, before| match before {
            0 => cut(&other, other.len() / 2, "\"same\""),
            _ => file(asked, &archive, "\"same\""),
        })
        .await;
        let uri = format!("http://{}/a{fragment}", site.address);
        let pod = Pod::new().with("TMS_ALLOW_HTTP", "true").model("a", &uri);
        pod.start().await.answers("/fetched").await;
        assert_eq!(pod.files("a"), ["1/weights.bin 50000", "config.pbtxt 28"]);
        let ranged: Vec<_> = site.asked().iter().map(|asked| asked.header("range").is_some()).collect();
        assert_eq!(ranged, [false, true, false]);
    }
}

#[tokio::test]
async fn credentials_reach_their_host_and_no_other() {
    let pod = Pod::new();
    let archive = model("a", 10);
    let elsewhere = Site::https(&pod.path("certificates"), move |_, _| answer(200, &[], &archive)).await;
    let target = format!("https://127.0.0.1:{}/a", elsewhere.address.port());
    let first = Site::https(&pod.path("certificates"), move |asked, _| match asked.path.as_str() {
        "/private/a" => answer(302, &[("location", "/private/b")], b""),
        _ => answer(307, &[("location", &target)], b""),
    })
    .await;
    let uri = format!("https://localhost:{}/private/a", first.address.port());
    let pod = pod.secret_model("a", &uri, "model-credentials", "Bearer hush\n");
    pod.start().await.answers("/fetched").await;
    let sent = |site: &Site| -> Vec<_> {
        site.asked().iter().map(|asked| asked.header("authorization").map(str::to_owned)).collect()
    };
    let bearer = Some("Bearer hush".to_owned());
    assert_eq!(sent(&first), [bearer.clone(), bearer]);
    assert_eq!(sent(&elsewhere), [None]);
    assert!(!pod.log().contains("hush"), "{}", pod.log());
}

#[tokio::test]
async fn an_agent_that_is_started_again_fetches_nothing_twice() {
    let site = Site::http(|asked, before| match before {
        0 => file(asked, &model("a", 10), "\"1\""),
        1 => cut(&model("b", 90_000), 40_000, "\"1\""),
        2 => Reply::Silence,
        _ => file(asked, &model("b", 90_000), "\"1\""),
    })
    .await;
    let uri = |name: &str| format!("http://{}/{name}", site.address);
    let pod = Pod::new().with("TMS_ALLOW_HTTP", "true").model("a", &uri("a")).model("b", &uri("b"));
    let mut agent = pod.start().await;
    tms_tests::wait::until("the third request", 30, || {
        std::future::ready((site.asked().len() == 3).then_some(()))
    })
    .await;
    assert!(pod.path("models/.tms-work/download").exists());
    agent.kill();
    let mut agent = pod.start().await;
    agent.answers("/fetched").await;
    assert_eq!(site.paths("GET"), ["/a", "/b", "/b", "/b"]);
    assert_eq!(pod.files("b"), ["1/weights.bin 90000", "config.pbtxt 28"]);
    assert_eq!(site.asked()[3].header("range"), None, "half a file of before is not trusted");
    let mut left: Vec<_> =
        fs::read_dir(pod.path("models/.tms-work")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["a.laid-out.mark", "b.laid-out.mark"]);
}

#[tokio::test]
async fn news_are_told_as_they_come_and_the_agent_ends_at_once() {
    let site = Site::http(|_, before| match before {
        0 => cut(&model("a", 90_000), 40_000, "\"1\""),
        _ => Reply::Silence,
    })
    .await;
    let pod = Pod::new().with("TMS_ALLOW_HTTP", "true").model("a", &format!("http://{}/a", site.address));
    let mut agent = pod.start().await;
    let mut revision = 0;
    let mut seen = Vec::new();
    while !seen.iter().any(|model: &serde_json::Value| model["message"] != "") {
        let later: serde_json::Value =
            serde_json::from_str(&agent.get(&format!("/status?after={revision}")).await.1).unwrap();
        assert!(later["revision"].as_u64().unwrap() > revision, "{later}");
        revision = later["revision"].as_u64().unwrap();
        seen.push(later["models"][0].clone());
    }
    let last = seen.last().unwrap();
    assert_eq!((&last["name"], &last["state"]), (&"a".into(), &"downloading".into()));
    assert!(last["totalBytes"].as_u64() > Some(90_000), "{last}");
    assert_eq!(agent.get("/status?after=x").await.0, 400);
    assert_eq!(agent.get("/other").await.0, 404);
    let stopwatch = stopwatch();
    assert!(agent.terminate().await.success());
    assert!(stopwatch.elapsed() < Duration::from_secs(1));
}
