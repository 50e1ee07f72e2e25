//! The gRPC interface of TMS, generated from `proto/tms/v1/*.proto`.

/// Messages, clients and servers of `tms.v1`.
#[allow(
    clippy::doc_markdown,
    clippy::doc_lazy_continuation,
    clippy::large_enum_variant,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("tms.v1");
}

/// The encoded descriptors of `tms.v1`, served by reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("tms_descriptor");
