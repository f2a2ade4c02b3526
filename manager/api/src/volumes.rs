//! The `Volumes` service.

use engine::{Engine, VolumeFilters, VolumeRequest};
use proto::v1;
use proto::v1::volumes_server::Volumes as Service;
use tonic::{Request, Response, Status};

use crate::status::status;
use crate::translate;

pub(crate) struct Volumes(pub(crate) Engine);

#[tonic::async_trait]
impl Service for Volumes {
    async fn create(
        &self,
        request: Request<v1::CreateVolumeRequest>,
    ) -> Result<Response<v1::VolumeResponse>, Status> {
        let request = request.into_inner();
        let volume = self
            .0
            .create_volume(VolumeRequest {
                name: request.name,
                driver: request.driver,
                labels: request.labels.into_iter().collect(),
                options: request.options.into_iter().collect(),
            })
            .await
            .map_err(status)?;
        Ok(Response::new(v1::VolumeResponse {
            volume: Some(translate::storage::volume(volume)),
            warnings: Vec::new(),
        }))
    }

    async fn list(
        &self,
        request: Request<v1::ListVolumesRequest>,
    ) -> Result<Response<v1::ListVolumesResponse>, Status> {
        let filters = VolumeFilters::parse(&request.into_inner().filters).map_err(status)?;
        let (volumes, warnings) = self.0.volumes(&filters).await.map_err(status)?;
        let volumes = volumes.into_iter().map(translate::storage::volume).collect();
        Ok(Response::new(v1::ListVolumesResponse { volumes, warnings }))
    }

    async fn inspect(
        &self,
        request: Request<v1::InspectVolumeRequest>,
    ) -> Result<Response<v1::VolumeResponse>, Status> {
        let (volume, warning) = self.0.volume(&request.into_inner().name).await.map_err(status)?;
        Ok(Response::new(v1::VolumeResponse {
            volume: Some(translate::storage::volume(volume)),
            warnings: warning.into_iter().collect(),
        }))
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveVolumeRequest>,
    ) -> Result<Response<v1::RemoveVolumeResponse>, Status> {
        let request = request.into_inner();
        let removed = self.0.remove_volume(&request.name, request.force).await;
        removed.map_err(status)?;
        Ok(Response::new(v1::RemoveVolumeResponse {}))
    }

    async fn prune(
        &self,
        request: Request<v1::PruneVolumesRequest>,
    ) -> Result<Response<v1::PruneVolumesResponse>, Status> {
        let request = request.into_inner();
        let filters = VolumeFilters::parse_for_prune(&request.filters).map_err(status)?;
        let pruned = self
            .0
            .prune_volumes(request.all, &filters)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::PruneVolumesResponse {
            deleted: pruned.deleted,
            freed_bytes: pruned.freed_bytes,
        }))
    }
}
