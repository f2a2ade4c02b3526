//! The rules for each number and text of `linux.resources` that hold on every host, checked before anything is made.
//! What depends on the cgroup version is refused in [`super::v2`] or by the lack of a file.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use crate::error::{Error, Result};

/// More entries than this in one list of config.json is an attack, not a configuration.
const MAX_ENTRIES: usize = 1024;
const MAX_TEXT_BYTES: usize = 4096;

pub(super) fn check(resources: &LinuxResources) -> Result<()> {
    if let Some(memory) = resources.memory() {
        check_memory(memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        check_cpu(cpu)?;
    }
    if let Some(pids) = resources.pids() {
        at_least("pids.limit", pids.limit(), -1)?;
    }
    if let Some(io) = resources.block_io() {
        check_io(io)?;
    }
    check_hugepages(resources)?;
    check_network(resources)?;
    check_rdma(resources)?;
    check_unified(resources)
}

fn refuse<T>(field: impl AsRef<str>, rule: impl Into<String>) -> Result<T> {
    Err(Error::spec(format!("linux.resources.{}", field.as_ref()), rule))
}

fn at_least(field: &str, value: i64, least: i64) -> Result<()> {
    match value < least {
        true if least == -1 => refuse(field, format!("{value} is neither a limit nor -1 for no limit")),
        true => refuse(field, format!("{value} is below {least}")),
        false => Ok(()),
    }
}

fn count(field: &str, length: usize) -> Result<()> {
    if length > MAX_ENTRIES {
        return refuse(
            field,
            format!("has {length} entries, at most {MAX_ENTRIES} are allowed"),
        );
    }
    Ok(())
}

fn check_memory(memory: &LinuxMemory) -> Result<()> {
    at_least("memory.limit", memory.limit().unwrap_or(0), -1)?;
    at_least("memory.swap", memory.swap().unwrap_or(0), -1)?;
    at_least("memory.reservation", memory.reservation().unwrap_or(0), -1)?;
    at_least("memory.kernelTCP", memory.kernel_tcp().unwrap_or(0), -1)?;
    #[allow(
        deprecated,
        reason = "the field is in the spec, so it has to be refused by name"
    )]
    let kernel = memory.kernel().unwrap_or(0);
    if !(-1..=0).contains(&kernel) {
        return refuse(
            "memory.kernel",
            "kernel memory limits no longer exist in Linux (removed in 5.16)",
        );
    }
    if memory.swappiness().is_some_and(|swappiness| swappiness > 100) {
        return refuse("memory.swappiness", "must be from 0 to 100");
    }
    match (memory.limit(), memory.swap()) {
        (Some(limit), Some(swap)) if swap > 0 && limit > swap => refuse(
            "memory.swap",
            format!("memory+swap {swap} is below the memory limit {limit}"),
        ),
        (Some(-1), Some(swap)) if swap > 0 => refuse(
            "memory.swap",
            "memory+swap can't be limited while memory is unlimited",
        ),
        _ => Ok(()),
    }
}

fn check_cpu(cpu: &LinuxCpu) -> Result<()> {
    // The kernel would silently use 2 for 1; the field's other end is clamped on cgroup2 only.
    if cpu.shares() == Some(1) {
        return refuse("cpu.shares", "must be at least 2");
    }
    let quota = cpu.quota().unwrap_or(0);
    if quota < -1 || (1..1000).contains(&quota) {
        return refuse(
            "cpu.quota",
            format!("{quota} is neither at least 1000 µs nor -1 for no limit"),
        );
    }
    match cpu.period() {
        None | Some(0 | 1000..=1_000_000) => {}
        Some(period) => {
            return refuse("cpu.period", format!("{period} is not from 1000 to 1000000 µs"));
        }
    }
    if let (Some(burst), 1..) = (cpu.burst(), quota)
        && burst > quota.unsigned_abs()
    {
        return refuse("cpu.burst", format!("{burst} is above cpu.quota {quota}"));
    }
    if !matches!(cpu.idle(), None | Some(0 | 1)) {
        return refuse("cpu.idle", "must be 0 or 1");
    }
    at_least("cpu.realtimeRuntime", cpu.realtime_runtime().unwrap_or(0), -1)?;
    check_list("cpu.cpus", cpu.cpus().as_deref())?;
    check_list("cpu.mems", cpu.mems().as_deref())
}

