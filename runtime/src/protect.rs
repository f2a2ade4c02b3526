//! Keeps the host's file of this program out of reach where init's usual protection is not enough.
//!
//! Our code in a container is not dumpable, so the container can't open its /proc/PID/exe, and the trampoline
//! stands between it and the container's program. Two cases are left: a container with `CAP_SYS_PTRACE` and
//! without a user namespace may look into a process that joins its PID namespace; and a security label must be
//! taken by the container's own program, so there can be no trampoline. Then the runtime executes itself again,
//! from a private read-only mount of its own file: what /proc/PID/exe leads to can't be written through
//! (CVE-2019-5736). That costs one more `execve`, and no copy.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use nix::fcntl::AT_FDCWD;
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::error::{Context, Error, Result};
use crate::sys::entry::arguments;
use crate::sys::exec::execute_fd;
use crate::sys::mount::{At, Attributes, mount_setattr, open_tree_clone};

const SELF: &str = "/proc/self/exe";

/// Returns when this process runs from a read-only mount; else executes it again from one.
pub(crate) fn ensure() -> Result<()> {
    let what = || format!("look at {SELF}");
    let file = File::open(SELF).context(what)?;
    if fstatvfs(&file)
        .context(what)?
        .flags()
        .contains(FsFlags::ST_RDONLY)
    {
        return Ok(());
    }
    let what = || "make a read-only mount of the runtime's own file".into();
    let mount = open_tree_clone(
        At {
            folder: AT_FDCWD,
            path: Path::new(SELF),
        },
        false,
    )
    .context(what)?;
    let read_only = Attributes {
        set: libc::MOUNT_ATTR_RDONLY,
        ..Attributes::default()
    };
    mount_setattr(At::fd(mount.as_fd()), false, read_only, None).context(what)?;
    let strings = |list: Vec<std::ffi::OsString>| {
        list.into_iter()
            .map(|text| CString::new(text.into_vec()))
            .collect::<std::result::Result<Vec<_>, _>>()
    };
    let environment = std::env::vars_os().map(|(name, value)| {
        let mut entry = name;
        entry.push("=");
        entry.push(value);
        entry
    });
    let text = |_| Error::Refused("an argument contains a NUL character".into());
    let arguments = strings(arguments().to_vec()).map_err(text)?;
    let environment = strings(environment.collect()).map_err(text)?;
    let source = execute_fd(mount.as_fd(), &arguments, &environment);
    Err(Error::Kernel {
        what: "execute the runtime from a read-only mount".into(),
        source,
    })
}
