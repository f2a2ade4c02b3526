//! `clone3`: the one call that makes the container's first process in all of its new namespaces at once.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::check;

/// What `clone3` takes, as the kernel lays it out (`CLONE_ARGS_SIZE_VER2`, since 5.7).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of the clone we are on.
pub(crate) enum Side {
    Parent { pid: i32, pidfd: OwnedFd },
    Child,
}

/// Forks with `flags` (namespaces, `CLONE_PARENT`) and hands the parent a pidfd. With `cgroup` the child is born
/// in that cgroup v2 directory.
pub(crate) fn clone3(flags: i32, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Side> {
    let mut pidfd: libc::c_int = -1;
    let flags = u64::from(flags as u32) | libc::CLONE_PIDFD as u64;
    let parent_is_ours = flags & libc::CLONE_PARENT as u64 == 0;
    let mut args = CloneArgs {
        flags,
        pidfd: &raw mut pidfd as u64,
        // With CLONE_PARENT the child takes the caller's exit signal, and the kernel wants 0 here.
        exit_signal: if parent_is_ours { libc::SIGCHLD as u64 } else { 0 },
        ..CloneArgs::default()
    };
    if let Some(directory) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = directory.as_raw_fd() as u64;
    }
    // SAFETY: `args` is laid out as the kernel wants it, asks for no shared memory or foreign stack, and outlives
    // the call. The runtime never starts a thread, so the child's copy of memory has no lock that nobody holds.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) })?;
    if pid == 0 {
        return Ok(Side::Child);
    }
    // SAFETY: on success in the parent the kernel stored a new descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Side::Parent {
        pid: pid as i32,
        pidfd,
    })
}
