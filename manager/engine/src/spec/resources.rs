//! `linux.resources` and `process.rlimits`: what is asked for, less what this kernel cannot do. That is told when the
//! container is made, in docker's words, and left out at each start: a kernel may be another one then.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::sys::stat::{major, minor};
use serde_json::{Value, json};

use super::cgroups::Cgroups;
use super::devices;
use crate::Error;
use crate::groups::Groups;
use crate::request::{CreateRequest, DeviceValue, Resources, Ulimit};

/// Period over which a CPU quota is counted, in microseconds: the kernel's own default.
const CPU_PERIOD_MICROS: u64 = 100_000;

/// Refuse what no kernel setting would make right: CPUs and memory nodes that the machine lacks, and real-time where
/// groups have none.
pub(crate) fn check_here(resources: &Resources, cgroups: &Cgroups) -> Result<(), Error> {
    let asks_real_time = resources.cpu_rt_period_micros != 0 || resources.cpu_rt_runtime_micros != 0;
    if asks_real_time && !cgroups.offer("cpu", &["cpu.rt_runtime_us"], &[]) {
        return Err(Error::invalid(
            "cpu_rt_runtime_micros",
            "your kernel does not support CPU real-time scheduler by group: it needs the controller cpu of cgroup v1, and CONFIG_RT_GROUP_SCHED",
        ));
    }
    for (field, what, kind, asked) in [
        ("cpuset_cpus", "CPUs", "cpus", &resources.cpuset_cpus),
        ("cpuset_mems", "memory nodes", "mems", &resources.cpuset_mems),
    ] {
        let Some(here) = cgroups.set(kind).filter(|_| !asked.is_empty()) else {
            continue;
        };
        if !ranges(asked).all(|(first, last)| ranges(&here).any(|(low, high)| low <= first && last <= high)) {
            return Err(Error::invalid(
                field,
                format!("requested {what} are not available - requested {asked}, available: {here}"),
            ));
        }
    }
    Ok(())
}

fn ranges(set: &str) -> impl Iterator<Item = (u32, u32)> {
    set.split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.parse().ok()?, last.parse().ok()?))
    })
}

/// What of `request` this kernel can do, and a sentence about each thing that it cannot.
pub(crate) fn usable(request: &CreateRequest, cgroups: &Cgroups) -> (Resources, Vec<String>) {
    let mut resources = request.resources.clone();
    let mut warnings = Vec::new();
    let mut without = |here: bool, what: &str, outcome: &str| {
        if !here {
            warnings.push(format!(
                "Your kernel does not support {what} or the cgroup is not mounted. {outcome}."
            ));
        }
        !here
    };
    let memory = |v1: &str, v2: &[&str]| cgroups.offer("memory", &[v1], v2);
    if request.memory_bytes > 0 && resources.memory_swap_bytes != -1 {
        let swap = cgroups.count_swap();
        if without(swap, "swap limit capabilities", "Memory limited without swap") {
            resources.memory_swap_bytes = 0;
        }
    }
    if resources.memory_reservation_bytes > 0 {
        let low = memory("memory.soft_limit_in_bytes", &["memory.low"]);
        if without(low, "memory soft limit capabilities", "Limitation discarded") {
            resources.memory_reservation_bytes = 0;
        }
    }
    if resources.memory_swappiness.is_some()
        && without(
            memory("memory.swappiness", &[]),
            "memory swappiness capabilities",
            "Memory swappiness discarded",
        )
    {
        resources.memory_swappiness = None;
    }
    if resources.oom_kill_disable
        && without(
            memory("memory.oom_control", &[]),
            "OomKillDisable",
            "OomKillDisable discarded",
        )
    {
        resources.oom_kill_disable = false;
    }
    let v1 = ["blkio.weight", "blkio.bfq.weight"];
    let weighs = || cgroups.offer("blkio", &v1, &["io.weight", "io.bfq.weight"]);
    if resources.blkio_weight > 0 && without(weighs(), "Block I/O weight", "Weight discarded") {
        resources.blkio_weight = 0;
    }
    if !resources.blkio_weight_devices.is_empty()
        && without(weighs(), "Block I/O weight_device", "Weight-device discarded")
    {
        resources.blkio_weight_devices.clear();
    }
    for (list, file, what, outcome) in [
        (
            &mut resources.read_bps,
            "read_bps",
            "BPS Block I/O read limit",
            "Block I/O BPS read limit discarded",
        ),
        (
            &mut resources.write_bps,
            "write_bps",
            "BPS Block I/O write limit",
            "Block I/O BPS write limit discarded",
        ),
        (
            &mut resources.read_iops,
            "read_iops",
            "IOPS Block read limit",
            "Block I/O IOPS read limit discarded",
        ),
        (
            &mut resources.write_iops,
            "write_iops",
            "IOPS Block write limit",
            "Block I/O IOPS write limit discarded",
        ),
    ] {
        if list.is_empty() {
            continue;
        }
        let v1 = format!("blkio.throttle.{file}_device");
        if without(cgroups.offer("blkio", &[&v1], &["io.max"]), what, outcome) {
            list.clear();
        }
    }
    if resources.oom_kill_disable && request.memory_bytes == 0 {
        warnings.push(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources."
                .to_owned(),
        );
    }
    (resources, warnings)
}

