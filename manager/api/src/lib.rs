//! The manager's front doors. They translate between a protocol and the engine, and decide nothing.

mod archives;
mod check;
mod containers;
mod images;
mod progress;
mod registries;
mod status;
mod stop;
mod streams;
mod system;
mod translate;
mod usage;

use engine::Engine;
use proto::v1::containers_server::ContainersServer;
use proto::v1::images_server::ImagesServer;
use proto::v1::system_server::SystemServer;
use tonic::transport::Server;
use tonic::transport::server::Router;

pub use stop::Stopping;

/// No request is longer; standard input comes in chunks that clients keep far below this.
const REQUEST_MAX_BYTES: usize = 4 << 20;
/// No answer is longer: the list of all containers is the longest.
const RESPONSE_MAX_BYTES: usize = 64 << 20;

/// Berth's own gRPC API, version 1, over `engine`. Who waits for something when the manager is `stopping` is told.
pub fn grpc(engine: &Engine, stopping: &Stopping) -> Router {
    let images = ImagesServer::new(images::Images(engine.clone(), stopping.clone()))
        .max_decoding_message_size(REQUEST_MAX_BYTES)
        .max_encoding_message_size(RESPONSE_MAX_BYTES);
    let containers = ContainersServer::new(containers::Containers(engine.clone(), stopping.clone()))
        .max_decoding_message_size(REQUEST_MAX_BYTES)
        .max_encoding_message_size(RESPONSE_MAX_BYTES);
    let system = SystemServer::new(system::System(engine.clone(), stopping.clone()))
        .max_decoding_message_size(REQUEST_MAX_BYTES)
        .max_encoding_message_size(RESPONSE_MAX_BYTES);
    Server::builder()
        .add_service(images)
        .add_service(containers)
        .add_service(system)
}
