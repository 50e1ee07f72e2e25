//! The certificate that the chart makes, in the hands of the server and of its clients.

use std::fs;
use std::path::Path;

use k8s_openapi::ByteString;
use serde_json::Value;
use tempfile::TempDir;
use tms_proto::v1::ListRequest;
use tms_proto::v1::lease_service_client::LeaseServiceClient;
use tms_server::clock::Clock;
use tms_server::{config, serve};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::harness::{Helm, text};

/// Writes what a Secret holds to files.
fn unpack(secret: &Value, folder: &Path) {
    for (name, content) in secret["data"].as_object().unwrap() {
        let ByteString(content) = serde_json::from_value(content.clone()).unwrap();
        fs::write(folder.join(name), content).unwrap();
    }
}

#[test]
fn it_is_for_every_name_of_the_service_and_those_that_are_added() {
    let Some(helm) = Helm::new() else { return };
    let values = "server: {tls: {additionalNames: [tms.example.com, 192.168.49.2, 'fd00::1']}}";
    let rendered = helm.template(values).unwrap();
    let secret = rendered.one("Secret");
    assert_eq!(secret["type"], "kubernetes.io/tls");
    let names = text(&secret["metadata"]["annotations"]["tms.internal/names"]);
    assert_eq!(
        names.split(',').collect::<Vec<_>>(),
        [
            "localhost",
            "tms",
            "tms.ours",
            "tms.ours.svc",
            "tms.ours.svc.cluster.local",
            "tms.example.com",
            "127.0.0.1",
            "192.168.49.2",
            "fd00::1"
        ]
    );
}

#[tokio::test]
async fn clients_that_know_its_authority_believe_the_server_under_each_of_its_names() {
    let Some(helm) = Helm::new() else { return };
    let rendered =
        helm.template("server: {tls: {additionalNames: [tms.example.com, 192.168.49.2]}}").unwrap();
    let folder = TempDir::new().unwrap();
    unpack(rendered.one("Secret"), folder.path());
    let values = format!(
        "
server:
  apiService: {{port: 0}}
  tls: {{certificateFile: {0}/tls.crt, keyFile: {0}/tls.key}}
  database: {{url: 'sqlite://{0}/tms.db'}}
  cluster: {{manifests: {{directory: {0}/manifests}}}}
",
        folder.path().display()
    );
    let file = folder.path().join("values.yaml");
    fs::write(&file, values).unwrap();
    let (config, _) = config::load(&[file], std::iter::empty()).unwrap();
    let server = serve::start(&config, Clock::system()).await.unwrap();

    let authority = Certificate::from_pem(fs::read(folder.path().join("ca.crt")).unwrap());
    let ask = async |name: &str| {
        let tls = ClientTlsConfig::new().ca_certificate(authority.clone()).domain_name(name);
        let endpoint = Endpoint::from_shared(format!("https://{}", server.address())).unwrap();
        let channel = endpoint.tls_config(tls).unwrap().connect().await?;
        Ok::<_, tonic::transport::Error>(LeaseServiceClient::new(channel).list(ListRequest::default()).await)
    };
    for name in ["localhost", "127.0.0.1", "tms", "tms.ours.svc", "tms.example.com", "192.168.49.2"] {
        let answer = ask(name).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert!(answer.is_ok(), "{name}: {answer:?}");
    }
    ask("elsewhere.example.com").await.expect_err("it is not for this name");
    server.stop().await;
}
