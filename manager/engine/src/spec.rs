//! From what was asked for and what the image says to the runtime's config.json. Pure: it reads the layers of
//! the root file system for users and the host's devices, and changes nothing.

pub(crate) mod capabilities;
pub(crate) mod cgroups;
mod devices;
pub(crate) mod layers;
mod mounts;
pub(crate) mod process;
pub(crate) mod resources;
pub(crate) mod seccomp;
pub(crate) mod selinux;
mod storage;
pub(crate) mod update;
pub(crate) mod user;

use std::borrow::Cow;
use std::path::Path;
use std::sync::LazyLock;

use image::{IdMap, Owners};
use oci_spec::image::ImageConfiguration;
use serde_json::{Value, json};

use crate::Error;
use crate::container::Container;
use crate::error::short;
use crate::groups::Groups;
use crate::joined::Joined;
use crate::links::Linked;
use crate::request::{CreateRequest, Network, Seccomp};
use crate::volumes::Seen;
use cgroups::Cgroups;
pub(crate) use mounts::{mount_points, shm_bytes};
pub(crate) use update::{update, update_from_any};
use user::User;

/// The kernel takes no greater one for `net.ipv4.ping_group_range`.
const GROUP_MAX: u32 = 2_147_483_647;

/// Paths of the host's kernel that tell or do more than a container should.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// What of this machine a run has.
pub(crate) struct Given<'a> {
    /// Where its hosts, hostname and resolv.conf are.
    pub(crate) etc: &'a Path,
    /// Those of its mounts, where these have any.
    pub(crate) sources: &'a [Seen],
    /// The program that is its first process, if it wants one.
    pub(crate) init: &'a Path,
    /// What it has of other containers.
    pub(crate) joined: &'a Joined,
    /// Those that it has names for.
    pub(crate) links: &'a [Linked],
    /// The file system of its shared memory, if that is not new.
    pub(crate) shm: Option<&'a Path>,
    /// Where it gets its cgroup.
    pub(crate) groups: &'a Groups,
}

/// The config.json of `container`.
pub(crate) fn config(
    container: &Container,
    image: &ImageConfiguration,
    user: &User,
    given: &Given,
) -> Result<Value, Error> {
    let request = &*container.request;
    let owners = request.isolation.owners.as_ref();
    let cgroups = Cgroups::of_this_machine();
    let (usable, _) = resources::usable(request, &cgroups);
    let granted = devices::granted(&usable.devices, request.privileged)?;
    let capabilities = held_capabilities(request);
    let mut linux = json!({
        "cgroupsPath": cgroup(container, given.groups),
        "namespaces": namespaces(request, given.joined),
        "resources": resources::section(request, &usable, &cgroups, &granted)?,
        "devices": devices::nodes(&granted, request.privileged),
    });
    if let Some(owners) = owners {
        linux["uidMappings"] = id_mappings(&owners.uids);
        linux["gidMappings"] = id_mappings(&owners.gids);
    }
    let security = request.isolation.security()?;
    if !request.privileged && !security.system_paths_unconfined {
        linux["maskedPaths"] = json!(MASKED);
        linux["readonlyPaths"] = json!(READ_ONLY);
    }
    match security.seccomp {
        Seccomp::Unconfined => {}
        // As with docker, one of somebody's own is meant even so.
        Seccomp::Own(profile) => linux["seccomp"] = seccomp::own(profile, &capabilities)?,
        Seccomp::Builtin if request.privileged => {}
        Seccomp::Builtin => linux["seccomp"] = seccomp::default_profile(&capabilities),
    }
    let labels = security.label.labels();
    if let Some((_, file)) = &labels {
        linux["mountLabel"] = json!(file);
    }
    if !matches!(request.network, Network::Host | Network::Container) {
        // Safe, as the network namespace is the container's alone, and programs expect it of docker.
        linux["sysctl"] = json!({
            "net.ipv4.ip_unprivileged_port_start": "0",
            "net.ipv4.ping_group_range": format!("0 {}", last_group(owners)),
        });
    }
    for (name, value) in &request.isolation.sysctls {
        linux["sysctl"][name] = json!(value);
    }
    let (hostname, domainname) = given.joined.names(container);
    let links = given
        .links
        .iter()
        .flat_map(|link| link.variables(&container.name));
    let links: Vec<_> = links.collect();
    let mut process = process::main(container, image, user, &capabilities, (&hostname, &links));
    process["noNewPrivileges"] = json!(security.no_new_privileges);
    if !security.apparmor_profile.is_empty() {
        process["apparmorProfile"] = json!(security.apparmor_profile);
    }
    if let Some((of_process, _)) = labels {
        process["selinuxLabel"] = json!(of_process);
    }
    let mut config = json!({
        "ociVersion": "1.2.0",
        "process": process,
        "root": {"path": "rootfs", "readonly": request.read_only},
        "mounts": mounts::all(request, &storage::mounts(&container.mounts, given.sources, owners), given),
        "annotations": request.annotations,
        "linux": linux,
    });
    // The shim's `bundle.rs` knows it. Whatever looks into a container from here does so by /proc/PID/root or the layers.
    config["annotations"]["org.berth.rootfs-mounted"] = json!("until-created");
    // Those of the host's namespace are not the container's to set.
    if request.isolation.uts != "host" {
        config["hostname"] = json!(hostname);
        config["domainname"] = json!(domainname);
    }
    Ok(config)
}

