//! Mounting an image: detached, so that no path leads to it and nothing is left when this process is killed.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};

use super::{Content, Tree, write};

/// Mount the image in the file at `path` (Linux 6.12). The descriptor is the mount, and its root folder.
pub(crate) fn mount(path: &Path) -> io::Result<OwnedFd> {
    // Read past the page cache of the file, where its file system can (Linux 6.15): an image's own pages are enough.
    match mount_with(path, &["directio"]) {
        Err(e) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => mount_with(path, &[]),
        mounted => mounted,
    }
}

fn mount_with(path: &Path, flags: &[&str]) -> io::Result<OwnedFd> {
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", path)?;
    for flag in flags {
        fsconfig_set_flag(&context, *flag)?;
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// A path by which other processes reach a mount for as long as this one holds it.
pub(crate) fn path_of(mount: &OwnedFd) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), mount.as_raw_fd()).into()
}

/// Whether this kernel mounts images as containers need them, tried with one made at `scratch`: from a file, and as layers
/// of an overlay that is told their place by a path like [`path_of`]'s (Linux 6.15).
pub(crate) fn probe(scratch: &Path) -> io::Result<()> {
    let tried = |what: &'static str| move |e: io::Error| io::Error::new(e.kind(), format!("{what}: {e}"));
    write(Tree::new(usize::MAX), Content::create(scratch)?, [0; 16])?;
    let [upper, lower] = [mount(scratch), mount(scratch)];
    let failed =
        tried("mount an EROFS image from a file (Linux 6.12 and later can, with EROFS_FS_BACKED_BY_FILE)");
    let mounts = [upper.map_err(failed)?, lower.map_err(failed)?];
    let layers = mounts
        .each_ref()
        .map(|mount| path_of(mount).display().to_string());
    overlay(&layers.join(":")).map_err(tried(
        "mount an overlay of detached mounts (Linux 6.15 and later can)",
    ))
}

fn overlay(layers: &str) -> io::Result<()> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "lowerdir", layers)?;
    Ok(fsconfig_create(&context)?)
}
