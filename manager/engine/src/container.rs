//! A container as the engine remembers it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use network::PublishedPort;

use crate::request::CreateRequest;

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
    /// Its address on the bridge, from creation to removal.
    pub address: Option<Ipv4Addr>,
    /// Its ports on the host, while it runs.
    pub ports: Vec<PublishedPort>,
    /// Why the last start did not work; empty when it did.
    pub error: String,
}

impl Container {
    /// Is its main process alive?
    pub fn is_running(&self) -> bool {
        matches!(self.state, State::Running | State::Paused)
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
