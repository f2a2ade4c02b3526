//! What a client asks for when it makes a container.

mod health;
mod isolation;
mod link;
mod log_tag;
mod logging;
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
pub(crate) use isolation::{Seccomp, Userns};
pub use link::Link;
pub(crate) use link::check_links;
pub(crate) use log_tag::{Facts, Tag};
pub(crate) use logging::{FilePlan, Plan, ReceiverKind, Selection};
pub use logging::{LOG_DRIVERS, Logging, memory_in_bytes};
pub use names::{HostEntry, Names};
pub(crate) use ports::Wanted;
pub use ports::{PortRange, Ports, Publish};
pub(crate) use resources::DeviceRule;
pub use resources::{Device, DeviceValue, Resources, Ulimit};
pub use restart::RestartPolicy;
pub(crate) use rules::{check_env, check_labels, check_strings, check_working_dir};
pub use storage::{BindSource, ImageSource, Mount, Recursion, Source, Storage, TmpfsSource, VolumeSource};
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
    /// With `Network::Container`, whose: name or id, and id on record.
    pub network_of: String,
    /// With [`Network::User`]: which of those that users made, the first one first.
    pub networks: Vec<Joining>,
    /// With [`Network::Bridge`]: whom it knows by a name of its own.
    pub links: Vec<Link>,
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
    /// A small program is the first process, which starts the container's own, sends signals on to it, and takes leave of
    /// processes that have lost their parents.
    pub init: bool,
    /// What becomes of its output. On record with the manager's defaults in it.
    pub logging: Logging,
}

impl CreateRequest {
    /// The API's name of its network; empty with networks that users made.
    pub fn network_name(&self) -> String {
        match self.network {
            Network::User => String::new(),
            Network::Container => format!("container:{}", self.network_of),
            network => network.name().to_owned(),
        }
    }

    /// Whether there is an init. As with docker, not where the first process is another's.
    pub(crate) fn has_init(&self) -> bool {
        self.init && matches!(self.isolation.pid.as_str(), "" | "private")
    }
}

/// The container that is meant by `container:NAME`.
pub(crate) fn container_of(mode: &str) -> Option<&str> {
    mode.strip_prefix("container:")
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
    /// Another container's.
    Container,
    /// Those that users made.
    User,
}

impl Network {
    /// Read the API's name of a network; empty is the default. Of another container's, its name or id comes with it.
    pub fn parse(name: &str) -> Result<(Network, String), Error> {
        if let Some(container) = container_of(name) {
            return Ok((Network::Container, container.to_owned()));
        }
        let network = match name {
            "" | "bridge" | "default" => Ok(Network::Bridge),
            "none" => Ok(Network::None),
            "host" => Ok(Network::Host),
            other if other.contains(':') => Err(Error::invalid(
                "network",
                format!(
                    "{other:?} is not known: this version has \"bridge\", \"none\", \"host\", \"container:NAME\" and networks made with `network create`"
                ),
            )),
            _ => Ok(Network::User),
        };
        Ok((network?, String::new()))
    }

    /// The API's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Network::Bridge => "bridge",
            Network::None => "none",
            Network::Host => "host",
            Network::Container => "container",
            Network::User => "user-defined",
        }
    }
}
