//! What `linux.resources` means in the files of cgroup v1 (Documentation/admin-guide/cgroup-v1). As the spec was
//! written for v1, most values go in as they are. Only what config.json asks for is written; 0 means "not asked" for
//! the limits, as in runc.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::controller::Controller;
use super::setting::Setting;

pub(super) fn settings(controller: Controller, resources: &LinuxResources) -> Vec<Setting> {
    match controller {
        Controller::Memory => resources.memory().as_ref().map(memory),
        Controller::Cpu => resources.cpu().as_ref().map(cpu),
        Controller::Cpuset => resources.cpu().as_ref().map(cpuset),
        Controller::Io => resources.block_io().as_ref().map(io),
        Controller::Pids => Some(pids(resources)),
        Controller::Hugetlb => Some(hugetlb(resources)),
        Controller::Rdma => Some(rdma(resources)),
        Controller::NetCls => Some(net_cls(resources)),
        Controller::NetPrio => Some(net_prio(resources)),
    }
    .unwrap_or_default()
}

fn memory(memory: &LinuxMemory) -> Vec<Setting> {
    let new = |field, file, value: i64| Setting::new(field, file, value);
    let mut settings = Vec::new();
    let limit = memory.limit().filter(|limit| *limit != 0);
    let swap = memory.swap().filter(|swap| *swap != 0);
    if let Some(limit) = limit {
        settings.push(new("memory.limit", "memory.limit_in_bytes", limit));
    }
    match (limit, swap) {
        (_, Some(swap)) => settings.push(new("memory.swap", "memory.memsw.limit_in_bytes", swap)),
        // No limit on memory means none on memory+swap, where that is counted at all.
        (Some(-1), None) => {
            settings.push(new("memory.limit", "memory.memsw.limit_in_bytes", -1).optional(true));
        }
        _ => {}
    }
    if let Some(reservation) = memory.reservation().filter(|reservation| *reservation != 0) {
        settings.push(new(
            "memory.reservation",
            "memory.soft_limit_in_bytes",
            reservation,
        ));
    }
    if let Some(limit) = memory.kernel_tcp().filter(|limit| *limit != 0) {
        settings.push(new("memory.kernelTCP", "memory.kmem.tcp.limit_in_bytes", limit).optional(limit == -1));
    }
    if let Some(swappiness) = memory.swappiness() {
        settings.push(Setting::new("memory.swappiness", "memory.swappiness", swappiness));
    }
    if let Some(hierarchy) = memory.use_hierarchy() {
        settings.push(new(
            "memory.useHierarchy",
            "memory.use_hierarchy",
            i64::from(hierarchy),
        ));
    }
    if let Some(disable) = memory.disable_oom_killer() {
        let setting = new(
            "memory.disableOOMKiller",
            "memory.oom_control",
            i64::from(disable),
        );
        settings.push(setting.valued("oom_kill_disable"));
    }
    settings
}

/// Real-time limits come first: a process with a real-time policy can't enter a group without them.
fn cpu(cpu: &LinuxCpu) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut add = |field: &str, file: &str, value: Option<i128>| {
        if let Some(value) = value {
            settings.push(Setting::new(format!("cpu.{field}"), file, value));
        }
    };
    let limit = |value: Option<u64>| value.filter(|value| *value != 0).map(i128::from);
    let signed = |value: Option<i64>| value.filter(|value| *value != 0).map(i128::from);
    add("realtimePeriod", "cpu.rt_period_us", limit(cpu.realtime_period()));
    add(
        "realtimeRuntime",
        "cpu.rt_runtime_us",
        signed(cpu.realtime_runtime()),
    );
    add("shares", "cpu.shares", limit(cpu.shares()));
    add("period", "cpu.cfs_period_us", limit(cpu.period()));
    add("quota", "cpu.cfs_quota_us", signed(cpu.quota()));
    add("burst", "cpu.cfs_burst_us", cpu.burst().map(i128::from));
    add("idle", "cpu.idle", cpu.idle().map(i128::from));
    settings
}

