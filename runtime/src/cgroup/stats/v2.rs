//! Statistics from v2 files, under the names that v1 gave them.

use super::parse::{flat, huge_page_sizes, list, number, pids, pressure, text};
use super::{BlkioEntry, Hugetlb, MemoryEntry, Stats};
use crate::cgroup::dir::Dir;
use crate::error::Result;

const NANOSECONDS_PER_MICROSECOND: u64 = 1000;

/// On a hybrid host (not `alone`) only what v1 does not have.
pub(super) fn read(dir: &Dir, alone: bool, stats: &mut Stats) -> Result<()> {
    stats.cpu.psi = pressure(dir, "cpu.pressure")?;
    stats.memory.psi = pressure(dir, "memory.pressure")?;
    stats.blkio.psi = pressure(dir, "io.pressure")?;
    if alone {
        cpu(dir, stats)?;
        memory(dir, stats)?;
        pids(dir, stats)?;
        io(&text(dir, "io.stat")?, stats);
        stats.cpuset.cpus = list(&text(dir, "cpuset.cpus.effective")?);
        stats.cpuset.mems = list(&text(dir, "cpuset.mems.effective")?);
    }
    if stats.hugetlb.is_empty() {
        hugetlb(dir, stats)?;
    }
    Ok(())
}

fn cpu(dir: &Dir, stats: &mut Stats) -> Result<()> {
    let stat = flat(&text(dir, "cpu.stat")?);
    let count = |key: &str| stat.get(key).copied().unwrap_or(0);
    let time = |key: &str| count(key).saturating_mul(NANOSECONDS_PER_MICROSECOND);
    let cpu = &mut stats.cpu;
    cpu.usage.total = time("usage_usec");
    cpu.usage.user = time("user_usec");
    cpu.usage.kernel = time("system_usec");
    cpu.throttling.periods = count("nr_periods");
    cpu.throttling.throttled_periods = count("nr_throttled");
    cpu.throttling.throttled_time = time("throttled_usec");
    Ok(())
}

fn memory(dir: &Dir, stats: &mut Stats) -> Result<()> {
    let value = |file: &str| Ok(number(dir, &format!("memory.{file}"))?.unwrap_or(0));
    let memory = &mut stats.memory;
    memory.raw = flat(&text(dir, "memory.stat")?);
    memory.cache = memory.raw.get("file").copied().unwrap_or(0);
    let events = flat(&text(dir, "memory.events")?);
    memory.usage = MemoryEntry {
        limit: value("max")?,
        usage: value("current")?,
        max: value("peak")?,
        failcnt: events.get("max").copied().unwrap_or(0),
    };
    if let Some(swap) = number(dir, "memory.swap.current")? {
        // v1 counts both together; peaks can't be added up.
        let limit = value("swap.max")?;
        memory.swap = MemoryEntry {
            limit: limit.saturating_add(memory.usage.limit),
            usage: swap.saturating_add(memory.usage.usage),
            max: 0,
            failcnt: 0,
        };
    }
    memory.kernel.usage = memory.raw.get("kernel").copied().unwrap_or(0);
    Ok(())
}

/// Lines such as `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`.
fn io(stat: &str, stats: &mut Stats) {
    for line in stat.lines() {
        let mut words = line.split_whitespace();
        let device = words.next().and_then(|device| device.split_once(':'));
        let Some((Ok(major), Ok(minor))) = device.map(|(major, minor)| (major.parse(), minor.parse())) else {
            continue;
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (op, entries) = match key {
                "rbytes" => ("Read", &mut stats.blkio.io_service_bytes_recursive),
                "wbytes" => ("Write", &mut stats.blkio.io_service_bytes_recursive),
                "rios" => ("Read", &mut stats.blkio.io_serviced_recursive),
                "wios" => ("Write", &mut stats.blkio.io_serviced_recursive),
                _ => continue,
            };
            let value = value.parse().unwrap_or(0);
            entries.push(BlkioEntry {
                major,
                minor,
                op: op.to_owned(),
                value,
            });
        }
    }
}

fn hugetlb(dir: &Dir, stats: &mut Stats) -> Result<()> {
    for size in huge_page_sizes(dir, ".current")? {
        let mut usage = number(dir, &format!("hugetlb.{size}.rsvd.current"))?;
        if usage.is_none() {
            usage = number(dir, &format!("hugetlb.{size}.current"))?;
        }
        let events = flat(&text(dir, &format!("hugetlb.{size}.events"))?);
        let failcnt = events.get("max").copied().unwrap_or(0);
        stats.hugetlb.insert(
            size,
            Hugetlb {
                usage: usage.unwrap_or(0),
                max: 0,
                failcnt,
            },
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_of_v2_files_under_the_names_of_v1() {
        let path = crate::cgroup::tests::scratch("stats-v2");
        for (file, text) in [
            (
                "cpu.stat",
                "usage_usec 50\nuser_usec 30\nsystem_usec 20\nnr_periods 3\nnr_throttled 1\nthrottled_usec 9\n",
            ),
            ("cpu.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n"),
            ("memory.stat", "anon 10\nfile 20\nkernel 30\n"),
            ("memory.current", "100\n"),
            ("memory.max", "max\n"),
            ("memory.peak", "150\n"),
            ("memory.events", "low 0\nhigh 0\nmax 6\noom 0\noom_kill 0\n"),
            ("memory.swap.current", "5\n"),
            ("memory.swap.max", "50\n"),
            ("pids.current", "2\n"),
            ("pids.max", "7\n"),
            (
                "io.stat",
                "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n8:16 \n",
            ),
            ("hugetlb.2MB.current", "4\n"),
            ("hugetlb.2MB.events", "max 2\n"),
            ("cpuset.cpus.effective", "1\n"),
        ] {
            std::fs::write(path.join(file), text).unwrap();
        }
        let mut stats = Stats::default();
        read(&Dir::open(&path).unwrap(), true, &mut stats).unwrap();
        let json = serde_json::to_value(&stats).unwrap();
        assert_eq!(
            json["cpu"]["usage"],
            serde_json::json!({"total": 50_000, "kernel": 20_000, "user": 30_000})
        );
        assert_eq!(json["cpu"]["throttling"]["throttledTime"], 9000);
        assert_eq!(json["cpu"]["psi"]["some"]["total"], 5);
        assert_eq!(
            json["memory"]["usage"],
            serde_json::json!({"limit": u64::MAX, "usage": 100, "max": 150, "failcnt": 6})
        );
        let swap = serde_json::json!({"limit": u64::MAX, "usage": 105, "failcnt": 0});
        assert_eq!(json["memory"]["swap"], swap);
        assert_eq!(json["memory"]["cache"], 20);
        assert_eq!(json["pids"], serde_json::json!({"current": 2, "limit": 7}));
        assert_eq!(json["blkio"]["ioServicedRecursive"][1]["value"], 4);
        assert_eq!(
            json["hugetlb"]["2MB"],
            serde_json::json!({"usage": 4, "failcnt": 2})
        );
        assert_eq!(json["cpuset"]["cpus"], serde_json::json!([1]));
        std::fs::remove_dir_all(path).unwrap();
    }
}
