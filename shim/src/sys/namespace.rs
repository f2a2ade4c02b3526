//! What the kernel tells of namespaces.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::check;

/// The user namespace that owns another namespace (`ioctl_nsfs(2)`).
pub(crate) fn owning_user_namespace(namespace: impl AsFd) -> io::Result<OwnedFd> {
    // The number is that of linux/nsfs.h: _IO(0xb7, 1).
    const NS_GET_USERNS: libc::c_ulong = 0xb701;
    // SAFETY: no pointers; the descriptor is alive.
    let fd = check(unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), NS_GET_USERNS as _) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
