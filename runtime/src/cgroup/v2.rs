//! What `linux.resources` means in the files of cgroup v2 (Documentation/admin-guide/cgroup-v2.rst). The spec was
//! written for v1, so some values are converted, as runc and crun do, and what v2 does not have is refused by name.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::controller::Controller;
use super::setting::Setting;
use super::v1;
use crate::error::{Error, Result};

pub(super) fn settings(controller: Controller, resources: &LinuxResources) -> Result<Vec<Setting>> {
    match controller {
        Controller::Memory => resources.memory().as_ref().map_or(Ok(Vec::new()), memory),
        Controller::Cpu => resources.cpu().as_ref().map_or(Ok(Vec::new()), cpu),
        Controller::Cpuset => Ok(resources.cpu().as_ref().map(v1::cpuset).unwrap_or_default()),
        Controller::Io => resources.block_io().as_ref().map_or(Ok(Vec::new()), io),
        Controller::Pids => Ok(v1::pids(resources)),
        Controller::Hugetlb => Ok(hugetlb(resources)),
        Controller::Rdma => Ok(v1::rdma(resources)),
        Controller::NetCls | Controller::NetPrio => network(resources),
    }
}

fn refuse<T>(field: &str) -> Result<T> {
    Err(Error::spec(
        format!("linux.resources.{field}"),
        "cgroup v2 has no such limit",
    ))
}

fn limit(value: i64) -> String {
    if value < 0 {
        "max".to_owned()
    } else {
        value.to_string()
    }
}

fn memory(memory: &LinuxMemory) -> Result<Vec<Setting>> {
    let new = |field, file, value: String| Setting::new(field, file, value);
    if memory.kernel_tcp().is_some_and(|limit| limit > 0) {
        return refuse("memory.kernelTCP");
    }
    if memory.swappiness().is_some() {
        return refuse("memory.swappiness");
    }
    if memory.disable_oom_killer() == Some(true) {
        return refuse("memory.disableOOMKiller");
    }
    if memory.use_hierarchy() == Some(false) {
        let rule = "cgroup v2 always counts memory for the whole hierarchy";
        return Err(Error::spec("linux.resources.memory.useHierarchy", rule));
    }
    let mut settings = Vec::new();
    let asked = memory.limit().filter(|limit| *limit != 0);
    if let Some(swap) = swap_alone(asked, memory.swap().unwrap_or(0))? {
        // Without swap accounting there is nothing to lift and nothing to forbid.
        let optional = swap <= 0;
        settings.push(new("memory.swap", "memory.swap.max", limit(swap)).optional(optional));
    }
    if let Some(asked) = asked {
        settings.push(new("memory.limit", "memory.max", limit(asked)));
    }
    if let Some(reservation) = memory.reservation().filter(|reservation| *reservation != 0) {
        settings.push(new("memory.reservation", "memory.low", limit(reservation)));
    }
    Ok(settings)
}

/// The spec counts memory and swap together, v2 counts swap alone. `None` is "leave it".
pub(super) fn swap_alone(memory: Option<i64>, both: i64) -> Result<Option<i64>> {
    match (memory, both) {
        (Some(-1), 0) | (_, -1) => Ok(Some(-1)),
        (_, 0) => Ok(None),
        (Some(memory), both) if memory > 0 && both >= memory => Ok(Some(both - memory)),
        _ => Err(Error::spec(
            "linux.resources.memory.swap",
            "needs memory.limit too: cgroup v2 counts swap alone, so memory+swap has to be split",
        )),
    }
}

