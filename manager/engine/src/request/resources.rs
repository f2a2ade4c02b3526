//! What a container may use of the machine, beyond the limits that stand in the request itself: swap, shares of CPU
//! and disks, devices, ulimits. The rules, and most of their words, are docker's.

use serde::{Deserialize, Serialize};

use super::rules::MEMORY_MIN_BYTES;
use super::{CreateRequest, check_strings};
use crate::Error;

/// The kernel has 16 limits; a device list longer than this is no person's.
const LIST_MAX: usize = 256;
const PERIOD_MICROS: std::ops::RangeInclusive<u64> = 1_000..=1_000_000;
const QUOTA_MIN_MICROS: i64 = 1_000;
const WEIGHT: std::ops::RangeInclusive<u32> = 10..=1000;
const OOM_SCORE: std::ops::RangeInclusive<i32> = -1000..=1000;
const SWAPPINESS_MAX: u64 = 100;
/// The kernel's names of resource limits, without `RLIMIT_`.
const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Numbers that are 0 are not asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Memory and swap together; -1: as much swap as the machine has.
    pub memory_swap_bytes: i64,
    /// What it keeps when the machine's memory is short.
    pub memory_reservation_bytes: i64,
    /// 0 to 100: how readily its pages are swapped out.
    pub memory_swappiness: Option<u64>,
    /// Its processes wait for memory, and are not killed.
    pub oom_kill_disable: bool,
    /// -1000 to 1000: who is killed first when the machine's memory is short.
    pub oom_score_adj: i32,
    /// Weight against other groups; 1024 is usual.
    pub cpu_shares: u64,
    /// Over which a quota is counted.
    pub cpu_period_micros: u64,
    /// CPU time in a period; -1: no limit.
    pub cpu_quota_micros: i64,
    /// Over which real-time is counted.
    pub cpu_rt_period_micros: u64,
    /// What processes with a real-time policy have in a period.
    pub cpu_rt_runtime_micros: i64,
    /// `0-2,4`; empty: all.
    pub cpuset_cpus: String,
    /// Memory nodes, written alike.
    pub cpuset_mems: String,
    /// 10 to 1000.
    pub blkio_weight: u32,
    /// Weights of single disks.
    pub blkio_weight_devices: Vec<DeviceValue>,
    /// Bytes a second.
    pub read_bps: Vec<DeviceValue>,
    /// Bytes a second.
    pub write_bps: Vec<DeviceValue>,
    /// Operations a second.
    pub read_iops: Vec<DeviceValue>,
    /// Operations a second.
    pub write_iops: Vec<DeviceValue>,
    /// Devices of the host, or folders of them.
    pub devices: Vec<Device>,
    /// `c 1:3 rwm`: kind, numbers or `*`, access.
    pub device_cgroup_rules: Vec<String>,
    /// Of /dev/shm; 0: 64 MiB.
    pub shm_bytes: u64,
    /// Limits of each process.
    pub ulimits: Vec<Ulimit>,
    /// The cgroup above the container's; empty: Berth's own.
    pub cgroup_parent: String,
}

/// A number for one block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceValue {
    /// Its node on the host.
    pub path: String,
    /// Weight or rate.
    pub value: u64,
}

/// A device that the container gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its node on the host, or a folder of nodes.
    pub source: String,
    /// Where it is in the container.
    pub target: String,
    /// Of r, w and m (mknod).
    pub access: String,
}

/// A resource limit of processes, as setrlimit(2) has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// `nofile`, `core`, ...
    pub name: String,
    /// -1: none.
    pub soft: i64,
    /// -1: none.
    pub hard: i64,
}

impl Ulimit {
    pub(crate) fn check(&self) -> Result<(), Error> {
        let refuse = |rule: &str| Err(Error::invalid("ulimits", format!("{}: {rule}", self.name)));
        if !ULIMITS.contains(&self.name.as_str()) {
            return refuse("invalid ulimit type");
        }
        if self.soft < -1 || self.hard < -1 {
            return refuse("must be a number from 0, or -1 for no limit");
        }
        let above = |soft: i64, hard: i64| hard != -1 && (soft == -1 || soft > hard);
        if above(self.soft, self.hard) {
            return refuse("ulimit soft limit must be less than or equal to hard limit");
        }
        Ok(())
    }
}

/// The rules of the fields that say what `request` may use.
pub(super) fn check(request: &CreateRequest) -> Result<(), Error> {
    let resources = &request.resources;
    resources.check_memory(request.memory_bytes)?;
    resources.check_cpu(request.cpu_quota_millis)?;
    resources.check_blkio()?;
    resources.check_devices()?;
    if resources.ulimits.len() > LIST_MAX {
        return Err(Error::invalid("ulimits", format!("more than {LIST_MAX}")));
    }
    resources.ulimits.iter().try_for_each(Ulimit::check)?;
    check_parent(&resources.cgroup_parent)
}

