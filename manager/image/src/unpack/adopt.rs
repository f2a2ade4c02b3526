//! What a layer takes from those below it, once they are there: the looks of folders that it has files in but no
//! entry for, and the content of files that it has hard links to. What it hides of them is looked at, too.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, SeekFrom, Stat, Uid};
use rustix::io::Errno;

use super::tree::{beneath, file_type, folder_flags, is_whiteout, times};
use super::{Borrowed, Failure, Implied, xattr};
use crate::archive::Time;

/// Complete the layer at `root` from the layers below, top layer first. Returns the bytes of the files copied, which
/// may be `bytes_max` at most: an entry of no size can name a file of any.
///
/// In an overlay the topmost folder's owner, mode, attributes and times are the ones that show.
pub(crate) fn adopt(root: &Path, implied: &Implied, below: &[&Path], bytes_max: u64) -> Result<u64, Failure> {
    let open = |path: &Path| open_root(path).map_err(system(b"/", "open the layer's root"));
    let root = open(root)?;
    let below: Vec<OwnedFd> = below.iter().map(|path| open(path)).collect::<Result<_, _>>()?;
    let mut copies = Copies {
        bytes_max,
        bytes: 0,
        made: HashMap::new(),
    };
    for file in &implied.files {
        fill(&root, file, &below, &mut copies)?;
    }
    for path in &implied.folders {
        adopt_folder(&root, path, &below).map_err(system(path, "copy the attributes of"))?;
    }
    for path in &implied.whiteouts {
        drop_idle_whiteout(&root, path, &below).map_err(system(path, "look at what is hidden by"))?;
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
    if find_file(root, below, path)?.is_none() {
        let before = rustix::fs::fstat(&parent)?;
        rustix::fs::unlinkat(&parent, name, AtFlags::empty())?;
        rustix::fs::futimens(&parent, &times(modified(&before)))?;
    }
    Ok(())
}

/// What was copied from the layers below.
struct Copies<'a> {
    bytes_max: u64,
    bytes: u64,
    /// By device and inode below, where the copy is. Links there are links here: the same content is copied once.
    made: HashMap<(u64, u64), &'a [u8]>,
}

fn system<'a>(entry: &'a [u8], action: &'static str) -> impl Fn(io::Error) -> Failure + 'a {
    move |source| Failure::System {
        entry: entry.to_vec(),
        action,
        source,
    }
}

/// The folders that took nothing from the layers below: they have the time at which they were made.
pub(crate) fn undated(root: &Path, implied: &Implied, below: &[&Path]) -> io::Result<HashSet<Vec<u8>>> {
    let root = open_root(root)?;
    let below: Vec<OwnedFd> = below
        .iter()
        .map(|path| open_root(path))
        .collect::<Result<_, _>>()?;
    let mut undated = HashSet::new();
    for path in &implied.folders {
        if has_opaque_ancestor(&root, path) || visible(&below, path)?.is_none() {
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
    if let Some(model) = visible(below, path)?
        && !has_opaque_ancestor(root, path)
    {
        copy_looks(&model, &folder)?;
    }
    Ok(())
}

/// Owner, attributes, mode and time.
pub(crate) fn copy_looks(model: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
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

fn modified(status: &Stat) -> Time {
    Time {
        seconds: status.st_mtime,
        nanoseconds: u32::try_from(status.st_mtime_nsec).unwrap_or(0),
    }
}

/// Make the empty file that stands for a lower layer's a copy of it.
fn fill<'a>(
    root: &OwnedFd,
    file: &'a Borrowed,
    below: &[OwnedFd],
    copies: &mut Copies<'a>,
) -> Result<(), Failure> {
    let entry = file.names[1..].first().unwrap_or(&file.target);
    let failed = system(entry, "copy the link target of");
    let Some((empty, path)) = find_empty(root, file).map_err(&failed)? else {
        // Later entries have replaced all its names.
        return Ok(());
    };
    let refused = |why: &str| Failure::Rule {
        entry: Some(entry.clone()),
        rule: format!(
            "its link target {:?} {why}",
            String::from_utf8_lossy(&file.target)
        ),
    };
    let Some((model, status)) = find_file(root, below, &file.target).map_err(&failed)? else {
        return Err(refused("is neither in this layer nor in those below"));
    };
    if file_type(&status) != FileType::RegularFile {
        return Err(refused("is in a layer below, and not a regular file"));
    }
    let model_id = (status.st_dev, status.st_ino);
    if let Some(copy) = copies.made.get(&model_id) {
        return link_all(root, file, copy).map_err(&failed);
    }
    let size = u64::try_from(status.st_size).unwrap_or(0);
    if size > copies.bytes_max - copies.bytes {
        return Err(refused(
            "is in a layer below, and makes this layer larger than allowed",
        ));
    }
    copies.bytes += size;
    let model = File::from(model);
    copy_data(&model, &empty.try_clone().map_err(&failed)?.into(), size).map_err(&failed)?;
    copy_looks(&model.into(), &empty).map_err(&failed)?;
    copies.made.insert(model_id, path);
    Ok(())
}

/// Copy what a file has, and leave its holes holes.
fn copy_data(from: &File, mut to: &File, size: u64) -> io::Result<()> {
    let mut end = 0;
    while end < size {
        let start = match rustix::fs::seek(from, SeekFrom::Data(end)) {
            Err(Errno::NXIO) => break,
            start => start?,
        };
        end = rustix::fs::seek(from, SeekFrom::Hole(start))?;
        rustix::fs::seek(from, SeekFrom::Start(start))?;
        to.seek(io::SeekFrom::Start(start))?;
        io::copy(&mut from.take(end - start), &mut to)?;
    }
    to.set_len(size)
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

/// The file at `path` that an overlay of the layers below shows beneath this one.
fn find_file(root: &OwnedFd, below: &[OwnedFd], path: &[u8]) -> io::Result<Option<(OwnedFd, Stat)>> {
    if has_opaque_ancestor(root, path) {
        return Ok(None);
    }
    let (parent, name) = split(path);
    for layer in below {
        match beneath(layer, parent, ResolveFlags::NO_SYMLINKS) {
            Ok(parent) => match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(status) if is_whiteout(&status) => return Ok(None),
                Ok(status) => {
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                    let flags = match file_type(&status) {
                        FileType::RegularFile => flags,
                        // To tell what it is; a device must not be opened.
                        _ => OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                    };
                    let file = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
                    return Ok(Some((file, status)));
                }
                Err(Errno::NOENT) => {}
                Err(e) => return Err(e.into()),
            },
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

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
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
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    for (end, _) in slashes {
        match beneath(layer, &path[..end], ResolveFlags::NO_SYMLINKS) {
            Ok(folder) if xattr::is_opaque(folder.as_fd()) => return true,
            Ok(_) => {}
            // From the top, as nothing is below what is not there: paths may be deep, and many.
            Err(_) => return false,
        }
    }
    false
}