fn cpu(cpu: &LinuxCpu) -> Result<Vec<Setting>> {
    if cpu.realtime_runtime().is_some_and(|runtime| runtime != 0) {
        return refuse("cpu.realtimeRuntime");
    }
    if cpu.realtime_period().is_some_and(|period| period != 0) {
        return refuse("cpu.realtimePeriod");
    }
    let new = |field, file, value: String| Setting::new(field, file, value);
    let mut settings = Vec::new();
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        settings.push(new(
            "cpu.shares",
            "cpu.weight",
            weight_from_shares(shares).to_string(),
        ));
    }
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    match (quota, period) {
        // One word keeps the other: "max" or a number alone leaves the period as it is.
        (Some(quota), None) => settings.push(new("cpu.quota", "cpu.max", limit(quota))),
        (Some(quota), Some(period)) => {
            settings.push(new("cpu.quota", "cpu.max", format!("{} {period}", limit(quota))));
        }
        (None, Some(period)) => settings.push(new("cpu.period", "cpu.max", format!("max {period}"))),
        (None, None) => {}
    }
    if let Some(burst) = cpu.burst() {
        settings.push(new("cpu.burst", "cpu.max.burst", burst.to_string()));
    }
    if let Some(idle) = cpu.idle() {
        settings.push(new("cpu.idle", "cpu.idle", idle.to_string()));
    }
    Ok(settings)
}

/// Shares go from 2 over 1024 (default) to 262144, weights from 1 over 100 (default) to 10000. A straight line
/// would give the default shares a weight of 39; this curve goes through all three points, see
/// github.com/opencontainers/cgroups/pull/20.
pub(super) fn weight_from_shares(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        #[allow(clippy::cast_precision_loss, reason = "below 2^18")]
        _ => {
            let log = (shares as f64).log2();
            10f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil() as u64
        }
    }
}

/// From 10…1000 to 1…10000.
pub(super) fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight.max(10)) - 10) * 9999 / 990
}

fn io(io: &LinuxBlockIo) -> Result<Vec<Setting>> {
    if io.leaf_weight().is_some_and(|weight| weight != 0) {
        return refuse("blockIO.leafWeight");
    }
    let new =
        |field: String, file: &str, value: String| Setting::new(format!("blockIO.{field}"), file, value);
    let mut settings = Vec::new();
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        // BFQ has the range of the spec; iocost has its own.
        let setting = new("weight".into(), "io.bfq.weight", weight.to_string());
        settings.push(setting.or("io.weight", io_weight(weight)));
    }
    for (index, each) in io.weight_device().iter().flatten().enumerate() {
        if each.leaf_weight().is_some_and(|weight| weight != 0) {
            return refuse(&format!("blockIO.weightDevice[{index}].leafWeight"));
        }
        if let Some(weight) = each.weight() {
            let key = format!("{}:{}", each.major(), each.minor());
            let setting = new(
                format!("weightDevice[{index}].weight"),
                "io.bfq.weight",
                format!("{key} {weight}"),
            );
            let other = format!("{key} {}", io_weight(weight));
            settings.push(
                setting
                    .or("io.weight", other)
                    .keyed(&key, format!("{key} default")),
            );
        }
    }
    for (field, name, devices) in [
        ("throttleReadBpsDevice", "rbps", io.throttle_read_bps_device()),
        ("throttleWriteBpsDevice", "wbps", io.throttle_write_bps_device()),
        ("throttleReadIOPSDevice", "riops", io.throttle_read_iops_device()),
        (
            "throttleWriteIOPSDevice",
            "wiops",
            io.throttle_write_iops_device(),
        ),
    ] {
        for (index, each) in devices.iter().flatten().enumerate() {
            let key = format!("{}:{}", each.major(), each.minor());
            let rate = if each.rate() == 0 {
                "max".to_owned()
            } else {
                each.rate().to_string()
            };
            let setting = new(
                format!("{field}[{index}]"),
                "io.max",
                format!("{key} {name}={rate}"),
            );
            settings.push(setting.keyed(&key, format!("{key} rbps=max wbps=max riops=max wiops=max")));
        }
    }
    Ok(settings)
}

fn hugetlb(resources: &LinuxResources) -> Vec<Setting> {
    let mut settings = Vec::new();
    for (index, each) in resources.hugepage_limits().iter().flatten().enumerate() {
        let field = format!("hugepageLimits[{index}]");
        let new = |file: String| Setting::new(&field, file, limit(each.limit()));
        settings.push(new(format!("hugetlb.{}.max", each.page_size())));
        settings.push(new(format!("hugetlb.{}.rsvd.max", each.page_size())).optional(true));
    }
    settings
}