impl Resources {
    fn check_memory(&self, memory_bytes: i64) -> Result<(), Error> {
        match self.memory_swap_bytes {
            -1 | 0 => {}
            _ if memory_bytes <= 0 => {
                return Err(Error::invalid(
                    "memory_swap_bytes",
                    "you should always set the memory limit when using the memoryswap limit",
                ));
            }
            swap if swap < memory_bytes => {
                return Err(Error::invalid(
                    "memory_swap_bytes",
                    format!(
                        "minimum memoryswap limit should be larger than the memory limit of {memory_bytes}"
                    ),
                ));
            }
            _ => {}
        }
        let reservation = self.memory_reservation_bytes;
        if reservation != 0 && reservation < MEMORY_MIN_BYTES {
            return Err(Error::invalid(
                "memory_reservation_bytes",
                "minimum memory reservation allowed is 6MB",
            ));
        }
        if memory_bytes > 0 && reservation > memory_bytes {
            return Err(Error::invalid(
                "memory_reservation_bytes",
                format!("minimum memory limit ({memory_bytes}) can not be less than the reservation"),
            ));
        }
        if let Some(swappiness) = self.memory_swappiness.filter(|&asked| asked > SWAPPINESS_MAX) {
            return Err(Error::invalid(
                "memory_swappiness",
                format!("invalid value: {swappiness}, valid memory swappiness range is 0-100"),
            ));
        }
        if !OOM_SCORE.contains(&self.oom_score_adj) {
            return Err(Error::invalid(
                "oom_score_adj",
                format!("invalid value {}, range is [-1000, 1000]", self.oom_score_adj),
            ));
        }
        Ok(())
    }

    fn check_cpu(&self, cpu_quota_millis: i64) -> Result<(), Error> {
        let (period, quota) = (self.cpu_period_micros, self.cpu_quota_micros);
        if cpu_quota_millis > 0 && (period > 0 || quota > 0) {
            return Err(Error::invalid(
                "cpu_quota_millis",
                "conflicting options: a number of CPUs and a CPU period or quota cannot both be set",
            ));
        }
        if period != 0 && !PERIOD_MICROS.contains(&period) {
            return Err(Error::invalid(
                "cpu_period_micros",
                "CPU cfs period can not be less than 1ms (1000) or larger than 1s (1000000)",
            ));
        }
        if quota != 0 && quota != -1 && quota < QUOTA_MIN_MICROS {
            return Err(Error::invalid(
                "cpu_quota_micros",
                "CPU cfs quota can not be less than 1ms (1000)",
            ));
        }
        let (period, runtime) = (self.cpu_rt_period_micros, self.cpu_rt_runtime_micros);
        if runtime < 0 {
            return Err(Error::invalid(
                "cpu_rt_runtime_micros",
                format!("{runtime} is less than none"),
            ));
        }
        if period != 0 && runtime.cast_unsigned() > period {
            return Err(Error::invalid(
                "cpu_rt_runtime_micros",
                "cpu real-time runtime cannot be higher than cpu real-time period",
            ));
        }
        check_set("cpuset_cpus", &self.cpuset_cpus)?;
        check_set("cpuset_mems", &self.cpuset_mems)
    }

    fn check_blkio(&self) -> Result<(), Error> {
        let weights = self.blkio_weight_devices.iter();
        let weights = weights.map(|device| u32::try_from(device.value).unwrap_or(u32::MAX));
        let mut asked = weights.chain(Some(self.blkio_weight).filter(|&weight| weight != 0));
        if asked.any(|weight| !WEIGHT.contains(&weight)) {
            return Err(Error::invalid(
                "blkio_weight",
                "range of blkio weight is from 10 to 1000",
            ));
        }
        for (field, list) in [
            ("blkio_weight_devices", &self.blkio_weight_devices),
            ("read_bps", &self.read_bps),
            ("write_bps", &self.write_bps),
            ("read_iops", &self.read_iops),
            ("write_iops", &self.write_iops),
        ] {
            if list.len() > LIST_MAX {
                return Err(Error::invalid(field, format!("more than {LIST_MAX}")));
            }
            if let Some(device) = list.iter().find(|device| !device.path.starts_with("/dev/")) {
                return Err(Error::invalid(
                    field,
                    format!("{:?}: a device's path begins with /dev/", device.path),
                ));
            }
        }
        Ok(())
    }

    fn check_devices(&self) -> Result<(), Error> {
        if self.devices.len().max(self.device_cgroup_rules.len()) > LIST_MAX {
            return Err(Error::invalid("devices", format!("more than {LIST_MAX}")));
        }
        for device in &self.devices {
            let paths = [device.source.clone(), device.target.clone()];
            check_strings("devices", &paths)?;
            if paths.iter().any(|path| !path.starts_with('/')) {
                return Err(Error::invalid(
                    "devices",
                    format!("{:?}: must be absolute paths", paths.join(":")),
                ));
            }
            let known = device.access.bytes().all(|letter| b"rwm".contains(&letter));
            if device.access.is_empty() || device.access.len() > 3 || !known {
                return Err(Error::invalid(
                    "devices",
                    format!("{:?}: invalid device mode: letters of rwm", device.access),
                ));
            }
        }
        self.device_cgroup_rules
            .iter()
            .try_for_each(|rule| DeviceRule::parse(rule).map(|_| ()))
    }
}

