//! What a layer takes from those below it, once they are there: the looks of folders that it has files in but no
//! entry for, and the content of files that it has hard links to. What it hides of them is looked at, too.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use super::below::{
    Copies, Source, copy_data, find_file, find_folder, has_opaque_ancestor, identity, modified, size_of,
    system,
};
use super::name::split;
use super::tree::{beneath, folder_flags, is_whiteout, times};
use super::{Borrowed, Failure, Implied, xattr};

/// Complete the layer at `root` from the layers below, top layer first. Returns the bytes of the files copied, which
/// may be `bytes_max` at most: an entry of no size can name a file of any.
///
/// In an overlay the topmost folder's owner, mode, attributes and times are the ones that show.
pub(super) fn adopt(
    root: &Path,
    implied: &Implied,
    below: &[OwnedFd],
    bytes_max: u64,
) -> Result<u64, Failure> {
    let root = open_root(root).map_err(system(b"/", "open the layer's root"))?;
    let mut copies = Copies::new(bytes_max);
    for file in &implied.files {
        fill(&root, file, below, &mut copies)?;
    }
    for path in &implied.folders {
        adopt_folder(&root, path, below).map_err(system(path, "copy the attributes of"))?;
    }
    for path in &implied.whiteouts {
        drop_idle_whiteout(&root, path, below).map_err(system(path, "look at what is hidden by"))?;
    }
    Ok(copies.bytes)
}

/// Take away a whiteout that hides nothing. In a folder that no other layer has, or that is opaque, the kernel would
/// list it as a file that cannot be opened: it looks for whiteouts only where it merges (`ovl_iterate`).
fn drop_idle_whiteout(root: &OwnedFd, path: &[u8], below: &[OwnedFd]) -> io::Result<()> {
    let (parent, name) = split(path);
    let parent = match beneath(root, parent, ResolveFlags::NO_SYMLINKS) {
        Ok(parent) => parent,
        // Replaced by a later entry.
        Err(Errno::LOOP | Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(status) if is_whiteout(&status) => {}
        Ok(_) | Err(Errno::NOENT) => return Ok(()),
        Err(e) => return Err(e.into()),
    }
    if has_opaque_ancestor(root, path) || find_file(below, path)?.is_none() {
        let before = rustix::fs::fstat(&parent)?;
        rustix::fs::unlinkat(&parent, name, AtFlags::empty())?;
        rustix::fs::futimens(&parent, &times(modified(&before)))?;
    }
    Ok(())
}

/// The folders that took nothing from the layers below: they have the time at which they were made.
pub(crate) fn undated(root: &Path, implied: &Implied, below: &[OwnedFd]) -> io::Result<HashSet<Vec<u8>>> {
    let root = open_root(root)?;
    let mut undated = HashSet::new();
    for path in &implied.folders {
        if has_opaque_ancestor(&root, path) || find_folder(below, path)?.is_none() {
            undated.insert(path.clone());
        }
    }
    Ok(undated)
}

fn open_root(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        path,
        folder_flags() | OFlags::NOFOLLOW,
        Mode::empty(),
    )?)
}

fn adopt_folder(root: &OwnedFd, path: &[u8], below: &[OwnedFd]) -> io::Result<()> {
    let folder = match beneath(root, path, ResolveFlags::NO_SYMLINKS) {
        Ok(folder) => folder,
        // Replaced by a later entry.
        Err(Errno::LOOP | Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    if let Some(model) = find_folder(below, path)?
        && !has_opaque_ancestor(root, path)
    {
        copy_looks(&model, &folder)?;
    }
    Ok(())
}

/// Owner, attributes, mode and time.
pub fn copy_looks(model: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let status = rustix::fs::fstat(model)?;
    rustix::fs::fchown(
        to,
        Some(Uid::from_raw(status.st_uid)),
        Some(Gid::from_raw(status.st_gid)),
    )?;
    xattr::copy(model.as_fd(), to.as_fd())?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(status.st_mode & 0o7777))?;
    rustix::fs::futimens(to, &times(modified(&status)))?;
    Ok(())
}

/// Make the empty file that stands for a lower layer's a copy of it.
fn fill<'a>(
    root: &OwnedFd,
    file: &'a Borrowed,
    below: &[OwnedFd],
    copies: &mut Copies<&'a [u8]>,
) -> Result<(), Failure> {
    let entry = file.names[1..].first().unwrap_or(&file.target);
    let failed = system(entry, "copy the link target of");
    let Some((empty, path)) = find_empty(root, file).map_err(&failed)? else {
        // Later entries have replaced all its names.
        return Ok(());
    };
    let hidden = has_opaque_ancestor(root, &file.target);
    let (model, status) = match copies.find(entry, &file.target, hidden, below)? {
        Source::Copied(copy) => return link_all(root, file, copy).map_err(&failed),
        Source::Below(model, status) => (model, status),
    };
    let mut copy = File::from(empty.try_clone().map_err(&failed)?);
    let size = size_of(&status);
    copy_data(&model, &mut copy, 0, size)
        .and_then(|()| copy.set_len(size))
        .map_err(&failed)?;
    copy_looks(&model.into(), &empty).map_err(&failed)?;
    copies.made.insert(identity(&status), path);
    Ok(())
}

/// Make all names of a file links to the copy at `copy`.
fn link_all(root: &OwnedFd, file: &Borrowed, copy: &[u8]) -> io::Result<()> {
    let (copy_parent, copy_name) = split(copy);
    let copy_parent = beneath(root, copy_parent, ResolveFlags::empty())?;
    for path in &file.names {
        let Some((parent, name)) = find_name(root, path, file.inode)? else {
            continue;
        };
        let before = rustix::fs::fstat(&parent)?;
        rustix::fs::unlinkat(&parent, name, AtFlags::empty())?;
        rustix::fs::linkat(&copy_parent, copy_name, &parent, name, AtFlags::empty())?;
        // The folder has the time that its entry gave it.
        rustix::fs::futimens(&parent, &times(modified(&before)))?;
    }
    Ok(())
}

/// Open the file that was made in place of a lower one, where a name of it is left.
fn find_empty<'a>(root: &OwnedFd, file: &'a Borrowed) -> io::Result<Option<(OwnedFd, &'a [u8])>> {
    for path in &file.names {
        if let Some((parent, name)) = find_name(root, path, file.inode)? {
            let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let empty = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
            return Ok(Some((empty, path)));
        }
    }
    Ok(None)
}

/// The parent and name at `path`, if that is still this inode.
fn find_name<'a>(root: &OwnedFd, path: &'a [u8], inode: u64) -> io::Result<Option<(OwnedFd, &'a [u8])>> {
    let (parent, name) = split(path);
    let parent = match beneath(root, parent, ResolveFlags::empty()) {
        Ok(parent) => parent,
        Err(Errno::LOOP | Errno::NOENT | Errno::NOTDIR | Errno::XDEV) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(status) if status.st_ino == inode => Ok(Some((parent, name))),
        Ok(_) | Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
