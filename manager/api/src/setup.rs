//! How the manager is set up, as its daemon knows it and clients ask for it.

use std::sync::{Arc, PoisonError, RwLock};

use engine::{Counts, Defaults, Info};
use proto::v1;
use proto::v1::info_response::{Configuration as ConfigurationMessage, Pool, Ulimit};

/// Where the manager's settings come from.
#[derive(Debug, Clone, Default)]
pub struct Configuration {
    /// Empty: there is no file.
    pub file: String,
    /// When it was read last, and held; in nanoseconds since 1970.
    pub loaded_unix_nanos: i64,
    /// What the file says in vain: a sentence each.
    pub overridden: Vec<String>,
    /// Keys whose new values hold from the next start on.
    pub pending: Vec<String>,
    /// Why the file was not read again as it is now; empty: it was.
    pub error: String,
    /// Empty: metrics are not served.
    pub metrics_address: String,
    /// Empty: traces are not sent.
    pub traces_endpoint: String,
}

/// The daemon tells it here, and clients are told. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Setup(Arc<RwLock<Configuration>>);

impl Setup {
    /// Change what clients are told.
    pub fn change(&self, change: impl FnOnce(&mut Configuration)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn now(&self) -> Configuration {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// All but the versions.
pub(crate) fn info(info: Info, counts: Counts, defaults: &Defaults, setup: &Setup) -> v1::InfoResponse {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let setup = setup.now();
    let (bridge, bridge_address) = info.bridge;
    let registries = info.registries.iter();
    let ulimits = defaults.ulimits.iter();
    let pools = defaults.address_pools.iter();
    let remap = info.userns_remap.as_ref();
    v1::InfoResponse {
        version: None,
        hostname: info.hostname,
        operating_system: info.operating_system,
        cpus: count(info.cpus),
        memory_bytes: info.memory_bytes,
        containers_running: count(counts.running),
        containers_paused: count(counts.paused),
        containers_stopped: count(counts.created + counts.exited + counts.restarting),
        images: count(info.images),
        volumes: count(info.volumes),
        networks: count(info.networks),
        layers: info.layers.to_owned(),
        registry_config: registries
            .map(|folder| folder.to_string_lossy().into_owned())
            .collect(),
        bridge,
        bridge_address,
        log_options: defaults.logging.options.clone().into_iter().collect(),
        default_shm_bytes: defaults.shm_bytes,
        default_ulimits: ulimits
            .map(|limit| Ulimit {
                name: limit.name.clone(),
                soft: limit.soft,
                hard: limit.hard,
            })
            .collect(),
        default_address_pools: pools
            .map(|pool| Pool {
                base: pool.base.to_string(),
                size: u32::from(pool.size),
            })
            .collect(),
        dns: defaults.names.servers.clone(),
        dns_search: defaults.names.search.clone(),
        dns_options: defaults.names.options.clone(),
        configuration: Some(ConfigurationMessage {
            file: setup.file,
            loaded_unix_nanos: setup.loaded_unix_nanos,
            overridden: setup.overridden,
            pending: setup.pending,
            error: setup.error,
        }),
        metrics_address: setup.metrics_address,
        traces_endpoint: setup.traces_endpoint,
        userns_uid_map: remap
            .map(|remap| remap.owners.uids.to_string())
            .unwrap_or_default(),
        userns_gid_map: remap
            .map(|remap| remap.owners.gids.to_string())
            .unwrap_or_default(),
        userns_remap: info.userns_remap.map(|remap| remap.name).unwrap_or_default(),
        volume_drivers: info.volume_drivers,
        network_drivers: info.network_drivers,
        security_options: info.security_options,
        id: info.id,
        os_version: info.os_version,
        limits: info.limits.into_iter().map(str::to_owned).collect(),
        ipv4_forwarding: info.ipv4_forwarding,
    }
}
