//! The `Images` service.

use engine::{Engine, ImportRequest};
use image::{Filters, LayerProgress, Platform, PullOptions};
use proto::v1;
use proto::v1::images_server::Images as Service;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use crate::archives;
use crate::progress::Progress;
use crate::registries;
use crate::status::status;
use crate::stop::{Answers, Stopping};
use crate::{translate, usage};

pub(crate) struct Images(pub(crate) Engine, pub(crate) Stopping);

#[tonic::async_trait]
impl Service for Images {
    async fn pull(
        &self,
        request: Request<v1::PullRequest>,
    ) -> Result<Response<Answers<v1::PullProgress>>, Status> {
        let request = request.into_inner();
        let platform = match request.platform.as_str() {
            "" => None,
            text => Some(text.parse::<Platform>().map_err(|error| status(error.into()))?),
        };
        let options = PullOptions {
            platform,
            credentials: request.credentials.map(translate::credentials),
            all_platforms: request.all_platforms,
            images_only: request.images_only,
        };
        let (progress, messages) = Progress::new();
        let engine = self.0.clone();
        tokio::spawn(
            async move {
                let report =
                    |layer: LayerProgress| progress.report(layer.digest.clone(), translate::layer(layer));
                let pulled = tokio::select! {
                    pulled = engine.pull(&request.reference, options, &report) => pulled,
                    // The client has gone: so does its pull.
                    () = progress.closed() => return,
                };
                let last = pulled.map(translate::pulled).map_err(status);
                progress.finish(Some(last)).await;
            }
            .in_current_span(),
        );
        Ok(Response::new(self.1.cut(messages)))
    }

    async fn list(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        let filters = filters(&request.into_inner().filters)?;
        let images = self.0.images(filters).await.map_err(status)?;
        Ok(Response::new(v1::ListImagesResponse {
            images: images.iter().map(translate::kept).collect(),
        }))
    }

