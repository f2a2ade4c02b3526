//! A container's statistics in containerd's two forms: the metrics of cgroup v1 and of cgroup v2. A file that is not
//! there (a controller that is off, an older kernel) leaves its numbers at zero or its part out.

use std::path::Path;

use containerd_shim_protos::{cgroups::metrics as v1, cgroups_v2::metrics as v2};
use protobuf::Message;
use protobuf::well_known_types::any::Any;

use crate::cgroup::{Cgroup, flat_value};

/// Reads the numbers of one container.
pub(crate) fn read(cgroup: &Cgroup) -> Any {
    if cgroup.is_unified() {
        let metrics = cgroup.unified.as_deref().map(unified).unwrap_or_default();
        any("io.containerd.cgroups.v2.Metrics", &metrics)
    } else {
        any("io.containerd.cgroups.v1.Metrics", &legacy(cgroup))
    }
}

fn any(type_url: &str, message: &impl Message) -> Any {
    let mut any = Any::new();
    type_url.clone_into(&mut any.type_url);
    any.value = message.write_to_bytes().unwrap_or_default();
    any
}

fn text(folder: &Path, file: &str) -> String {
    std::fs::read_to_string(folder.join(file)).unwrap_or_default()
}

/// A file with one number; `max` and what does not fit are the biggest one.
fn number(folder: &Path, file: &str) -> u64 {
    parse_number(&text(folder, file))
}

fn parse_number(text: &str) -> u64 {
    match text.trim() {
        "" => 0,
        text => text.parse().unwrap_or(u64::MAX),
    }
}

fn legacy(cgroup: &Cgroup) -> v1::Metrics {
    let mut metrics = v1::Metrics::new();
    if let Some(folder) = cgroup.v1.get("pids") {
        let pids = metrics.pids.mut_or_insert_default();
        pids.current = number(folder, "pids.current");
        // containerd's reader tells an unlimited group as 0.
        pids.limit = Some(number(folder, "pids.max"))
            .filter(|limit| *limit != u64::MAX)
            .unwrap_or(0);
    }
    if cgroup.v1.contains_key("cpuacct") || cgroup.v1.contains_key("cpu") {
        let cpu = metrics.cpu.mut_or_insert_default();
        if let Some(folder) = cgroup.v1.get("cpuacct") {
            let usage = cpu.usage.mut_or_insert_default();
            usage.total = number(folder, "cpuacct.usage");
            usage.user = number(folder, "cpuacct.usage_user");
            usage.kernel = number(folder, "cpuacct.usage_sys");
            usage.per_cpu = text(folder, "cpuacct.usage_percpu")
                .split_ascii_whitespace()
                .map(parse_number)
                .collect();
        }
        if let Some(folder) = cgroup.v1.get("cpu") {
            let stat = text(folder, "cpu.stat");
            let value = |key| flat_value(&stat, key).unwrap_or(0);
            let throttling = cpu.throttling.mut_or_insert_default();
            throttling.periods = value("nr_periods");
            throttling.throttled_periods = value("nr_throttled");
            throttling.throttled_time = value("throttled_time");
        }
    }
    if let Some(folder) = cgroup.v1.get("memory") {
        metrics.memory = Some(legacy_memory(folder)).into();
        let control = text(folder, "memory.oom_control");
        let value = |key| flat_value(&control, key).unwrap_or(0);
        let oom = metrics.memory_oom_control.mut_or_insert_default();
        oom.oom_kill_disable = value("oom_kill_disable");
        oom.under_oom = value("under_oom");
        oom.oom_kill = value("oom_kill");
    }
    if let Some(folder) = cgroup.v1.get("blkio") {
        metrics.blkio = Some(legacy_blkio(folder)).into();
    }
    if let Some(folder) = cgroup.v1.get("hugetlb") {
        metrics.hugetlb = page_sizes(folder)
            .map(|pagesize| {
                let mut huge = v1::HugetlbStat::new();
                huge.usage = number(folder, &format!("hugetlb.{pagesize}.usage_in_bytes"));
                huge.max = number(folder, &format!("hugetlb.{pagesize}.max_usage_in_bytes"));
                huge.failcnt = number(folder, &format!("hugetlb.{pagesize}.failcnt"));
                huge.pagesize = pagesize;
                huge
            })
            .collect();
    }
    metrics
}

