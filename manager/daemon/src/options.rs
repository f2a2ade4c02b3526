//! The command line.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use engine::{CniConfig, Config, Defaults, Layers, PolicyFile, Remap};
use network::Bridge;

use crate::remote::RemoteOptions;

/// What fits into `sun_path` of unix(7), with the NUL behind it.
const SOCKET_PATH_MAX_BYTES: usize = 107;
/// Linux names of links are at most this long.
const LINK_NAME_MAX_BYTES: usize = 15;

/// Where root's manager keeps what is its.
pub(crate) const ROOT: &str = "/var/lib/berth";
pub(crate) const STATE: &str = "/run/berth";
/// The first process of containers that want one.
const INIT: &str = "berth-init";
const TRUST_POLICY: &str = "/etc/berth/policy.json";

/// The manager of containers, images and their network.
#[derive(Debug, Clone, Parser)]
#[command(name = "manager", version, about)]
pub(crate) struct Options {
    /// The configuration: a key for each of these options, and more [default: /etc/berth/manager.toml, or a
    /// user's own ~/.config/berth/manager.toml, if it is there].
    /// What is said here, or in the environment, counts above it. SIGHUP has it read again.
    #[arg(long, env = "BERTH_CONFIG", value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,
    /// Check the configuration and the options, say what is wrong, and end.
    #[arg(long, visible_alias = "validate")]
    pub(crate) check_config: bool,
    /// What has to survive a reboot: images, containers, logs.
    #[arg(
        long,
        env = "BERTH_ROOT",
        default_value = ROOT,
        value_name = "DIR"
    )]
    pub(crate) root: PathBuf,
    /// What goes with a reboot: sockets, bundles, the runtime's state.
    #[arg(long, env = "BERTH_STATE", default_value = STATE, value_name = "DIR")]
    pub(crate) state: PathBuf,
    /// Serve the API here [default: manager.sock in the state directory].
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Whose members may connect to the socket, and so do all that root may [default: root's own group].
    #[arg(long, value_name = "GROUP")]
    pub(crate) socket_group: Option<String>,
    #[command(flatten)]
    pub(crate) remote: RemoteOptions,
    /// The shim's binary [default: `shim` beside this binary].
    #[arg(long, value_name = "PATH")]
    pub(crate) shim: Option<PathBuf>,
    /// The runtime's binary [default: `runtime` beside the shim].
    #[arg(long, value_name = "PATH")]
    pub(crate) runtime: Option<PathBuf>,
    /// The program that is the first process of containers made with --init [default: `berth-init` beside this binary].
    #[arg(long, value_name = "PATH")]
    pub(crate) init_path: Option<PathBuf>,
    /// Which images are accepted, by their signatures [default: /etc/berth/policy.json, if it is there].
    #[arg(long, env = "BERTH_TRUST_POLICY", value_name = "PATH")]
    pub(crate) trust_policy: Option<PathBuf>,
    /// The bridge of containers' network; made if it is not there.
    #[arg(long, default_value = "berth0", value_name = "NAME")]
    pub(crate) bridge_name: String,
    /// The bridge's own address, which is the containers' gateway, and the length of their subnet's prefix.
    #[arg(long, default_value = "172.30.0.1/16", value_name = "ADDRESS/PREFIX")]
    pub(crate) bridge_subnet: String,
    /// Where registries are configured: folders, separated by colons, in each of which registries have folders with
    /// containerd's hosts.toml, or docker's certificates. The first folder that has one for a registry counts.
    #[arg(
        long,
        env = "BERTH_REGISTRY_CONFIG",
        default_value = "/etc/berth/certs.d:/etc/containerd/certs.d:/etc/docker/certs.d",
        value_name = "DIR[:DIR…]"
    )]
    pub(crate) registry_config: String,
    /// Where plugins are found: folders, separated by colons, each looked through for NAME.sock, NAME.spec and NAME.json.
    #[arg(long, env = "BERTH_PLUGIN_FOLDERS", default_value = plugins::FOLDERS, value_name = "DIR[:DIR…]")]
    pub(crate) plugin_folders: String,
    /// For how many seconds a plugin's answer is waited for; a plugin that is not there is tried for half of it, and for
    /// half a minute at most.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600), value_name = "SECONDS")]
    pub(crate) plugin_timeout: u64,
    /// Where networks of the driver cni find their configurations: NAME.conflist, .conf and .json.
    #[arg(
        long,
        env = "BERTH_CNI_CONF_DIR",
        default_value = "/etc/cni/net.d",
        value_name = "DIR"
    )]
    pub(crate) cni_conf_dir: PathBuf,
    /// Where CNI plugins are: folders, separated by colons. --plugin-timeout is for them too.
    #[arg(
        long,
        env = "BERTH_CNI_BIN_DIR",
        default_value = "/opt/cni/bin:/usr/lib/cni",
        value_name = "DIR[:DIR…]"
    )]
    pub(crate) cni_bin_dir: String,
    /// What new layers of images are kept as: a folder each (folders), or a file each (erofs), an EROFS image that Linux
    /// 6.15 and later can mount from there; auto takes what the kernel can. Layers that are here stay as they are.
    #[arg(long, env = "BERTH_LAYERS", default_value = "folders", value_name = "FORM")]
    pub(crate) layers: Layers,
    /// Whose subordinate ids (subuid(5), subgid(5)) containers have in the place of the host's, unless they say otherwise
    /// (run --userns): default, which is the user dockremap, `USER[:GROUP]` or `UID[:GID]` [default: the host's ids].
    #[arg(long, env = "BERTH_USERNS_REMAP", value_name = "USER[:GROUP]")]
    pub(crate) userns_remap: Option<String>,
    /// What becomes of the output of containers for which nothing else is asked: json-file, local, none, journald, syslog.
    #[arg(
        long,
        env = "BERTH_LOG_DRIVER",
        default_value = "json-file",
        value_name = "DRIVER"
    )]
    pub(crate) log_driver: String,
    /// An option of that driver, as docker has them (max-size=10m); may be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = log_option)]
    pub(crate) log_opt: Vec<(String, String)>,
    /// journald's socket, for the driver of that name.
    #[arg(
        long,
        env = "BERTH_JOURNAL_SOCKET",
        default_value = "/run/systemd/journal/socket",
        value_name = "PATH"
    )]
    pub(crate) journal_socket: PathBuf,
    /// Serve metrics here, for Prometheus: GET /metrics, in the clear and to everybody who reaches it.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) metrics_address: Option<SocketAddr>,
    /// Send traces to the collector here, over OTLP: on this machine usually `http://127.0.0.1:4317`.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub(crate) otlp_endpoint: Option<String>,
    /// How OTLP is spoken to it: grpc (usually at port 4317) or http/protobuf (4318).
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_PROTOCOL",
        default_value = "grpc",
        value_name = "PROTOCOL"
    )]
    pub(crate) otlp_protocol: String,
    /// What is logged to standard error: error, warn, info, debug, trace, or a filter by module.
    #[arg(long, env = "BERTH_LOG", default_value = "info", value_name = "LEVEL")]
    pub(crate) log_level: String,
}

