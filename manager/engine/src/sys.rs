//! The system calls that no crate wraps the way the engine needs them.

pub(crate) mod mapped;

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::Inotify;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// An inotify instance whose readiness tasks can wait for.
pub(crate) struct InotifyFd(pub(crate) Inotify);

impl AsRawFd for InotifyFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Let tasks wait until `inotify` has events.
pub(crate) fn wait_on(inotify: Inotify) -> io::Result<AsyncFd<InotifyFd>> {
    // SAFETY: the descriptor is owned by the value that is handed over, is the same at each call, and is
    // closed only when that value is dropped.
    unsafe { AsyncFd::register_with_interest(InotifyFd(inotify), Interest::READABLE) }.map_err(Into::into)
}

/// The first byte of an extended attribute of an open file, if it has it.
pub(crate) fn fgetxattr_byte(file: BorrowedFd<'_>, name: &CStr) -> Option<u8> {
    let mut value = [0u8; 8];
    // SAFETY: `name` ends with NUL and `value` is as long as the call is told.
    let length = unsafe {
        libc::fgetxattr(
            file.as_raw_fd(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    (length > 0).then_some(value[0])
}

/// Whether the kernel has `mount_setattr`.
pub(crate) fn has_mount_setattr() -> bool {
    // SAFETY: the path ends with NUL, and no other memory is passed: a kernel that knows the call refuses a size of 0.
    let tried = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            -1,
            c"".as_ptr(),
            0,
            std::ptr::null::<u8>(),
            0,
        )
    };
    Errno::result(tried) != Err(Errno::ENOSYS)
}

/// A descriptor of a process, which no other process that gets its number can be mistaken for.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers and makes a new descriptor.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the call has just made it, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether a process is there and has not ended. A zombie has.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The command before it, in parentheses, may have any character in it.
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
    state.is_some_and(|rest| !rest.starts_with(['Z', 'X']))
}

/// Kill a process. One that has ended already is fine.
pub(crate) fn pidfd_kill(process: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open, and no signal information is passed.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            libc::SIGKILL,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    match Errno::result(sent) {
        Ok(_) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Wait for the end of a process. It is an error (`ETIMEDOUT`) if that does not come in time.
pub(crate) fn pidfd_wait(process: BorrowedFd<'_>, timeout: Duration) -> io::Result<()> {
    let timeout = PollTimeout::try_from(timeout).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(process, PollFlags::POLLIN)], timeout)? {
        0 => Err(Errno::ETIMEDOUT.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_killed_and_seen_to_end_by_its_descriptor() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let process = pidfd_open(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(pidfd_wait(process.as_fd(), Duration::from_millis(1)).is_err());
        pidfd_kill(process.as_fd()).unwrap();
        pidfd_wait(process.as_fd(), Duration::from_secs(30)).unwrap();
        child.wait().unwrap();
        pidfd_kill(process.as_fd()).unwrap();
    }
}
