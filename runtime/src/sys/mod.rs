//! Raw system calls: the only place in this crate with `unsafe`, one file a kernel concern. Nothing above this
//! module sees a raw file descriptor or pointer.

pub(crate) mod bpf;
pub(crate) mod clone;
pub(crate) mod credentials;
pub(crate) mod entry;
pub(crate) mod exec;
pub(crate) mod fd;
pub(crate) mod inherit;
pub(crate) mod memory;
pub(crate) mod mount;
pub(crate) mod network;
pub(crate) mod notify;
pub(crate) mod process;
pub(crate) mod scheduling;
pub(crate) mod seccomp;
pub(crate) mod socket;
pub(crate) mod terminal;
pub(crate) mod trampoline;
pub(crate) mod user_namespace;
pub(crate) mod xattr;

use std::io;

/// Turns the `-1` of a raw system call into the error behind it.
pub(crate) fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
