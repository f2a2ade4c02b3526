//! Locks on files: by which readers of a log keep it from being deleted, and who renames its files excludes others. All
//! end with the descriptor that has them, so that nobody's death leaves one.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::check;

/// Takes the file for this descriptor alone, unless somebody else has locked it; whether that worked. Never waits.
pub(crate) fn try_lock(file: impl AsFd) -> io::Result<bool> {
    set_lock(file, libc::F_WRLCK)
}

/// As a reader does it.
#[cfg(test)]
pub(crate) fn try_lock_shared(file: impl AsFd) -> io::Result<bool> {
    set_lock(file, libc::F_RDLCK)
}

pub(crate) fn unlock(file: impl AsFd) -> io::Result<()> {
    set_lock(file, libc::F_UNLCK).map(drop)
}

fn set_lock(file: impl AsFd, kind: libc::c_int) -> io::Result<bool> {
    // SAFETY: flock is plain data, all zero is a valid value: the whole file, for this open file description.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    // SAFETY: `lock` lives through the call.
    let result = check(unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) });
    granted(result)
}

/// Takes the lock of flock(2), which knows folders too; whether that worked. Never waits.
pub(crate) fn try_lock_folder(folder: impl AsFd) -> io::Result<bool> {
    // SAFETY: no pointers; the descriptor is alive.
    granted(check(unsafe {
        libc::flock(folder.as_fd().as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB)
    }))
}

fn granted(result: io::Result<libc::c_int>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}
