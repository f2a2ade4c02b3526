//! What a container may use of the machine.

use clap::Args;
use proto::v1::ContainerResources;
use proto::v1::container_resources::{Device, DeviceValue, Ulimit};

use crate::size;

/// Limits that a container may be given when it is made, and others later. What is not given is not asked for.
#[derive(Debug, Args)]
pub(crate) struct LimitFlags {
    /// Limit of memory: a number and b, k, m or g; 0: none
    #[arg(short, long, value_name = "BYTES", value_parser = size::parse_bytes)]
    pub(crate) memory: Option<i64>,
    /// Limit of CPU time: a number of CPUs, such as 1.5; 0: none
    #[arg(long, value_name = "NUMBER", value_parser = size::parse_cpus)]
    pub(crate) cpus: Option<i64>,
    /// Limit of processes; -1: none
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(i64).range(-1..))]
    pub(crate) pids_limit: Option<i64>,
    /// Limit of memory and swap together, a number and b, k, m or g; -1: no limit of swap
    #[arg(long, value_name = "BYTES", value_parser = swap_bytes, allow_negative_numbers = true)]
    pub(crate) memory_swap: Option<i64>,
    /// Memory that the container keeps when the machine's is short
    #[arg(long, value_name = "BYTES", value_parser = size::parse_bytes)]
    pub(crate) memory_reservation: Option<i64>,
    /// Weight of CPU time against other containers; 1024 is usual
    #[arg(short, long, value_name = "WEIGHT")]
    pub(crate) cpu_shares: Option<u64>,
    /// Period over which a quota of CPU time is counted
    #[arg(long, value_name = "MICROSECONDS")]
    pub(crate) cpu_period: Option<u64>,
    /// CPU time in each period; -1: no limit
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    pub(crate) cpu_quota: Option<i64>,
    /// Period over which CPU time of real-time processes is counted
    #[arg(long, value_name = "MICROSECONDS")]
    pub(crate) cpu_rt_period: Option<u64>,
    /// CPU time of real-time processes in each period
    #[arg(long, value_name = "MICROSECONDS", value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) cpu_rt_runtime: Option<i64>,
    /// CPUs to run on: 0-2,4
    #[arg(long, value_name = "CPUS")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes to use: 0-2,4
    #[arg(long, value_name = "NODES")]
    pub(crate) cpuset_mems: Option<String>,
    /// Weight of disk time against other containers (10 to 1000)
    #[arg(long, value_name = "WEIGHT")]
    pub(crate) blkio_weight: Option<u32>,
}

/// What can't be changed later.
#[derive(Debug, Args)]
pub(crate) struct ResourceFlags {
    /// How readily the container's memory is swapped out (0 to 100); -1: as the machine's
    #[arg(long, value_name = "PERCENT", allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(i64).range(-1..=100))]
    memory_swappiness: Option<i64>,
    /// Let processes wait for memory in place of killing one
    #[arg(long)]
    oom_kill_disable: bool,
    /// Who is killed first when the machine's memory is short (-1000 to 1000)
    #[arg(long, value_name = "SCORE", default_value_t = 0, hide_default_value = true)]
    #[arg(allow_negative_numbers = true)]
    oom_score_adj: i32,
    /// Weight of disk time of one disk
    #[arg(long, value_name = "DEVICE:WEIGHT", value_parser = weight)]
    blkio_weight_device: Vec<DeviceValue>,
    /// Limit of bytes a second read from a disk, a number and b, k, m or g
    #[arg(long, value_name = "DEVICE:RATE", value_parser = bytes_a_second)]
    device_read_bps: Vec<DeviceValue>,
    /// Limit of bytes a second written to a disk
    #[arg(long, value_name = "DEVICE:RATE", value_parser = bytes_a_second)]
    device_write_bps: Vec<DeviceValue>,
    /// Limit of reads a second from a disk
    #[arg(long, value_name = "DEVICE:RATE", value_parser = weight)]
    device_read_iops: Vec<DeviceValue>,
    /// Limit of writes a second to a disk
    #[arg(long, value_name = "DEVICE:RATE", value_parser = weight)]
    device_write_iops: Vec<DeviceValue>,
    /// Give the container a device of this machine, or a folder of them
    #[arg(long, value_name = "HOST[:CONTAINER][:rwm]", value_parser = device)]
    device: Vec<Device>,
    /// Allow the use of devices by their numbers: "c 42:* rmw"
    #[arg(long, value_name = "RULE")]
    device_cgroup_rule: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES", value_parser = size::parse_bytes)]
    shm_size: Option<i64>,
    /// Limit of each process: nofile=1024:2048; -1: none
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = ulimit)]
    ulimit: Vec<Ulimit>,
    /// The cgroup above the container's
    #[arg(long, value_name = "PATH", default_value = "", hide_default_value = true)]
    cgroup_parent: String,
}