fn legacy_memory(folder: &Path) -> v1::MemoryStat {
    let stat = text(folder, "memory.stat");
    let value = |key| flat_value(&stat, key).unwrap_or(0);
    let entry = |prefix: &str| {
        let mut entry = v1::MemoryEntry::new();
        entry.usage = number(folder, &format!("{prefix}.usage_in_bytes"));
        entry.max = number(folder, &format!("{prefix}.max_usage_in_bytes"));
        entry.failcnt = number(folder, &format!("{prefix}.failcnt"));
        entry.limit = number(folder, &format!("{prefix}.limit_in_bytes"));
        entry
    };
    let mut memory = v1::MemoryStat::new();
    memory.cache = value("cache");
    memory.rss = value("rss");
    memory.rss_huge = value("rss_huge");
    memory.mapped_file = value("mapped_file");
    memory.dirty = value("dirty");
    memory.writeback = value("writeback");
    memory.pg_pg_in = value("pgpgin");
    memory.pg_pg_out = value("pgpgout");
    memory.pg_fault = value("pgfault");
    memory.pg_maj_fault = value("pgmajfault");
    memory.inactive_anon = value("inactive_anon");
    memory.active_anon = value("active_anon");
    memory.inactive_file = value("inactive_file");
    memory.active_file = value("active_file");
    memory.unevictable = value("unevictable");
    memory.hierarchical_memory_limit = value("hierarchical_memory_limit");
    memory.hierarchical_swap_limit = value("hierarchical_memsw_limit");
    memory.total_cache = value("total_cache");
    memory.total_rss = value("total_rss");
    memory.total_rss_huge = value("total_rss_huge");
    memory.total_mapped_file = value("total_mapped_file");
    memory.total_dirty = value("total_dirty");
    memory.total_writeback = value("total_writeback");
    memory.total_pg_pg_in = value("total_pgpgin");
    memory.total_pg_pg_out = value("total_pgpgout");
    memory.total_pg_fault = value("total_pgfault");
    memory.total_pg_maj_fault = value("total_pgmajfault");
    memory.total_inactive_anon = value("total_inactive_anon");
    memory.total_active_anon = value("total_active_anon");
    memory.total_inactive_file = value("total_inactive_file");
    memory.total_active_file = value("total_active_file");
    memory.total_unevictable = value("total_unevictable");
    memory.usage = Some(entry("memory")).into();
    memory.swap = Some(entry("memory.memsw")).into();
    memory.kernel = Some(entry("memory.kmem")).into();
    memory.kernel_tcp = Some(entry("memory.kmem.tcp")).into();
    memory
}

fn legacy_blkio(folder: &Path) -> v1::BlkIOStat {
    let entries =
        |file: &str| -> Vec<v1::BlkIOEntry> { text(folder, file).lines().filter_map(blkio_entry).collect() };
    // The names of the CFQ/BFQ scheduler, or those of the throttling layer where no such scheduler runs.
    let either = |scheduler: &str, throttle: &str| {
        let found = entries(scheduler);
        if found.is_empty() {
            entries(throttle)
        } else {
            found
        }
    };
    let mut blkio = v1::BlkIOStat::new();
    blkio.io_service_bytes_recursive = either(
        "blkio.io_service_bytes_recursive",
        "blkio.throttle.io_service_bytes_recursive",
    );
    blkio.io_serviced_recursive = either(
        "blkio.io_serviced_recursive",
        "blkio.throttle.io_serviced_recursive",
    );
    blkio.io_queued_recursive = entries("blkio.io_queued_recursive");
    blkio.io_service_time_recursive = entries("blkio.io_service_time_recursive");
    blkio.io_wait_time_recursive = entries("blkio.io_wait_time_recursive");
    blkio.io_merged_recursive = entries("blkio.io_merged_recursive");
    blkio.io_time_recursive = entries("blkio.time_recursive");
    blkio.sectors_recursive = entries("blkio.sectors_recursive");
    blkio
}