/// `linux.resources`.
pub(super) fn section(
    request: &CreateRequest,
    usable: &Resources,
    cgroups: &Cgroups,
    granted: &[devices::Granted],
) -> Result<Value, Error> {
    let mut rules = devices::rules(request.privileged);
    devices::allow(&mut rules, granted, &usable.device_cgroup_rules)?;
    let mut section = json!({"devices": rules});
    // Who asks nothing of memory has no look at the groups to pay for.
    let counts_swap = (request.memory_bytes > 0 || usable.memory_swap_bytes != 0) && cgroups.count_swap();
    put(
        &mut section,
        "memory",
        memory(request.memory_bytes, usable, counts_swap),
    );
    check_real_time(usable, cgroups)?;
    put(&mut section, "cpu", cpu(request.cpu_quota_millis, usable));
    put(&mut section, "blockIO", block_io(usable)?);
    if request.pids_limit > 0 {
        section["pids"] = json!({"limit": request.pids_limit});
    }
    Ok(section)
}

/// Groups have no real-time unless somebody has given it to them, and the kernel says no more than that the argument is
/// invalid.
fn check_real_time(asked: &Resources, cgroups: &Cgroups) -> Result<(), Error> {
    let wanted = asked.cpu_rt_runtime_micros;
    // cgroup v1 alone has it, and nobody hands that down.
    let parent = Groups::Machine.parent(&asked.cgroup_parent);
    let has = cgroups.real_time_micros(&parent);
    if wanted == 0 || has >= wanted {
        return Ok(());
    }
    Err(Error::invalid(
        "cpu_rt_runtime_micros",
        format!(
            "{wanted} µs are more than the {has} µs of the group above: make the folder {parent} below that of the \
             controller cpu, if it is not there, and write more to its cpu.rt_runtime_us"
        ),
    ))
}

fn put(section: &mut Value, name: &str, part: Value) {
    if part.as_object().is_some_and(|fields| !fields.is_empty()) {
        section[name] = part;
    }
}

/// As with docker, a container gets as much swap as memory; without that limit, swap would be its way around the
/// one of memory. The specification counts both together.
fn memory(memory_bytes: i64, asked: &Resources, counts_swap: bool) -> Value {
    let mut memory = json!({});
    if memory_bytes > 0 {
        memory["limit"] = json!(memory_bytes);
    }
    match asked.memory_swap_bytes {
        0 if memory_bytes > 0 && counts_swap => memory["swap"] = json!(memory_bytes.saturating_mul(2)),
        0 => {}
        _ if !counts_swap => {}
        swap => memory["swap"] = json!(swap),
    }
    if asked.memory_reservation_bytes > 0 {
        memory["reservation"] = json!(asked.memory_reservation_bytes);
    }
    if let Some(swappiness) = asked.memory_swappiness {
        memory["swappiness"] = json!(swappiness);
    }
    if asked.oom_kill_disable {
        memory["disableOOMKiller"] = json!(true);
    }
    memory
}

fn cpu(quota_millis: i64, asked: &Resources) -> Value {
    let mut cpu = json!({});
    if quota_millis > 0 {
        let period = i64::try_from(CPU_PERIOD_MICROS).unwrap_or(i64::MAX);
        cpu["period"] = json!(period);
        cpu["quota"] = json!(quota_millis * (period / 1000));
    }
    if asked.cpu_period_micros > 0 {
        cpu["period"] = json!(asked.cpu_period_micros);
    }
    if asked.cpu_quota_micros != 0 {
        cpu["quota"] = json!(asked.cpu_quota_micros);
    }
    if asked.cpu_rt_period_micros > 0 {
        cpu["realtimePeriod"] = json!(asked.cpu_rt_period_micros);
    }
    if asked.cpu_rt_runtime_micros > 0 {
        cpu["realtimeRuntime"] = json!(asked.cpu_rt_runtime_micros);
    }
    if asked.cpu_shares > 0 {
        cpu["shares"] = json!(asked.cpu_shares);
    }
    for (name, set) in [("cpus", &asked.cpuset_cpus), ("mems", &asked.cpuset_mems)] {
        if !set.is_empty() {
            cpu[name] = json!(set);
        }
    }
    cpu
}

