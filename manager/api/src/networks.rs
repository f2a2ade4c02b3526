//! The `Networks` service.

use engine::{Engine, NetworkFilters, NetworkRequest};
use proto::v1;
use proto::v1::networks_server::Networks as Service;
use tonic::{Request, Response, Status};

use crate::status::status;
use crate::translate::networks as translate;

pub(crate) struct Networks(pub(crate) Engine);

#[tonic::async_trait]
impl Service for Networks {
    async fn create(
        &self,
        request: Request<v1::CreateNetworkRequest>,
    ) -> Result<Response<v1::NetworkResponse>, Status> {
        let request = request.into_inner();
        let request = NetworkRequest {
            name: request.name,
            driver: request.driver,
            subnets: request.subnets,
            gateway: request.gateway,
            ip_range: request.ip_range,
            aux_addresses: request.aux_addresses.into_iter().collect(),
            internal: request.internal,
            labels: request.labels.into_iter().collect(),
            options: request.options.into_iter().collect(),
            ipv6: request.ipv6,
            gateway6: request.gateway6,
            ip_range6: request.ip_range6,
        };
        let network = self.0.create_network(request).await.map_err(status)?;
        let found = self.0.network(&network.id).map_err(status)?;
        Ok(Response::new(v1::NetworkResponse {
            network: Some(translate::network(found)),
        }))
    }

    async fn list(
        &self,
        request: Request<v1::ListNetworksRequest>,
    ) -> Result<Response<v1::ListNetworksResponse>, Status> {
        let filters = NetworkFilters::parse(&request.into_inner().filters).map_err(status)?;
        let networks = self.0.networks(&filters).into_iter();
        Ok(Response::new(v1::ListNetworksResponse {
            networks: networks.map(translate::network).collect(),
        }))
    }

    async fn inspect(
        &self,
        request: Request<v1::InspectNetworkRequest>,
    ) -> Result<Response<v1::NetworkResponse>, Status> {
        let found = self.0.network(&request.into_inner().network).map_err(status)?;
        Ok(Response::new(v1::NetworkResponse {
            network: Some(translate::network(found)),
        }))
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveNetworkRequest>,
    ) -> Result<Response<v1::RemoveNetworkResponse>, Status> {
        let removed = self.0.remove_network(&request.into_inner().network).await;
        removed.map_err(status)?;
        Ok(Response::new(v1::RemoveNetworkResponse {}))
    }

    async fn prune(
        &self,
        request: Request<v1::PruneNetworksRequest>,
    ) -> Result<Response<v1::PruneNetworksResponse>, Status> {
        let filters = NetworkFilters::parse_for_prune(&request.into_inner().filters).map_err(status)?;
        let deleted = self.0.prune_networks(&filters).await.map_err(status)?;
        Ok(Response::new(v1::PruneNetworksResponse { deleted }))
    }

    async fn connect_container(
        &self,
        request: Request<v1::ConnectNetworkRequest>,
    ) -> Result<Response<v1::ConnectNetworkResponse>, Status> {
        let request = request.into_inner();
        let place = translate::connecting(request.place.unwrap_or_default()).map_err(status)?;
        let connected = self.0.connect_network(&request.container, place).await;
        connected.map_err(status)?;
        Ok(Response::new(v1::ConnectNetworkResponse {}))
    }

    async fn disconnect_container(
        &self,
        request: Request<v1::DisconnectNetworkRequest>,
    ) -> Result<Response<v1::DisconnectNetworkResponse>, Status> {
        let request = request.into_inner();
        self.0
            .disconnect_network(&request.container, &request.network, request.force)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::DisconnectNetworkResponse {}))
    }
}
