//! Docker's plugins, version 1 of their protocol: programs of somebody else's that listen on a socket and are asked in
//! JSON over HTTP. What can be asked so far is that of volume drivers.
//!
//! A plugin is a stranger: whatever it does, slow, dead, or lying, costs the caller a bounded time and a bounded number
//! of bytes, and is told with the plugin's name and the method. Nothing here knows of containers.
//!
//! The protocol: <https://docs.docker.com/engine/extend/plugin_api/> and
//! <https://docs.docker.com/engine/extend/plugins_volume/>.

mod call;
mod discovery;
mod volume;

use std::path::PathBuf;
use std::time::Duration;

pub use call::Effort;
pub use discovery::Plugins;
pub use volume::{Scope, VolumeDriver, VolumeOfPlugin};

/// Where docker's users put plugins.
pub const FOLDERS: &str = "/run/docker/plugins:/etc/docker/plugins:/usr/lib/docker/plugins";

/// How plugins are found and waited for.
#[derive(Debug, Clone)]
pub struct Config {
    /// Each is looked through for `NAME.sock`, `NAME.spec` and `NAME.json`; sockets come before the others.
    pub folders: Vec<PathBuf>,
    /// For one answer, from the connection to its last byte.
    pub timeout: Duration,
}

/// What a plugin did instead of what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No socket and no file tells of it.
    #[error(
        "plugin {name:?} not found: none of {} has {name}.sock, {name}.spec or {name}.json; is it running?",
        folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    NotFound {
        /// Its name.
        name: String,
        /// Where it was looked for.
        folders: Vec<PathBuf>,
    },
    /// No plugin can have such a name.
    #[error(
        "plugin {0:?}: not the name of a plugin that listens on a socket; docker's managed plugins (docker plugin install) are not done"
    )]
    Name(String),
    /// The file that tells where it listens.
    #[error("plugin {name}: {}: {why}", path.display())]
    Spec {
        /// Its name.
        name: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It is there, and something else.
    #[error("plugin {name} is no volume driver: it implements [{}]", implements.join(", "))]
    NotAVolumeDriver {
        /// Its name.
        name: String,
        /// What it says that it is.
        implements: Vec<String>,
    },
    /// Nobody takes the connection.
    #[error("plugin {name}: {method}: connect to {address}: {why}; is the plugin running?")]
    Unreachable {
        /// Its name.
        name: String,
        /// What it was to be asked.
        method: &'static str,
        /// Where it should listen.
        address: String,
        /// What the system said.
        why: String,
    },
    /// No whole answer: whether the plugin has done what it was asked for is not known.
    #[error("plugin {name}: {method}: {why}")]
    NoAnswer {
        /// Its name.
        name: String,
        /// What it was asked.
        method: &'static str,
        /// What came instead.
        why: String,
    },
    /// It answered with an error of its own.
    #[error("plugin {name}: {method}: {why}")]
    Refused {
        /// Its name.
        name: String,
        /// What it was asked.
        method: &'static str,
        /// Its words.
        why: String,
    },
    /// It says that it has done it, and cannot have.
    #[error("plugin {name}: {method}: the answer cannot be used: {why}")]
    Answer {
        /// Its name.
        name: String,
        /// What it was asked.
        method: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

impl Error {
    /// Has the plugin itself said no? Else it was not reached, or nobody knows what it did.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Error::Refused { .. })
    }

    /// Was it never asked? Else it may have done what it was asked for.
    pub fn was_not_reached(&self) -> bool {
        matches!(self, Error::NotFound { .. } | Error::Unreachable { .. })
    }

    /// May the same work when it is tried again, when the plugin is there?
    pub fn is_absence(&self) -> bool {
        matches!(
            self,
            Error::NotFound { .. } | Error::Unreachable { .. } | Error::NoAnswer { .. }
        )
    }
}

/// Read what a `.spec` or `.json` file and an answer hold, whatever is in them.
#[cfg(feature = "fuzzing")]
pub fn fuzz(bytes: &[u8]) {
    discovery::fuzz(bytes);
    volume::fuzz(bytes);
}