/// A rule about devices of which the container may have no node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DeviceRule<'a> {
    /// `a`, `b` or `c`.
    pub(crate) kind: &'a str,
    /// None: all.
    pub(crate) major: Option<u32>,
    /// None: all.
    pub(crate) minor: Option<u32>,
    /// Of r, w and m.
    pub(crate) access: &'a str,
}

impl<'a> DeviceRule<'a> {
    /// Reads `c 1:3 rwm`.
    pub(crate) fn parse(rule: &'a str) -> Result<Self, Error> {
        let read = || {
            let mut words = rule.split(' ');
            let (kind, numbers, access) = (words.next()?, words.next()?, words.next()?);
            let (major, minor) = numbers.split_once(':')?;
            let number = |text: &str| match text {
                "*" => Some(None),
                digits => digits.parse().ok().map(Some),
            };
            let well_formed = ["a", "b", "c"].contains(&kind)
                && (1..=3).contains(&access.len())
                && access.bytes().all(|letter| b"rwm".contains(&letter))
                && words.next().is_none();
            let (major, minor) = (number(major)?, number(minor)?);
            well_formed.then_some(DeviceRule {
                kind,
                major,
                minor,
                access,
            })
        };
        read().ok_or_else(|| {
            Error::invalid(
                "device_cgroup_rules",
                format!("invalid device cgroup rule format: {rule:?}, such as \"c 1:3 rwm\" or \"b 8:* r\""),
            )
        })
    }
}

/// Numbers and ranges, as the kernel's cpuset files take them.
fn check_set(field: &'static str, set: &str) -> Result<(), Error> {
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some(first.parse::<u32>().ok()? <= last.parse::<u32>().ok()?)
    };
    if set.is_empty() || (set.len() < 4096 && set.split(',').all(|part| range(part) == Some(true))) {
        return Ok(());
    }
    Err(Error::invalid(
        field,
        format!("invalid value {set:?}: numbers and ranges, such as 0-2,4"),
    ))
}

/// A path of names below the root of the hierarchies: nothing that leads elsewhere.
fn check_parent(parent: &str) -> Result<(), Error> {
    let names = || parent.split('/').filter(|name| !name.is_empty());
    let odd = |name: &str| name.starts_with('.') || name.len() > 255 || name.contains('\0');
    if parent.is_empty() || (names().next().is_some() && !names().any(odd) && parent.len() < 2048) {
        return Ok(());
    }
    Err(Error::invalid(
        "cgroup_parent",
        format!("{parent:?} is no path of a cgroup, such as /machines/web"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(memory_bytes: i64, resources: Resources) -> String {
        let request = CreateRequest {
            memory_bytes,
            resources,
            ..CreateRequest::default()
        };
        check(&request).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn a_ulimit_has_a_known_name_and_its_soft_limit_below() {
        let ulimit = |name: &str, soft, hard| Resources {
            ulimits: vec![Ulimit {
                name: name.to_owned(),
                soft,
                hard,
            }],
            ..Resources::default()
        };
        assert_eq!(refused(0, ulimit("nofile", 10, 20)), "");
        assert_eq!(refused(0, ulimit("nofile", 10, -1)), "");
        assert!(refused(0, ulimit("nofile", 30, 20)).contains("soft limit"));
        assert!(refused(0, ulimit("nofile", -1, 20)).contains("soft limit"));
        assert!(refused(0, ulimit("files", 1, 1)).contains("invalid ulimit type"));
    }

    #[test]
    fn swap_counts_memory_too() {
        let swap = |bytes| Resources {
            memory_swap_bytes: bytes,
            ..Resources::default()
        };
        assert_eq!(refused(64 << 20, swap(-1)), "");
        assert_eq!(refused(64 << 20, swap(64 << 20)), "");
        assert!(refused(64 << 20, swap(1 << 20)).contains("larger than the memory limit"));
        assert!(refused(0, swap(1 << 20)).contains("always set the memory limit"));
        assert!(refused(64 << 20, swap(-2)).contains("memory_swap_bytes"));
    }

    #[test]
    fn rules_of_devices_have_three_words() {
        let read = DeviceRule::parse("b 8:* r").unwrap();
        assert_eq!(
            (read.kind, read.major, read.minor, read.access),
            ("b", Some(8), None, "r")
        );
        for odd in [
            "c 1:3",
            "x 1:3 r",
            "c 1 r",
            "c 1:3 q",
            "c 1:3 rwm x",
            "c -1:3 r",
            "",
        ] {
            assert!(DeviceRule::parse(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn sets_and_parents_are_read_strictly() {
        for good in ["", "0", "0-2,4"] {
            check_set("cpuset_cpus", good).unwrap();
        }
        for bad in ["a", "2-0", "0,", "-1", "1-"] {
            assert!(check_set("cpuset_cpus", bad).is_err(), "{bad}");
        }
        for good in ["", "/a/b", "a.slice"] {
            check_parent(good).unwrap();
        }
        for bad in ["/", "../a", "/a/../b", "/a/./b"] {
            assert!(check_parent(bad).is_err(), "{bad}");
        }
    }
}