impl Options {
    pub(crate) fn socket(&self) -> PathBuf {
        self.socket
            .clone()
            .unwrap_or_else(|| self.state.join("manager.sock"))
    }

    /// Where to listen, if the command line says so.
    pub(crate) fn asked_socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// How the engine is set up; `place` tells where a key's value comes from.
    pub(crate) fn engine(
        &self,
        defaults: Defaults,
        place: impl Fn(&str) -> String,
    ) -> anyhow::Result<Config> {
        let (gateway, prefix) = subnet(&self.bridge_subnet)
            .with_context(|| format!("{} {:?}", place("bridge-subnet"), self.bridge_subnet))?;
        let name = &self.bridge_name;
        if name.is_empty() || name.len() > LINK_NAME_MAX_BYTES || name.contains(['/', ' ', ':', '\0']) {
            bail!(
                "{} {name:?}: the name of a link has 1 to {LINK_NAME_MAX_BYTES} characters, no / : or space",
                place("bridge-name")
            );
        }
        if !(1..=3600).contains(&self.plugin_timeout) {
            bail!(
                "{} {}: 1 to 3600 seconds are allowed",
                place("plugin-timeout"),
                self.plugin_timeout
            );
        }
        let socket = absolute(&self.socket())?;
        if socket.as_os_str().len() > SOCKET_PATH_MAX_BYTES {
            bail!(
                "the socket's path {} is longer than the {SOCKET_PATH_MAX_BYTES} bytes that Linux allows: choose another with --socket or --state",
                socket.display()
            );
        }
        let shim = match &self.shim {
            Some(shim) => absolute(shim)?,
            None => std::env::current_exe()
                .context("find this binary")?
                .with_file_name("shim"),
        };
        for (key, program) in [("shim", Some(&shim)), ("runtime", self.runtime.as_ref())] {
            if let Some(program) = program.filter(|program| !program.is_file()) {
                bail!(
                    "{} {} is not there: --shim and --runtime say where these programs are",
                    place(key),
                    program.display()
                );
            }
        }
        Ok(Config {
            root: absolute(&self.root)?,
            state: absolute(&self.state)?,
            socket,
            shim,
            runtime: self.runtime.as_deref().map(absolute).transpose()?,
            init: match &self.init_path {
                Some(init) => absolute(init)?,
                None => init_beside(&std::env::current_exe().context("find this binary")?),
            },
            trust_policy: match &self.trust_policy {
                Some(path) => PolicyFile::At(absolute(path)?),
                None => PolicyFile::IfThere(TRUST_POLICY.into()),
            },
            bridge: Bridge {
                name: name.clone(),
                gateway,
                prefix,
                ..Bridge::default()
            },
            registries: std::env::split_paths(&self.registry_config)
                .filter(|folder| !folder.as_os_str().is_empty())
                .map(|folder| absolute(&folder))
                .collect::<anyhow::Result<_>>()?,
            layers: self.layers,
            defaults,
            plugins: plugins::Config {
                folders: std::env::split_paths(&self.plugin_folders)
                    .filter(|folder| !folder.as_os_str().is_empty())
                    .map(|folder| absolute(&folder))
                    .collect::<anyhow::Result<_>>()?,
                timeout: Duration::from_secs(self.plugin_timeout),
            },
            cni: CniConfig {
                conf_dir: absolute(&self.cni_conf_dir)?,
                bin_dirs: std::env::split_paths(&self.cni_bin_dir)
                    .filter(|folder| !folder.as_os_str().is_empty())
                    .map(|folder| absolute(&folder))
                    .collect::<anyhow::Result<_>>()?,
            },
            journal: absolute(&self.journal_socket)?,
            userns_remap: match self.userns_remap.as_deref() {
                None | Some("") => None,
                Some(asked) => Some(Remap::find(asked)?),
            },
            outside: crate::rootless::network_socket(),
            groups: crate::rootless::groups(),
        })
    }
}

