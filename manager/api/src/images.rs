//! The `Images` service.

use std::sync::Arc;

use engine::Engine;
use image::{Credentials, Platform, PullOptions};
use proto::v1;
use proto::v1::images_server::Images as Service;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::status::status;
use crate::stop::{Answers, Stopping};
use crate::translate;

/// Progress that a slow client has not taken yet; more is left out, for the next message says it again.
const PROGRESS_QUEUE_MAX: usize = 64;

pub(crate) struct Images(pub(crate) Engine, pub(crate) Stopping);

#[tonic::async_trait]
impl Service for Images {
    type PullStream = Answers<v1::PullProgress>;

    async fn pull(&self, request: Request<v1::PullRequest>) -> Result<Response<Self::PullStream>, Status> {
        let request = request.into_inner();
        let platform = match request.platform.as_str() {
            "" => None,
            text => Some(text.parse::<Platform>().map_err(|error| status(error.into()))?),
        };
        let credentials = request.credentials.map(|given| Credentials {
            username: given.username,
            password: given.password,
        });
        let options = PullOptions {
            platform,
            credentials,
        };
        let (sender, receiver) = mpsc::channel(PROGRESS_QUEUE_MAX);
        let engine = self.0.clone();
        tokio::spawn(async move {
            let progress = Arc::new(sender.clone());
            let report = move |layer| {
                let _ = progress.try_send(Ok(translate::layer(layer)));
            };
            let pulled = tokio::select! {
                pulled = engine.pull(&request.reference, options, &report) => pulled,
                // The client has gone: so does its pull.
                () = sender.closed() => return,
            };
            let last = pulled.map_err(status).map(|image| v1::PullProgress {
                kind: Some(v1::pull_progress::Kind::Image(translate::image(&image))),
            });
            let _ = sender.send(last).await;
        });
        Ok(Response::new(self.1.cut(ReceiverStream::new(receiver))))
    }

    async fn list(
        &self,
        _request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        let images = self.0.images().await.map_err(status)?;
        Ok(Response::new(v1::ListImagesResponse {
            images: images.iter().map(translate::image).collect(),
        }))
    }

    async fn inspect(
        &self,
        request: Request<v1::InspectImageRequest>,
    ) -> Result<Response<v1::InspectImageResponse>, Status> {
        let image = self.0.image(&request.into_inner().image).await.map_err(status)?;
        Ok(Response::new(v1::InspectImageResponse {
            image: Some(translate::image(&image)),
            config_json: image.config_json,
            layers: image.diff_ids,
        }))
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveImageRequest>,
    ) -> Result<Response<v1::RemoveImageResponse>, Status> {
        let request = request.into_inner();
        let removed = self
            .0
            .remove_image(&request.image, request.force)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::RemoveImageResponse {
            untagged: removed.untagged,
            deleted: removed.deleted,
        }))
    }
}
