//! From what was asked for and what the image says to the runtime's config.json. Pure: it reads the layers of
//! the root file system for users, and changes nothing.

pub(crate) mod capabilities;
mod devices;
pub(crate) mod layers;
mod memory;
mod mounts;
pub(crate) mod process;
mod seccomp;
mod storage;
pub(crate) mod update;
pub(crate) mod user;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use oci_spec::image::ImageConfiguration;
use serde_json::{Value, json};

use crate::container::Container;
use crate::error::short;
use crate::request::{CreateRequest, Network};
pub(crate) use mounts::mount_points;
pub(crate) use update::update;
use user::User;

/// Period over which a CPU quota is counted, in microseconds: the kernel's own default.
const CPU_PERIOD_MICROS: i64 = 100_000;

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

/// The config.json of `container`. `etc` holds its own hosts, hostname and resolv.conf; `sources` are those of its mounts,
/// where these have any.
pub(crate) fn config(
    container: &Container,
    image: &ImageConfiguration,
    user: &User,
    etc: &Path,
    sources: &[PathBuf],
) -> Value {
    let request = &*container.request;
    let capabilities = held_capabilities(request);
    let mut linux = json!({
        "cgroupsPath": format!("/berth/{}", container.id),
        "namespaces": namespaces(request.network),
        "resources": resources(request),
    });
    if request.privileged {
        linux["devices"] = devices::of_the_host();
    } else {
        linux["maskedPaths"] = json!(MASKED);
        linux["readonlyPaths"] = json!(READ_ONLY);
        linux["seccomp"] = seccomp::default_profile(&capabilities);
    }
    if request.network != Network::Host {
        // Safe, as the network namespace is the container's alone, and programs expect it of docker.
        linux["sysctl"] = json!({
            "net.ipv4.ip_unprivileged_port_start": "0",
            "net.ipv4.ping_group_range": "0 2147483647",
        });
    }
    json!({
        "ociVersion": "1.2.0",
        "process": process::main(container, image, user, &capabilities),
        "root": {"path": "rootfs", "readonly": request.read_only},
        "hostname": hostname(container),
        "mounts": mounts::all(request, &storage::mounts(&container.mounts, sources), etc),
        "linux": linux,
    })
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
        Network::Host => of_host().map_or(Cow::Borrowed(short(&container.id)), Cow::Owned),
        Network::Bridge | Network::None => Cow::Borrowed(short(&container.id)),
    }
}

fn held_capabilities(request: &CreateRequest) -> Vec<String> {
    if request.privileged {
        return capabilities::all_known_here();
    }
    // Checked when the container was made.
    capabilities::effective(&request.cap_add, &request.cap_drop).unwrap_or_default()
}

fn namespaces(network: Network) -> Value {
    let kinds = ["pid", "ipc", "uts", "mount", "cgroup", "network"];
    let wanted = kinds
        .iter()
        .filter(|&&kind| kind != "network" || network != Network::Host);
    wanted.map(|kind| json!({"type": kind})).collect()
}

fn resources(request: &CreateRequest) -> Value {
    let mut resources = json!({"devices": devices::rules(request.privileged)});
    if request.memory_bytes > 0 {
        resources["memory"] = memory::limits(request.memory_bytes, memory::counts_swap());
    }
    if request.cpu_quota_millis > 0 {
        resources["cpu"] = json!({"period": CPU_PERIOD_MICROS, "quota": request.cpu_quota_millis * (CPU_PERIOD_MICROS / 1000)});
    }
    if request.pids_limit > 0 {
        resources["pids"] = json!({"limit": request.pids_limit});
    }
    resources
}

#[cfg(test)]
mod tests;
