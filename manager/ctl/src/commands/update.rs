//! `update`.

use proto::v1::UpdateContainerRequest;

use super::containers::each;
use crate::cli::Update;
use crate::client::Client;
use crate::failure::Result;
use crate::output;

pub(super) async fn update(client: &Client, flags: Update) -> Result<u8> {
    let limits = flags.limits;
    let changes = UpdateContainerRequest {
        container: String::new(),
        // As with docker, what is 0 stays as it is. To the API 0 is no limit of processes, and nothing of memory.
        memory_bytes: limits.memory.or(limits.pids_limit.filter(|limit| *limit == 0)),
        cpu_quota_millis: limits.cpus,
        pids_limit: limits
            .pids_limit
            .filter(|limit| *limit != 0)
            .map(|limit| limit.max(0)),
        restart: flags.restart,
        memory_swap_bytes: limits.memory_swap,
        memory_reservation_bytes: limits.memory_reservation,
        cpu_shares: limits.cpu_shares,
        cpu_period_micros: limits.cpu_period,
        cpu_quota_micros: limits.cpu_quota,
        cpu_rt_period_micros: limits.cpu_rt_period,
        cpu_rt_runtime_micros: limits.cpu_rt_runtime,
        cpuset_cpus: limits.cpuset_cpus,
        cpuset_mems: limits.cpuset_mems,
        blkio_weight: limits.blkio_weight,
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
