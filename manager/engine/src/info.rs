//! What there is, in numbers, and what kind of machine this is.

use crate::Error;
use crate::container::State;
use crate::engine::{Engine, blocking};
use crate::spec::cgroups::Cgroups;

/// How many containers are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Running, and not paused.
    pub running: usize,
    /// Their processes stand still.
    pub paused: usize,
    /// About to be started again by their policy.
    pub restarting: usize,
    /// Made and not started yet.
    pub created: usize,
    /// Ended.
    pub exited: usize,
}

impl Counts {
    /// All of them.
    pub fn all(&self) -> usize {
        self.running + self.paused + self.restarting + self.created + self.exited
    }
}

/// The machine, and how this manager works on it.
#[derive(Debug, Clone, Default)]
pub struct Info {
    /// Of the host.
    pub hostname: String,
    /// `PRETTY_NAME` of os-release(5); empty: it has none.
    pub operating_system: String,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// Of the machine's memory; 0: not known.
    pub memory_bytes: u64,
    /// Images that have a name or are needed.
    pub images: usize,
    /// Volumes.
    pub volumes: usize,
    /// Networks, the default one and those of users.
    pub networks: usize,
    /// How new layers of images are kept: `folders`, `erofs` or `auto`.
    pub layers: &'static str,
    /// Where registries are configured.
    pub registries: Vec<std::path::PathBuf>,
    /// The default bridge, and its address.
    pub bridge: (String, String),
    /// `userns-remap`: whose ids containers get, and which those are.
    pub userns_remap: Option<crate::Remap>,
    /// `VERSION_ID` of os-release(5); empty: it has none.
    pub os_version: String,
    /// Of what this manager keeps.
    pub id: String,
    /// `local`, and the plugins that are there.
    pub volume_drivers: Vec<String>,
    /// Of networks that can be made, and of those that are there.
    pub network_drivers: Vec<String>,
    /// In docker's words.
    pub security_options: Vec<String>,
    /// What the kernel can limit, by [`Info::LIMITS`].
    pub limits: Vec<&'static str>,
    /// Whether the machine passes packets on, as containers need it.
    pub ipv4_forwarding: bool,
}

impl Info {
    /// What a kernel may be able to limit.
    pub const LIMITS: [&'static str; 8] = [
        "memory",
        "swap",
        "oom-kill",
        "cpu-shares",
        "cpu-quota",
        "cpu-real-time",
        "cpuset",
        "pids",
    ];
}

impl Engine {
    /// How many containers are in which state, without a look at the disk.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for handle in self.0.containers.all() {
            let snapshot = handle.snapshot();
            if snapshot.gone {
                continue;
            }
            let count = match snapshot.container.state {
                State::Running => &mut counts.running,
                State::Paused => &mut counts.paused,
                State::Restarting => &mut counts.restarting,
                State::Created => &mut counts.created,
                State::Exited | State::Removing => &mut counts.exited,
            };
            *count += 1;
        }
        counts
    }

    /// The machine, how this manager works on it, and how much there is.
    pub async fn info(&self) -> Result<Info, Error> {
        let volumes = self.0.store.volumes().await?.len();
        let engine = self.clone();
        blocking(move || {
            Ok(Info {
                images: usize::try_from(engine.0.images.stored()?.images).unwrap_or(usize::MAX),
                volumes,
                networks: engine.0.networks.all().len() + 1,
                id: engine.0.store.root_id().to_owned(),
                volume_drivers: std::iter::once("local".to_owned())
                    .chain(engine.0.plugins.names())
                    .collect(),
                network_drivers: crate::networks::drivers(),
                security_options: security_options(engine.0.config.userns_remap.is_some()),
                limits: engine.0.config.groups.usable(Cgroups::of_this_machine().limits()),
                ipv4_forwarding: std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward")
                    .is_ok_and(|text| text.trim() == "1"),
                ..engine.machine()
            })
        })
        .await
    }

    /// The machine, and how this manager works on it; nothing is counted.
    pub fn machine(&self) -> Info {
        let config = &self.0.config;
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Info {
            hostname: read("/proc/sys/kernel/hostname").trim().to_owned(),
            operating_system: of_os(&read("/etc/os-release"), "PRETTY_NAME").unwrap_or_default(),
            os_version: of_os(&read("/etc/os-release"), "VERSION_ID").unwrap_or_default(),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: machine_memory_bytes().unwrap_or(0),
            layers: match config.layers {
                image::Layers::Folders => "folders",
                image::Layers::Erofs => "erofs",
                image::Layers::Auto => "auto",
            },
            registries: config.registries.clone(),
            bridge: (
                config.bridge.name.clone(),
                format!("{}/{}", config.bridge.gateway, config.bridge.prefix),
            ),
            userns_remap: config.userns_remap.clone(),
            ..Info::default()
        }
    }
}

/// How containers are kept apart here, as docker names it.
fn security_options(is_remapped: bool) -> Vec<String> {
    let has = |path: &str| std::path::Path::new(path).exists();
    let is = |path: &str, value| std::fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    let all = [
        (
            is("/sys/module/apparmor/parameters/enabled", "Y"),
            "name=apparmor",
        ),
        (has("/proc/sys/kernel/seccomp"), "name=seccomp,profile=builtin"),
        (has("/sys/fs/selinux/enforce"), "name=selinux"),
        (image::is_in_user_namespace(), "name=rootless"),
        (is_remapped, "name=userns"),
        (has("/proc/self/ns/cgroup"), "name=cgroupns"),
    ];
    let here = all.into_iter().filter(|(here, _)| *here);
    here.map(|(_, name)| name.to_owned()).collect()
}

/// A value of `/etc/os-release`.
fn of_os(os_release: &str, name: &str) -> Option<String> {
    let value = os_release
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

/// All the memory that this machine has; None: it does not tell.
pub(crate) fn machine_memory_bytes() -> Option<u64> {
    memory_bytes(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

/// Of `/proc/meminfo`.
fn memory_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_read_from_its_files() {
        let os = "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n";
        let name = of_os(os, "PRETTY_NAME");
        assert_eq!(name.as_deref(), Some("Debian GNU/Linux 13 (trixie)"));
        assert_eq!(of_os(os, "VERSION_ID"), None);
        assert_eq!(
            memory_bytes("MemTotal:       16 kB\nMemFree: 1 kB\n"),
            Some(16384)
        );
        assert_eq!(memory_bytes("MemFree: 1 kB\n"), None);
    }
}
