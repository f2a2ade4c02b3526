//! A user namespace that exists only for its id maps.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

/// Makes a user namespace with these maps (lines as `/proc/PID/uid_map` takes them) and returns a descriptor on it.
/// A child process holds it for the moment until the descriptor is open. The caller must have a single thread.
pub(crate) fn with_maps(uid_map: &str, gid_map: &str) -> io::Result<OwnedFd> {
    // SAFETY: the null stack makes clone act like fork; the child only calls prctl and pause, both safe after a fork.
    let child = unsafe {
        libc::syscall(libc::SYS_clone, libc::CLONE_NEWUSER | libc::SIGCHLD, 0, 0, 0, 0) as libc::pid_t
    };
    match child {
        -1 => Err(io::Error::last_os_error()),
        0 => hold(),
        child => {
            let opened = write_and_open(child, uid_map, gid_map);
            // SAFETY: `child` is our own child and not reaped yet, so its pid can't be another's.
            unsafe {
                libc::kill(child, libc::SIGKILL);
                while libc::waitpid(child, std::ptr::null_mut(), 0) < 0
                    && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
                {}
            }
            opened
        }
    }
}

fn hold() -> ! {
    // SAFETY: plain system calls; the process never touches memory that was shared with anybody.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        loop {
            libc::pause();
        }
    }
}

fn write_and_open(child: libc::pid_t, uid_map: &str, gid_map: &str) -> io::Result<OwnedFd> {
    fs::write(format!("/proc/{child}/uid_map"), uid_map)?;
    fs::write(format!("/proc/{child}/gid_map"), gid_map)?;
    Ok(fs::File::open(format!("/proc/{child}/ns/user"))?.into())
}