/// Lists such as `0-3,7`, see `cpuset(7)`.
fn check_list(field: &str, list: Option<&str>) -> Result<()> {
    let Some(list) = list else { return Ok(()) };
    let number = |text: &str| -> Option<u32> {
        text.bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| text.parse().ok())?
    };
    let range = |part: &str| match part.trim().split_once('-') {
        None => number(part.trim()).is_some(),
        Some((from, to)) => matches!((number(from), number(to)), (Some(from), Some(to)) if from <= to),
    };
    if list.len() <= MAX_TEXT_BYTES && (list.is_empty() || list.split(',').all(range)) {
        return Ok(());
    }
    refuse(
        field,
        format!("{list:?} is not a list of numbers and ranges such as 0-3,7"),
    )
}

fn check_io(io: &LinuxBlockIo) -> Result<()> {
    let weight = |field: &str, weight: Option<u16>| match weight {
        None | Some(0 | 10..=1000) => Ok(()),
        Some(weight) => refuse(field, format!("{weight} is not from 10 to 1000")),
    };
    let device = |field: &str, major: i64, minor: i64| match u32::try_from(major).and(u32::try_from(minor)) {
        Ok(_) => Ok(()),
        Err(_) => refuse(field, format!("{major}:{minor} is not a device number")),
    };
    weight("blockIO.weight", io.weight())?;
    weight("blockIO.leafWeight", io.leaf_weight())?;
    if let Some(devices) = io.weight_device() {
        count("blockIO.weightDevice", devices.len())?;
        for (index, each) in devices.iter().enumerate() {
            let field = format!("blockIO.weightDevice[{index}]");
            device(&field, each.major(), each.minor())?;
            weight(&format!("{field}.weight"), each.weight())?;
            weight(&format!("{field}.leafWeight"), each.leaf_weight())?;
        }
    }
    for (name, devices) in [
        ("throttleReadBpsDevice", io.throttle_read_bps_device()),
        ("throttleWriteBpsDevice", io.throttle_write_bps_device()),
        ("throttleReadIOPSDevice", io.throttle_read_iops_device()),
        ("throttleWriteIOPSDevice", io.throttle_write_iops_device()),
    ] {
        let devices = devices.as_deref().unwrap_or_default();
        count(&format!("blockIO.{name}"), devices.len())?;
        for (index, each) in devices.iter().enumerate() {
            device(&format!("blockIO.{name}[{index}]"), each.major(), each.minor())?;
        }
    }
    Ok(())
}

fn check_hugepages(resources: &LinuxResources) -> Result<()> {
    let limits = resources.hugepage_limits().as_deref().unwrap_or_default();
    count("hugepageLimits", limits.len())?;
    for (index, limit) in limits.iter().enumerate() {
        let size = limit.page_size();
        let number = size
            .strip_suffix('B')
            .and_then(|size| size.strip_suffix(['K', 'M', 'G']));
        let digits = |number: &str| {
            !number.starts_with('0') && number.len() <= 9 && number.bytes().all(|byte| byte.is_ascii_digit())
        };
        if !number.is_some_and(|number| !number.is_empty() && digits(number)) {
            let rule = format!("{size:?} is not a size such as 2MB or 1GB");
            return refuse(format!("hugepageLimits[{index}].pageSize"), rule);
        }
        at_least(&format!("hugepageLimits[{index}].limit"), limit.limit(), -1)?;
    }
    Ok(())
}

fn check_network(resources: &LinuxResources) -> Result<()> {
    let Some(network) = resources.network() else {
        return Ok(());
    };
    let priorities = network.priorities().as_deref().unwrap_or_default();
    count("network.priorities", priorities.len())?;
    for (index, priority) in priorities.iter().enumerate() {
        if !is_word(priority.name(), libc::IFNAMSIZ - 1) {
            let rule = format!("{:?} is not a network interface name", priority.name());
            return refuse(format!("network.priorities[{index}].name"), rule);
        }
    }
    Ok(())
}

fn check_rdma(resources: &LinuxResources) -> Result<()> {
    for (name, limit) in resources.rdma().iter().flatten() {
        if !is_word(name, 64) {
            return refuse("rdma", format!("{name:?} is not a device name"));
        }
        if limit.hca_handles().is_none() && limit.hca_objects().is_none() {
            return refuse(format!("rdma.{name}"), "needs hcaHandles or hcaObjects");
        }
    }
    count(
        "rdma",
        resources
            .rdma()
            .as_ref()
            .map_or(0, std::collections::HashMap::len),
    )
}

