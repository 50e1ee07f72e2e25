//! The Service: where clients reach the Tritons of a lease.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::containers::{GRPC_PORT, HTTP_PORT};
use super::labels::{self, Map};
use super::{Kind, Object, Settings, TRITON_GRPC, TRITON_HTTP};
use crate::domain::lease::Lease;

/// Returns the Service.
pub(super) fn service(lease: &Lease, settings: &Settings) -> Object {
    let service = Service {
        metadata: labels::metadata(lease, settings, &Map::new()),
        spec: Some(ServiceSpec {
            selector: Some(labels::selected(lease.id)),
            ports: Some(vec![
                port(HTTP_PORT, TRITON_HTTP.into()),
                ServicePort {
                    app_protocol: Some("kubernetes.io/h2c".to_owned()),
                    ..port(GRPC_PORT, TRITON_GRPC.into())
                },
            ]),
            ..ServiceSpec::default()
        }),
        status: None,
    };
    Object::new(Kind::Service, &service)
}

fn port(name: &str, number: i32) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: number,
        target_port: Some(IntOrString::String(name.to_owned())),
        ..ServicePort::default()
    }
}
