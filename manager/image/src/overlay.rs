//! What an overlay of layers shows, read from the layers themselves: for exports, commits and diffs of containers.
//!
//! No mount is needed, so it is the same for a running and a stopped container and leaves nothing behind. A running
//! container changes its upper layer meanwhile, and may do so with malice: each folder is opened with openat2
//! beneath its layer's root without following any link, and what is in it by one name without following. What
//! disappears meanwhile is left out. Source: the kernel's Documentation/filesystems/overlayfs.rst.

mod changes;
mod data;
mod entry;
mod links;
mod live;
mod names;
mod resolve;
mod tree;

pub(crate) use changes::{Change, changes};
pub(crate) use data::Data;
pub(crate) use entry::{Item, Xattr, all_xattrs, item, kernel_path, opened};
pub(crate) use live::is_of_kernel;
pub(crate) use resolve::folder;
pub(crate) use tree::{export, walk};

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::Owners;
use crate::archive::Entry;
use crate::marks::marks;
use crate::unpack::join;
use names::Names;

/// `PATH_MAX`, without its NUL.
const PATH_BYTES_MAX: usize = 4095;

/// What could not be read, and why.
pub(crate) type Failure = (Vec<u8>, io::Error);

/// The layers of an overlay, top first.
pub(crate) struct Layers {
    roots: Vec<OwnedFd>,
    /// It is a container's tree with all that is mounted in it, not a layer.
    is_live: bool,
    /// By which the files of the top one are on the host. Those of the layers below are as the image has them.
    owners: Option<Owners>,
}

/// A folder that an overlay shows, as a place in it.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    /// From the root, without a leading slash; empty for the root.
    pub(crate) path: Vec<u8>,
    /// The layers that it is merged from, top first.
    pub(crate) layers: Vec<usize>,
}

/// A folder that is open in each of its layers.
pub(crate) struct OpenFolder {
    parts: Vec<Part>,
}

struct Part {
    layer: usize,
    folder: OwnedFd,
    /// Whether regular files in it can be whiteouts (`overlay.opaque` is `x`).
    marks_files: bool,
}

/// What a name in a folder stands for.
pub(crate) struct Found<'a> {
    pub(crate) parent: BorrowedFd<'a>,
    pub(crate) status: Stat,
    /// The layer that shows it.
    pub(crate) layer: usize,
    /// For a folder, the layers that it is merged from, top first; else none.
    pub(crate) layers: Vec<usize>,
}