/// Installed, it has a name that is no system's init; where cargo has built it, that of its package.
fn init_beside(binary: &Path) -> PathBuf {
    let (installed, built) = (binary.with_file_name(INIT), binary.with_file_name("init"));
    if !installed.is_file() && built.is_file() {
        return built;
    }
    installed
}

fn log_option(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("not of the form NAME=VALUE".to_owned()),
    }
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("make {} absolute", path.display()))
}

/// `172.30.0.1/16`; of a subnet's own address, the first one after it.
fn subnet(text: &str) -> anyhow::Result<(Ipv4Addr, u8)> {
    let (address, prefix) = text.split_once('/').context("it has to be ADDRESS/PREFIX")?;
    let address: Ipv4Addr = address.parse().context("it has to begin with an IPv4 address")?;
    let prefix: u8 = prefix
        .parse()
        .context("it has to end with the length of a prefix")?;
    if !(8..=30).contains(&prefix) {
        bail!("the prefix has to be 8 to 30 bits long");
    }
    let host = u32::MAX >> prefix;
    let bits = u32::from(address);
    match bits & host {
        0 => Ok((Ipv4Addr::from(bits + 1), prefix)),
        last if last == host => bail!("{address} is the broadcast address of its subnet"),
        _ => Ok((address, prefix)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Options::command().debug_assert();
    }

    #[test]
    fn the_init_is_found_by_its_name_where_it_is_installed_and_where_it_is_built() {
        let folder = tempfile::tempdir().unwrap();
        let found = || {
            init_beside(&folder.path().join("manager"))
                .file_name()
                .unwrap()
                .to_owned()
        };
        assert_eq!(found(), INIT);
        std::fs::write(folder.path().join("init"), "").unwrap();
        assert_eq!(found(), "init");
        std::fs::write(folder.path().join(INIT), "").unwrap();
        assert_eq!(found(), INIT);
    }

    #[test]
    fn a_subnet_is_a_gateway_and_a_prefix() {
        assert_eq!(
            subnet("172.30.0.1/16").unwrap(),
            (Ipv4Addr::new(172, 30, 0, 1), 16)
        );
        assert_eq!(subnet("10.1.0.0/24").unwrap(), (Ipv4Addr::new(10, 1, 0, 1), 24));
        for bad in [
            "10.0.0.1",
            "10.0.0.1/31",
            "10.0.0.255/24",
            "x/24",
            "10.0.0.1/a",
            "::1/64",
        ] {
            assert!(subnet(bad).is_err(), "{bad}");
        }
    }
}
