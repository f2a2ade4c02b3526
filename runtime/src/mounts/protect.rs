//! Masked and read-only paths. Runs after the pivot, when no path can lead out of the container's root any more and
//! no process but this one runs in it; `/dev/null` is still not believed by its name.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use libc::MOUNT_ATTR_RDONLY;
use nix::mount::MsFlags;

use super::change::{self, Change, proc_path};
use super::devices;
use super::filesystem::FileSystem;
use super::inside;
use super::places::is_folder;
use crate::error::{Context as _, Result};
use crate::sys::fd::close_later;
use crate::sys::mount::{self, At, Attributes};

/// Makes each path that exists read-only, with what is mounted below it.
pub(super) fn read_only_paths(root: BorrowedFd, paths: &[PathBuf]) -> Result<()> {
    let read_only = Attributes {
        set: MOUNT_ATTR_RDONLY,
        ..Attributes::default()
    };
    for path in paths {
        let what = || format!("make {} read-only", inside::absolute(path).display());
        let found = match inside::locate(root, path) {
            Err(error) if is_missing(&error) => continue,
            other => other.context(what)?.fd,
        };
        let target = found.as_fd();
        let changes = [Change {
            recursive: true,
            attributes: read_only,
            implied: 0,
        }];
        match change::copy(At::fd(target), true, &changes) {
            Ok((tree, done)) => {
                mount::move_mount(tree.as_fd(), At::fd(target), false).context(what)?;
                if !done {
                    change::read_only(tree.as_fd(), what)?;
                }
                close_later(tree);
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                let place = proc_path(target);
                mount::mount(&place, &place, "", MsFlags::MS_BIND | MsFlags::MS_REC, "").context(what)?;
                let mounted = inside::locate(root, path).context(what)?;
                change::read_only(mounted.fd.as_fd(), what)?;
            }
            Err(error) => return Err(error).context(what),
        }
        close_later(found);
    }
    Ok(())
}

/// Covers each path that exists: a file by the null device, a folder by an empty read-only tmpfs.
pub(super) fn masked_paths(root: BorrowedFd, paths: &[PathBuf], label: Option<&str>) -> Result<()> {
    let mut null = None;
    let mut empty = None;
    for path in paths {
        let what = || format!("mask {}", inside::absolute(path).display());
        // Made only when it is known to be needed: the kernel waits for all its CPUs when a mount goes away that was
        // never attached (36 µs here, the price of 30 lookups).
        let found = match inside::locate(root, path) {
            Err(error) if is_missing(&error) => continue,
            other => other.context(what)?.fd,
        };
        let target = found.as_fd();
        if is_folder(target).context(what)? {
            empty = cover_folder(path, target, empty, label)?;
        } else {
            let null = match &mut null {
                Some(null) => null,
                none => none.insert(devices::null(root)?),
            };
            devices::bind_fd(null.as_fd(), target).context(what)?;
        }
        close_later(found);
    }
    null.into_iter().chain(empty).for_each(close_later);
    Ok(())
}

/// All folders get the same tmpfs, the first its mount and the others copies of that; or, on a system without fsopen,
/// one each.
fn cover_folder(
    path: &Path,
    target: BorrowedFd,
    empty: Option<OwnedFd>,
    label: Option<&str>,
) -> Result<Option<OwnedFd>> {
    let place = inside::absolute(path);
    let what = || format!("mask {}", place.display());
    if let Some(empty) = empty {
        devices::bind_fd(empty.as_fd(), target).context(what)?;
        return Ok(Some(empty));
    }
    let tmpfs = FileSystem {
        fs_type: "tmpfs",
        source: "",
        attributes: MOUNT_ATTR_RDONLY,
        read_only: true,
        superblock: &[],
        data: &[],
        label,
    };
    if let Some(mount) = tmpfs.make(&place)? {
        mount::move_mount(mount.as_fd(), At::fd(target), false).context(what)?;
        return Ok(Some(mount));
    }
    tmpfs.mount_onto(target, &place)?;
    Ok(None)
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR))
}