impl Layers {
    pub(crate) fn open<'a>(
        paths: impl IntoIterator<Item = &'a Path>,
        owners: Option<Owners>,
    ) -> io::Result<Layers> {
        // The paths are the store's own. That of a mounted image is a link of /proc.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |path: &Path| rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from);
        let roots: io::Result<Vec<OwnedFd>> = paths.into_iter().map(open).collect();
        Ok(Layers {
            roots: roots?,
            is_live: false,
            owners,
        })
    }

    /// A tree by itself, with all that is mounted in it but the kernel's own file systems.
    pub(crate) fn of_tree(root: OwnedFd, owners: Option<Owners>) -> Layers {
        Layers {
            roots: vec![root],
            is_live: true,
            owners,
        }
    }

    /// The root folder, merged from all layers.
    pub(crate) fn root(&self) -> Folder {
        Folder {
            path: Vec::new(),
            layers: (0..self.roots.len()).collect(),
        }
    }

    /// Give what was found in a layer the owners that the container sees.
    pub(crate) fn own(&self, entry: &mut Entry, layer: usize) {
        if let (Some(owners), 0) = (&self.owners, layer) {
            owners.seen(entry);
        }
    }

    /// The entry of a folder that is open, as its topmost layer has it.
    fn looks(&self, open: &OpenFolder, path: &[u8]) -> io::Result<Option<Entry>> {
        let Some(part) = open.parts.first() else {
            return Ok(None);
        };
        let mut looks = entry::folder(part.folder.as_fd(), path.to_vec())?;
        self.own(&mut looks, part.layer);
        Ok(Some(looks))
    }

    /// Read what is called `name` in an open folder, see [`item`].
    fn item(&self, found: &Found<'_>, name: &[u8], path: &[u8]) -> io::Result<Option<Item>> {
        let mut item = item(found.parent, name, path)?;
        if let Some(item) = &mut item {
            self.own(&mut item.entry, found.layer);
        }
        Ok(item)
    }

    /// Open a folder in each of its layers. One that has gone meanwhile, or is another thing now, has no parts.
    pub(crate) fn enter(&self, folder: &Folder) -> io::Result<OpenFolder> {
        let mut parts = Vec::new();
        for &layer in &folder.layers {
            match beneath(&self.roots[layer], &folder.path, self.is_live) {
                Ok(open) => {
                    let opaque = mark(open.as_fd(), marks().opaque);
                    parts.push(Part {
                        layer,
                        marks_files: opaque == Some(b'x'),
                        folder: open,
                    });
                    // It was made anew since it was found, and hides the layers below now. (The kernel asks no root.)
                    if opaque == Some(b'y') && !folder.path.is_empty() {
                        break;
                    }
                }
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(OpenFolder { parts })
    }
}

impl Folder {
    /// The path of what is called `name` in this folder. Processes that go down step by step make longer ones than
    /// the kernel takes.
    pub(crate) fn join(&self, name: &[u8]) -> Result<Vec<u8>, Failure> {
        let path = join(&self.path, name);
        if path.len() > PATH_BYTES_MAX {
            let rule = format!(
                "its path is longer than {PATH_BYTES_MAX} bytes, which is the most that can be opened"
            );
            return Err((path, io::Error::other(rule)));
        }
        Ok(path)
    }
}

impl OpenFolder {
    /// The folder as its topmost layer has it.
    pub(crate) fn top(&self) -> Option<BorrowedFd<'_>> {
        self.parts.first().map(|part| part.folder.as_fd())
    }

    /// Whether its topmost layer hides what the layers below have here.
    pub(crate) fn is_opaque(&self) -> bool {
        self.top()
            .is_some_and(|folder| mark(folder, marks().opaque) == Some(b'y'))
    }

    /// All names in any layer and in those of `below`, sorted; [`OpenFolder::find`] tells which of them show.
    fn names(&self, below: Option<&OpenFolder>, bytes_max: usize) -> io::Result<Names> {
        let parts = self
            .parts
            .iter()
            .chain(below.into_iter().flat_map(|below| &below.parts));
        Names::read(parts.map(|part| part.folder.as_fd()), bytes_max)
    }

    /// Whether no layer has a name in it.
    fn is_empty(&self) -> io::Result<bool> {
        for part in &self.parts {
            for entry in Dir::read_from(&part.folder)? {
                if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// What `name` shows: the topmost layer's, unless that is a whiteout; folders are merged down to an opaque one.
    pub(crate) fn find(&self, name: &[u8]) -> io::Result<Option<Found<'_>>> {
        let mut found: Option<Found<'_>> = None;
        for part in &self.parts {
            let Some(status) = status(part.folder.as_fd(), name)? else {
                continue;
            };
            if part.is_whiteout(name, &status) {
                break;
            }
            let is_folder = FileType::from_raw_mode(status.st_mode) == FileType::Directory;
            match &mut found {
                Some(folder) if is_folder => folder.layers.push(part.layer),
                Some(_) => break,
                None => {
                    found = Some(Found {
                        parent: part.folder.as_fd(),
                        status,
                        layer: part.layer,
                        layers: if is_folder { vec![part.layer] } else { Vec::new() },
                    });
                }
            }
            if !is_folder || part.hides_below(name) {
                break;
            }
        }
        Ok(found)
    }

    /// Whether the topmost layer hides what the layers below have under this name.
    pub(crate) fn has_whiteout(&self, name: &[u8]) -> io::Result<bool> {
        let Some(part) = self.parts.first() else {
            return Ok(false);
        };
        let status = status(part.folder.as_fd(), name)?;
        Ok(status.is_some_and(|status| part.is_whiteout(name, &status)))
    }
}

impl Part {
    fn is_whiteout(&self, name: &[u8], status: &Stat) -> bool {
        match FileType::from_raw_mode(status.st_mode) {
            FileType::CharacterDevice => status.st_rdev == 0,
            FileType::RegularFile if self.marks_files && status.st_size == 0 => {
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(&self.folder, name, flags, Mode::empty())
                    .is_ok_and(|file| entry::has_attribute(file.as_fd(), marks().whiteout))
            }
            _ => false,
        }
    }

    fn hides_below(&self, name: &[u8]) -> bool {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.folder, name, flags, Mode::empty())
            .is_ok_and(|folder| mark(folder.as_fd(), marks().opaque) == Some(b'y'))
    }
}

/// The first byte of one of overlayfs's own attributes.
fn mark(folder: BorrowedFd<'_>, attribute: &CStr) -> Option<u8> {
    let mut value = [0u8; 8];
    match rustix::fs::fgetxattr(folder, attribute, &mut value) {
        Ok(1) => Some(value[0]),
        _ => None,
    }
}

fn status(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(status) => Ok(Some(status)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn beneath(root: &OwnedFd, path: &[u8], crosses_mounts: bool) -> Result<OwnedFd, Errno> {
    let path: &[u8] = if path.is_empty() { b"." } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    if !crosses_mounts {
        resolve |= ResolveFlags::NO_XDEV;
    }
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            // The kernel could not tell whether a concurrent rename moved a `..` out.
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests;
