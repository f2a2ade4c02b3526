//! `linux.resources` as properties of a systemd unit (`systemd.resource-control(5)`). systemd must know the limits that
//! it has a word for, as it writes its own idea of a group's files again whenever something changes nearby. All limits
//! are also written to the files by ourselves, afterwards and exactly.
//!
//! Left to the files alone: what systemd has no word for (burst, hugetlb, rdma, throttled devices, which it names by
//! path), and devices. Their eBPF program is attached beside any of systemd's, which does not touch it.

use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::super::layout::Version;
use super::super::v2;
use super::dbus::Value;
use crate::error::{Error, Result};

/// The kernel's, where config.json gives none.
pub(in super::super) const CPU_PERIOD_USEC: u64 = 100_000;
/// systemd keeps a quota as a percentage of one processor, without fractions: that many microseconds a second. As runc
/// does, the quota is rounded up, so that groups below may have all of what config.json gives.
const PERCENT_USEC: u64 = 10_000;
/// More processors or memory nodes than the kernel can have.
const NUMBER_MAX: u32 = 1 << 13;
const UNLIMITED: u64 = u64::MAX;

/// `resources` is valid. `period` is that which a quota without one is meant for, in microseconds. `version` is that of
/// the controllers, which have other properties with v1.
pub(super) fn of(resources: &LinuxResources, period: u64, version: Version) -> Result<Vec<(String, Value)>> {
    let mut all = BTreeMap::new();
    let mut set = |name: &str, value: Value| drop(all.insert(name.to_owned(), value));
    if version == Version::V1 {
        set_v1(resources, period, &mut set);
        return Ok(all.into_iter().collect());
    }
    if let Some(memory) = resources.memory() {
        let limit = memory.limit().filter(|limit| *limit != 0);
        if let Some(limit) = limit {
            set("MemoryMax", amount(limit));
        }
        if let Some(low) = memory.reservation().filter(|low| *low != 0) {
            set("MemoryLow", amount(low));
        }
        if let Some(swap) = v2::swap_alone(limit, memory.swap().unwrap_or(0))? {
            set("MemorySwapMax", amount(swap));
        }
    }
    if let Some(cpu) = resources.cpu() {
        set_cpu(cpu, period, &mut set)?;
    }
    if let Some(pids) = resources.pids() {
        set("TasksMax", tasks(pids.limit()));
    }
    let weight = resources.block_io().as_ref().and_then(LinuxBlockIo::weight);
    if let Some(weight) = weight.filter(|weight| *weight != 0) {
        set("IOWeight", Value::Uint64(v2::io_weight(weight)));
    }
    for (file, text) in resources.unified().iter().flatten() {
        set_unified(file, text.trim(), period, &mut set)?;
    }
    Ok(all.into_iter().collect())
}

/// As runc's driver for systemd tells it; systemd has no words for the other limits of v1.
fn set_v1(resources: &LinuxResources, period: u64, set: &mut impl FnMut(&str, Value)) {
    let limit = resources.memory().as_ref().and_then(LinuxMemory::limit);
    if let Some(limit) = limit.filter(|limit| *limit != 0) {
        set("MemoryLimit", amount(limit));
    }
    if let Some(cpu) = resources.cpu() {
        if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
            set("CPUShares", Value::Uint64(shares.max(2)));
        }
        set_quota(cpu, period, set);
    }
    if let Some(pids) = resources.pids() {
        set("TasksMax", tasks(pids.limit()));
    }
    let weight = resources.block_io().as_ref().and_then(LinuxBlockIo::weight);
    if let Some(weight) = weight.filter(|weight| *weight != 0) {
        set("BlockIOWeight", Value::Uint64(weight.into()));
    }
}

/// A limit of 0 is 1, as in the file of the cgroup; systemd knows no 0.
fn tasks(limit: i64) -> Value {
    amount(if limit == 0 { 1 } else { limit })
}

/// Below zero is no limit.
fn amount(number: i64) -> Value {
    Value::Uint64(number.try_into().unwrap_or(UNLIMITED))
}

