//! What the kernel and the file systems of this machine tell.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{Finding, Status};
use crate::size::format_bytes;

/// Older kernels lack what the runtime needs.
const KERNEL_MIN: (u32, u32) = (5, 10);
const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];
/// What limits of containers need.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// Kernel modules: what for, and whether nothing runs without.
const MODULES: [(&str, &str, Status); 4] = [
    ("overlay", "images are unpacked to be its layers", Status::Broken),
    (
        "bridge",
        "containers' network is one; --network none and host work without",
        Status::Warning,
    ),
    (
        "veth",
        "it joins containers to the bridge; --network none and host work without",
        Status::Warning,
    ),
    (
        "nf_tables",
        "it publishes ports and leads out of the network",
        Status::Warning,
    ),
];
/// At least so much: numbers of the kernel that many containers use up.
const NUMBERS: [(&str, u64, &str); 3] = [
    (
        "fs/inotify/max_user_instances",
        128,
        "logs -f of many containers fails: raise it with sysctl",
    ),
    (
        "kernel/pid_max",
        32_768,
        "few processes can be there: raise it with sysctl",
    ),
    (
        "fs/file-max",
        65_536,
        "few files can be open: raise it with sysctl",
    ),
];
const FREE_BYTES_MIN: u64 = 1 << 30;
/// Below it, not even a small image comes in.
const FREE_BYTES_BROKEN: u64 = 64 << 20;
const FREE_PERCENT_MIN: u64 = 5;
/// 2026: before it was written no clock was right.
const WRITTEN: Duration = Duration::from_hours(56 * 8766);

/// Look at all. `root` is the manager's folder.
pub(super) fn look(root: &str, findings: &mut Vec<Finding>) {
    findings.push(kernel());
    findings.push(namespaces());
    findings.push(seccomp());
    findings.push(cgroups());
    for (module, why, status) in MODULES {
        findings.push(in_kernel(module, why, status));
    }
    findings.push(forwarding());
    for (name, least, advice) in NUMBERS {
        findings.extend(number(name, least, advice));
    }
    findings.push(clock());
    findings.extend(folder(root));
    findings.extend(space(root));
}

fn kernel() -> Finding {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let status = if version >= KERNEL_MIN {
        Status::Ok
    } else {
        Status::Broken
    };
    Finding::new("kernel", status, release, "Linux 5.10 or later is needed")
}

fn namespaces() -> Finding {
    let missing: Vec<_> = NAMESPACES
        .iter()
        .copied()
        .filter(|name| !Path::new("/proc/self/ns").join(name).exists())
        .collect();
    match missing.as_slice() {
        [] => Finding::new("namespaces", Status::Ok, NAMESPACES.join(" "), ""),
        _ => Finding::new(
            "namespaces",
            Status::Broken,
            format!("the kernel has no {}", missing.join(", ")),
            "use a kernel with CONFIG_NAMESPACES and all below it, or mount /proc",
        ),
    }
}

fn seccomp() -> Finding {
    match fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail") {
        Ok(actions) => Finding::new("seccomp", Status::Ok, actions.trim(), ""),
        Err(_) => Finding::new(
            "seccomp",
            Status::Broken,
            "the kernel has none",
            "use a kernel with CONFIG_SECCOMP_FILTER, or run containers with --security-opt seccomp=unconfined",
        ),
    }
}

/// Version 2 has one list; version 1 a hierarchy for each, and a hybrid machine both.
fn cgroups() -> Finding {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let (mut form, mut found) = ("none", Vec::new());
    for line in mounts.lines() {
        let Some((_, tail)) = line.split_once(" - ") else {
            continue;
        };
        let fields: Vec<&str> = tail.split(' ').collect();
        let place = line.split(' ').nth(4).unwrap_or_default();
        match fields.first() {
            Some(&"cgroup2") => {
                let path = Path::new(place).join("cgroup.controllers");
                let all = fs::read_to_string(path).unwrap_or_default();
                found.extend(all.split_whitespace().map(str::to_owned));
                form = if form == "v1" { "hybrid" } else { "v2" };
            }
            Some(&"cgroup") => {
                found.extend(
                    fields
                        .last()
                        .into_iter()
                        .flat_map(|options| options.split(','))
                        .map(str::to_owned),
                );
                form = if form == "v2" { "hybrid" } else { "v1" };
            }
            _ => {}
        }
    }
    if form == "none" {
        let advice = "mount them: `mount -t cgroup2 none /sys/fs/cgroup`, or boot with systemd";
        return Finding::new("cgroups", Status::Broken, "none are mounted", advice);
    }
    let missing: Vec<_> = CONTROLLERS
        .iter()
        .copied()
        .filter(|name| !found.iter().any(|found| found == name))
        .collect();
    if missing.is_empty() {
        let found = format!("{form}, with {}", CONTROLLERS.join(" "));
        return Finding::new("cgroups", Status::Ok, found, "");
    }
    let found = format!("{form}, without {}", missing.join(" "));
    let advice = "limits of these cannot be set: enable the controllers (cgroup_enable=memory on the kernel's command line, on some boards)";
    Finding::new("cgroups", Status::Warning, found, advice)
}

