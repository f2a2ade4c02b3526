//! The manager's front doors. They translate between a protocol and the engine, and decide nothing.

mod archives;
mod check;
mod containers;
mod health;
mod images;
mod metrics;
mod networks;
mod progress;
mod registries;
mod setup;
mod stats;
mod status;
mod stop;
mod streams;
mod system;
mod trace;
mod translate;
mod usage;
mod volumes;

use engine::Engine;
use proto::v1;
use proto::v1::containers_server::ContainersServer;
use proto::v1::images_server::ImagesServer;
use proto::v1::networks_server::NetworksServer;
use proto::v1::system_server::SystemServer;
use proto::v1::volumes_server::VolumesServer;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};
use tower::layer::util::{Identity, Stack};

pub use metrics::{Form, Measure, Metrics};
pub use setup::{Configuration, Setup};
pub use stop::Stopping;

/// No request is longer; standard input comes in chunks that clients keep far below this.
const REQUEST_MAX_BYTES: usize = 4 << 20;
/// No answer is longer: the list of all containers is the longest.
const RESPONSE_MAX_BYTES: usize = 64 << 20;

/// Berth's own gRPC API, version 1, over `engine`, added to what `server` is set up for. With it come the standard
/// services by which tools ask for a server's health and for what it offers. Calls are measured by `metrics`. Who waits for something when the manager
/// is `stopping` is told.
pub async fn grpc(
    server: Server,
    engine: &Engine,
    stopping: &Stopping,
    setup: &Setup,
    metrics: Option<&Metrics>,
) -> Router<Stack<Measure, Identity>> {
    let images = ImagesServer::new(images::Images(engine.clone(), stopping.clone()))
        .max_decoding_message_size(REQUEST_MAX_BYTES)
        .max_encoding_message_size(RESPONSE_MAX_BYTES);
    let containers = ContainersServer::new(containers::Containers(engine.clone(), stopping.clone()))
        .max_decoding_message_size(REQUEST_MAX_BYTES)
        .max_encoding_message_size(RESPONSE_MAX_BYTES);
    let system = SystemServer::new(system::System(engine.clone(), stopping.clone(), setup.clone()))
        .max_decoding_message_size(REQUEST_MAX_BYTES)
        .max_encoding_message_size(RESPONSE_MAX_BYTES);
    let volumes = VolumesServer::new(volumes::Volumes(engine.clone()))
        .max_decoding_message_size(REQUEST_MAX_BYTES)
        .max_encoding_message_size(RESPONSE_MAX_BYTES);
    let networks = NetworksServer::new(networks::Networks(engine.clone()))
        .max_decoding_message_size(REQUEST_MAX_BYTES)
        .max_encoding_message_size(RESPONSE_MAX_BYTES);
    server
        .layer(Measure(metrics.cloned()))
        .add_service(images)
        .add_service(containers)
        .add_service(system)
        .add_service(volumes)
        .add_service(networks)
        .add_service(health::service(stopping).await)
        .add_service(reflection())
}

/// [Server reflection](https://grpc.io/docs/guides/reflection/).
fn reflection() -> ServerReflectionServer<impl ServerReflection> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("what the build has written is a set of descriptors")
}
