//! What a container sees besides its image.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

use super::Given;
use super::process::INIT;
use crate::request::CreateRequest;

/// Size of /dev/shm, as with docker.
const SHM_BYTES: u64 = 64 << 20;
const SHM: &str = "/dev/shm";

/// The files that a container has of its own, in /etc.
const ETC_FILES: [&str; 3] = ["resolv.conf", "hostname", "hosts"];

/// All mounts in the order in which they are made: the kernel's file systems, the container's own files in
/// /etc, then what was asked for, those higher up in the tree first.
pub(super) fn all(request: &CreateRequest, wanted: &[Value], given: &Given) -> Value {
    let target = |mount: &Value| mount["destination"].as_str().unwrap_or_default().to_owned();
    let mut wanted: Vec<_> = wanted.iter().collect();
    wanted.sort_by_key(|mount| depth(&target(mount)));
    let replaced = |place: &str| {
        wanted
            .iter()
            .any(|mount| normal(&target(mount)).eq(normal(place)))
    };

    let mut mounts = kernel_file_systems(request.privileged, shm_bytes(request));
    if image::is_in_user_namespace() {
        share_kernel_file_systems(request, &mut mounts);
    }
    if request.isolation.ipc == "none" {
        mounts.retain(|mount| mount["destination"] != SHM);
    }
    // Shared memory is a file system of its own; that of queues comes with the namespace.
    let of_host = (request.isolation.ipc == "host").then_some(Path::new(SHM));
    if let Some(shm) = of_host.or(given.shm) {
        for mount in mounts.iter_mut().filter(|mount| mount["destination"] == SHM) {
            *mount = bind(&shm.to_string_lossy(), SHM, false);
        }
    }
    for name in ETC_FILES {
        mounts.push(bind(
            &given.etc.join(name).to_string_lossy(),
            &format!("/etc/{name}"),
            request.read_only,
        ));
    }
    mounts.retain(|mount| !mount["destination"].as_str().is_some_and(replaced));
    mounts.extend(wanted.into_iter().cloned());
    if request.has_init() {
        mounts.push(bind(&given.init.to_string_lossy(), INIT, true));
    }
    Value::Array(mounts)
}

/// Where the runtime makes files and folders in a container, to mount these things on them: from the root, and
/// without the slash. Those of binds are not among them: as with docker, they are the container's own.
pub(crate) fn mount_points(request: &CreateRequest) -> BTreeSet<Vec<u8>> {
    let kernel = kernel_file_systems(false, SHM_BYTES).into_iter();
    let kernel = kernel.filter_map(|mount| Some(mount["destination"].as_str()?.as_bytes()[1..].to_vec()));
    let etc = ETC_FILES.iter().map(|name| format!("etc/{name}").into_bytes());
    let init = request.has_init().then(|| INIT.as_bytes()[1..].to_vec());
    kernel.chain(etc).chain(init).collect()
}

/// How much fits into its /dev/shm.
pub(crate) fn shm_bytes(request: &CreateRequest) -> u64 {
    match request.resources.shm_bytes {
        0 => SHM_BYTES,
        asked => asked,
    }
}

/// The file systems of the host's namespaces are mounted anew only by who owns those: without root's rights they are
/// what the host has, if it has them.
fn share_kernel_file_systems(request: &CreateRequest, mounts: &mut Vec<Value>) {
    let isolation = &request.isolation;
    for (place, of_host) in [("/proc", &isolation.pid), ("/dev/mqueue", &isolation.ipc)] {
        if of_host != "host" {
            continue;
        }
        if !Path::new(place).exists() {
            mounts.retain(|mount| mount["destination"] != place);
        }
        for mount in mounts.iter_mut().filter(|mount| mount["destination"] == place) {
            *mount = bind(place, place, false);
            mount["options"] = json!(["rbind", "rprivate", "nosuid", "noexec", "nodev"]);
        }
    }
}

fn kernel_file_systems(privileged: bool, shm_bytes: u64) -> Vec<Value> {
    let access = if privileged { "rw" } else { "ro" };
    let mount = |target: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": source, "options": options});
    let shm_size = format!("size={shm_bytes}");
    vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access]),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &[access, "nosuid", "noexec", "nodev"],
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", &shm_size],
        ),
    ]
}

fn bind(source: &str, target: &str, read_only: bool) -> Value {
    let mut options = vec!["rbind", "rprivate"];
    if read_only {
        options.push("ro");
    }
    json!({"destination": target, "type": "bind", "source": source, "options": options})
}

/// The names of a path, without what changes nothing.
fn normal(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty() && *name != ".")
}

fn depth(path: &str) -> usize {
    normal(path).count()
}