/// Its path, from the root of each hierarchy.
fn cgroup(container: &Container, groups: &Groups) -> String {
    let parent = groups.parent(&container.request.resources.cgroup_parent);
    format!("/{parent}/{}", container.id)
}

/// The container's own name for itself.
pub(crate) fn hostname(container: &Container) -> Cow<'_, str> {
    let request = &container.request;
    if !request.hostname.is_empty() {
        return Cow::Borrowed(&request.hostname);
    }
    // On the host's network a program is found by the host's name.
    let of_host = || nix::unistd::gethostname().ok()?.into_string().ok();
    match request.network {
        _ if request.isolation.uts == "host" => of_host().map_or(Cow::Borrowed(""), Cow::Owned),
        Network::Host => of_host().map_or(Cow::Borrowed(short(&container.id)), Cow::Owned),
        Network::Bridge | Network::User | Network::None | Network::Container => {
            Cow::Borrowed(short(&container.id))
        }
    }
}

fn held_capabilities(request: &CreateRequest) -> Vec<String> {
    if request.privileged {
        return capabilities::all_known_here();
    }
    // Checked when the container was made.
    capabilities::effective(&request.cap_add, &request.cap_drop).unwrap_or_default()
}

/// Those that are the container's own, or another container's.
fn namespaces(request: &CreateRequest, joined: &Joined) -> Value {
    let isolation = &request.isolation;
    let kinds = [
        ("pid", isolation.pid == "host"),
        ("ipc", isolation.ipc == "host"),
        ("uts", isolation.uts == "host"),
        ("mount", false),
        ("cgroup", isolation.cgroup == "host"),
        ("network", request.network == Network::Host),
        ("user", isolation.owners.is_none()),
    ];
    let own = kinds.iter().filter(|(_, of_host)| !of_host);
    own.map(|(kind, _)| match joined.path(kind) {
        Some(path) => json!({"type": kind, "path": path}),
        None => json!({"type": kind}),
    })
    .collect()
}

/// As config.json has it.
fn id_mappings(map: &IdMap) -> Value {
    let one = |range: &image::IdRange| json!({"containerID": range.container, "hostID": range.host, "size": range.size});
    map.ranges().iter().map(one).collect()
}

/// The last group that can be named: all of Linux's, or all that the user namespace has from 0 on, the container's or
/// this manager's.
fn last_group(owners: Option<&Owners>) -> u32 {
    // It does not change, and every start asks.
    static LAST: LazyLock<u32> = LazyLock::new(|| {
        let map = std::fs::read_to_string("/proc/self/gid_map").unwrap_or_default();
        last_of(&map).unwrap_or(GROUP_MAX)
    });
    if let Some(owners) = owners {
        let lines = owners.gids.to_string().replace(':', " ").replace(',', "\n");
        return last_of(&lines).unwrap_or(0);
    }
    *LAST
}

/// From lines of a mapping (`user_namespaces(7)`): the last id before the first that is missing.
fn last_of(map: &str) -> Option<u32> {
    let ranges = map.lines().filter_map(|line| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u32>);
        Some((numbers.next()?.ok()?, numbers.nth(1)?.ok()?))
    });
    let mut ranges: Vec<_> = ranges.collect();
    ranges.sort_unstable();
    let mut end = 0u32;
    for (first, count) in ranges {
        if first == end {
            end = first.saturating_add(count);
        }
    }
    Some(end.checked_sub(1)?.min(GROUP_MAX))
}

#[cfg(test)]
mod tests;