fn check_unified(resources: &LinuxResources) -> Result<()> {
    for (key, value) in resources.unified().iter().flatten() {
        if !is_word(key, 255) || !key.contains('.') || key.contains("..") || key.starts_with('.') {
            return refuse(
                "unified",
                format!("{key:?} is not a file name of the form controller.parameter"),
            );
        }
        // Membership and delegation are ours to set; a rule here could undo them.
        let ours = [
            "cgroup.procs",
            "cgroup.threads",
            "cgroup.type",
            "cgroup.kill",
            "cgroup.subtree_control",
        ];
        if ours.contains(&key.as_str()) {
            return refuse("unified", format!("{key:?} is no resource limit"));
        }
        if value.len() > MAX_TEXT_BYTES || value.contains('\0') {
            return refuse(
                format!("unified.{key}"),
                format!("must be text of at most {MAX_TEXT_BYTES} bytes"),
            );
        }
    }
    count(
        "unified",
        resources
            .unified()
            .as_ref()
            .map_or(0, std::collections::HashMap::len),
    )
}

fn is_word(text: &str, longest: usize) -> bool {
    !text.is_empty()
        && text.len() <= longest
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
        && !matches!(text, "." | "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(json: &str) -> String {
        check(&serde_json::from_str(json).unwrap())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn each_broken_rule_names_its_field() {
        for (json, field) in [
            (r#"{"memory":{"limit":-2}}"#, "memory.limit"),
            (r#"{"memory":{"limit":100,"swap":99}}"#, "memory.swap"),
            (r#"{"memory":{"limit":-1,"swap":99}}"#, "memory.swap"),
            (r#"{"memory":{"swappiness":101}}"#, "memory.swappiness"),
            (r#"{"memory":{"kernel":4096}}"#, "memory.kernel"),
            (r#"{"cpu":{"shares":1}}"#, "cpu.shares"),
            (r#"{"cpu":{"quota":-5}}"#, "cpu.quota"),
            (r#"{"cpu":{"quota":20000,"burst":20001}}"#, "cpu.burst"),
            (r#"{"cpu":{"period":10}}"#, "cpu.period"),
            (r#"{"cpu":{"idle":2}}"#, "cpu.idle"),
            (r#"{"cpu":{"cpus":"3-1"}}"#, "cpu.cpus"),
            (r#"{"cpu":{"mems":"all"}}"#, "cpu.mems"),
            (r#"{"pids":{"limit":-7}}"#, "pids.limit"),
            (r#"{"blockIO":{"weight":5}}"#, "blockIO.weight"),
            (
                r#"{"blockIO":{"weightDevice":[{"major":-8,"minor":0}]}}"#,
                "blockIO.weightDevice[0]",
            ),
            (
                r#"{"blockIO":{"throttleReadIOPSDevice":[{"major":8,"minor":-1,"rate":1}]}}"#,
                "blockIO.throttleReadIOPSDevice[0]",
            ),
            (
                r#"{"hugepageLimits":[{"pageSize":"../2MB","limit":1}]}"#,
                "hugepageLimits[0].pageSize",
            ),
            (
                r#"{"network":{"priorities":[{"name":"eth0 1\nlo","priority":1}]}}"#,
                "network.priorities[0].name",
            ),
            (r#"{"rdma":{"a/b":{"hcaHandles":1}}}"#, "rdma"),
            (r#"{"unified":{"../memory.max":"1"}}"#, "unified"),
            (r#"{"unified":{"cgroup.procs":"1"}}"#, "unified"),
        ] {
            let error = refused(json);
            assert!(
                error.starts_with(&format!("config.json: linux.resources.{field}: ")),
                "{json}: {error}"
            );
        }
    }

    #[test]
    fn usual_values_pass() {
        let json = r#"{"memory":{"limit":67108864,"swap":-1,"reservation":0,"kernel":-1,"swappiness":0},
            "cpu":{"shares":2,"quota":-1,"period":0,"burst":0,"cpus":"0-1,3","mems":"0","idle":1},
            "pids":{"limit":-1},"hugepageLimits":[{"pageSize":"2MB","limit":0}],
            "unified":{"memory.high":"1G"}}"#;
        check(&serde_json::from_str(json).unwrap()).unwrap();
    }
}