fn in_kernel(module: &'static str, why: &str, missing: Status) -> Finding {
    let loaded = Path::new("/sys/module").join(module).exists();
    let file_systems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if loaded
        || file_systems
            .lines()
            .any(|line| line.split_whitespace().last() == Some(module))
    {
        return Finding::new(module, Status::Ok, "in the kernel", "");
    }
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let folder = Path::new("/lib/modules").join(release);
    let names = [
        format!("/{module}.ko"),
        format!("/{}.ko", module.replace('_', "-")),
    ];
    let has = |list: &str| {
        let list = fs::read_to_string(folder.join(list)).unwrap_or_default();
        names.iter().any(|name| list.contains(name.as_str()))
    };
    if has("modules.builtin") {
        return Finding::new(module, Status::Ok, "built into the kernel", "");
    }
    if has("modules.dep") {
        return Finding::new(
            module,
            Status::Ok,
            "a module, which is loaded when it is needed",
            "",
        );
    }
    if !folder.join("modules.dep").exists() {
        let advice = format!("{why}; should it be missing, a start says so");
        return Finding::new(
            module,
            Status::Unknown,
            "the machine has no list of its modules",
            &advice,
        );
    }
    let advice = format!("{why}: use a kernel that has {module}");
    Finding::new(module, missing, "the kernel does not have it", &advice)
}

fn read_number(name: &str) -> Option<u64> {
    let text = fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
    text.trim().parse().ok()
}

fn forwarding() -> Finding {
    let advice = "containers reach nobody outside: `sysctl -w net.ipv4.ip_forward=1`, unless the manager sets it at its start";
    match read_number("net/ipv4/ip_forward") {
        Some(1) => Finding::new("ip_forward", Status::Ok, "on", ""),
        _ => Finding::new("ip_forward", Status::Warning, "off", advice),
    }
}

fn number(name: &'static str, least: u64, advice: &str) -> Option<Finding> {
    let found = read_number(name)?;
    let status = if found < least {
        Status::Warning
    } else {
        Status::Ok
    };
    Some(Finding::new(name, status, found.to_string(), advice))
}

fn clock() -> Finding {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let shown = crate::time::rfc3339(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX));
    let status = if since < WRITTEN {
        Status::Broken
    } else {
        Status::Ok
    };
    let advice = "no registry's certificate is valid at this time: set the clock (timedatectl, chronyd)";
    Finding::new("clock", status, shown, advice)
}

/// Only who may do all, or whose manager it is, may change what is in there.
fn folder(root: &str) -> Option<Finding> {
    let found = fs::metadata(root).ok()?;
    let shown = format!(
        "{root} is of user {} with mode {:o}",
        found.uid(),
        found.mode() & 0o7777
    );
    let is_open =
        found.mode() & 0o022 != 0 || ![0, rustix::process::geteuid().as_raw()].contains(&found.uid());
    let status = if is_open { Status::Broken } else { Status::Ok };
    let advice = "others can change images and containers: `chown root` it, and `chmod go-w` it";
    Some(Finding::new("folder", status, shown, advice))
}

fn space(root: &str) -> Vec<Finding> {
    // Of a folder that is not there yet, the one that it will be in.
    let place = Path::new(root).ancestors().find(|place| place.exists());
    let Some(found) = place.and_then(|place| rustix::fs::statvfs(place).ok()) else {
        return Vec::new();
    };
    let judge = |free: u64, all: u64, is_enough: bool, is_any: bool| match (is_any, is_enough) {
        (false, _) => Status::Broken,
        (true, true) if free * 100 >= all * FREE_PERCENT_MIN => Status::Ok,
        _ => Status::Warning,
    };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let status = judge(
        found.f_bavail,
        found.f_blocks,
        free >= FREE_BYTES_MIN,
        free >= FREE_BYTES_BROKEN,
    );
    let advice = "make room: `managerctl image prune`, `container prune`, `volume prune`; `managerctl system df` says what takes it";
    let shown = format!("{} are free for {root}", format_bytes(free));
    let mut findings = vec![Finding::new("disk", status, shown, advice)];
    // Some file systems make inodes as they need them, and count none.
    if found.f_files > 0 {
        let status = judge(found.f_favail, found.f_files, true, found.f_favail > 0);
        let shown = format!("{} inodes are free for {root}", found.f_favail);
        findings.push(Finding::new("inodes", status, shown, advice));
    }
    findings
}