impl ResourceFlags {
    pub(crate) fn message(&self, limits: &LimitFlags) -> ContainerResources {
        // Of two limits of one name the later holds, as in docker.
        let mut ulimits: Vec<Ulimit> = Vec::new();
        for ulimit in &self.ulimit {
            ulimits.retain(|earlier| earlier.name != ulimit.name);
            ulimits.push(ulimit.clone());
        }
        let unsigned = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
        ContainerResources {
            memory_swap_bytes: limits.memory_swap.unwrap_or_default(),
            memory_reservation_bytes: limits.memory_reservation.unwrap_or_default(),
            memory_swappiness: unsigned(self.memory_swappiness),
            oom_kill_disable: self.oom_kill_disable,
            oom_score_adj: self.oom_score_adj,
            cpu_shares: limits.cpu_shares.unwrap_or_default(),
            cpu_period_micros: limits.cpu_period.unwrap_or_default(),
            cpu_quota_micros: limits.cpu_quota.unwrap_or_default(),
            cpu_rt_period_micros: limits.cpu_rt_period.unwrap_or_default(),
            cpu_rt_runtime_micros: limits.cpu_rt_runtime.unwrap_or_default(),
            cpuset_cpus: limits.cpuset_cpus.clone().unwrap_or_default(),
            cpuset_mems: limits.cpuset_mems.clone().unwrap_or_default(),
            blkio_weight: limits.blkio_weight.unwrap_or_default(),
            blkio_weight_devices: self.blkio_weight_device.clone(),
            read_bps: self.device_read_bps.clone(),
            write_bps: self.device_write_bps.clone(),
            read_iops: self.device_read_iops.clone(),
            write_iops: self.device_write_iops.clone(),
            devices: self.device.clone(),
            device_cgroup_rules: self.device_cgroup_rule.clone(),
            shm_bytes: unsigned(self.shm_size).unwrap_or(0),
            ulimits,
            cgroup_parent: self.cgroup_parent.clone(),
        }
    }
}

fn swap_bytes(text: &str) -> Result<i64, String> {
    if text == "-1" {
        Ok(-1)
    } else {
        size::parse_bytes(text)
    }
}

fn weight(text: &str) -> Result<DeviceValue, String> {
    device_value(text, |number| {
        number.parse().map_err(|_| format!("{number:?} is no number"))
    })
}

fn bytes_a_second(text: &str) -> Result<DeviceValue, String> {
    device_value(text, |rate| size::parse_bytes(rate).map(i64::cast_unsigned))
}

fn device_value(text: &str, value: impl Fn(&str) -> Result<u64, String>) -> Result<DeviceValue, String> {
    let (path, number) = text
        .rsplit_once(':')
        .filter(|(path, _)| path.starts_with("/dev/"))
        .ok_or("not of the form /dev/NAME:NUMBER")?;
    Ok(DeviceValue {
        path: path.to_owned(),
        value: value(number)?,
    })
}

/// `HOST`, `HOST:rw`, `HOST:CONTAINER`, `HOST:CONTAINER:rw`.
fn device(text: &str) -> Result<Device, String> {
    let is_access = |part: &str| {
        !part.is_empty() && part.len() <= 3 && part.bytes().all(|letter| b"rwm".contains(&letter))
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, access) = match parts[..] {
        [source] => (source, source, "rwm"),
        [source, access] if is_access(access) => (source, source, access),
        [source, target] => (source, target, "rwm"),
        [source, target, access] if is_access(access) => (source, target, access),
        [_, _, access] => return Err(format!("invalid device mode: {access}")),
        _ => return Err("has more than three parts".to_owned()),
    };
    if !source.starts_with('/') || !target.starts_with('/') {
        return Err("a path of a device is absolute".to_owned());
    }
    Ok(Device {
        source: source.to_owned(),
        target: target.to_owned(),
        access: access.to_owned(),
    })
}

fn ulimit(text: &str) -> Result<Ulimit, String> {
    let (name, limits) = text.split_once('=').ok_or("not of the form NAME=SOFT[:HARD]")?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no number"));
    Ok(Ulimit {
        name: name.to_owned(),
        soft: number(soft)?,
        hard: number(hard)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_up_to_three_parts() {
        let read = |text: &str| device(text).map(|read| [read.source, read.target, read.access].join(" "));
        assert_eq!(read("/dev/a").unwrap(), "/dev/a /dev/a rwm");
        assert_eq!(read("/dev/a:r").unwrap(), "/dev/a /dev/a r");
        assert_eq!(read("/dev/a:/dev/b").unwrap(), "/dev/a /dev/b rwm");
        assert_eq!(read("/dev/a:/dev/b:rw").unwrap(), "/dev/a /dev/b rw");
        for odd in ["", "a", "/dev/a:b", "/dev/a:/dev/b:x", "/dev/a:/b:r:w"] {
            assert!(device(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn rates_and_limits_are_numbers_behind_a_name() {
        assert_eq!(bytes_a_second("/dev/sda:1mb").unwrap().value, 1 << 20);
        assert_eq!(weight("/dev/sda:100").unwrap().value, 100);
        assert!(weight("/dev/sda:1m").is_err() && weight("sda:1").is_err());
        let limit = ulimit("nofile=10").unwrap();
        assert_eq!((limit.soft, limit.hard), (10, 10));
        assert_eq!(ulimit("core=0:-1").unwrap().hard, -1);
        assert!(ulimit("nofile").is_err() && ulimit("nofile=a").is_err());
    }
}
