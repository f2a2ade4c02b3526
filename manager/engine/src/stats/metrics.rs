//! The two forms in which a shim tells statistics: containerd's metrics of cgroup v1 and of cgroup v2.

use containerd_shim_protos::cgroups::metrics as v1;
use containerd_shim_protos::cgroups_v2::metrics as v2;
use protobuf::Message;

use crate::Error;
use crate::info::machine_memory_bytes;

/// What a container uses at one moment; counters count from the start of its run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time.
    pub cpu_nanos: u64,
    /// Without files that the kernel can drop any moment, as docker counts.
    pub memory_bytes: u64,
    /// The machine's memory, where there is no lower limit.
    pub memory_limit_bytes: u64,
    /// On all links but the loopback; of the host's network nothing.
    pub received_bytes: u64,
    /// The same.
    pub sent_bytes: u64,
    /// Of block devices.
    pub read_bytes: u64,
    /// The same.
    pub written_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// Read what the shim of container `id` has told; `kind` is the type of the message.
pub(super) fn read(id: &str, kind: &str, message: &[u8]) -> Result<Usage, Error> {
    let broken = |error: protobuf::Error| Error::shim(id, format!("read its statistics: {error}"));
    let mut usage = match kind.rsplit('/').next() {
        Some("io.containerd.cgroups.v1.Metrics") => {
            of_v1(&v1::Metrics::parse_from_bytes(message).map_err(broken)?)
        }
        Some("io.containerd.cgroups.v2.Metrics") => {
            of_v2(&v2::Metrics::parse_from_bytes(message).map_err(broken)?)
        }
        _ => {
            return Err(Error::shim(
                id,
                format!("its statistics are of an unknown kind: {kind:?}"),
            ));
        }
    };
    if let Some(machine) = machine_memory_bytes() {
        usage.memory_limit_bytes = match usage.memory_limit_bytes {
            0 => machine,
            limit => limit.min(machine),
        };
    }
    Ok(usage)
}

fn of_v1(metrics: &v1::Metrics) -> Usage {
    let memory = &metrics.memory;
    let blocks = |operation: &str| {
        let entries = metrics.blkio.io_service_bytes_recursive.iter();
        let of_operation = entries.filter(|entry| entry.op.eq_ignore_ascii_case(operation));
        of_operation.fold(0u64, |sum, entry| sum.saturating_add(entry.value))
    };
    Usage {
        cpu_nanos: metrics.cpu.usage.total,
        memory_bytes: memory.usage.usage.saturating_sub(memory.total_inactive_file),
        memory_limit_bytes: memory.usage.limit,
        read_bytes: blocks("read"),
        written_bytes: blocks("write"),
        pids: metrics.pids.current,
        ..Usage::default()
    }
}

fn of_v2(metrics: &v2::Metrics) -> Usage {
    let memory = &metrics.memory;
    let blocks = |bytes: fn(&v2::IOEntry) -> u64| {
        let entries = metrics.io.usage.iter();
        entries.fold(0u64, |sum, entry| sum.saturating_add(bytes(entry)))
    };
    Usage {
        cpu_nanos: metrics.cpu.usage_usec.saturating_mul(1000),
        memory_bytes: memory.usage.saturating_sub(memory.inactive_file),
        memory_limit_bytes: memory.usage_limit,
        read_bytes: blocks(|entry| entry.rbytes),
        written_bytes: blocks(|entry| entry.wbytes),
        pids: metrics.pids.current,
        ..Usage::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_tell_the_same() {
        let mut old = v1::Metrics::new();
        old.cpu
            .mut_or_insert_default()
            .usage
            .mut_or_insert_default()
            .total = 7000;
        let memory = old.memory.mut_or_insert_default();
        memory.usage.mut_or_insert_default().usage = 100;
        memory.usage.mut_or_insert_default().limit = 4096;
        memory.total_inactive_file = 30;
        old.pids.mut_or_insert_default().current = 3;
        let entry = |op: &str, value| v1::BlkIOEntry {
            op: op.to_owned(),
            value,
            ..Default::default()
        };
        let blkio = old.blkio.mut_or_insert_default();
        blkio.io_service_bytes_recursive = vec![entry("Read", 1), entry("Write", 2), entry("read", 4)];

        let mut new = v2::Metrics::new();
        new.cpu.mut_or_insert_default().usage_usec = 7;
        let memory = new.memory.mut_or_insert_default();
        (memory.usage, memory.usage_limit, memory.inactive_file) = (100, 4096, 30);
        new.pids.mut_or_insert_default().current = 3;
        let io = |rbytes, wbytes| v2::IOEntry {
            rbytes,
            wbytes,
            ..Default::default()
        };
        new.io.mut_or_insert_default().usage = vec![io(5, 0), io(0, 2)];

        let expected = Usage {
            cpu_nanos: 7000,
            memory_bytes: 70,
            memory_limit_bytes: 4096,
            read_bytes: 5,
            written_bytes: 2,
            pids: 3,
            ..Usage::default()
        };
        let old = old.write_to_bytes().unwrap();
        let new = new.write_to_bytes().unwrap();
        let of = |kind: &str, message: &[u8]| read("a", kind, message).unwrap();
        assert_eq!(of("io.containerd.cgroups.v1.Metrics", &old), expected);
        assert_eq!(
            of("types.containerd.io/io.containerd.cgroups.v2.Metrics", &new),
            expected
        );
        assert!(read("a", "io.containerd.cgroups.v1.Metrics", b"\xff").is_err());
        assert!(read("a", "unknown", &[]).is_err());
    }
}
