//! Berth's gRPC API, generated from `berth/v1/berth.proto`, which is its documentation.

/// Version 1 of the API.
pub mod v1 {
    #![allow(rustdoc::all)]
    tonic::include_proto!("berth.v1");

    /// The API as a `google.protobuf.FileDescriptorSet`.
    pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("berth.v1");
}
