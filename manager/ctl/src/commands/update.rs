//! `update`.

use proto::v1::UpdateContainerRequest;

use super::containers::each;
use crate::cli::Update;
use crate::client::Client;
use crate::failure::Result;

pub(super) async fn update(client: &Client, flags: Update) -> Result<u8> {
    let changes = UpdateContainerRequest {
        container: String::new(),
        memory_bytes: flags.memory,
        cpu_quota_millis: flags.cpus,
        pids_limit: flags.pids_limit.map(|limit| limit.max(0)),
        restart: flags.restart,
    };
    each(client, flags.containers, async |client, container| {
        let request = UpdateContainerRequest {
            container: container.clone(),
            ..changes.clone()
        };
        client.containers().update(request).await?;
        Ok(container)
    })
    .await
}