fn set_cpu(cpu: &LinuxCpu, period: u64, set: &mut impl FnMut(&str, Value)) -> Result<()> {
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        set("CPUWeight", Value::Uint64(v2::weight_from_shares(shares)));
    }
    if cpu.idle() == Some(1) {
        // Since systemd 252.
        set("CPUWeight", Value::Uint64(0));
    }
    set_quota(cpu, period, set);
    for (field, name, list) in [
        ("cpu.cpus", "AllowedCPUs", cpu.cpus()),
        ("cpu.mems", "AllowedMemoryNodes", cpu.mems()),
    ] {
        if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
            set(name, bits(list).ok_or_else(|| too_high(field, list))?);
        }
    }
    Ok(())
}

fn set_quota(cpu: &LinuxCpu, period: u64, set: &mut impl FnMut(&str, Value)) {
    let asked = cpu.period().filter(|period| *period != 0);
    if let Some(asked) = asked {
        set("CPUQuotaPeriodUSec", Value::Uint64(asked));
    }
    if let Some(quota) = cpu.quota().filter(|quota| *quota != 0) {
        set(
            "CPUQuotaPerSecUSec",
            quota_per_second(quota.try_into().ok(), asked.unwrap_or(period)),
        );
    }
}

fn too_high(field: &str, list: &str) -> Error {
    let rule = format!("{list:?} has a number above {}", NUMBER_MAX - 1);
    Error::spec(format!("linux.resources.{field}"), rule)
}

/// `None` is no limit.
fn quota_per_second(quota: Option<u64>, period: u64) -> Value {
    let per_second = quota.map_or(UNLIMITED, |quota| {
        let exact = u128::from(quota) * 1_000_000 / u128::from(period.max(1));
        u64::try_from(exact.next_multiple_of(PERCENT_USEC.into())).unwrap_or(UNLIMITED)
    });
    Value::Uint64(per_second)
}

/// A list such as `0-3,7` as a bit for each number, the lowest in the first byte.
fn bits(list: &str) -> Option<Value> {
    let mut bytes = Vec::new();
    for part in list.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (u32, u32) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        if to >= NUMBER_MAX {
            return None;
        }
        for number in from..=to {
            let at = number as usize / 8;
            if bytes.len() <= at {
                bytes.resize(at + 1, 0);
            }
            bytes[at] |= 1 << (number % 8);
        }
    }
    Some(Value::Array(
        "y".into(),
        bytes.into_iter().map(Value::Byte).collect(),
    ))
}

/// Files of cgroup v2 that systemd has a property for. What is written there in other than the usual words is left to
/// the kernel to judge.
fn set_unified(file: &str, text: &str, period: u64, set: &mut impl FnMut(&str, Value)) -> Result<()> {
    let name = match file {
        "memory.max" => "MemoryMax",
        "memory.high" => "MemoryHigh",
        "memory.low" => "MemoryLow",
        "memory.min" => "MemoryMin",
        "memory.swap.max" => "MemorySwapMax",
        "pids.max" => "TasksMax",
        "cpu.weight" => "CPUWeight",
        "cpu.idle" if text == "1" => {
            set("CPUWeight", Value::Uint64(0));
            return Ok(());
        }
        "cpuset.cpus" | "cpuset.mems" => {
            let name = if file == "cpuset.cpus" {
                "AllowedCPUs"
            } else {
                "AllowedMemoryNodes"
            };
            if !text.is_empty() {
                set(
                    name,
                    bits(text).ok_or_else(|| too_high(&format!("unified.{file}"), text))?,
                );
            }
            return Ok(());
        }
        "cpu.max" => {
            let mut words = text.split_whitespace();
            let quota = words.next().and_then(number);
            let asked = words.next().and_then(number);
            if let Some(asked) = asked {
                set("CPUQuotaPeriodUSec", Value::Uint64(asked));
            }
            if let Some(quota) = quota {
                let limit = Some(quota).filter(|quota| *quota != UNLIMITED);
                set(
                    "CPUQuotaPerSecUSec",
                    quota_per_second(limit, asked.unwrap_or(period)),
                );
            }
            return Ok(());
        }
        _ => return Ok(()),
    };
    if let Some(number) = number(text) {
        set(name, Value::Uint64(number));
    }
    Ok(())
}

