//! Statistics from v1 files.

use super::parse::{flat, huge_page_sizes, list, number, text};
use super::{BlkioEntry, Hugetlb, MemoryEntry, Stats};
use crate::cgroup::dir::Dir;
use crate::error::Result;

/// `cpuacct.stat` counts in clock ticks, of which every Linux machine shows 100 a second to programs (`USER_HZ`).
const TICK_NANOSECONDS: u64 = 10_000_000;

pub(super) fn cpu(dir: &Dir, stats: &mut Stats) -> Result<()> {
    let stat = flat(&text(dir, "cpu.stat")?);
    let value = |key: &str| stat.get(key).copied().unwrap_or(0);
    stats.cpu.throttling.periods = value("nr_periods");
    stats.cpu.throttling.throttled_periods = value("nr_throttled");
    stats.cpu.throttling.throttled_time = value("throttled_time");
    Ok(())
}

pub(super) fn cpuacct(dir: &Dir, stats: &mut Stats) -> Result<()> {
    let usage = &mut stats.cpu.usage;
    usage.total = number(dir, "cpuacct.usage")?.unwrap_or(0);
    let numbers = text(dir, "cpuacct.usage_percpu")?;
    usage.percpu = numbers
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    // A header `cpu user system`, then one line a processor.
    for line in text(dir, "cpuacct.usage_all")?.lines().skip(1) {
        let mut numbers = line.split(' ').skip(1).map(|word| word.parse().unwrap_or(0));
        usage.percpu_user.push(numbers.next().unwrap_or(0));
        usage.percpu_kernel.push(numbers.next().unwrap_or(0));
    }
    let stat = flat(&text(dir, "cpuacct.stat")?);
    usage.user = stat
        .get("user")
        .copied()
        .unwrap_or(0)
        .saturating_mul(TICK_NANOSECONDS);
    usage.kernel = stat
        .get("system")
        .copied()
        .unwrap_or(0)
        .saturating_mul(TICK_NANOSECONDS);
    Ok(())
}

pub(super) fn cpuset(dir: &Dir, stats: &mut Stats) -> Result<()> {
    let flag = |file: &str| Ok(number(dir, file)?.unwrap_or(0));
    let cpuset = &mut stats.cpuset;
    cpuset.cpus = list(&text(dir, "cpuset.cpus")?);
    cpuset.mems = list(&text(dir, "cpuset.mems")?);
    cpuset.cpu_exclusive = flag("cpuset.cpu_exclusive")?;
    cpuset.mem_exclusive = flag("cpuset.mem_exclusive")?;
    cpuset.mem_hardwall = flag("cpuset.mem_hardwall")?;
    cpuset.memory_migrate = flag("cpuset.memory_migrate")?;
    cpuset.memory_spread_page = flag("cpuset.memory_spread_page")?;
    cpuset.memory_spread_slab = flag("cpuset.memory_spread_slab")?;
    cpuset.memory_pressure = flag("cpuset.memory_pressure")?;
    cpuset.sched_load_balance = flag("cpuset.sched_load_balance")?;
    let level = text(dir, "cpuset.sched_relax_domain_level")?;
    cpuset.sched_relax_domain_level = level.trim().parse().unwrap_or(0);
    Ok(())
}

pub(super) fn memory(dir: &Dir, stats: &mut Stats) -> Result<()> {
    let entry = |name: &str| -> Result<MemoryEntry> {
        let value = |file: &str| Ok(number(dir, &format!("memory.{name}{file}"))?.unwrap_or(0));
        Ok(MemoryEntry {
            limit: value("limit_in_bytes")?,
            usage: value("usage_in_bytes")?,
            max: value("max_usage_in_bytes")?,
            failcnt: value("failcnt")?,
        })
    };
    let memory = &mut stats.memory;
    memory.raw = flat(&text(dir, "memory.stat")?);
    memory.cache = memory.raw.get("cache").copied().unwrap_or(0);
    memory.usage = entry("")?;
    memory.swap = entry("memsw.")?;
    memory.kernel = entry("kmem.")?;
    memory.kernel_tcp = entry("kmem.tcp.")?;
    Ok(())
}

/// As runc: BFQ's counters where its debugging gives all of them, else those of the throttling layer.
pub(super) fn blkio(dir: &Dir, stats: &mut Stats) -> Result<()> {
    let entries = |file: &str| Ok(parse_entries(&text(dir, file)?));
    let blkio = &mut stats.blkio;
    for scheduler in ["blkio.bfq.", "blkio."] {
        let sectors = entries(&format!("{scheduler}sectors_recursive"))?;
        if !sectors.is_empty() {
            blkio.sectors_recursive = sectors;
            blkio.io_service_time_recursive = entries(&format!("{scheduler}io_service_time_recursive"))?;
            blkio.io_wait_time_recursive = entries(&format!("{scheduler}io_wait_time_recursive"))?;
            blkio.io_merged_recursive = entries(&format!("{scheduler}io_merged_recursive"))?;
            blkio.io_queue_recursive = entries(&format!("{scheduler}io_queued_recursive"))?;
            blkio.io_time_recursive = entries(&format!("{scheduler}time_recursive"))?;
            break;
        }
    }
    for prefix in ["blkio.bfq.", "blkio.", "blkio.throttle."] {
        blkio.io_serviced_recursive = entries(&format!("{prefix}io_serviced_recursive"))?;
        blkio.io_service_bytes_recursive = entries(&format!("{prefix}io_service_bytes_recursive"))?;
        if !blkio.io_service_bytes_recursive.is_empty() {
            break;
        }
    }
    Ok(())
}

