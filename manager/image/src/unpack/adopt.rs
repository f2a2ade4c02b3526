//! Folders that a layer has files in but no entry for: they take their looks from the layers below.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use super::tree::{beneath, folder_flags, times};
use super::xattr;
use crate::archive::Time;

/// Give each folder that a layer has no entry for the looks it has in the layers below, top layer first.
///
/// In an overlay the topmost folder's owner, mode, attributes and times are the ones that show.
pub(crate) fn adopt(root: &Path, implied: &[Vec<u8>], below: &[&Path]) -> io::Result<()> {
    if below.is_empty() {
        return Ok(());
    }
    let open = |path: &Path| rustix::fs::open(path, folder_flags() | OFlags::NOFOLLOW, Mode::empty());
    let root = open(root)?;
    let below: Vec<OwnedFd> = below.iter().map(|path| open(path)).collect::<Result<_, _>>()?;
    for path in implied {
        let folder = match beneath(&root, path, ResolveFlags::NO_SYMLINKS) {
            Ok(folder) => folder,
            // Reached through a link, or replaced by a later entry.
            Err(Errno::LOOP | Errno::NOENT | Errno::NOTDIR) => continue,
            Err(e) => return Err(e.into()),
        };
        if has_opaque_ancestor(&root, path) {
            continue;
        }
        if let Some(model) = visible(&below, path)? {
            let status = rustix::fs::fstat(&model)?;
            rustix::fs::fchown(
                &folder,
                Some(Uid::from_raw(status.st_uid)),
                Some(Gid::from_raw(status.st_gid)),
            )?;
            xattr::copy(model.as_fd(), folder.as_fd())?;
            rustix::fs::fchmod(&folder, Mode::from_raw_mode(status.st_mode & 0o7777))?;
            let modified = Time {
                seconds: status.st_mtime,
                nanoseconds: u32::try_from(status.st_mtime_nsec).unwrap_or(0),
            };
            rustix::fs::futimens(&folder, &times(modified))?;
        }
    }
    Ok(())
}

/// The folder at `path` that an overlay of these layers would show on top.
fn visible(layers: &[OwnedFd], path: &[u8]) -> io::Result<Option<OwnedFd>> {
    for layer in layers {
        match beneath(layer, path, ResolveFlags::NO_SYMLINKS) {
            Ok(folder) => return Ok(Some(folder)),
            // A file, link or whiteout on the way hides the layers below.
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
        if has_opaque_ancestor(layer, path) {
            return Ok(None);
        }
    }
    Ok(None)
}

/// Whether a folder above `path` hides what the layers below have there.
fn has_opaque_ancestor(layer: &OwnedFd, path: &[u8]) -> bool {
    let mut ancestor = path;
    while let Some(slash) = ancestor.iter().rposition(|b| *b == b'/') {
        ancestor = &ancestor[..slash];
        if beneath(layer, ancestor, ResolveFlags::NO_SYMLINKS).is_ok_and(|f| xattr::is_opaque(f.as_fd())) {
            return true;
        }
    }
    false
}