pub(super) fn cpuset(cpu: &LinuxCpu) -> Vec<Setting> {
    let mut settings = Vec::new();
    for (field, file, list) in [
        ("cpu.cpus", "cpuset.cpus", cpu.cpus()),
        ("cpu.mems", "cpuset.mems", cpu.mems()),
    ] {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            settings.push(Setting::new(field, file, list));
        }
    }
    settings
}

fn io(io: &LinuxBlockIo) -> Vec<Setting> {
    let new = |field: &str, file: &str, value: String| Setting::new(format!("blockIO.{field}"), file, value);
    let mut settings = Vec::new();
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        // The CFQ scheduler's file (to Linux 4.20), then BFQ's.
        settings.push(new("weight", "blkio.weight", weight.to_string()).or("blkio.bfq.weight", weight));
    }
    if let Some(weight) = io.leaf_weight().filter(|weight| *weight != 0) {
        settings.push(new("leafWeight", "blkio.leaf_weight", weight.to_string()));
    }
    for (index, each) in io.weight_device().iter().flatten().enumerate() {
        let key = format!("{}:{}", each.major(), each.minor());
        let field = |name: &str| format!("weightDevice[{index}].{name}");
        if let Some(weight) = each.weight() {
            let value = format!("{key} {weight}");
            let setting = new(&field("weight"), "blkio.weight_device", value.clone());
            settings.push(
                setting
                    .or("blkio.bfq.weight_device", value)
                    .keyed(&key, format!("{key} 0")),
            );
        }
        if let Some(weight) = each.leaf_weight() {
            let setting = new(
                &field("leafWeight"),
                "blkio.leaf_weight_device",
                format!("{key} {weight}"),
            );
            settings.push(setting.keyed(&key, format!("{key} 0")));
        }
    }
    for (field, file, devices) in [
        (
            "throttleReadBpsDevice",
            "blkio.throttle.read_bps_device",
            io.throttle_read_bps_device(),
        ),
        (
            "throttleWriteBpsDevice",
            "blkio.throttle.write_bps_device",
            io.throttle_write_bps_device(),
        ),
        (
            "throttleReadIOPSDevice",
            "blkio.throttle.read_iops_device",
            io.throttle_read_iops_device(),
        ),
        (
            "throttleWriteIOPSDevice",
            "blkio.throttle.write_iops_device",
            io.throttle_write_iops_device(),
        ),
    ] {
        for (index, each) in devices.iter().flatten().enumerate() {
            let key = format!("{}:{}", each.major(), each.minor());
            let setting = new(
                &format!("{field}[{index}]"),
                file,
                format!("{key} {}", each.rate()),
            );
            settings.push(setting.keyed(&key, format!("{key} 0")));
        }
    }
    settings
}

pub(super) fn pids(resources: &LinuxResources) -> Vec<Setting> {
    let value = match resources.pids().as_ref().map(oci_spec::runtime::LinuxPids::limit) {
        None => return Vec::new(),
        Some(-1) => "max".to_owned(),
        // As with runc; that of systemd begins with 1.
        Some(limit) => limit.max(1).to_string(),
    };
    vec![Setting::new("pids.limit", "pids.max", value)]
}

/// Faults and reservations both: a program that reserves pages by mmap is refused then, and not killed by SIGBUS at
/// its first touch.
fn hugetlb(resources: &LinuxResources) -> Vec<Setting> {
    let mut settings = Vec::new();
    for (index, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        let field = format!("hugepageLimits[{index}]");
        let new = |file: String| Setting::new(&field, file, limit.limit());
        let size = limit.page_size();
        settings.push(new(format!("hugetlb.{size}.limit_in_bytes")));
        settings.push(new(format!("hugetlb.{size}.rsvd.limit_in_bytes")).optional(true));
    }
    settings
}

