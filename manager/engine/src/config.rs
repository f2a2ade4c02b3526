//! Where the engine keeps things, and which programs it uses.

use std::path::PathBuf;

use network::Bridge;

use crate::defaults::Defaults;
use crate::groups::Groups;
use crate::networks::CniConfig;
use crate::store::Subnet;
use crate::userns::Remap;

/// How an engine is set up.
#[derive(Debug)]
pub struct Config {
    /// What must survive a reboot: images, the database, containers' logs and own files.
    pub root: PathBuf,
    /// What goes with a reboot: bundles, sockets, the runtime's state.
    pub state: PathBuf,
    /// The socket on which the API is served; shims are told it as their manager's address.
    pub socket: PathBuf,
    /// The shim's binary.
    pub shim: PathBuf,
    /// The runtime's binary; None: the shim finds the one beside itself.
    pub runtime: Option<PathBuf>,
    /// The first process of containers that want one.
    pub init: PathBuf,
    /// Which images are accepted.
    pub trust_policy: image::PolicyFile,
    /// The network of containers.
    pub bridge: Bridge,
    /// Folders with a folder a registry, in which hosts.toml or certificates are.
    pub registries: Vec<PathBuf>,
    /// What new layers of images are kept as.
    pub layers: image::Layers,
    /// What is left out of requests, at first.
    pub defaults: Defaults,
    /// Where plugins are looked for, and how long they are waited for.
    pub plugins: plugins::Config,
    /// Where networks of the driver cni find configurations and plugins.
    pub cni: CniConfig,
    /// journald's socket.
    pub journal: PathBuf,
    /// The ids of containers that ask for nothing else; None: the host's.
    pub userns_remap: Option<Remap>,
    /// Who opens ports of the host for a manager whose network is not the host's: slirp4netns's API socket.
    pub outside: Option<PathBuf>,
    /// Where containers get their cgroups.
    pub groups: Groups,
}

impl Config {
    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("engine.db")
    }

    pub(crate) fn of_images(&self) -> image::Config {
        image::Config {
            registries: image::Registries::in_folders(self.registries.clone()),
            layers: self.layers,
            ..image::Config::from_env()
        }
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// The folder of a container's log and of its own files in /etc.
    pub(crate) fn container(&self, id: &str) -> PathBuf {
        self.root.join("containers").join(id)
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    pub(crate) fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// What containers see of a volume.
    pub(crate) fn volume_data(&self, name: &str) -> PathBuf {
        self.volumes().join(name).join("_data")
    }

    pub(crate) fn log(&self, id: &str) -> PathBuf {
        self.container(id).join(crate::logs::FILE_NAME)
    }

    pub(crate) fn bundles(&self) -> PathBuf {
        self.state.join("bundles")
    }

    pub(crate) fn bundle(&self, id: &str) -> PathBuf {
        self.bundles().join(id)
    }

    /// Where the manager mounts what nobody else is to see, for a moment: parts of volumes, containers that do not run.
    pub(crate) fn parts(&self) -> PathBuf {
        self.state.join("parts")
    }

    /// The runtime's `--root`.
    pub(crate) fn runtime_root(&self) -> PathBuf {
        self.state.join("runtime")
    }

    pub(crate) fn subnet(&self) -> Subnet {
        Subnet {
            gateway: self.bridge.gateway,
            prefix: self.bridge.prefix,
        }
    }
}