/// Lines such as `8:0 Read 4096` or `8:0 7`; a last line `Total 0` is left out.
fn parse_entries(text: &str) -> Vec<BlkioEntry> {
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let (first, second) = (words.next()?, words.next());
        let (op, value) = second.map_or(("", first), |value| (first, value));
        Some(BlkioEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: op.to_owned(),
            value: value.parse().ok()?,
        })
    };
    text.lines().filter_map(entry).collect()
}

pub(super) fn hugetlb(dir: &Dir, stats: &mut Stats) -> Result<()> {
    for size in huge_page_sizes(dir, ".usage_in_bytes")? {
        // Reservations are the better count where the kernel has them (5.7).
        let mut prefix = format!("hugetlb.{size}.rsvd.");
        if number(dir, &format!("{prefix}usage_in_bytes"))?.is_none() {
            prefix = format!("hugetlb.{size}.");
        }
        let value = |file: &str| Ok(number(dir, &format!("{prefix}{file}"))?.unwrap_or(0));
        let hugetlb = Hugetlb {
            usage: value("usage_in_bytes")?,
            max: value("max_usage_in_bytes")?,
            failcnt: value("failcnt")?,
        };
        stats.hugetlb.insert(size, hugetlb);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_of_v1_files_in_the_form_of_runc() {
        let path = crate::cgroup::tests::scratch("stats-v1");
        for (file, text) in [
            ("cpuacct.usage", "13204109\n"),
            ("cpuacct.usage_percpu", "4475735 8728374 \n"),
            ("cpuacct.usage_all", "cpu user system\n0 5 7\n1 0 9\n"),
            ("cpuacct.stat", "user 3\nsystem 1\n"),
            ("cpu.stat", "nr_periods 10\nnr_throttled 2\nthrottled_time 900\n"),
            ("memory.stat", "cache 8192\nrss 12288\n"),
            ("memory.usage_in_bytes", "811008\n"),
            ("memory.limit_in_bytes", "67108864\n"),
            ("memory.max_usage_in_bytes", "2260992\n"),
            ("memory.failcnt", "4\n"),
            ("pids.current", "1\n"),
            ("pids.max", "max\n"),
            (
                "blkio.throttle.io_service_bytes_recursive",
                "254:0 Read 4096\n254:0 Write 0\nTotal 4096\n",
            ),
            ("hugetlb.2MB.usage_in_bytes", "0\n"),
            ("hugetlb.2MB.rsvd.usage_in_bytes", "2097152\n"),
            ("cpuset.cpus", "0-1\n"),
            ("cpuset.sched_relax_domain_level", "-1\n"),
        ] {
            std::fs::write(path.join(file), text).unwrap();
        }
        let dir = Dir::open(&path).unwrap();
        let mut stats = Stats::default();
        for read in [
            cpu,
            cpuacct,
            cpuset,
            memory,
            super::super::parse::pids,
            blkio,
            hugetlb,
        ] {
            read(&dir, &mut stats).unwrap();
        }
        let json = serde_json::to_value(&stats).unwrap();
        let expected = serde_json::json!({
            "cpu": {
                "usage": {"total": 13_204_109, "percpu": [4_475_735, 8_728_374], "percpu_kernel": [7, 9],
                    "percpu_user": [5, 0], "kernel": 10_000_000, "user": 30_000_000},
                "throttling": {"periods": 10, "throttledPeriods": 2, "throttledTime": 900}
            },
            "cpuset": {"cpus": [0, 1], "cpu_exclusive": 0, "mem_hardwall": 0, "mem_exclusive": 0,
                "memory_migrate": 0, "memory_spread_page": 0, "memory_spread_slab": 0, "memory_pressure": 0,
                "sched_load_balance": 0, "sched_relax_domain_level": -1},
            "memory": {
                "cache": 8192,
                "usage": {"limit": 67_108_864, "usage": 811_008, "max": 2_260_992, "failcnt": 4},
                "swap": {"limit": 0, "failcnt": 0},
                "kernel": {"limit": 0, "failcnt": 0},
                "kernelTCP": {"limit": 0, "failcnt": 0},
                "raw": {"cache": 8192, "rss": 12288}
            },
            "pids": {"current": 1},
            "blkio": {"ioServiceBytesRecursive": [
                {"major": 254, "op": "Read", "value": 4096}, {"major": 254, "op": "Write"}]},
            "hugetlb": {"2MB": {"usage": 2_097_152, "failcnt": 0}},
            "intel_rdt": {},
            "network_interfaces": null
        });
        assert_eq!(json, expected);
        std::fs::remove_dir_all(path).unwrap();
    }
}