fn block_io(asked: &Resources) -> Result<Value, Error> {
    let mut block_io = json!({});
    if asked.blkio_weight > 0 {
        block_io["weight"] = json!(asked.blkio_weight);
    }
    for (name, value_name, list) in [
        ("weightDevice", "weight", &asked.blkio_weight_devices),
        ("throttleReadBpsDevice", "rate", &asked.read_bps),
        ("throttleWriteBpsDevice", "rate", &asked.write_bps),
        ("throttleReadIOPSDevice", "rate", &asked.read_iops),
        ("throttleWriteIOPSDevice", "rate", &asked.write_iops),
    ] {
        if !list.is_empty() {
            let entries = list.iter().map(|device| of_disk(device, value_name));
            block_io[name] = entries.collect::<Result<_, _>>()?;
        }
    }
    Ok(block_io)
}

/// The kernel knows disks by number.
fn of_disk(device: &DeviceValue, value_name: &str) -> Result<Value, Error> {
    let path = Path::new(&device.path);
    let metadata = devices::metadata("blkio", path)?;
    if !metadata.file_type().is_block_device() {
        return Err(Error::invalid(
            "blkio",
            format!(
                "{} is no block device: only those have limits of disks",
                device.path
            ),
        ));
    }
    let number = metadata.rdev();
    Ok(json!({"major": major(number), "minor": minor(number), value_name: device.value}))
}

/// `process.rlimits`.
pub(super) fn rlimits(ulimits: &[Ulimit]) -> Value {
    // The kernel's RLIM_INFINITY is -1 in its own, unsigned, type.
    let number = |limit: i64| u64::try_from(limit).unwrap_or(u64::MAX);
    let entry = |ulimit: &Ulimit| {
        json!({
            "type": format!("RLIMIT_{}", ulimit.name.to_uppercase()),
            "soft": number(ulimit.soft), "hard": number(ulimit.hard),
        })
    };
    ulimits.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn swap_is_limited_to_as_much_again_where_it_is_counted() {
        let plain = Resources::default();
        assert_eq!(memory(64, &plain, true), json!({"limit": 64, "swap": 128}));
        assert_eq!(memory(64, &plain, false), json!({"limit": 64}));
        assert_eq!(memory(i64::MAX, &plain, true)["swap"], i64::MAX);
        let free = Resources {
            memory_swap_bytes: -1,
            ..Resources::default()
        };
        assert_eq!(memory(64, &free, true), json!({"limit": 64, "swap": -1}));
    }

    #[test]
    fn what_a_kernel_lacks_is_told_and_left_out() {
        let empty = tempfile::tempdir().unwrap();
        let disk = |value| {
            vec![DeviceValue {
                path: "/dev/sda".to_owned(),
                value,
            }]
        };
        let request = CreateRequest {
            memory_bytes: 64 << 20,
            resources: Resources {
                memory_swappiness: Some(3),
                memory_reservation_bytes: 32 << 20,
                oom_kill_disable: true,
                blkio_weight: 100,
                blkio_weight_devices: disk(100),
                read_bps: disk(1),
                write_iops: disk(1),
                ..Resources::default()
            },
            ..CreateRequest::default()
        };
        let (usable, warnings) = usable(&request, &Cgroups::at(empty.path()));
        assert_eq!(usable, Resources::default());
        assert_eq!(warnings.len(), 8, "{warnings:#?}");
        assert!(warnings[0].contains("Memory limited without swap"));
    }

    #[test]
    fn real_time_is_refused_where_groups_have_none() {
        let folder = tempfile::tempdir().unwrap();
        let group = folder.path().join("cpu/berth");
        fs::create_dir_all(&group).unwrap();
        let resources = Resources {
            cpu_rt_runtime_micros: 1000,
            ..Resources::default()
        };
        let cgroups = Cgroups::at(folder.path());
        let refused = check_here(&resources, &cgroups).unwrap_err().to_string();
        assert!(refused.contains("CONFIG_RT_GROUP_SCHED"), "{refused}");
        fs::write(group.join("cpu.rt_runtime_us"), "999\n").unwrap();
        check_here(&resources, &cgroups).unwrap();
        let refused = check_real_time(&resources, &cgroups).unwrap_err().to_string();
        assert!(
            refused.contains("999 µs of the group above") && refused.contains("berth"),
            "{refused}"
        );
        fs::write(group.join("cpu.rt_runtime_us"), "1000\n").unwrap();
        check_real_time(&resources, &cgroups).unwrap();
    }

    #[test]
    fn cpus_that_are_not_there_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("cpuset")).unwrap();
        fs::write(folder.path().join("cpuset/cpuset.cpus"), "0-3,6\n").unwrap();
        let check = |set: &str| {
            let resources = Resources {
                cpuset_cpus: set.to_owned(),
                ..Resources::default()
            };
            check_here(&resources, &Cgroups::at(folder.path()))
        };
        check("1-2,6").unwrap();
        let refused = check("2-4").unwrap_err().to_string();
        assert!(refused.contains("requested 2-4, available: 0-3,6"), "{refused}");
    }
}
