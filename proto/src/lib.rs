//! Berth's gRPC API, generated from `berth/v1/berth.proto`, which is its documentation.

/// Version 1 of the API.
pub mod v1 {
    #![allow(rustdoc::all)]
    tonic::include_proto!("berth.v1");
}
