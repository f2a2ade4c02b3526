//! Processes: subreaper, reaping, signals, and what a child does between fork and exec.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::check;

/// From now on orphans below this process become its children.
pub(crate) fn become_subreaper() -> io::Result<()> {
    // SAFETY: prctl with integer arguments.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }).map(drop)
}

/// A child that ended, in containerd's terms: the exit code, or 128 + the signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reaped {
    pub pid: u32,
    pub status: u32,
}

/// Takes one ended child off the kernel's list; `None` when there is none at the moment.
pub(crate) fn reap() -> Option<Reaped> {
    loop {
        let mut status = 0;
        // SAFETY: `status` lives through the call.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid <= 0 {
            if pid < 0 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return None;
        }
        if let Some(status) = status_of(status) {
            return Some(Reaped {
                pid: pid as u32,
                status,
            });
        }
    }
}

/// The exit code, or 128 + the signal, of a wait status that tells of an end.
fn status_of(status: libc::c_int) -> Option<u32> {
    if libc::WIFEXITED(status) {
        Some(libc::WEXITSTATUS(status) as u32)
    } else if libc::WIFSIGNALED(status) {
        Some(128 + libc::WTERMSIG(status) as u32)
    } else {
        None
    }
}

/// Whether this is the pid of a child of ours that was not reaped, alive or not.
pub(crate) fn is_child(pid: u32) -> bool {
    const WATCH: libc::c_int = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: siginfo_t is plain data, all zero is a valid value, and it lives through the call.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        libc::waitid(libc::P_PID, pid, &raw mut info, WATCH) == 0
    }
}

/// Sends a signal to a child of ours. Its pid cannot have been given to another process as long as it was not reaped.
pub(crate) fn kill(pid: u32, signal: u32) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().filter(|pid| *pid > 1);
    let Some(pid) = pid else {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    };
    // SAFETY: no pointers.
    check(unsafe { libc::kill(pid, signal as libc::c_int) }).map(drop)
}

/// Names a process for as long as this is open, whoever has its pid later.
pub(crate) fn open_pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let raw = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as libc::c_int)?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

pub(crate) fn kill_by_pidfd(process: &OwnedFd) -> io::Result<()> {
    let info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: without a siginfo the kernel makes one, as for `kill`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            libc::SIGKILL,
            info,
            0,
        )
    };
    check(result as libc::c_int).map(drop)
}

/// How a process ended that was reaped, by whomever. `None` before that; an error where the kernel does not tell it, as
/// Linux does since 6.15.
pub(crate) fn exit_status(process: &OwnedFd) -> io::Result<Option<u32>> {
    /// `struct pidfd_info` of `linux/pidfd.h` in its first version, which every later kernel takes.
    #[repr(C)]
    struct Info {
        mask: u64,
        cgroup: u64,
        ids: [u32; 11],
        exit_status: i32,
    }
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    const PIDFD_GET_INFO: libc::Ioctl = libc::_IOWR::<Info>(0xff, 11);
    let mut info = Info {
        mask: PIDFD_INFO_EXIT,
        cgroup: 0,
        ids: [0; 11],
        exit_status: 0,
    };
    // SAFETY: the kernel writes no more than the size that is part of the number of the call.
    check(unsafe { libc::ioctl(process.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) })?;
    let is_told = info.mask & PIDFD_INFO_EXIT != 0;
    Ok(is_told.then(|| status_of(info.exit_status)).flatten())
}

/// A manager's own files are for itself, but what this process and the runtime make is for containers, whose users are to
/// read it.
pub(crate) fn usual_umask() {
    // SAFETY: umask always succeeds and touches no memory.
    unsafe { libc::umask(0o022) };
}

/// Makes `command` a daemon: a session of its own, with `listener` as its descriptor 3.
pub(crate) fn daemon_command(command: &mut Command, listener: OwnedFd) {
    with_descriptors(command, vec![listener], true);
}

/// Gives `command` the descriptors 3, 4, … (those of containerd's logger protocol).
pub(crate) fn logger_command(command: &mut Command, descriptors: Vec<OwnedFd>) {
    with_descriptors(command, descriptors, false);
}

/// `descriptors` must be numbered 10 or more (see [`super::duplicate`]), so that no `dup2` closes one still to come.
fn with_descriptors(command: &mut Command, descriptors: Vec<OwnedFd>, new_session: bool) {
    debug_assert!(
        descriptors
            .iter()
            .all(|fd| fd.as_raw_fd() >= 3 + descriptors.len() as i32)
    );
    let prepare = move || {
        if new_session {
            // SAFETY: async-signal-safe, no pointers.
            check(unsafe { libc::setsid() })?;
        }
        for (number, fd) in (3..).zip(&descriptors) {
            // SAFETY: async-signal-safe; the source is alive, the target number is reserved for this.
            check(unsafe { libc::dup2(fd.as_raw_fd(), number) })?;
        }
        Ok(())
    };
    // SAFETY: the closure calls only async-signal-safe functions and does not allocate on its way to success.
    unsafe { command.pre_exec(prepare) };
}

pub(crate) fn effective_uid() -> u32 {
    // SAFETY: cannot fail, no pointers.
    unsafe { libc::geteuid() }
}
