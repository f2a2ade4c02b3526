//! Mounts whose owners are shifted by a user namespace's maps (`mount_setattr(2)`, Linux 5.12; overlay's layers 5.19).

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{check, mount, pipe};

/// A user namespace with these maps (in the format of `/proc/<pid>/uid_map`), in which no process is.
pub(crate) fn user_namespace(uid_map: &str, gid_map: &str) -> io::Result<OwnedFd> {
    let (until, parent) = pipe()?;
    let flags = libc::CLONE_NEWUSER | libc::SIGCHLD;
    // SAFETY: like fork: this process has one thread, and the child calls only async-signal-safe functions.
    let child = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if child == 0 {
        let mut byte = 0u8;
        // SAFETY: both descriptors are this child's own copies, and `byte` lives through the call. It waits for the
        // parent to close the pipe, or to die.
        unsafe {
            libc::close(parent.as_raw_fd());
            libc::read(until.as_raw_fd(), (&raw mut byte).cast(), 1);
            libc::_exit(0);
        }
    }
    let child = check(child as libc::c_int)?;
    let namespace = fs::write(format!("/proc/{child}/uid_map"), uid_map)
        .and_then(|()| fs::write(format!("/proc/{child}/gid_map"), gid_map))
        .and_then(|()| fs::File::open(format!("/proc/{child}/ns/user")));
    drop(parent);
    let mut status = 0;
    // SAFETY: a child of ours that nobody else waits for; `status` lives through the call.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } < 0
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
    namespace.map(OwnedFd::from)
}

/// A detached copy of the mounts at `source`, with their owners as `namespace` maps them. `attributes` are the
/// `MOUNT_ATTR_` bits that it has besides.
pub(crate) fn clone_mapped(source: &Path, namespace: BorrowedFd, attributes: u64) -> io::Result<OwnedFd> {
    let path = CString::new(source.as_os_str().as_bytes())?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_RECURSIVE as libc::c_uint;
    // SAFETY: the path lives through the call.
    let tree =
        mount::owned(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP | attributes,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: namespace.as_raw_fd() as u64,
    };
    // SAFETY: the path and the attributes live through the call, and the size is theirs.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    check(result as libc::c_int)?;
    Ok(tree)
}
