//! `tmsctl lease port-forward LEASE`.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::api::Portforwarder;
use serde::Serialize;
use tms_proto::v1;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{Global, look};
use crate::failure::Failure;
use crate::kubernetes::{ClusterArguments, Replica, Replicas};
use crate::output::{self, Form};
use crate::{follow, text, view};

/// Ports of Triton that are forwarded where none is named: HTTP and gRPC.
const TRITON_PORTS: [u16; 2] = [8000, 8001];
const TRITON_HTTP: u16 = TRITON_PORTS[0];
/// Time before another connection is accepted after that failed, which it does where files run out.
const BREATH: Duration = Duration::from_millis(200);

/// Reach a lease from this machine: forward local ports to one of its replicas
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Needs a kubeconfig with the rights to list pods and to get and create pods/portforward in the namespace of the lease. \
Every connection goes to one replica, which is named; where that goes, the next connection takes another. Ctrl-C ends it.

With -z: local address, port of the replica, replica.

Examples:
  # Triton's HTTP and gRPC at localhost:8000 and localhost:8001
  tmsctl lease port-forward 3f0a

  # HTTP at localhost:18000, Triton's metrics at any free port
  tmsctl lease port-forward 3f0a 18000:8000 0:8002")]
pub struct Arguments {
    /// Id of the lease, or a unique prefix of it
    lease: String,

    /// Local port and port of the replica, or one number for both; local port 0 is any free one [default: 8000 8001]
    #[arg(value_name = "LOCAL:REMOTE")]
    ports: Vec<Ports>,

    #[command(flatten)]
    cluster: ClusterArguments,
}

/// A local port, and the port of the replica behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ports {
    local: u16,
    remote: u16,
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            || format!("{text:?} is not LOCAL:REMOTE, such as 18000:8000, or one port, 1 to 65535");
        let (local, remote) = text.split_once(':').unwrap_or((text, text));
        let local = if local.is_empty() { "0" } else { local };
        let ports = Self {
            local: local.parse().map_err(|_| expected())?,
            remote: remote.parse().map_err(|_| expected())?,
        };
        if ports.remote == 0 { Err(expected()) } else { Ok(ports) }
    }
}

#[derive(Serialize)]
struct Forwarding {
    replica: String,
    ports: Vec<ForwardedPort>,
}

#[derive(Serialize)]
struct ForwardedPort {
    local: String,
    remote: u16,
}

pub async fn run(global: &Global, arguments: Arguments) -> Result<(), Failure> {
    let form = global.form()?;
    let lease = look(global, &arguments.lease).await?;
    let replicas = arguments.cluster.replicas(&lease.id, &lease.namespace).await?;
    let replica = serving(&replicas.list().await?).filter(|_| !follow::is_ended(lease.state()));
    let replica = replica.ok_or_else(|| nothing_serves(&lease))?;
    let listeners = listen(&wanted(&arguments.ports)).await?;
    tell(form, &lease, &replica, &listeners)?;
    let forwarder = Arc::new(Forwarder { replicas, replica: Mutex::new(Some(replica)) });
    let mut tasks = JoinSet::new();
    for (listener, remote) in listeners {
        tasks.spawn(Arc::clone(&forwarder).accept(listener, remote));
    }
    tokio::select! {
        _ = tokio::signal::ctrl_c() => Err(Failure::stopped()),
        _ = tasks.join_next() => Err(Failure::local("the forwarding has ended by itself")),
    }
}

fn wanted(asked: &[Ports]) -> Vec<Ports> {
    match asked {
        [] => TRITON_PORTS.map(|port| Ports { local: port, remote: port }).to_vec(),
        asked => asked.to_vec(),
    }
}

async fn listen(wanted: &[Ports]) -> Result<Vec<(TcpListener, u16)>, Failure> {
    let mut listeners = Vec::new();
    for Ports { local, remote } in wanted {
        let address = SocketAddr::from(([127, 0, 0, 1], *local));
        let listener = TcpListener::bind(address).await.map_err(|error| {
            Failure::local(format!("cannot listen on {address}: {error}"))
                .hint(format!("choose another local port, such as 0:{remote} for any free one"))
        })?;
        listeners.push((listener, *remote));
    }
    Ok(listeners)
}

fn tell(
    form: Form,
    lease: &v1::Lease,
    replica: &str,
    listeners: &[(TcpListener, u16)],
) -> Result<(), Failure> {
    let mut ports = Vec::new();
    for (listener, remote) in listeners {
        ports.push(ForwardedPort { local: listener.local_addr()?.to_string(), remote: *remote });
    }
    let forwarding = Forwarding { replica: replica.to_owned(), ports };
    form.print(&forwarding, || sentences(&forwarding), || lines(&forwarding))?;
    if form == Form::Table {
        let http = forwarding.ports.iter().find(|port| port.remote == TRITON_HTTP);
        let call = http.and_then(|port| text::call(&view::Lease::from(lease), &port.local));
        output::say(&call.map(|call| format!("Try it: {call}\n")).unwrap_or_default());
        output::say("Ctrl-C ends it\n");
    }
    Ok(())
}

