//! eventfd(2) and inotify(7): how the kernel tells of events in a cgroup.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A counter that the kernel adds to; a read gives it and sets it to 0.
pub(crate) fn eventfd() -> io::Result<File> {
    // SAFETY: no pointers; the result is checked and owned by nobody else.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    owned(fd)
}

/// Readable whenever `path` was modified, or has gone.
pub(crate) fn watch_modified(path: &Path) -> io::Result<File> {
    // SAFETY: no pointers; the result is checked and owned by nobody else.
    let watch = owned(unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) })?;
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `path` is a C string that lives through the call, `watch` is an open inotify descriptor.
    let id = unsafe {
        libc::inotify_add_watch(
            watch.as_raw_fd(),
            path.as_ptr(),
            libc::IN_MODIFY | libc::IN_DELETE_SELF,
        )
    };
    if id < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(watch)
    }
}

fn owned(fd: i32) -> io::Result<File> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor; nobody else has it.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}
