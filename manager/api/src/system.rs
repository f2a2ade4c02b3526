//! The `System` service.

use engine::{Engine, EventFilters, EventsRequest};
use proto::v1;
use proto::v1::system_server::System as Service;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::check;
use crate::setup::{self, Setup};
use crate::status::status;
use crate::stop::{Answers, Stopping};
use crate::usage;

const API_VERSION: &str = "berth.v1";
const EVENT_QUEUE_MAX: usize = 16;

pub(crate) struct System(pub(crate) Engine, pub(crate) Stopping, pub(crate) Setup);

#[tonic::async_trait]
impl Service for System {
    async fn version(
        &self,
        _request: Request<v1::VersionRequest>,
    ) -> Result<Response<v1::VersionResponse>, Status> {
        Ok(Response::new(version(&self.0).await))
    }

    async fn info(&self, _request: Request<v1::InfoRequest>) -> Result<Response<v1::InfoResponse>, Status> {
        let info = self.0.info().await.map_err(status)?;
        let version = version(&self.0).await;
        let answer = setup::info(info, self.0.counts(), &self.0.defaults(), &self.2);
        Ok(Response::new(v1::InfoResponse {
            version: Some(version),
            ..answer
        }))
    }

    async fn events(
        &self,
        request: Request<v1::EventsRequest>,
    ) -> Result<Response<Answers<v1::Event>>, Status> {
        let request = request.into_inner();
        let request = EventsRequest {
            since_unix_nanos: request.since_unix_nanos,
            until_unix_nanos: request.until_unix_nanos,
            filters: EventFilters::parse(&request.filters).map_err(status)?,
        };
        let mut listener = self.0.events(request).map_err(status)?;
        let (sender, receiver) = mpsc::channel(EVENT_QUEUE_MAX);
        tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    event = listener.next() => event,
                    () = sender.closed() => return,
                };
                let Some(event) = event else { return };
                // A client that missed something has to know, so its stream ends with that.
                let last = event.is_err();
                let message = event.map_err(status).map(|event| v1::Event {
                    at_unix_nanos: event.at_unix_nanos,
                    kind: event.kind.to_owned(),
                    action: event.action.to_owned(),
                    subject: event.subject.clone(),
                    attributes: event.attributes.iter().cloned().collect(),
                });
                if sender.send(message).await.is_err() || last {
                    return;
                }
            }
        });
        Ok(Response::new(self.1.cut(ReceiverStream::new(receiver))))
    }

    async fn disk_usage(
        &self,
        _request: Request<v1::DiskUsageRequest>,
    ) -> Result<Response<v1::DiskUsageResponse>, Status> {
        let usage = self.0.disk_usage().await.map_err(status)?;
        Ok(Response::new(usage::disk_usage(usage)))
    }

    async fn check(
        &self,
        request: Request<v1::CheckRequest>,
    ) -> Result<Response<Answers<v1::CheckProgress>>, Status> {
        Ok(Response::new(
            self.1.cut(check::check(self.0.clone(), request.into_inner())),
        ))
    }
}

async fn version(engine: &Engine) -> v1::VersionResponse {
    let version = engine.version().await;
    v1::VersionResponse {
        version: version.version.to_owned(),
        api_version: API_VERSION.to_owned(),
        runtime_version: version.runtime_version,
        os: std::env::consts::OS.to_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
        kernel: version.kernel,
        cgroups: version.cgroups.to_owned(),
        root: version.root.to_string_lossy().into_owned(),
        log_driver: version.log_driver,
        log_drivers: engine::LOG_DRIVERS.map(str::to_owned).to_vec(),
    }
}