fn sentences(forwarding: &Forwarding) -> String {
    let sentence = |port: &ForwardedPort| {
        format!("{} leads to port {} of replica {}\n", port.local, port.remote, forwarding.replica)
    };
    forwarding.ports.iter().map(sentence).collect()
}

fn lines(forwarding: &Forwarding) -> String {
    let line =
        |port: &ForwardedPort| text::line(&[&port.local, &port.remote.to_string(), &forwarding.replica]);
    forwarding.ports.iter().map(line).collect()
}

/// Returns the name of the replica to forward to.
fn serving(replicas: &[Replica]) -> Option<String> {
    replicas.iter().find(|replica| replica.serves()).map(|replica| replica.name.clone())
}

fn nothing_serves(lease: &v1::Lease) -> Failure {
    let reason = if lease.message.is_empty() { String::new() } else { format!(": {}", lease.message) };
    let state = view::lease_state(lease.state());
    Failure::local(format!("lease {} has no replica that is ready here; it is {state}{reason}", lease.id)).hint(
        format!(
            "`tmsctl lease watch {}` follows it; is the kubeconfig that of its cluster? --context chooses another",
            text::short(&lease.id)
        ),
    )
}

/// Carries connections to a replica.
struct Forwarder {
    replicas: Replicas,
    /// The replica that the next connection goes to; none after trouble with one.
    replica: Mutex<Option<String>>,
}

