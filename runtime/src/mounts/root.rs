//! The root of the container: made a mount of its own, and later the root of the process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use libc::{MS_PRIVATE, MS_SHARED, MS_SLAVE};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, chroot, fchdir, pivot_root};

use super::change::{self, Change};
use super::options::Propagation;
use super::plan::Plan;
use crate::error::{Context as _, Result};
use crate::sys::mount::{self, At};

/// Cuts the namespace off from the host as `rootfsPropagation` says and gives the rootfs a mount of its own, which
/// `pivot_root` asks for. The descriptor is on that mount.
pub(super) fn prepare(plan: &Plan) -> Result<OwnedFd> {
    let (kind, recursive) = host_propagation(plan.propagation);
    change::of_root(Change::propagation(kind, recursive)).context(|| "set the propagation of /".into())?;
    if kind == MS_SHARED {
        make_parent_private(&plan.rootfs)?;
    }
    let what = || format!("make the rootfs {} a mount", plan.rootfs.display());
    let at = At {
        folder: AT_FDCWD,
        path: &plan.rootfs,
    };
    match mount::open_tree_clone(at, true) {
        Ok(tree) => {
            mount::move_mount(tree.as_fd(), at, true).context(what)?;
            Ok(tree)
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            mount::mount(
                &plan.rootfs,
                &plan.rootfs,
                "",
                MsFlags::MS_BIND | MsFlags::MS_REC,
                "",
            )
            .context(what)?;
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            open(&plan.rootfs, flags, Mode::empty()).context(what)
        }
        Err(error) => Err(error).context(what),
    }
}

/// What the host's mounts become. `shared` leaves them peers of the host's, so that a bind with `rshared` carries
/// mounts both ways; all else must not leak to the host. `unbindable` is for the container's root alone and comes
/// last: applied here it would make every bind fail.
fn host_propagation(wanted: Option<Propagation>) -> (u64, bool) {
    match wanted.map(|propagation| propagation.kind) {
        Some(MS_SHARED) => (MS_SHARED, wanted.is_some_and(|propagation| propagation.recursive)),
        None | Some(MS_SLAVE) => (MS_SLAVE, true),
        Some(_) => (MS_PRIVATE, true),
    }
}

/// `pivot_root` refuses a shared parent, and a bind onto a shared mount would show up on the host. The parent is the
/// deepest folder above (or at) the rootfs that is a mount; the kernel says EINVAL for those that are none.
fn make_parent_private(rootfs: &Path) -> Result<()> {
    let what = || format!("make the mount below {} private", rootfs.display());
    let rootfs = std::fs::canonicalize(rootfs).context(what)?;
    for folder in rootfs.ancestors() {
        let fd = open(folder, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).context(what)?;
        match change::attached(fd.as_fd(), &[Change::propagation(MS_PRIVATE, false)]) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            other => return other.context(what),
        }
    }
    Ok(())
}

/// Makes the rootfs the root, with the old root stacked onto it, and lets go of that.
pub(super) fn pivot(root: BorrowedFd, propagation: Option<Propagation>) -> Result<()> {
    let what = || "pivot_root into the rootfs".into();
    let shared = propagation.is_some_and(|propagation| propagation.kind == MS_SHARED);
    let old = if shared {
        Some(open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).context(what)?)
    } else {
        None
    };
    fchdir(root).context(what)?;
    pivot_root(".", ".").context(what)?;
    if let Some(old) = old {
        // Or the host's mounts would be unmounted on the host too.
        change::attached(old.as_fd(), &[Change::propagation(MS_SLAVE, true)])
            .context(|| "cut the old root off from the host".into())?;
    }
    // Root and working folder are the new root now, and what is stacked on that is the old one: pivot_root(2).
    umount2(".", MntFlags::MNT_DETACH).context(|| "unmount the old root".into())
}

/// Moves the rootfs over the root. The old root stays mounted below it, so what is left of its procfs and sysfs is
/// taken away first: a process with rights in a user namespace could otherwise mount those without their masks.
pub(super) fn move_over(root: BorrowedFd, rootfs: &Path) -> Result<()> {
    let what = || "move the rootfs over the root".into();
    let rootfs = std::fs::canonicalize(rootfs).unwrap_or_else(|_| rootfs.to_owned());
    for place in kernel_mounts(&rootfs)? {
        hide(&place).context(|| format!("unmount {} of the host", place.display()))?;
    }
    fchdir(root).context(what)?;
    mount::move_mount(
        root,
        At {
            folder: AT_FDCWD,
            path: Path::new("/"),
        },
        false,
    )
    .or_else(|error| match error.raw_os_error() {
        Some(libc::ENOSYS) => mount::mount(Path::new("."), Path::new("/"), "", MsFlags::MS_MOVE, ""),
        _ => Err(error),
    })
    .context(what)?;
    chroot(".").context(what)?;
    chdir("/").context(what)
}

/// Where a procfs or sysfs is mounted outside the rootfs, deepest first.
fn kernel_mounts(rootfs: &Path) -> Result<Vec<PathBuf>> {
    let table =
        std::fs::read_to_string("/proc/self/mountinfo").context(|| "read /proc/self/mountinfo".into())?;
    let mut places: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let kind = after.split(' ').next()?;
            let place = PathBuf::from(unescape(before.split(' ').nth(4)?));
            (matches!(kind, "proc" | "sysfs") && !place.starts_with(rootfs)).then_some(place)
        })
        .collect();
    places.sort_by_key(|place| std::cmp::Reverse(place.components().count()));
    Ok(places)
}

/// mountinfo writes blanks, tabs, line ends and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    let plain = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    plain.iter().fold(text.to_owned(), |text, (code, character)| {
        text.replace(code, character)
    })
}

fn hide(place: &Path) -> io::Result<()> {
    match umount2(place, MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        // Locked by the owner of an outer namespace: cover it.
        Err(Errno::EINVAL | Errno::EPERM) => {
            mount::mount(Path::new("tmpfs"), place, "tmpfs", MsFlags::MS_RDONLY, "")
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Gives the container's root the propagation that was asked for, now that it can no longer reach the host.
pub(super) fn propagate(root: BorrowedFd, wanted: Option<Propagation>) -> Result<()> {
    let Some(Propagation { kind, recursive }) = wanted else {
        return Ok(());
    };
    change::attached(root, &[Change::propagation(kind, recursive)])
        .context(|| "set the propagation of the rootfs".into())
}
