//! What a container finds in `/dev` beside its mounts: device nodes, the customary links, `ptmx`, the console.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use libc::{S_IFBLK, S_IFCHR, S_IFIFO, S_IFMT};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat, mknodat};
use nix::sys::statfs::fstatfs;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat};

use super::inside;
use super::node::{Device, DeviceKind};
use super::places::Places;
use super::plan::Plan;
use crate::error::{Context as _, Error, Result};
use crate::sys::fd::close_later;
use crate::sys::mount::{self, At};

const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
];

const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

pub(super) fn set_up(plan: &Plan, places: &Places) -> Result<()> {
    let walked;
    let dev = if let Some(dev) = places.fresh(Path::new("dev")) {
        dev
    } else {
        walked = inside::folder(places.root, Path::new("dev"))?.fd;
        walked.as_fd()
    };
    for device in &plan.devices {
        let by_name = device
            .path
            .strip_prefix("dev")
            .ok()
            .filter(|name| name.components().count() == 1);
        if let Some(name) = by_name {
            make(dev, name, device, places.context.user_namespace)?;
        } else {
            let (parent, name) = inside::parent(places.root, &device.path)?;
            make(parent.fd.as_fd(), &name, device, places.context.user_namespace)?;
        }
    }
    for (target, name) in LINKS {
        match symlinkat(target, dev, name) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno).context(|| format!("link /dev/{name} to {target}")),
        }
    }
    link_ptmx(dev)
}

/// A devpts of the container's own has its own ptmx; a node in `/dev` would open terminals of the host's.
fn link_ptmx(dev: BorrowedFd) -> Result<()> {
    let what = || "link /dev/ptmx to pts/ptmx".into();
    match symlinkat("pts/ptmx", dev, "ptmx") {
        Err(Errno::EEXIST) => {
            unlinkat(dev, "ptmx", UnlinkatFlags::NoRemoveDir).context(what)?;
            symlinkat("pts/ptmx", dev, "ptmx").context(what)
        }
        other => other.context(what),
    }
}

fn make(parent: BorrowedFd, name: &Path, device: &Device, user_namespace: bool) -> Result<()> {
    let place = inside::absolute(&device.path);
    let what = || format!("make the device {}", place.display());
    if user_namespace && device.kind != DeviceKind::Fifo {
        return bind(parent, name, device);
    }
    let (kind, number) = match device.kind {
        DeviceKind::Char(number) => (SFlag::S_IFCHR, number),
        DeviceKind::Block(number) => (SFlag::S_IFBLK, number),
        DeviceKind::Fifo => (SFlag::S_IFIFO, 0),
    };
    match mknodat(parent, name, kind, Mode::from_bits_truncate(device.mode), number) {
        Ok(()) if device.uid == 0 && device.gid == 0 => Ok(()),
        Ok(()) => {
            let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
            fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW).context(what)
        }
        Err(Errno::EEXIST) => {
            let there = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW).context(what)?;
            if is(&there, device.kind) {
                return Ok(());
            }
            Err(Error::Refused(format!(
                "{}: the rootfs has something else there",
                what()
            )))
        }
        // Without CAP_MKNOD, or in a device cgroup that forbids it, the host's own node will do.
        Err(Errno::EPERM) if device.kind != DeviceKind::Fifo => bind(parent, name, device),
        Err(errno) => Err(errno).context(what),
    }
}

/// Shows the host's node. Its owner and mode can't be changed for the container alone, so they stay the host's.
fn bind(parent: BorrowedFd, name: &Path, device: &Device) -> Result<()> {
    let place = inside::absolute(&device.path);
    let what = || format!("bind the host's {} into the container", place.display());
    let source = open(&place, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).context(what)?;
    if !is(&fstat(&source).context(what)?, device.kind) {
        return Err(Error::Refused(format!(
            "{}: it has another type or number there",
            what()
        )));
    }
    inside::make_file(parent, name).context(what)?;
    let target = inside::locate(parent, name).context(what)?;
    if target.through_link {
        return Err(Error::Refused(format!(
            "{}: the rootfs has a symbolic link there",
            what()
        )));
    }
    bind_fd(source.as_fd(), target.fd.as_fd()).context(what)
}

/// Puts a copy of one mount, at what `source` is open on, onto what `target` is open on.
pub(super) fn bind_fd(source: BorrowedFd, target: BorrowedFd) -> io::Result<()> {
    match mount::open_tree_clone(At::fd(source), false) {
        Ok(tree) => {
            let moved = mount::move_mount(tree.as_fd(), At::fd(target), false);
            close_later(tree);
            moved
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            use super::change::proc_path;
            mount::mount(
                &proc_path(source),
                &proc_path(target),
                "",
                nix::mount::MsFlags::MS_BIND,
                "",
            )
        }
        Err(error) => Err(error),
    }
}

fn is(found: &nix::sys::stat::FileStat, kind: DeviceKind) -> bool {
    let format = found.st_mode & S_IFMT;
    match kind {
        DeviceKind::Char(number) => format == S_IFCHR && found.st_rdev == number,
        DeviceKind::Block(number) => format == S_IFBLK && found.st_rdev == number,
        DeviceKind::Fifo => format == S_IFIFO,
    }
}

/// Whether a descriptor is on the null device and not on something that an image calls `/dev/null` (CVE-2025-31133).
pub(super) fn is_null(fd: BorrowedFd) -> io::Result<bool> {
    Ok(is(&fstat(fd)?, DeviceKind::Char(libc::makedev(1, 3))))
}

/// Binds by descriptor on both sides: neither the terminal nor the place of the console is looked up by a name that
/// the image could have made a link (CVE-2025-52565).
pub(super) fn bind_console(root: BorrowedFd, pts: BorrowedFd) -> Result<()> {
    let what = || "bind the terminal to /dev/console".into();
    let is_terminal = fstat(pts).context(what)?.st_mode & S_IFMT == S_IFCHR;
    if !is_terminal || fstatfs(pts).context(what)?.filesystem_type().0 as i64 != DEVPTS_SUPER_MAGIC {
        return Err(Error::Refused(
            "the terminal for /dev/console is not one of a devpts".into(),
        ));
    }
    let dev = inside::folder(root, Path::new("dev"))?;
    let console = Path::new("console");
    inside::make_file(dev.fd.as_fd(), console).context(what)?;
    let target = inside::locate(dev.fd.as_fd(), console).context(what)?;
    if target.through_link {
        return Err(Error::Refused(
            "/dev/console is a symbolic link in the rootfs".into(),
        ));
    }
    bind_fd(pts, target.fd.as_fd()).context(what)
}

/// The container's null device, checked.
pub(super) fn null(root: BorrowedFd) -> Result<OwnedFd> {
    let what = || "open /dev/null of the container".into();
    let null = inside::locate(root, Path::new("dev/null")).context(what)?;
    if null.through_link || !is_null(null.fd.as_fd()).context(what)? {
        return Err(Error::Refused(
            "/dev/null of the container is not the null device".into(),
        ));
    }
    Ok(null.fd)
}