impl Forwarder {
    async fn accept(self: Arc<Self>, listener: TcpListener, port: u16) {
        loop {
            match listener.accept().await {
                Ok((connection, _)) => {
                    tokio::spawn(Arc::clone(&self).carry(connection, port));
                }
                Err(error) => {
                    output::warn(&format!("a connection cannot be taken: {error}"));
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    }

    /// Carries one connection. Whatever becomes of it, others go on.
    async fn carry(self: Arc<Self>, mut connection: TcpStream, port: u16) {
        let (replica, mut way) = match self.open(port).await {
            Ok(opened) => opened,
            Err(failure) => return output::say(&failure.report()),
        };
        let trouble = way.take_error(port);
        if let Some(mut stream) = way.take_stream(port) {
            // A connection that breaks is between its two ends; what the replica says about it comes below.
            let _ = copy_bidirectional(&mut connection, &mut stream).await;
        }
        way.abort();
        let Some(trouble) = trouble else { return };
        if let Some(trouble) = trouble.await.filter(|trouble| !trouble.is_empty()) {
            output::warn(&format!("port {port} of replica {replica}: {}", trouble.trim()));
            self.point_to(None);
        }
    }

    /// Opens a way to the replica, or to another one where that is gone.
    async fn open(&self, port: u16) -> Result<(String, Portforwarder), Failure> {
        let known = self.replica.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let refused = match &known {
            Some(replica) => match self.replicas.forward(replica, port).await {
                Ok(way) => return Ok((replica.clone(), way)),
                Err(failure) => Some(failure),
            },
            None => None,
        };
        let other = serving(&self.replicas.list().await?);
        match (other, refused) {
            (Some(other), Some(refused)) if known.as_ref() == Some(&other) => Err(refused),
            (Some(other), _) => {
                let way = self.replicas.forward(&other, port).await?;
                if known.as_ref() != Some(&other) {
                    output::say(&format!("Connections go to replica {other} now\n"));
                }
                self.point_to(Some(other.clone()));
                Ok((other, way))
            }
            (None, refused) => {
                Err(refused.unwrap_or_else(|| Failure::local("no replica of the lease is ready now")))
            }
        }
    }

    fn point_to(&self, replica: Option<String>) {
        *self.replica.lock().unwrap_or_else(PoisonError::into_inner) = replica;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn ports_are_a_pair_or_one_for_both() {
        for (text, local, remote) in
            [("8000", 8000, 8000), ("18000:8000", 18000, 8000), (":8002", 0, 8002), ("0:8002", 0, 8002)]
        {
            assert_eq!(text.parse(), Ok(Ports { local, remote }), "{text}");
        }
        for text in ["", "0", "8000:0", "8000:", "a:8000", "70000", "1:2:3", "-1", "+1:x"] {
            let refused = text.parse::<Ports>().unwrap_err();
            assert!(refused.contains("LOCAL:REMOTE"), "{text}: {refused}");
        }
        assert_eq!(wanted(&[]), [8000, 8001].map(|port| Ports { local: port, remote: port }));
        let one = Ports { local: 1, remote: 2 };
        assert_eq!(wanted(&[one]), [one]);
    }

    #[test]
    fn a_replica_that_serves_and_stays_is_chosen() {
        let replica =
            |name: &str, is_ready, is_ending| Replica { name: name.to_owned(), is_ready, is_ending };
        let replicas =
            [replica("loads", false, false), replica("ends", true, true), replica("serves", true, false)];
        assert_eq!(serving(&replicas).as_deref(), Some("serves"));
        assert_eq!(serving(&replicas[..2]), None);
    }

    #[test]
    fn a_lease_that_does_not_serve_says_where_it_is() {
        let mut lease = testing::lease();
        lease.state = v1::LeaseState::Loading.into();
        lease.message = "1 of 2 models is ready".to_owned();
        let report = anstream::adapter::strip_str(&nothing_serves(&lease).report()).to_string();
        insta::assert_snapshot!(report, @r"
        fatal: lease 3f0a9c2d4b5e46f7a8b9c0d1e2f30415 has no replica that is ready here; it is LOADING: 1 of 2 models is ready
        hint: `tmsctl lease watch 3f0a9c2d4b5e` follows it; is the kubeconfig that of its cluster? --context chooses another
        ");
    }

    #[test]
    fn each_port_is_told_with_its_replica() {
        let port = |local: &str, remote| ForwardedPort { local: local.to_owned(), remote };
        let forwarding = Forwarding {
            replica: "tms-3f0a-x".to_owned(),
            ports: vec![port("127.0.0.1:8000", 8000), port("127.0.0.1:40123", 8002)],
        };
        insta::assert_snapshot!(sentences(&forwarding), @r"
        127.0.0.1:8000 leads to port 8000 of replica tms-3f0a-x
        127.0.0.1:40123 leads to port 8002 of replica tms-3f0a-x
        ");
        assert_eq!(
            lines(&forwarding),
            "127.0.0.1:8000\t8000\ttms-3f0a-x\n127.0.0.1:40123\t8002\ttms-3f0a-x\n"
        );
    }

    /// Answers as the API server does: one replica is listed, which says its name before each piece that it echoes, and
    /// every other is gone.
    #[expect(clippy::result_large_err, reason = "the library wants this type")]
    async fn api_server(listener: TcpListener) {
        use futures::{SinkExt, StreamExt};
        use tokio::io::AsyncWriteExt;
        use tokio_tungstenite::tungstenite::Message;
        use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

        let pods = r#"{"apiVersion":"v1","kind":"PodList","metadata":{},"items":[
            {"metadata":{"name":"serves"},"status":{"conditions":[{"type":"Ready","status":"True"}]}}]}"#;
        let gone =
            r#"{"kind":"Status","metadata":{},"status":"Failure","code":404,"message":"pods not found"}"#;
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut head = [0; 1024];
            let length = connection.peek(&mut head).await.unwrap();
            let head = String::from_utf8_lossy(&head[..length]).into_owned();
            if !head.contains("pods/serves/portforward") {
                let is_list = head.contains("/pods?");
                let (status, body) = if is_list { (200, pods) } else { (404, gone) };
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status} It\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
                connection.write_all(answer.as_bytes()).await.unwrap();
                continue;
            }
            tokio::spawn(async move {
                let agree = |_: &Request, mut response: Response| {
                    let protocol = "v4.channel.k8s.io".parse().unwrap();
                    response.headers_mut().insert("sec-websocket-protocol", protocol);
                    Ok(response)
                };
                let mut socket = tokio_tungstenite::accept_hdr_async(connection, agree).await.unwrap();
                // A channel for data and one for errors; the first message of each is the port.
                for channel in [0, 1] {
                    let port = 8000_u16.to_le_bytes();
                    socket.send(Message::binary(vec![channel, port[0], port[1]])).await.unwrap();
                }
                while let Some(Ok(message)) = socket.next().await {
                    if let Message::Binary(piece) = message {
                        let echo = [&piece[..1], b"serves: ", &piece[1..]].concat();
                        socket.send(Message::binary(echo)).await.unwrap();
                    }
                }
            });
        }
    }

    #[tokio::test]
    async fn connections_go_on_to_another_replica_where_theirs_is_gone() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let _ = rustls::crypto::ring::default_provider().install_default();
        let api = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let replicas = crate::kubernetes::testing::of(&format!("http://{}", api.local_addr().unwrap()));
        tokio::spawn(api_server(api));
        let forwarder = Arc::new(Forwarder { replicas, replica: Mutex::new(Some("gone".to_owned())) });
        let local = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = local.local_addr().unwrap();
        tokio::spawn(Arc::clone(&forwarder).accept(local, 8000));
        // The first connection breaks; it is no matter to the second.
        for word in ["one", "two"] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(word.as_bytes()).await.unwrap();
            let mut answer = vec![0; "serves: one".len()];
            let read = tokio::time::timeout(Duration::from_secs(10), client.read_exact(&mut answer));
            read.await.expect("an answer in time").unwrap();
            assert_eq!(String::from_utf8(answer).unwrap(), format!("serves: {word}"));
        }
        assert_eq!(forwarder.replica.lock().unwrap().as_deref(), Some("serves"));
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_told_with_a_way_out() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let local = taken.local_addr().unwrap().port();
        let report = listen(&[Ports { local, remote: 8000 }]).await.unwrap_err().report();
        assert!(report.contains(&format!("127.0.0.1:{local}")) && report.contains("0:8000"), "{report}");
    }
}
