//! What a client asks for when it makes a container.

mod health;
mod isolation;
mod names;
mod ports;
mod resources;
mod restart;
mod rules;
pub(crate) mod storage;
mod update;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::networks::Joining;

pub use health::Healthcheck;
pub use isolation::Isolation;
pub use names::{HostEntry, Names};
pub(crate) use ports::Wanted;
pub use ports::{PortRange, Ports, Publish};
pub(crate) use resources::DeviceRule;
pub use resources::{Device, DeviceValue, Resources, Ulimit};
pub use restart::RestartPolicy;
pub(crate) use rules::{check_env, check_labels, check_strings, check_working_dir};
pub use storage::{BindSource, Mount, Recursion, Source, Storage, TmpfsSource, VolumeSource};
pub use update::UpdateRequest;

/// What a container is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CreateRequest {
    /// Empty: one is made up.
    pub name: String,
    /// Name or id of an image that is in the store.
    pub image: String,
    /// Of the images that the name has here, `os/architecture[/variant]`; empty: the one pulled last.
    pub platform: String,
    /// Empty: the image's.
    pub command: Vec<String>,
    /// None: the image's.
    pub entrypoint: Option<Vec<String>>,
    /// `A=b`; replaces the image's values.
    pub env: Vec<String>,
    /// Absolute; empty: the image's.
    pub working_dir: String,
    /// `name`, `uid`, `name:group`, `uid:gid`; empty: the image's.
    pub user: String,
    /// Empty: the first 12 digits of the id.
    pub hostname: String,
    /// Give the process a terminal.
    pub tty: bool,
    /// Keep standard input open for clients that attach.
    pub open_stdin: bool,
    /// Close it for good when the first client that attached it leaves.
    pub stdin_once: bool,
    /// Remove the container when it ends.
    pub auto_remove: bool,
    /// Directories and files of the host.
    pub binds: Vec<Bind>,
    /// Which network it is on.
    pub network: Network,
    /// With [`Network::User`]: which of those that users made, the first one first.
    pub networks: Vec<Joining>,
    /// 0: no limit.
    pub memory_bytes: i64,
    /// Thousandths of a CPU; 0: no limit.
    pub cpu_quota_millis: i64,
    /// 0: no limit.
    pub pids_limit: i64,
    /// For people and tools; Berth does not read them.
    pub labels: BTreeMap<String, String>,
    /// Empty: the image's, or TERM.
    pub stop_signal: String,
    /// The root file system is mounted read-only.
    pub read_only: bool,
    /// No confinement but namespaces.
    pub privileged: bool,
    /// Capabilities above the default ones; `ALL` for all.
    pub cap_add: Vec<String>,
    /// Default capabilities that it does not get; `ALL` for all.
    pub cap_drop: Vec<String>,
    /// First size of the terminal; 0: not known.
    pub tty_columns: u32,
    /// First size of the terminal; 0: not known.
    pub tty_rows: u32,
    /// Volumes, file systems in memory, and what of the host it sees.
    pub storage: Storage,
    /// Whether it is started again when it has ended.
    pub restart: RestartPolicy,
    /// None: the image's. On record with the image's fields in it.
    pub healthcheck: Option<Healthcheck>,
    /// Which of its ports the host has.
    pub ports: Ports,
    /// Whom it asks for names.
    pub names: Names,
    /// What it may use of the machine.
    pub resources: Resources,
    /// How far it is kept apart.
    pub isolation: Isolation,
    /// Of NIS; empty: none.
    pub domainname: String,
    /// For the runtime and its hooks.
    pub annotations: BTreeMap<String, String>,
    /// How long a stop waits before it kills; None: 10 seconds.
    pub stop_timeout_seconds: Option<u32>,
}

/// A directory or file of the host that a container sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Absolute path on the host. A directory is made if there is nothing.
    pub source: String,
    /// Absolute path in the container.
    pub target: String,
    /// The container cannot write there.
    pub read_only: bool,
}

/// The network of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// An address of its own on the bridge, NAT to the world.
    #[default]
    Bridge,
    /// A loopback device, nothing else.
    None,
    /// The host's own.
    Host,
    /// Those that users made.
    User,
}

impl Network {
    /// Read the API's name of a network; empty is the default.
    pub fn parse(name: &str) -> Result<Network, Error> {
        match name {
            "" | "bridge" | "default" => Ok(Network::Bridge),
            "none" => Ok(Network::None),
            "host" => Ok(Network::Host),
            other if other.contains(':') => Err(Error::invalid(
                "network",
                format!(
                    "{other:?} is not done in this version: it has \"bridge\", \"none\", \"host\" and networks made with `network create`"
                ),
            )),
            _ => Ok(Network::User),
        }
    }

    /// The API's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Network::Bridge => "bridge",
            Network::None => "none",
            Network::Host => "host",
            Network::User => "user-defined",
        }
    }
}
