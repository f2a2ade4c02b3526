//! Scheduling attributes of the calling process: policy, I/O priority, CPU affinity.

use std::io;

use super::check;

/// What `sched_setattr` takes, as the kernel lays it out (`SCHED_ATTR_SIZE_VER1`).
#[repr(C)]
#[derive(Default)]
pub(crate) struct SchedAttr {
    pub(crate) size: u32,
    pub(crate) policy: u32,
    pub(crate) flags: u64,
    pub(crate) nice: i32,
    pub(crate) priority: u32,
    pub(crate) runtime: u64,
    pub(crate) deadline: u64,
    pub(crate) period: u64,
    pub(crate) util_min: u32,
    pub(crate) util_max: u32,
}

pub(crate) fn set_scheduler(mut attr: SchedAttr) -> io::Result<()> {
    attr.size = size_of::<SchedAttr>() as u32;
    // SAFETY: the structure is laid out as the kernel wants it and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) }).map(drop)
}

const IOPRIO_WHO_PROCESS: libc::c_int = 1;
const IOPRIO_CLASS_SHIFT: u32 = 13;

pub(crate) fn set_io_priority(class: u32, level: u32) -> io::Result<()> {
    let value = class << IOPRIO_CLASS_SHIFT | level;
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) }).map(drop)
}

/// Lets the calling process run on every CPU of its cpuset, whatever its parent was bound to.
pub(crate) fn reset_affinity() {
    // More than any kernel has; it takes as many bits as it knows, of the CPUs that the cgroup allows.
    let mask = [u64::MAX; 128];
    // SAFETY: pointer and length in bytes describe one array that outlives the call. An error leaves the parent's
    // CPUs, with which the program runs too.
    let _ =
        check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(&mask), mask.as_ptr()) });
}

/// Binds the calling process to `cpus`.
pub(crate) fn set_affinity(cpus: &[u32]) -> io::Result<()> {
    let words = cpus.iter().max().map_or(0, |highest| *highest as usize / 64 + 1);
    let mut mask = vec![0_u64; words];
    for cpu in cpus {
        mask[*cpu as usize / 64] |= 1 << (cpu % 64);
    }
    // SAFETY: pointer and length in bytes describe one vector that outlives the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, words * 8, mask.as_ptr()) }).map(drop)
}
