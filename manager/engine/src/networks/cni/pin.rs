//! A container's network namespace, held by a mount: plugins look in it for what they are to undo, when the container's
//! processes are gone.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{FsType, statfs};

use crate::Error;
use crate::config::Config;

/// `NSFS_MAGIC` of linux/magic.h.
const NSFS: FsType = FsType(0x6e73_6673);

fn folder(config: &Config) -> PathBuf {
    config.state.join("netns")
}

/// Where that of a container is, if it is held.
pub(super) fn path(config: &Config, id: &str) -> PathBuf {
    folder(config).join(id)
}

/// That of a container, if it is held.
pub(super) fn of(config: &Config, id: &str) -> Option<PathBuf> {
    let path = path(config, id);
    is_held(&path).then_some(path)
}

fn is_held(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == NSFS)
}

/// Hold it, in place of one of an earlier run.
pub(super) fn make(config: &Config, id: &str, netns: &File) -> Result<(), Error> {
    let folder = folder(config);
    let made = DirBuilder::new().mode(0o700).recursive(true).create(&folder);
    made.map_err(Error::file("make the folder", &folder))?;
    let path = folder.join(id);
    if is_same(&path, netns) {
        return Ok(());
    }
    remove(config, id)?;
    File::create(&path).map_err(Error::file("make", &path))?;
    let of_namespace = format!("/proc/self/fd/{}", netns.as_raw_fd());
    mount(
        Some(of_namespace.as_str()),
        &path,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .map_err(|error| Error::file("hold the container's network namespace at", &path)(error.into()))
}

fn is_same(path: &Path, netns: &File) -> bool {
    let identity = |found: fs::Metadata| (found.dev(), found.ino());
    match (fs::metadata(path), netns.metadata()) {
        (Ok(held), Ok(wanted)) => identity(held) == identity(wanted),
        _ => false,
    }
}

/// Let it go; fine if it is not held.
pub(super) fn remove(config: &Config, id: &str) -> Result<(), Error> {
    let path = path(config, id);
    while is_held(&path) {
        umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
            .map_err(|error| Error::file("let go the network namespace at", &path)(error.into()))?;
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", &path)(error)),
        _ => Ok(()),
    }
}

/// Let all go that nobody needs.
pub(super) fn remove_orphans(config: &Config, is_needed: impl Fn(&str) -> bool) {
    let entries = fs::read_dir(folder(config)).into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().into_string().ok());
    for id in ids.filter(|id| !is_needed(id)) {
        if let Err(error) = remove(config, &id) {
            tracing::warn!(id, %error, "a network namespace is held that nobody needs");
        }
    }
}
