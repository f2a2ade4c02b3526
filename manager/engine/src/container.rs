//! A container as the engine remembers it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use network::PublishedPort;

use crate::health::Health;
use crate::networks::default_bridge;
use crate::request::{CreateRequest, Mount, Network};
use crate::restart::Next;

/// How a run of a container, or a process in it, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The exit code, or 128 + the number of the signal that killed it.
    pub code: u32,
    /// When, in nanoseconds since 1970.
    pub at_unix_nanos: i64,
    /// The kernel killed it because it used more memory than it was allowed.
    pub oom_killed: bool,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Made, never started.
    Created,
    /// Its main process is alive.
    Running,
    /// It is alive, and stands still with all others.
    Paused,
    /// It ran, ended, and is about to be started by its policy.
    Restarting,
    /// It ran, and ended.
    Exited,
    /// Being removed right now.
    Removing,
}

/// One container: what was asked for and what became of it.
#[derive(Debug, Clone)]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Unique among containers.
    pub name: String,
    /// The digest of the image's config.
    pub image_id: String,
    /// Entrypoint and command together.
    pub command: Vec<String>,
    /// The number of the signal that asks it to stop.
    pub stop_signal: u32,
    /// As it was asked for.
    pub request: Arc<CreateRequest>,
    /// What it sees beside its image: as asked for, and what the image and other containers add.
    pub mounts: Vec<Mount>,
    /// Where it is in its life.
    pub state: State,
    /// Process id of the main process; 0 when not running.
    pub pid: u32,
    /// How often it was started.
    pub runs: u64,
    /// The end of the last run that ended.
    pub exit: Option<Exit>,
    /// In nanoseconds since 1970.
    pub created_unix_nanos: i64,
    /// The last start; 0: never.
    pub started_unix_nanos: i64,
    /// Its address on the default bridge, from the moment it is connected to the moment it is not.
    pub address: Option<Ipv4Addr>,
    /// With an address there: the number of its link inside, 0 is `eth0`.
    pub bridge_slot: u32,
    /// Its ports on the host, while it runs.
    pub ports: Vec<PublishedPort>,
    /// Why the last start did not work; empty when it did.
    pub error: String,
    /// How often its policy has started it since somebody last did.
    pub restarts: u64,
    /// Its last run was stopped or killed by somebody; of one that runs, it was asked to end.
    pub stopped_by_hand: bool,
    /// What it is asked to be was changed, and a running container may not have all of it.
    pub(crate) update_pending: bool,
    /// What its probes have told, if it has a health check. Not on record.
    pub health: Option<Arc<Health>>,
}

impl Container {
    /// Is its main process alive?
    pub fn is_running(&self) -> bool {
        matches!(self.state, State::Running | State::Paused)
    }

    /// The number of its link to the default bridge, if it is there.
    pub(crate) fn on_bridge(&self) -> Option<u32> {
        self.address.map(|_| self.bridge_slot)
    }

    /// The API's name of its first network; empty if that is one that users made, or none is left.
    pub fn network_name(&self) -> String {
        match (self.address, self.request.network) {
            (Some(_), _) => default_bridge::NAME.to_owned(),
            (None, Network::Bridge) => String::new(),
            _ => self.request.network_name(),
        }
    }

    pub(crate) fn has_volumes(&self) -> bool {
        self.mounts.iter().any(|mount| mount.volume().is_some())
    }

    /// Its run has ended, and this follows.
    pub(crate) fn follow(&mut self, next: Next) {
        self.state = State::Exited;
        self.stopped_by_hand = next == Next::Rest { by_hand: true };
        if next == Next::Restart {
            self.state = State::Restarting;
            self.restarts += 1;
        }
    }

    /// Does it run, or is it about to?
    pub fn is_up(&self) -> bool {
        self.is_running() || self.state == State::Restarting
    }

    /// What is told about it with every event.
    pub(crate) fn attributes(&self) -> Vec<(String, String)> {
        let mut attributes: Vec<_> = self
            .request
            .labels
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        attributes.push(("name".to_owned(), self.name.clone()));
        attributes.push(("image".to_owned(), self.request.image.clone()));
        attributes
    }
}

/// The wall clock, in nanoseconds since 1970.
pub(crate) fn now_unix_nanos() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX))
}
