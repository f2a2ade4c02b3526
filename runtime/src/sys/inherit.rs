//! Descriptors that a program finds at agreed numbers.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::check;

/// Puts copies of `fds` at the numbers from `first` on, where the next `execve` keeps them. What was open there is
/// closed: to be called only by a process that executes a program next.
pub(crate) fn place_from(first: i32, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let beyond = first + fds.len() as i32;
    let mut copies = Vec::with_capacity(fds.len());
    for fd in fds {
        // Out of the way first, as one may lie where another belongs.
        // SAFETY: plain integers; the copy is used by number below and never owned.
        let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, beyond) };
        copies.push(check(libc::c_long::from(copy))? as i32);
    }
    for (number, copy) in (first..).zip(copies) {
        // SAFETY: the caller has no more use for what it owns at these numbers.
        check(libc::c_long::from(unsafe { libc::dup2(copy, number) }))?;
    }
    Ok(())
}