fn network(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let Some(network) = resources.network() else {
        return Ok(Vec::new());
    };
    if network.class_id().is_some_and(|class| class != 0) {
        return refuse("network.classID");
    }
    if network
        .priorities()
        .as_ref()
        .is_some_and(|priorities| !priorities.is_empty())
    {
        return refuse("network.priorities");
    }
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(json: &str) -> Vec<String> {
        let resources = serde_json::from_str(json).unwrap();
        let each = |setting: Setting| format!("{} {}", setting.file, setting.value);
        Controller::ALL
            .iter()
            .flat_map(|which| settings(*which, &resources).unwrap())
            .map(each)
            .collect()
    }

    #[test]
    fn values_are_converted() {
        let json = r#"{"memory":{"limit":100,"swap":150,"reservation":-1,"disableOOMKiller":false},
            "cpu":{"shares":1024,"quota":50000,"period":100000,"burst":100,"cpus":"0-1","mems":"0","idle":0},
            "pids":{"limit":7},
            "blockIO":{"weight":1000,"weightDevice":[{"major":8,"minor":0,"weight":10}],
                "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":9}],
                "throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":0}]},
            "hugepageLimits":[{"pageSize":"1GB","limit":-1}]}"#;
        assert_eq!(
            written(json),
            [
                "cpu.weight 100",
                "cpu.max 50000 100000",
                "cpu.max.burst 100",
                "cpu.idle 0",
                "cpuset.cpus 0-1",
                "cpuset.mems 0",
                "memory.swap.max 50",
                "memory.max 100",
                "memory.low max",
                "pids.max 7",
                "io.bfq.weight 1000",
                "io.bfq.weight 8:0 10",
                "io.max 8:0 rbps=9",
                "io.max 8:0 wiops=max",
                "hugetlb.1GB.max max",
                "hugetlb.1GB.rsvd.max max",
            ]
        );
    }

    #[test]
    fn weights_meet_at_both_ends_and_the_default() {
        assert_eq!([2, 1024, 262_144].map(weight_from_shares), [1, 100, 10_000]);
        assert_eq!([10, 500, 1000].map(io_weight), [1, 4950, 10_000]);
    }

    #[test]
    fn swap_is_split_from_memory() {
        assert_eq!(
            written(r#"{"memory":{"limit":-1}}"#),
            ["memory.swap.max max", "memory.max max"]
        );
        assert_eq!(
            written(r#"{"memory":{"limit":5,"swap":5}}"#),
            ["memory.swap.max 0", "memory.max 5"]
        );
        assert_eq!(written(r#"{"memory":{"limit":5,"swap":0}}"#), ["memory.max 5"]);
        assert_eq!(written(r#"{"memory":{"swap":-1}}"#), ["memory.swap.max max"]);
    }

    #[test]
    fn what_v2_lacks_is_refused_by_name() {
        for (json, field) in [
            (r#"{"memory":{"swap":5}}"#, "memory.swap"),
            (r#"{"memory":{"swappiness":5}}"#, "memory.swappiness"),
            (
                r#"{"memory":{"disableOOMKiller":true}}"#,
                "memory.disableOOMKiller",
            ),
            (r#"{"memory":{"kernelTCP":5}}"#, "memory.kernelTCP"),
            (r#"{"cpu":{"realtimePeriod":5}}"#, "cpu.realtimePeriod"),
            (r#"{"blockIO":{"leafWeight":50}}"#, "blockIO.leafWeight"),
            (r#"{"network":{"classID":5}}"#, "network.classID"),
        ] {
            let resources = serde_json::from_str(json).unwrap();
            let errors = Controller::ALL
                .iter()
                .filter_map(|which| settings(*which, &resources).err());
            let error = errors.map(|error| error.to_string()).next().unwrap();
            assert!(
                error.starts_with(&format!("config.json: linux.resources.{field}: ")),
                "{error}"
            );
        }
    }
}
