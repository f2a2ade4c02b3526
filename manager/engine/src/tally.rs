//! Numbers for those who watch a manager from outside: what has happened since it began, and how much there is. Kept as
//! it happens, or asked of databases: never found out by a walk over files.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::Error;
use crate::engine::{Engine, blocking};
use crate::info::Counts;

/// What has happened.
#[derive(Default)]
pub(crate) struct Tally {
    health_checks: AtomicU64,
    health_checks_failed: AtomicU64,
    restarts: AtomicU64,
}

impl Tally {
    pub(crate) fn probed(&self, exit_code: i32) {
        self.health_checks.fetch_add(1, Relaxed);
        if exit_code != 0 {
            self.health_checks_failed.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn restarted(&self) {
        self.restarts.fetch_add(1, Relaxed);
    }
}

/// All of them, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Numbers {
    /// Containers by state.
    pub containers: Counts,
    /// Events by kind and action.
    pub events: BTreeMap<(&'static str, &'static str), u64>,
    /// Who listens to events.
    pub listeners: usize,
    /// Probes that have ended.
    pub health_checks: u64,
    /// Those of them that failed, or took too long.
    pub health_checks_failed: u64,
    /// Starts by a restart policy.
    pub restarts: u64,
    /// Images and artifacts.
    pub images: u64,
    /// Compressed blobs of all of them.
    pub content_bytes: u64,
    /// Unpacked layers of all of them.
    pub layers_bytes: u64,
    /// Volumes.
    pub volumes: u64,
    /// Networks, with the default one.
    pub networks: u64,
    /// Of containers' name servers.
    pub dns: dns::Totals,
}

impl Engine {
    /// All numbers as they are now.
    pub async fn numbers(&self) -> Result<Numbers, Error> {
        let volumes = self.0.store.volumes().await?.len() as u64;
        let engine = self.clone();
        let stored = blocking(move || Ok(engine.0.images.stored()?)).await?;
        let tally = &self.0.tally;
        Ok(Numbers {
            containers: self.counts(),
            events: self.0.events.totals(),
            listeners: self.0.events.listeners(),
            health_checks: tally.health_checks.load(Relaxed),
            health_checks_failed: tally.health_checks_failed.load(Relaxed),
            restarts: tally.restarts.load(Relaxed),
            images: stored.images,
            content_bytes: stored.content_bytes,
            layers_bytes: stored.layers_bytes,
            volumes,
            networks: self.0.networks.all().len() as u64 + 1,
            dns: dns::totals(),
        })
    }
}
