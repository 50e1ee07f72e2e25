//! What a person types.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};

use tms_tests::models::Model;
use tms_tests::server::Database;
use tms_tests::wait::until;

use crate::installation::{Client, Installation, on};
use crate::site::Store;

#[test]
fn a_person_creates_a_lease_asks_it_reads_its_logs_and_releases_it() {
    on(Database::Sqlite, async |client| {
        let store = Store::start(&[Model::echo("a").with("load_time_ms", "1500")]).await;
        let models =
            [format!("name=a,uri={}", store.uri("a")), "name=claimed,uri=pvc://models/claimed".to_owned()];
        let person = Person::of(&client).await;
        let said =
            person.types(&["lease", "create", "-m", &models[0], "-m", &models[1], "--enable-autoscaling"]);
        println!("{said}");
        assert!(said.contains("READY"), "{said}");
        let id = said
            .split_whitespace()
            .find(|word| word.len() == 32)
            .expect("it prints the lease's id")
            .to_owned();

        let line = said.lines().find(|line| line.contains(" curl ")).expect("a curl line");
        let url = line.split_whitespace().last().unwrap().trim_matches('\'').to_owned();
        let program =
            format!("import urllib.request; print(urllib.request.urlopen({url:?}, timeout=5).status)");
        assert_eq!(client.installation.namespace.until_answered(&program).await, "200\n", "{line}");
        let pods = client.installation.namespace.kubectl(&[
            "get",
            "pods",
            "--no-headers",
            "--selector",
            &format!("tms.internal/lease-id={id}"),
        ]);
        assert!(pods.as_ref().is_ok_and(|pods| pods.contains("2/2")), "{pods:?}");

        let logs = person.types(&["lease", "logs", &id, "--container", "triton"]);
        assert!(logs.contains("successfully loaded 'a'"), "{logs}");
        assert!(!person.types(&["lease", "logs", &id, "--container", "agent"]).is_empty());
        forward(&person, &id).await;
        person.types(&["lease", "release", &id]);
        client.until(&id, "holds nothing", |lease| lease.closed_at.is_some()).await;
    });
}

/// Somebody at a terminal, who reaches the server as the chart's notes say: by `kubectl port-forward`.
struct Person {
    installation: &'static Installation,
    forward: Child,
    target: String,
}

impl Person {
    async fn of(client: &Client<'static>) -> Self {
        // A server or a kubelet that another test started again may not take the connection yet.
        until("kubectl forwards a port", 60, async || Self::by_forward(client.installation)).await
    }

    fn by_forward(installation: &'static Installation) -> Option<Self> {
        let place = ["--namespace", installation.namespace.name, "service/tms", ":30345"];
        let mut forward = installation.cluster.start_kubectl(&[&["port-forward"], &place[..]].concat());
        let mut line = String::new();
        let output = forward.stdout.as_mut().expect("it was piped");
        BufReader::new(output).read_line(&mut line).expect("kubectl writes text");
        // Forwarding from 127.0.0.1:PORT -> 30345
        let port = line.split_once("127.0.0.1:").and_then(|(_, rest)| rest.split(' ').next());
        let Some(port) = port else {
            forward.wait().expect("it is ours");
            return None;
        };
        Some(Self { installation, target: format!("https://localhost:{port}"), forward })
    }

    /// Runs tmsctl, which succeeds, and returns all that it said.
    fn types(&self, args: &[&str]) -> String {
        let output = self.installation.tmsctl(&self.target, args).output().expect("tmsctl starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{args:?}: {said}");
        said
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.forward.kill();
        let _ = self.forward.wait();
    }
}

/// A port of this machine answers for the lease.
async fn forward(person: &Person, id: &str) {
    let mut command =
        person.installation.tmsctl(&person.target, &["lease", "port-forward", id, "18000:8000"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("tmsctl starts");
    let asked = until("the forwarded port answers", 60, async || {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", 18000)).ok()?;
        stream.write_all(b"GET /v2/models/a/ready HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").ok()?;
        BufReader::new(stream).lines().next()?.ok()
    })
    .await;
    assert!(asked.contains("200"), "{asked}");
    child.kill().expect("it is ours");
    child.wait().expect("it is ours");
}
