//! Mounting and unmounting.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::check;

fn c_string(text: &[u8]) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "NUL byte inside"))
}

/// mount(2). Empty `kind` and `data` are passed as null.
pub(crate) fn mount(source: &str, target: &Path, kind: &str, flags: u64, data: &str) -> io::Result<()> {
    let source = c_string(source.as_bytes())?;
    let target = c_string(target.as_os_str().as_bytes())?;
    let kind = c_string(kind.as_bytes())?;
    let data = c_string(data.as_bytes())?;
    let or_null = |text: &CString| {
        if text.is_empty() {
            std::ptr::null()
        } else {
            text.as_ptr()
        }
    };
    // SAFETY: all strings live through the call.
    check(unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            or_null(&kind),
            flags as _,
            or_null(&data).cast(),
        )
    })
    .map(drop)
}

/// Takes every mount off `target`; nothing mounted there is fine.
pub(crate) fn unmount_all(target: &Path) -> io::Result<()> {
    let target = c_string(target.as_os_str().as_bytes())?;
    loop {
        // SAFETY: the path lives through the call.
        match check(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) }) {
            Ok(_) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// An overlay of more layers than the page that mount(2) takes can name: one `lowerdir+` call a layer (Linux 6.8).
/// `parameters` are the other key=value pairs and flags of the file system, `attributes` the `MOUNT_ATTR_` bits.
pub(crate) fn mount_overlay_layers(
    lower: &[&str],
    parameters: &[(&str, Option<&str>)],
    target: &Path,
    attributes: u64,
) -> io::Result<()> {
    const FSCONFIG_SET_FLAG: libc::c_uint = 0;
    const FSCONFIG_SET_STRING: libc::c_uint = 1;
    const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

    // SAFETY: the name is a static C string.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, c"overlay".as_ptr(), 1 as libc::c_uint) })?;
    let configure = |command: libc::c_uint, key: Option<&CStr>, value: Option<&CStr>| {
        let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: key and value live through the call; null where the command takes none.
        let result = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                context.as_raw_fd(),
                command,
                pointer(key),
                pointer(value),
                0 as libc::c_int,
            )
        };
        check(result as libc::c_int).map(drop)
    };
    for layer in lower {
        configure(
            FSCONFIG_SET_STRING,
            Some(c"lowerdir+"),
            Some(&c_string(layer.as_bytes())?),
        )?;
    }
    for (key, value) in parameters {
        let key = c_string(key.as_bytes())?;
        match value {
            Some(value) => configure(
                FSCONFIG_SET_STRING,
                Some(&key),
                Some(&c_string(value.as_bytes())?),
            )?,
            None => configure(FSCONFIG_SET_FLAG, Some(&key), None)?,
        }
    }
    configure(FSCONFIG_CMD_CREATE, None, None)?;
    // SAFETY: no pointers; the context is alive.
    let tree = owned(unsafe {
        libc::syscall(
            libc::SYS_fsmount,
            context.as_raw_fd(),
            1 as libc::c_uint,
            attributes as libc::c_uint,
        )
    })?;
    attach(&tree, target)
}

/// Puts a detached mount at `target`.
pub(crate) fn attach(tree: &OwnedFd, target: &Path) -> io::Result<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
    let target = c_string(target.as_os_str().as_bytes())?;
    // SAFETY: both paths live through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    check(result as libc::c_int).map(drop)
}

pub(super) fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let raw = check(result as libc::c_int)?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}