    async fn inspect(
        &self,
        request: Request<v1::InspectImageRequest>,
    ) -> Result<Response<v1::InspectImageResponse>, Status> {
        let found = self.0.kept(&request.into_inner().image).await.map_err(status)?;
        Ok(Response::new(translate::inspected(&found)))
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

    async fn push(
        &self,
        request: Request<v1::PushRequest>,
    ) -> Result<Response<Answers<v1::PushProgress>>, Status> {
        Ok(Response::new(
            self.1.cut(registries::push(self.0.clone(), request.into_inner())),
        ))
    }

    async fn tag(&self, request: Request<v1::TagRequest>) -> Result<Response<v1::TagResponse>, Status> {
        let v1::TagRequest { image, name } = request.into_inner();
        let name = self.0.tag_image(&image, &name).await.map_err(status)?;
        Ok(Response::new(v1::TagResponse { name }))
    }

    async fn history(
        &self,
        request: Request<v1::HistoryRequest>,
    ) -> Result<Response<v1::HistoryResponse>, Status> {
        let image = request.into_inner().image;
        let steps = self.0.image_history(&image).await.map_err(status)?;
        Ok(Response::new(v1::HistoryResponse {
            steps: steps.into_iter().map(usage::step).collect(),
        }))
    }

    async fn prune(
        &self,
        request: Request<v1::PruneImagesRequest>,
    ) -> Result<Response<v1::PruneImagesResponse>, Status> {
        let request = request.into_inner();
        let filters = filters(&request.filters)?;
        let pruned = self.0.prune_images(request.all, filters).await;
        let (removed, freed_bytes) = pruned.map_err(status)?;
        Ok(Response::new(v1::PruneImagesResponse {
            untagged: removed.untagged,
            deleted: removed.deleted,
            freed_bytes,
        }))
    }

    async fn create_lease(
        &self,
        request: Request<v1::CreateLeaseRequest>,
    ) -> Result<Response<v1::CreateLeaseResponse>, Status> {
        let request = request.into_inner();
        let taken = self
            .0
            .lease_images(request.id, request.images, request.ttl_seconds);
        let lease = taken.await.map_err(status)?;
        Ok(Response::new(v1::CreateLeaseResponse {
            lease: Some(translate::lease(lease)),
        }))
    }

    async fn list_leases(
        &self,
        _: Request<v1::ListLeasesRequest>,
    ) -> Result<Response<v1::ListLeasesResponse>, Status> {
        let leases = self.0.leases().await.map_err(status)?;
        Ok(Response::new(v1::ListLeasesResponse {
            leases: leases.into_iter().map(translate::lease).collect(),
        }))
    }

    async fn delete_lease(
        &self,
        request: Request<v1::DeleteLeaseRequest>,
    ) -> Result<Response<v1::DeleteLeaseResponse>, Status> {
        let id = request.into_inner().id;
        self.0.end_lease(&id).await.map_err(status)?;
        Ok(Response::new(v1::DeleteLeaseResponse {}))
    }

    async fn save(&self, request: Request<v1::SaveRequest>) -> Result<Response<Answers<v1::Chunk>>, Status> {
        let images = request.into_inner().images;
        if images.is_empty() {
            return Err(Status::invalid_argument("images: which ones are to be saved?"));
        }
        let engine = self.0.clone();
        let chunks =
            archives::send(|chunks| async move { engine.save(images, archives::Sender::new(chunks)).await });
        Ok(Response::new(self.1.cut(chunks)))
    }

    async fn load(
        &self,
        request: Request<tonic::Streaming<v1::LoadInput>>,
    ) -> Result<Response<v1::LoadResponse>, Status> {
        let mut inputs = request.into_inner();
        let first = inputs.message().await?.and_then(|input| input.kind);
        let Some(v1::load_input::Kind::Start(start)) = first else {
            return Err(Status::invalid_argument(
                "the first input of a load has to be `start`",
            ));
        };
        let platform = archives::platform(&start.platform)?;
        let archive = archives::receive(inputs, &self.1, CancellationToken::new());
        let images = self.0.load(archive, platform).await.map_err(status)?;
        Ok(Response::new(v1::LoadResponse {
            images: images.iter().map(translate::kept).collect(),
        }))
    }

    async fn import(
        &self,
        request: Request<tonic::Streaming<v1::ImportInput>>,
    ) -> Result<Response<v1::ImageResponse>, Status> {
        let mut inputs = request.into_inner();
        let first = inputs.message().await?.and_then(|input| input.kind);
        let Some(v1::import_input::Kind::Start(start)) = first else {
            return Err(Status::invalid_argument(
                "the first input of an import has to be `start`",
            ));
        };
        let request = ImportRequest {
            platform: archives::platform(&start.platform)?,
            name: start.name,
            message: start.message,
            changes: start.changes,
        };
        let archive = archives::receive(inputs, &self.1, CancellationToken::new());
        let image = self.0.import(archive, request).await.map_err(status)?;
        Ok(Response::new(v1::ImageResponse {
            image: Some(translate::image(&image)),
        }))
    }

    async fn login(&self, request: Request<v1::LoginRequest>) -> Result<Response<v1::LoginResponse>, Status> {
        let request = request.into_inner();
        let credentials = translate::credentials(request.credentials.unwrap_or_default());
        let token = self
            .0
            .login(&request.registry, credentials)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::LoginResponse {
            identity_token: token.unwrap_or_default(),
        }))
    }

    async fn search(
        &self,
        request: Request<v1::SearchRequest>,
    ) -> Result<Response<v1::SearchResponse>, Status> {
        let found = registries::search(&self.0, request.into_inner()).await?;
        Ok(Response::new(found))
    }

    async fn inspect_manifest(
        &self,
        request: Request<v1::InspectManifestRequest>,
    ) -> Result<Response<v1::InspectManifestResponse>, Status> {
        let found = registries::inspect_manifest(&self.0, request.into_inner()).await?;
        Ok(Response::new(found))
    }

    async fn verify(
        &self,
        request: Request<v1::VerifyRequest>,
    ) -> Result<Response<v1::VerifyResponse>, Status> {
        let request = request.into_inner();
        let options = PullOptions {
            credentials: request.credentials.map(translate::credentials),
            ..PullOptions::default()
        };
        let verdict = self.0.verify(&request.reference, options).await.map_err(status)?;
        let signatures = verdict.signatures.into_iter().map(|signature| v1::Signature {
            kind: signature.kind.to_owned(),
            signer: signature.signer,
            name: signature.name.unwrap_or_default(),
        });
        Ok(Response::new(v1::VerifyResponse {
            digest: verdict.digest,
            policy: verdict.policy,
            signatures: signatures.collect(),
        }))
    }
}

fn filters(texts: &[String]) -> Result<Filters, Status> {
    Filters::parse(texts).map_err(|error| status(error.into()))
}
