//! A process's own attributes (`prctl`, `umask`, `personality`, session keyring) and those of others by pidfd.

use std::cell::Cell;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::check;

fn prctl(option: libc::c_int, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the options used in this file take plain integers.
    check(libc::c_long::from(unsafe { libc::prctl(option, value, 0, 0, 0) })).map(drop)
}

/// The kernel sends SIGKILL to us when our parent dies.
pub(crate) fn die_with_parent() -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)
}

/// Undoes `die_with_parent`.
pub(crate) fn outlive_parent() -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, 0)
}

/// Keeps others (without `CAP_SYS_PTRACE` over the host's user namespace) out of our /proc/PID/{exe,fd,mem}.
pub(crate) fn set_dumpable(yes: bool) -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, libc::c_ulong::from(yes))
}

pub(crate) fn set_no_new_privileges() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// Orphans below us become our children, so that a container without a PID namespace can be reaped whole.
pub(crate) fn become_subreaper() -> io::Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1)
}

/// Sets the NIS domain name of the UTS namespace.
pub(crate) fn set_domain_name(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length describe one string that outlives the call.
    check(libc::c_long::from(unsafe {
        libc::setdomainname(name.as_ptr().cast(), name.len())
    }))
    .map(drop)
}

/// Sets a resource limit of the caller. `setrlimit` of a C library may know fewer of them.
pub(crate) fn set_limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    };
    let before = std::ptr::null_mut::<libc::rlimit64>();
    // SAFETY: the structure outlives the call, and what was before is not asked for.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, before) }).map(drop)
}

/// Sets the mask of modes, unless it is known to be that already. Returns the one before.
pub(crate) fn set_umask(mask: u32) -> u32 {
    thread_local! {
        /// What was set last; no mask has so many bits. A thread with a mount namespace of its own, as tests have, has
        /// a mask of its own too.
        static CURRENT: Cell<u32> = const { Cell::new(u32::MAX) };
    }
    if CURRENT.replace(mask) == mask {
        return mask;
    }
    // SAFETY: umask always succeeds and touches no memory.
    unsafe { libc::umask(mask) }
}

/// Sets the execution domain; `persona` is built by `scheduling`.
pub(crate) fn set_personality(persona: u32) -> io::Result<()> {
    // SAFETY: personality takes a plain integer.
    check(libc::c_long::from(unsafe {
        libc::personality(libc::c_ulong::from(persona))
    }))
    .map(drop)
}

const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
const KEYCTL_SETPERM: libc::c_int = 5;
/// Possessor all; user view, read, write, search, link, setattr: what runc leaves after adding search for the user.
const KEYRING_PERMISSIONS: u32 = 0x3f3f_0000;

/// Joins a new session keyring named `name`, so that the container does not see the caller's keys.
pub(crate) fn join_session_keyring(name: &CStr) -> io::Result<()> {
    // SAFETY: `name` is a C string that outlives the call.
    let serial =
        check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) })?;
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, serial, KEYRING_PERMISSIONS) }).map(drop)
}

/// A descriptor that means exactly the process that has `pid` now.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain integers.
    let opened = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) });
    // EINVAL is a thread's id or, on older kernels, a process that is just being reaped.
    let fd = opened.map_err(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => io::Error::from_raw_os_error(libc::ESRCH),
        _ => error,
    })?;
    // SAFETY: the kernel gave us a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Sends `signal` to the process behind `pidfd`; 0 only asks whether it is there.
pub(crate) fn pidfd_send_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo asks the kernel to fill it in as kill(2) does.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, no_info, 0) }).map(drop)
}

/// Blocks every signal and says which were blocked before.
pub(crate) fn block_signals() -> io::Result<nix::sys::signal::SigSet> {
    use nix::sys::signal::{SigSet, SigmaskHow};
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    Ok(before)
}

/// Waits for one of all blocked signals. Returns its number.
pub(crate) fn next_signal() -> io::Result<i32> {
    let all = nix::sys::signal::SigSet::all();
    loop {
        // SAFETY: the set outlives the call and no siginfo is asked for.
        let signal = unsafe { libc::sigwaitinfo(all.as_ref(), std::ptr::null_mut()) };
        match check(libc::c_long::from(signal)) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(|number| number as i32),
        }
    }
}

/// Gives a signal that the runtime or its caller ignores its default effect again.
pub(crate) fn default_signal(signal: i32) {
    // SAFETY: SIG_DFL runs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Has the signals that ask a process to end do that, though it is the first of a PID namespace, where they have no
/// default effect. `execve` gives them back to the program.
pub(crate) fn end_at_signals() {
    extern "C" fn end(signal: libc::c_int) {
        // SAFETY: async-signal-safe, and the end.
        unsafe { libc::_exit(128 + signal) }
    }
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler does nothing but to end the process.
        unsafe { libc::signal(signal, end as extern "C" fn(libc::c_int) as libc::sighandler_t) };
    }
}

/// How a child ended, or `None` while it lives. `WaitStatus`es of stops are not asked for.
pub(crate) fn wait(pid: i32, block: bool) -> io::Result<Option<Exit>> {
    let mut status = 0;
    let options = if block { 0 } else { libc::WNOHANG };
    loop {
        // SAFETY: `status` outlives the call.
        let found = unsafe { libc::waitpid(pid, &raw mut status, options | libc::__WALL) };
        match check(libc::c_long::from(found)) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
            Ok(0) => return Ok(None),
            Ok(found) => {
                return Ok(Some(Exit {
                    pid: found as i32,
                    status,
                }));
            }
        }
    }
}

/// A reaped child.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exit {
    pub(crate) pid: i32,
    status: i32,
}

impl Exit {
    /// The exit code as shells tell it: the code, or 128 + the signal.
    pub(crate) fn code(self) -> i32 {
        match self.signal() {
            Some(signal) => 128 + signal,
            None => libc::WEXITSTATUS(self.status),
        }
    }

    /// The signal that ended the process.
    pub(crate) fn signal(self) -> Option<i32> {
        libc::WIFSIGNALED(self.status).then(|| libc::WTERMSIG(self.status))
    }
}

/// Ends this process at once: no destructors of what the parent still owns, no flushing of its buffers.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit only ends the process.
    unsafe { libc::_exit(code) }
}