pub(super) fn rdma(resources: &LinuxResources) -> Vec<Setting> {
    let mut settings = Vec::new();
    for (name, limit) in resources.rdma().iter().flatten() {
        let part =
            |key: &str, value: Option<u32>| value.map_or(String::new(), |value| format!(" {key}={value}"));
        let handles = part("hca_handle", limit.hca_handles());
        let value = format!("{name}{handles}{}", part("hca_object", limit.hca_objects()));
        let setting = Setting::new(format!("rdma.{name}"), "rdma.max", value);
        settings.push(setting.keyed(name, format!("{name} hca_handle=max hca_object=max")));
    }
    settings
}

fn net_cls(resources: &LinuxResources) -> Vec<Setting> {
    let class = resources
        .network()
        .as_ref()
        .and_then(oci_spec::runtime::LinuxNetwork::class_id);
    let setting = |class| Setting::new("network.classID", "net_cls.classid", class);
    class
        .filter(|class| *class != 0)
        .map(setting)
        .into_iter()
        .collect()
}

fn net_prio(resources: &LinuxResources) -> Vec<Setting> {
    let priorities = resources
        .network()
        .as_ref()
        .and_then(|network| network.priorities().as_ref());
    let mut settings = Vec::new();
    for (index, each) in priorities.into_iter().flatten().enumerate() {
        let field = format!("network.priorities[{index}]");
        let value = format!("{} {}", each.name(), each.priority());
        let setting = Setting::new(field, "net_prio.ifpriomap", value);
        settings.push(setting.keyed(each.name(), format!("{} 0", each.name())));
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(json: &str) -> Vec<String> {
        let resources = serde_json::from_str(json).unwrap();
        let each = |setting: Setting| format!("{} {}", setting.file, setting.value);
        Controller::ALL
            .iter()
            .flat_map(|which| settings(*which, &resources))
            .map(each)
            .collect()
    }

    #[test]
    fn values_go_to_their_files() {
        let json = r#"{"memory":{"limit":100,"swap":-1,"reservation":50,"disableOOMKiller":true},
            "cpu":{"shares":512,"quota":-1,"period":100000,"burst":0,"cpus":"0","realtimeRuntime":950000},
            "pids":{"limit":-1},
            "blockIO":{"weight":500,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":0}]},
            "hugepageLimits":[{"pageSize":"2MB","limit":4194304}],
            "network":{"classID":1048577,"priorities":[{"name":"eth0","priority":3}]},
            "rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":10000}}}"#;
        assert_eq!(
            written(json),
            [
                "cpu.rt_runtime_us 950000",
                "cpu.shares 512",
                "cpu.cfs_period_us 100000",
                "cpu.cfs_quota_us -1",
                "cpu.cfs_burst_us 0",
                "cpuset.cpus 0",
                "memory.limit_in_bytes 100",
                "memory.memsw.limit_in_bytes -1",
                "memory.soft_limit_in_bytes 50",
                "memory.oom_control 1",
                "pids.max max",
                "blkio.weight 500",
                "blkio.throttle.read_bps_device 8:0 0",
                "hugetlb.2MB.limit_in_bytes 4194304",
                "hugetlb.2MB.rsvd.limit_in_bytes 4194304",
                "rdma.max mlx5_1 hca_handle=3 hca_object=10000",
                "net_cls.classid 1048577",
                "net_prio.ifpriomap eth0 3",
            ]
        );
    }

    #[test]
    fn what_is_not_asked_for_is_not_written() {
        let json = r#"{"memory":{"limit":0,"swap":0},"cpu":{"shares":0,"quota":0,"period":0,"cpus":""},
            "blockIO":{"weight":0},"network":{}}"#;
        assert_eq!(written(json), Vec::<String>::new());
        // Unlimited memory takes the limit of memory+swap with it.
        let unlimited = written(r#"{"memory":{"limit":-1}}"#);
        assert_eq!(
            unlimited,
            ["memory.limit_in_bytes -1", "memory.memsw.limit_in_bytes -1"]
        );
    }
}