/// `8:0 Read 4096`, or `8:0 17` for files without an operation.
fn blkio_entry(line: &str) -> Option<v1::BlkIOEntry> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (device, operation, value) = match fields[..] {
        [device, operation, value] => (device, operation, value),
        [device, value] => (device, "", value),
        _ => return None,
    };
    let (major, minor) = device.split_once(':')?;
    let mut entry = v1::BlkIOEntry::new();
    entry.major = major.parse().ok()?;
    entry.minor = minor.parse().ok()?;
    operation.clone_into(&mut entry.op);
    entry.value = value.parse().ok()?;
    Some(entry)
}

/// The page sizes that files like `hugetlb.2MB.…` name.
fn page_sizes(folder: &Path) -> impl Iterator<Item = String> {
    let names = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name());
    names.filter_map(|name| {
        let name = name.to_str()?;
        let size = name.strip_prefix("hugetlb.")?;
        size.strip_suffix(".usage_in_bytes")
            .or_else(|| size.strip_suffix(".current").filter(|size| !size.contains('.')))
            .map(str::to_owned)
    })
}

fn unified(folder: &Path) -> v2::Metrics {
    let mut metrics = v2::Metrics::new();
    let pids = metrics.pids.mut_or_insert_default();
    pids.current = number(folder, "pids.current");
    pids.limit = number(folder, "pids.max");
    let stat = text(folder, "cpu.stat");
    let value = |key| flat_value(&stat, key).unwrap_or(0);
    let cpu = metrics.cpu.mut_or_insert_default();
    cpu.usage_usec = value("usage_usec");
    cpu.user_usec = value("user_usec");
    cpu.system_usec = value("system_usec");
    cpu.nr_periods = value("nr_periods");
    cpu.nr_throttled = value("nr_throttled");
    cpu.throttled_usec = value("throttled_usec");
    cpu.nr_bursts = value("nr_bursts");
    cpu.burst_usec = value("burst_usec");
    cpu.psi = pressure(folder, "cpu.pressure").into();
    metrics.memory = Some(unified_memory(folder)).into();
    let events = text(folder, "memory.events");
    let value = |key| flat_value(&events, key).unwrap_or(0);
    let memory_events = metrics.memory_events.mut_or_insert_default();
    memory_events.low = value("low");
    memory_events.high = value("high");
    memory_events.max = value("max");
    memory_events.oom = value("oom");
    memory_events.oom_kill = value("oom_kill");
    memory_events.oom_group_kill = value("oom_group_kill");
    let io = metrics.io.mut_or_insert_default();
    io.usage = text(folder, "io.stat").lines().filter_map(io_entry).collect();
    io.psi = pressure(folder, "io.pressure").into();
    metrics.hugetlb = page_sizes(folder)
        .map(|pagesize| {
            let mut huge = v2::HugeTlbStat::new();
            huge.current = number(folder, &format!("hugetlb.{pagesize}.current"));
            huge.max = number(folder, &format!("hugetlb.{pagesize}.max"));
            huge.failcnt =
                flat_value(&text(folder, &format!("hugetlb.{pagesize}.events")), "max").unwrap_or(0);
            huge.pagesize = pagesize;
            huge
        })
        .collect();
    metrics
}

