//! The Services: where clients reach the Tritons of a lease. One has an address and spreads connections; the headless one
//! names every ready replica, for clients that spread requests by themselves.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::containers::{GRPC_PORT, HTTP_PORT};
use super::labels::{self, Map};
use super::{Kind, Object, Settings, TRITON_GRPC, TRITON_HTTP};
use crate::domain::lease::Lease;

/// Returns the Service.
pub(super) fn service(lease: &Lease, settings: &Settings) -> Object {
    object(Kind::Service, None, lease, settings)
}

/// Returns the headless Service.
pub(super) fn headless(lease: &Lease, settings: &Settings) -> Object {
    object(Kind::HeadlessService, Some("None"), lease, settings)
}

fn object(kind: Kind, cluster_ip: Option<&str>, lease: &Lease, settings: &Settings) -> Object {
    let mut metadata = labels::metadata(lease, settings, &Map::new());
    metadata.name = Some(kind.object_name(lease.id));
    let service = Service {
        metadata,
        spec: Some(ServiceSpec {
            cluster_ip: cluster_ip.map(str::to_owned),
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
    Object::new(kind, &service)
}

fn port(name: &str, number: i32) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: number,
        target_port: Some(IntOrString::String(name.to_owned())),
        ..ServicePort::default()
    }
}
