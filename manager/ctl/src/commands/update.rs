//! `update`.

use proto::v1::UpdateContainerRequest;

use super::containers::each;
use crate::cli::Update;
use crate::client::Client;
use crate::failure::Result;
use crate::output;

pub(super) async fn update(client: &Client, flags: Update) -> Result<u8> {
    let changes = UpdateContainerRequest {
        container: String::new(),
        memory_bytes: flags.memory,
        cpu_quota_millis: flags.cpus,
        pids_limit: flags.pids_limit.map(|limit| limit.max(0)),
        restart: flags.restart,
        memory_swap_bytes: flags.memory_swap,
        memory_reservation_bytes: flags.memory_reservation,
        cpu_shares: flags.cpu_shares,
        cpu_period_micros: flags.cpu_period,
        cpu_quota_micros: flags.cpu_quota,
        cpuset_cpus: flags.cpuset_cpus,
        cpuset_mems: flags.cpuset_mems,
        blkio_weight: flags.blkio_weight,
    };
    each(client, flags.containers, async |client, container| {
        let request = UpdateContainerRequest {
            container: container.clone(),
            ..changes.clone()
        };
        let done = client.containers().update(request).await?.into_inner();
        for warning in &done.warnings {
            eprintln!("WARNING: {}", output::clean(warning));
        }
        Ok(container)
    })
    .await
}