fn unified_memory(folder: &Path) -> v2::MemoryStat {
    let stat = text(folder, "memory.stat");
    let value = |key| flat_value(&stat, key).unwrap_or(0);
    let mut memory = v2::MemoryStat::new();
    memory.anon = value("anon");
    memory.file = value("file");
    memory.kernel_stack = value("kernel_stack");
    memory.slab = value("slab");
    memory.sock = value("sock");
    memory.shmem = value("shmem");
    memory.file_mapped = value("file_mapped");
    memory.file_dirty = value("file_dirty");
    memory.file_writeback = value("file_writeback");
    memory.anon_thp = value("anon_thp");
    memory.inactive_anon = value("inactive_anon");
    memory.active_anon = value("active_anon");
    memory.inactive_file = value("inactive_file");
    memory.active_file = value("active_file");
    memory.unevictable = value("unevictable");
    memory.slab_reclaimable = value("slab_reclaimable");
    memory.slab_unreclaimable = value("slab_unreclaimable");
    memory.pgfault = value("pgfault");
    memory.pgmajfault = value("pgmajfault");
    memory.workingset_refault = value("workingset_refault");
    memory.workingset_activate = value("workingset_activate");
    memory.workingset_nodereclaim = value("workingset_nodereclaim");
    memory.pgrefill = value("pgrefill");
    memory.pgscan = value("pgscan");
    memory.pgsteal = value("pgsteal");
    memory.pgactivate = value("pgactivate");
    memory.pgdeactivate = value("pgdeactivate");
    memory.pglazyfree = value("pglazyfree");
    memory.pglazyfreed = value("pglazyfreed");
    memory.thp_fault_alloc = value("thp_fault_alloc");
    memory.thp_collapse_alloc = value("thp_collapse_alloc");
    memory.usage = number(folder, "memory.current");
    memory.usage_limit = number(folder, "memory.max");
    memory.max_usage = number(folder, "memory.peak");
    memory.swap_usage = number(folder, "memory.swap.current");
    memory.swap_limit = number(folder, "memory.swap.max");
    memory.swap_max_usage = number(folder, "memory.swap.peak");
    memory.psi = pressure(folder, "memory.pressure").into();
    memory
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 …`
fn io_entry(line: &str) -> Option<v2::IOEntry> {
    let mut fields = line.split_ascii_whitespace();
    let (major, minor) = fields.next()?.split_once(':')?;
    let mut entry = v2::IOEntry::new();
    entry.major = major.parse().ok()?;
    entry.minor = minor.parse().ok()?;
    for field in fields {
        let (key, value) = field.split_once('=')?;
        let Ok(value) = value.parse() else { continue };
        match key {
            "rbytes" => entry.rbytes = value,
            "wbytes" => entry.wbytes = value,
            "rios" => entry.rios = value,
            "wios" => entry.wios = value,
            _ => {}
        }
    }
    Some(entry)
}

fn pressure(folder: &Path, file: &str) -> Option<v2::PSIStats> {
    let text = text(folder, file);
    let mut stats = v2::PSIStats::new();
    for line in text.lines() {
        let mut data = v2::PSIData::new();
        for field in line.split_ascii_whitespace().skip(1) {
            let (key, value) = field.split_once('=')?;
            match key {
                "avg10" => data.avg10 = value.parse().ok()?,
                "avg60" => data.avg60 = value.parse().ok()?,
                "avg300" => data.avg300 = value.parse().ok()?,
                "total" => data.total = value.parse().ok()?,
                _ => {}
            }
        }
        if line.starts_with("some") {
            stats.some = Some(data).into();
        } else if line.starts_with("full") {
            stats.full = Some(data).into();
        }
    }
    stats.some.is_some().then_some(stats)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unified_numbers_are_read_and_missing_files_are_zero() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, contents: &str| std::fs::write(folder.path().join(name), contents).unwrap();
        write("memory.current", "4096\n");
        write("memory.max", "max\n");
        write("cpu.stat", "usage_usec 7\nuser_usec 4\n");
        write("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n");
        write(
            "memory.pressure",
            "some avg10=0.50 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
        );
        write("hugetlb.2MB.current", "0\n");
        let metrics = unified(folder.path());
        assert_eq!(
            (metrics.memory.usage, metrics.memory.usage_limit),
            (4096, u64::MAX)
        );
        assert_eq!((metrics.cpu.usage_usec, metrics.cpu.system_usec), (7, 0));
        assert_eq!((metrics.io.usage[0].major, metrics.io.usage[0].wios), (8, 4));
        assert_eq!(metrics.memory.psi.some.total, 12);
        assert_eq!(metrics.hugetlb[0].pagesize, "2MB");
        assert!(metrics.cpu.psi.is_none());
    }

    #[test]
    fn legacy_block_lines_come_with_and_without_an_operation() {
        let entry = blkio_entry("8:16 Read 4096").unwrap();
        assert_eq!(
            (entry.major, entry.minor, entry.op.as_str(), entry.value),
            (8, 16, "Read", 4096)
        );
        assert_eq!(blkio_entry("8:0 17").unwrap().value, 17);
        assert!(blkio_entry("Total 17").is_none());
    }
}
