//! The machine and the manager's configuration, as `info` has them.

use std::collections::BTreeMap;

use proto::v1;
use serde::Serialize;

use super::{ManagerVersion, rfc3339};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Info {
    pub(crate) version: ManagerVersion,
    pub(crate) hostname: String,
    pub(crate) operating_system: String,
    pub(crate) cpus: u32,
    pub(crate) memory_bytes: u64,
    pub(crate) containers: ContainerCounts,
    pub(crate) images: u32,
    pub(crate) volumes: u32,
    pub(crate) networks: u32,
    pub(crate) layers: String,
    pub(crate) registry_config: Vec<String>,
    pub(crate) bridge: String,
    pub(crate) bridge_address: String,
    pub(crate) log_options: BTreeMap<String, String>,
    pub(crate) default_shm_bytes: u64,
    pub(crate) default_ulimits: Vec<Ulimit>,
    pub(crate) default_address_pools: Vec<Pool>,
    pub(crate) dns: Vec<String>,
    pub(crate) dns_search: Vec<String>,
    pub(crate) dns_options: Vec<String>,
    pub(crate) configuration: Configuration,
    pub(crate) metrics_address: String,
    pub(crate) traces_endpoint: String,
    pub(crate) userns_remap: String,
    pub(crate) userns_uid_map: String,
    pub(crate) userns_gid_map: String,
    pub(crate) volume_drivers: Vec<String>,
    pub(crate) network_drivers: Vec<String>,
    pub(crate) security_options: Vec<String>,
    pub(crate) id: String,
    pub(crate) os_version: String,
    pub(crate) limits: Vec<String>,
    pub(crate) ipv4_forwarding: bool,
}

#[derive(Serialize)]
pub(crate) struct ContainerCounts {
    pub(crate) running: u32,
    pub(crate) paused: u32,
    pub(crate) stopped: u32,
}

impl ContainerCounts {
    pub(crate) fn all(&self) -> u32 {
        self.running + self.paused + self.stopped
    }
}

#[derive(Serialize)]
pub(crate) struct Ulimit {
    pub(crate) name: String,
    pub(crate) soft: i64,
    pub(crate) hard: i64,
}

#[derive(Serialize)]
pub(crate) struct Pool {
    pub(crate) base: String,
    pub(crate) size: u32,
}

#[derive(Serialize)]
pub(crate) struct Configuration {
    pub(crate) file: String,
    pub(crate) loaded: String,
    pub(crate) overridden: Vec<String>,
    pub(crate) pending: Vec<String>,
    pub(crate) error: String,
}

impl Info {
    /// What somebody should know: a sentence each.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.configuration.overridden.clone();
        let pending = self.configuration.pending.iter();
        warnings.extend(pending.map(|key| {
            format!("{key}: it has changed in the configuration, and holds from the manager's next start on")
        }));
        if !self.configuration.error.is_empty() {
            warnings.push(format!(
                "the configuration could not be read again, and the one before it holds: {}",
                self.configuration.error
            ));
        }
        warnings
    }
}

impl From<v1::InfoResponse> for Info {
    fn from(info: v1::InfoResponse) -> Self {
        let configuration = info.configuration.unwrap_or_default();
        let pools = info.default_address_pools.into_iter();
        let ulimits = info.default_ulimits.into_iter();
        Self {
            version: ManagerVersion::from(info.version.unwrap_or_default()),
            hostname: info.hostname,
            operating_system: info.operating_system,
            cpus: info.cpus,
            memory_bytes: info.memory_bytes,
            containers: ContainerCounts {
                running: info.containers_running,
                paused: info.containers_paused,
                stopped: info.containers_stopped,
            },
            images: info.images,
            volumes: info.volumes,
            networks: info.networks,
            layers: info.layers,
            registry_config: info.registry_config,
            bridge: info.bridge,
            bridge_address: info.bridge_address,
            log_options: info.log_options.into_iter().collect(),
            default_shm_bytes: info.default_shm_bytes,
            default_ulimits: ulimits
                .map(|limit| Ulimit {
                    name: limit.name,
                    soft: limit.soft,
                    hard: limit.hard,
                })
                .collect(),
            default_address_pools: pools
                .map(|pool| Pool {
                    base: pool.base,
                    size: pool.size,
                })
                .collect(),
            dns: info.dns,
            dns_search: info.dns_search,
            dns_options: info.dns_options,
            configuration: Configuration {
                file: configuration.file,
                loaded: rfc3339(configuration.loaded_unix_nanos),
                overridden: configuration.overridden,
                pending: configuration.pending,
                error: configuration.error,
            },
            metrics_address: info.metrics_address,
            traces_endpoint: info.traces_endpoint,
            userns_remap: info.userns_remap,
            userns_uid_map: info.userns_uid_map,
            userns_gid_map: info.userns_gid_map,
            volume_drivers: info.volume_drivers,
            network_drivers: info.network_drivers,
            security_options: info.security_options,
            id: info.id,
            os_version: info.os_version,
            limits: info.limits,
            ipv4_forwarding: info.ipv4_forwarding,
        }
    }
}