/// A number as cgroup files take it, with a unit of 1024 or none, or `max`.
fn number(text: &str) -> Option<u64> {
    if text == "max" {
        return Some(UNLIMITED);
    }
    let shift = match text.chars().next_back()?.to_ascii_lowercase() {
        'k' => 10,
        'm' => 20,
        'g' => 30,
        't' => 40,
        _ => return text.parse().ok(),
    };
    text[..text.len() - 1]
        .parse::<u64>()
        .ok()?
        .checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(json: &str) -> Vec<(String, u64)> {
        let resources = serde_json::from_str(json).unwrap();
        let number = |value| match value {
            Value::Uint64(number) => number,
            other => panic!("{other:?}"),
        };
        let all = of(&resources, CPU_PERIOD_USEC, Version::V2).unwrap().into_iter();
        all.map(|(name, value)| (name, number(value))).collect()
    }

    fn is(json: &str, expected: &[(&str, u64)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value))
            .collect();
        assert_eq!(properties(json), expected, "{json}");
    }

    #[test]
    fn limits_become_properties() {
        is(
            r#"{"memory":{"limit":100,"swap":150,"reservation":-1},"pids":{"limit":7},"blockIO":{"weight":1000}}"#,
            &[
                ("IOWeight", 10_000),
                ("MemoryLow", u64::MAX),
                ("MemoryMax", 100),
                ("MemorySwapMax", 50),
                ("TasksMax", 7),
            ],
        );
        is(
            r#"{"cpu":{"shares":1024,"quota":5001,"period":10000}}"#,
            &[
                ("CPUQuotaPerSecUSec", 510_000),
                ("CPUQuotaPeriodUSec", 10_000),
                ("CPUWeight", 100),
            ],
        );
        is(r#"{"cpu":{"quota":50000}}"#, &[("CPUQuotaPerSecUSec", 500_000)]);
        is(
            r#"{"cpu":{"quota":-1,"idle":1}}"#,
            &[("CPUQuotaPerSecUSec", u64::MAX), ("CPUWeight", 0)],
        );
        is(
            r#"{"memory":{"limit":0},"pids":{"limit":-1},"cpu":{"shares":0}}"#,
            &[("TasksMax", u64::MAX)],
        );
        is(r#"{"pids":{"limit":0}}"#, &[("TasksMax", 1)]);
    }

    #[test]
    fn unified_files_become_properties_and_win() {
        is(
            r#"{"memory":{"limit":5},"unified":{"memory.max":"1G","memory.high":"max","cpu.max":"20000 40000",
                "pids.max":"9","cpu.weight":"77","io.max":"8:0 rbps=1","memory.swap.max":"nonsense"}}"#,
            &[
                ("CPUQuotaPerSecUSec", 500_000),
                ("CPUQuotaPeriodUSec", 40_000),
                ("CPUWeight", 77),
                ("MemoryHigh", u64::MAX),
                ("MemoryMax", 1 << 30),
                ("TasksMax", 9),
            ],
        );
    }

    #[test]
    fn processors_become_bits() {
        let bytes = |list| match bits(list) {
            Some(Value::Array(_, bytes)) => bytes,
            other => panic!("{other:?}"),
        };
        assert_eq!(bytes("0-3,7"), [Value::Byte(0b1000_1111)]);
        assert_eq!(bytes("9, 0"), [Value::Byte(1), Value::Byte(2)]);
        assert_eq!(bits("8192"), None);
        let resources = serde_json::from_str(r#"{"cpu":{"mems":"0-4000000000"}}"#).unwrap();
        let error = of(&resources, CPU_PERIOD_USEC, Version::V2)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("config.json: linux.resources.cpu.mems: "),
            "{error}"
        );
    }
}
