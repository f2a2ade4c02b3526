//! What in a container's tree is the kernel's own: files there are made when they are read, some without an end.

use std::os::fd::BorrowedFd;

/// The magic numbers of such file systems (linux/magic.h): proc, sysfs, cgroup, cgroup2, devpts, mqueue, debugfs,
/// tracefs, securityfs, bpf, configfs, pstore, fusectl, `binfmt_misc`.
const OF_KERNEL: [i64; 14] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x1cd1,
    0x1980_0202,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xcafe_4a11,
    0x6265_6570,
    0x6165_676c,
    0x6573_5543,
    0x4249_4e4d,
];

/// Whether a file or folder is in one of them.
pub(crate) fn is_of_kernel(object: BorrowedFd<'_>) -> bool {
    rustix::fs::fstatfs(object).is_ok_and(|status| OF_KERNEL.contains(&status.f_type))
}
