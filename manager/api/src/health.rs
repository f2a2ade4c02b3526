//! The standard health service, grpc.health.v1: serving from the first answer to the manager's stop.

use proto::v1::containers_server::ContainersServer;
use proto::v1::images_server::ImagesServer;
use proto::v1::networks_server::NetworksServer;
use proto::v1::system_server::SystemServer;
use proto::v1::volumes_server::VolumesServer;
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;

use crate::containers::Containers;
use crate::images::Images;
use crate::networks::Networks;
use crate::stop::Stopping;
use crate::system::System;
use crate::volumes::Volumes;

/// The name by which the server as a whole is asked for.
const WHOLE: &str = "";
const SERVICES: [&str; 6] = [
    WHOLE,
    ImagesServer::<Images>::NAME,
    ContainersServer::<Containers>::NAME,
    SystemServer::<System>::NAME,
    VolumesServer::<Volumes>::NAME,
    NetworksServer::<Networks>::NAME,
];

/// The service. Those who watch it are told when the manager stops.
pub(crate) async fn service(stopping: &Stopping) -> HealthServer<impl Health> {
    let (reporter, service) = tonic_health::server::health_reporter();
    report(&reporter, ServingStatus::Serving).await;
    let mut stopping = stopping.clone();
    tokio::spawn(async move {
        stopping.status().await;
        report(&reporter, ServingStatus::NotServing).await;
    });
    service
}

async fn report(reporter: &HealthReporter, status: ServingStatus) {
    for service in SERVICES {
        reporter.set_service_status(service, status).await;
    }
}
