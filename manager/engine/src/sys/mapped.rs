//! Owners of files as a user namespace maps them: mounts that shift them (`mount_setattr(2)`, Linux 5.12), and a thread
//! that makes files as the namespace's root.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::getpid;

/// `SECBIT_NO_SETUID_FIXUP` of linux/securebits.h: who takes another id keeps its capabilities.
const NO_SETUID_FIXUP: libc::c_int = 1 << 2;

/// A user namespace with these maps (in the format of `/proc/<pid>/uid_map`), in which no process is.
pub(crate) fn user_namespace(uid_map: &str, gid_map: &str) -> io::Result<OwnedFd> {
    let parent = getpid();
    // Without a signal at its end, of which others than us would be told.
    let flags = libc::CLONE_NEWUSER;
    // SAFETY: like fork, of this thread alone: the child calls nothing but async-signal-safe functions.
    let child = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if child == 0 {
        // SAFETY: plain system calls, on this child's own copies of descriptors. It has them all, of locks and of pipes
        // that others wait for, and is to keep none; it ends with the thread that made it.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0);
            while libc::getppid() == parent.as_raw() {
                libc::pause();
            }
            libc::_exit(0);
        }
    }
    let child = Errno::result(child)?;
    let namespace = std::fs::write(format!("/proc/{child}/uid_map"), uid_map)
        .and_then(|()| std::fs::write(format!("/proc/{child}/gid_map"), gid_map))
        .and_then(|()| std::fs::File::open(format!("/proc/{child}/ns/user")));
    let child = libc::pid_t::try_from(child).map_err(io::Error::other)?;
    // SAFETY: it is not waited for yet, so that the number is its own.
    unsafe { libc::kill(child, libc::SIGKILL) };
    // SAFETY: a child of ours that nobody else waits for, as it is no child of `SIGCHLD`; no status is asked for.
    while unsafe { libc::waitpid(child, std::ptr::null_mut(), libc::__WALL) } < 0
        && Errno::last() == Errno::EINTR
    {}
    namespace.map(OwnedFd::from)
}

/// A detached copy of the mount at `source`, with its owners as `namespace` maps them, which nobody can write through if
/// `read_only`.
pub(crate) fn clone_mapped(source: &Path, namespace: BorrowedFd<'_>, read_only: bool) -> io::Result<OwnedFd> {
    let path = CString::new(source.as_os_str().as_bytes())?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: the path lives through the call, which makes a new descriptor.
    let tree =
        Errno::result(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    let tree = RawFd::try_from(tree).map_err(io::Error::other)?;
    // SAFETY: the call has just made it, for us alone.
    let tree = unsafe { OwnedFd::from_raw_fd(tree) };
    let read_only = if read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP | read_only,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: u64::try_from(namespace.as_raw_fd()).map_err(io::Error::other)?,
    };
    // SAFETY: the path and the attributes live through the call, and the size is theirs.
    let set = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(set)?;
    Ok(tree)
}

/// Mount a detached tree at `place`.
pub(crate) fn attach(tree: &OwnedFd, place: &Path) -> io::Result<()> {
    let path = CString::new(place.as_os_str().as_bytes())?;
    // SAFETY: both paths live through the call, and the descriptor is open.
    let moved = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    Errno::result(moved)?;
    Ok(())
}

/// Let this thread make files as `uid` and `gid` from now on, with all capabilities that it has. It is to end with that.
pub(crate) fn make_files_as((uid, gid): (u32, u32)) -> io::Result<()> {
    // SAFETY: passes integers, and changes this thread alone.
    let bits = Errno::result(unsafe { libc::prctl(libc::PR_GET_SECUREBITS) })?;
    // SAFETY: as above.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, bits | NO_SETUID_FIXUP) })?;
    // SAFETY: passes an integer. Either call tells the id before it, and changes this thread alone.
    unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
    }
    // An id that nobody has changes nothing, and tells whether the one before took.
    // SAFETY: as above.
    let now = unsafe { (libc::setfsuid(u32::MAX), libc::setfsgid(u32::MAX)) };
    if (now.0.cast_unsigned(), now.1.cast_unsigned()) == (uid, gid) {
        Ok(())
    } else {
        Err(Errno::EPERM.into())
    }
}
