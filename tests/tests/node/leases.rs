//! A lease ends in Tritons that have loaded its models in order, or says in plain words why not.

use std::collections::BTreeSet;

use tms_proto::v1::{LeaseState, ModelState};
use tms_tests::models::Model;
use tms_tests::server::Database;

use crate::installation::{Client, models, on, with_gpus};
use crate::site::Store;

#[test]
fn models_load_in_order_and_answer_through_the_service_with_sqlite() {
    on(Database::Sqlite, models_load_in_order_and_answer);
}

#[test]
fn models_load_in_order_and_answer_through_the_service_with_postgresql() {
    on(Database::Postgres, models_load_in_order_and_answer);
}

/// `second` asks `claimed` while it is loaded, and `both` needs `claimed` and `second`.
async fn models_load_in_order_and_answer(client: Client<'static>) {
    let store =
        Store::start(&[Model::asks("second", "claimed"), Model::pair("both", "claimed", "second")]).await;
    let spec = models([
        ("claimed", "pvc://models/claimed"),
        ("second", &store.uri("second")),
        ("both", &store.uri("both")),
    ]);
    let (lease, told) = client.acquired(with_gpus(spec, 1)).await;
    assert_eq!(lease.state(), LeaseState::Ready, "{told:#?}");
    let last: Vec<_> = told.last().unwrap().models.iter().map(|m| (m.name.as_str(), m.state())).collect();
    assert_eq!(last, ["claimed", "second", "both"].map(|name| (name, ModelState::Ready)));
    let states: BTreeSet<_> =
        told.iter().flat_map(|message| &message.models).map(|m| m.state() as i32).collect();
    assert!(states.len() > 1, "there was progress on the way: {told:#?}");

    let endpoint = lease.endpoint.as_ref().unwrap();
    let program = ask(&format!("http://{}:{}/v2/models/both/infer", endpoint.host, endpoint.http_port));
    assert_eq!(client.installation.namespace.until_answered(&program).await, "[1.5, 2.5]\n");
    let log = ["logs", "--selector=app.kubernetes.io/name=tms-server", "--tail=-1"];
    let log = client.installation.namespace.kubectl(&log).expect("the kubelet gives the log");
    let is_start = |line: &&str| line.contains(&lease.id) && line.contains("cold_start.ready_ms");
    let start = log.lines().find(is_start).expect("the server says where the first start went");
    println!("a cold start: {}", &start[start.find("cold_start").unwrap()..]);
    // Who may ask the models may not unload them.
    let program =
        unload(&format!("http://{}:{}/v2/repository/models/both/unload", endpoint.host, endpoint.http_port));
    assert_eq!(client.installation.namespace.ask(&program).as_deref(), Ok("403\n"));
    client.release(&lease.id).await;
}

fn ask(url: &str) -> String {
    format!(
        r#"
import json, urllib.request
question = {{"inputs": [{{"name": "INPUT", "datatype": "FP32", "shape": [2], "data": [1.5, 2.5]}}]}}
answer = urllib.request.urlopen(urllib.request.Request("{url}", json.dumps(question).encode()), timeout=10)
print(json.load(answer)["outputs"][0]["data"])
"#
    )
}

fn unload(url: &str) -> String {
    format!(
        r#"
import urllib.error, urllib.request
try:
    print(urllib.request.urlopen(urllib.request.Request("{url}", b"{{}}"), timeout=10).status)
except urllib.error.HTTPError as error:
    print(error.code)
"#
    )
}

#[test]
fn one_bad_model_of_three_makes_the_lease_invalid_with_its_reason_and_frees_everything() {
    on(Database::Sqlite, async |client| {
        let bad = Model::echo("bad").with("fail_on_load", "the weights are of another architecture");
        let store = Store::start(&[Model::echo("good"), bad, Model::echo("late")]).await;
        let spec =
            models([("good", &store.uri("good")), ("bad", &store.uri("bad")), ("late", &store.uri("late"))]);
        let (lease, told) = client.acquired(spec).await;
        assert_eq!(lease.state(), LeaseState::Invalid, "{told:#?}");
        assert!(
            lease.message.contains("bad")
                && lease.message.contains("the weights are of another architecture"),
            "{}",
            lease.message
        );
        let failed: Vec<_> =
            told.last().unwrap().models.iter().map(|m| m.state() == ModelState::Failed).collect();
        assert_eq!(failed, [false, true, false]);
        client.until(&lease.id, "holds nothing", |lease| lease.closed_at.is_some()).await;
        assert!(client.installation.pods(&lease.id).is_empty());
    });
}

#[test]
fn models_that_are_not_what_they_should_be_make_the_lease_invalid_in_plain_words() {
    on(Database::Sqlite, async |client| {
        let store = Store::start(&[Model::echo("named"), Model::echo("empty")]).await;
        store.put("page.tar.gz", b"<html>sign in</html>");
        let cases = [
            ("other", store.uri("named"), "config.pbtxt"),
            ("page", store.uri("page"), "archive"),
            ("absent", store.uri("absent"), "404"),
            ("nowhere", "pvc://models/nowhere".to_owned(), "nowhere"),
        ];
        for (name, uri, word) in cases {
            let (lease, _) = client.acquired(models([(name, &uri)])).await;
            println!("{uri} as {name}: {}", lease.message);
            assert_eq!(lease.state(), LeaseState::Invalid, "{name}");
            assert!(lease.message.contains(word), "{name}: {}", lease.message);
        }
    });
}

#[test]
fn a_download_that_fails_twice_is_tried_again_until_it_works() {
    on(Database::Postgres, async |client| {
        let store = Store::start(&[Model::echo("flaky")]).await;
        store.fail("flaky.tar.gz", 2);
        let lease = client.ready(models([("flaky", &store.uri("flaky"))])).await;
        assert!(store.asked("flaky.tar.gz") >= 3);
        client.release(&lease.id).await;
    });
}

#[test]
fn an_image_that_does_not_exist_is_said_and_released() {
    on(Database::Postgres, async |client| {
        let store = Store::start(&[Model::echo("echo")]).await;
        let mut spec = with_gpus(models([("echo", &store.uri("echo"))]), 0);
        spec.bespoke.as_mut().unwrap().image = "docker.io/local/no-such-triton:1".to_owned();
        let mut stream = client.acquire(spec).await.expect("the lease is granted");
        let id = stream.message().await.unwrap().unwrap().lease.unwrap().id;
        let lease =
            client.until(&id, "says what is wrong", |lease| lease.message.contains("cannot be pulled")).await;
        assert!(lease.message.contains("docker.io/local/no-such-triton:1"), "{}", lease.message);
        client.release(&id).await;
    });
}

#[test]
fn more_gpus_than_the_node_has_are_said_and_released() {
    on(Database::Sqlite, async |client| {
        let store = Store::start(&[Model::echo("echo")]).await;
        let spec = with_gpus(models([("echo", &store.uri("echo"))]), 9);
        let mut stream = client.acquire(spec).await.expect("the lease is granted");
        let id = stream.message().await.unwrap().unwrap().lease.unwrap().id;
        let is_said = |lease: &tms_proto::v1::Lease| lease.message.contains("no node can take a replica");
        let lease = client.until(&id, "says what is wrong", is_said).await;
        assert!(lease.message.contains("nvidia.com/gpu"), "{}", lease.message);
        client.release(&id).await;
    });
}
