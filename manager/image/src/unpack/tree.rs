//! The folder that a layer becomes: every object is made by descriptor, beneath the root.
//!
//! Paths are opened with openat2: first allowing no symlink at all, then, as some archives do put entries through a
//! link of their own, only such links as stay beneath the root. The last component is never followed. Nobody but
//! this thread writes in the folder, so what was looked at is what is changed.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::later::{Later, Looks};
use super::sink::Sink;
use super::{Borrowed, Failure, Implied, Problem, name, xattr};
use crate::archive::{Entry, Kind, Time};
use crate::marks::is_in_user_namespace;
use crate::removal::remove_at;

/// Folders kept open: archives list a folder's files together.
const OPEN_FOLDERS_MAX: usize = 32;
pub(super) const COPY_BUFFER_BYTES: usize = 128 << 10;
/// What a path costs in memory beside its bytes: its place in a collection that grows, and the allocator's share.
const REMEMBERED_BYTES: usize = 100;

pub(super) struct Tree {
    root: Rc<Folder>,
    /// By the path that an entry had, most recently used last.
    open: Vec<(Vec<u8>, Rc<Folder>)>,
    implied: HashSet<Vec<u8>>,
    later: Later,
    /// Of what is in memory to the layer's end.
    remembered_bytes: usize,
    remembered_bytes_max: usize,
    /// Files of lower layers that hard links of this one have brought up, by inode.
    borrowed: HashMap<u64, Borrowed>,
    whiteouts: Vec<Vec<u8>>,
    buffer: Vec<u8>,
}

/// An open folder, and where it is: an entry's path may go through links of its own layer.
struct Folder {
    fd: OwnedFd,
    path: Vec<u8>,
}

impl Folder {
    /// The path of what is called `name` in it.
    fn join(&self, name: &[u8]) -> Vec<u8> {
        name::join(&self.path, name)
    }
}

impl Deref for Folder {
    type Target = OwnedFd;

    fn deref(&self) -> &OwnedFd {
        &self.fd
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn system(action: &'static str) -> impl Fn(Errno) -> Problem {
    move |e| Problem::System(action, e.into())
}

impl Tree {
    /// What has to be remembered may take so many bytes.
    pub(super) fn open(root: &Path, remembered_bytes_max: usize) -> io::Result<Tree> {
        let root = rustix::fs::open(root, folder_flags() | OFlags::NOFOLLOW, Mode::empty())?;
        Ok(Tree {
            later: Later::new(&root)?,
            root: Rc::new(Folder {
                fd: root,
                path: Vec::new(),
            }),
            open: Vec::new(),
            implied: HashSet::from([Vec::new()]),
            remembered_bytes: 0,
            remembered_bytes_max,
            borrowed: HashMap::new(),
            whiteouts: Vec::new(),
            buffer: vec![0; COPY_BUFFER_BYTES],
        })
    }
}

impl Sink for Tree {
    fn directory(&mut self, path: &[&[u8]], entry: &Entry) -> Result<(), Problem> {
        let folder = match path.split_last() {
            None => Rc::clone(&self.root),
            Some((name, parents)) => {
                let parent = self.folder(parents)?;
                self.make_folder(&parent, name, Mode::from_raw_mode(0o700))?;
                let flags = folder_flags() | OFlags::NOFOLLOW;
                Rc::new(Folder {
                    fd: rustix::fs::openat(&parent, *name, flags, Mode::empty()).map_err(system("open"))?,
                    path: parent.join(name),
                })
            }
        };
        rustix::fs::fchown(
            &folder,
            Some(Uid::from_raw(entry.uid)),
            Some(Gid::from_raw(entry.gid)),
        )
        .map_err(system("change the owner of"))?;
        xattr::set_open(folder.as_fd(), &entry.xattrs)?;
        rustix::fs::fchmod(&folder, Mode::from_raw_mode(entry.mode)).map_err(system("change the mode of"))?;
        let default_acl = entry.xattrs.iter().find(|(name, _)| name == xattr::DEFAULT_ACL);
        if self.implied.remove(&folder.path) {
            let bytes = folder.path.len() + REMEMBERED_BYTES;
            self.remembered_bytes = self.remembered_bytes.saturating_sub(bytes);
        }
        let default_acl = default_acl.map(|(_, value)| value.as_slice());
        self.later
            .add(&folder.path, entry.modified, default_acl)
            .map_err(|e| Problem::System("keep the time of", e))
    }

    fn file(
        &mut self,
        path: &[&[u8]],
        entry: &Entry,
        mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> Result<(), Problem> {
        let (parent, name) = self.place(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = self.make(&parent, name, |parent| {
            rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))
        })?;
        let mut file = File::from(fd);
        let write = |e| Problem::System("write", e);
        match &entry.extents {
            None => {
                copy(&mut read, &mut file, &mut self.buffer, u64::MAX)?;
            }
            Some(extents) => {
                for extent in extents {
                    file.seek(io::SeekFrom::Start(extent.offset)).map_err(write)?;
                    copy(&mut read, &mut file, &mut self.buffer, extent.length)?;
                }
                file.set_len(entry.size).map_err(write)?;
            }
        }
        rustix::fs::fchown(
            &file,
            Some(Uid::from_raw(entry.uid)),
            Some(Gid::from_raw(entry.gid)),
        )
        .map_err(system("change the owner of"))?;
        // chown takes away setuid bits and capabilities, so both come after it.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode)).map_err(system("change the mode of"))?;
        xattr::set_open(file.as_fd(), &entry.xattrs)?;
        rustix::fs::futimens(&file, &times(entry.modified)).map_err(system("set the times of"))
    }

    fn symlink(&mut self, path: &[&[u8]], entry: &Entry) -> Result<(), Problem> {
        let (parent, name) = self.place(path)?;
        self.make(&parent, name, |parent| {
            rustix::fs::symlinkat(entry.link.as_slice(), parent, name)
        })?;
        looks(&parent, name, entry)
    }

    fn node(&mut self, path: &[&[u8]], entry: &Entry) -> Result<(), Problem> {
        let kind = match entry.kind {
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        if kind != FileType::Fifo && is_in_user_namespace() {
            // As docker and podman do without root: containers get the devices of their configuration all the same.
            tracing::debug!(path = %String::from_utf8_lossy(&path.join(&b"/"[..])), "left out a device, which only root can make");
            return Ok(());
        }
        let (parent, name) = self.place(path)?;
        let device = rustix::fs::makedev(entry.device.0, entry.device.1);
        let mode = Mode::from_raw_mode(entry.mode);
        self.make(&parent, name, |parent| {
            rustix::fs::mknodat(parent, name, kind, mode, device)
        })?;
        rustix::fs::chownat(
            &parent,
            name,
            Some(Uid::from_raw(entry.uid)),
            Some(Gid::from_raw(entry.gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(system("change the owner of"))?;
        rustix::fs::chmodat(&parent, name, mode, AtFlags::empty()).map_err(system("change the mode of"))?;
        looks(&parent, name, entry)
    }

    fn hard_link(&mut self, path: &[&[u8]], target: &[&[u8]]) -> Result<(), Problem> {
        let Some((target_name, target_parents)) = target.split_last() else {
            return Err(name::no_link_target(target, "is the layer's root").into());
        };
        let from = self.lookup(target_parents)?;
        let found = match &from {
            Some(from) => status(from, target_name)?,
            None => None,
        };
        let (from, inode) = match (from, found) {
            (_, Some(status)) if is_whiteout(&status) => {
                return Err(name::no_link_target(target, "is hidden by a whiteout").into());
            }
            (_, Some(status)) if file_type(&status) == FileType::Directory => {
                return Err(name::no_link_target(target, "is a folder").into());
            }
            (Some(from), Some(status)) => (from, status.st_ino),
            _ => self.borrow(target)?,
        };
        let (parent, name) = self.place(path)?;
        self.make(&parent, name, |parent| {
            rustix::fs::linkat(&from, *target_name, parent, name, AtFlags::empty())
        })?;
        if self.borrowed.contains_key(&inode) {
            let name = parent.join(name);
            self.remember_path(&name)?;
            self.borrowed
                .entry(inode)
                .and_modify(|borrowed| borrowed.names.push(name));
        }
        Ok(())
    }

    /// Hide `name` of this folder in the layers below. What this layer itself has there stays.
    fn whiteout(&mut self, parents: &[&[u8]], name: &[u8]) -> Result<(), Problem> {
        let parent = self.folder(parents)?;
        match status(&parent, name)? {
            None => {
                let path = parent.join(name);
                self.remember_path(&path)?;
                self.whiteouts.push(path);
                rustix::fs::mknodat(&parent, name, FileType::CharacterDevice, Mode::empty(), 0)
                    .map_err(system("make the whiteout"))
            }
            Some(status) if file_type(&status) == FileType::Directory => {
                let folder =
                    rustix::fs::openat(&parent, name, folder_flags() | OFlags::NOFOLLOW, Mode::empty())
                        .map_err(system("open"))?;
                xattr::set_opaque(folder.as_fd())
            }
            // What a link has brought up is still the lower layer's.
            Some(status) if self.borrowed.contains_key(&status.st_ino) => {
                self.clear(&parent, name)?;
                self.whiteout(parents, name)
            }
            Some(_) => Ok(()),
        }
    }

    /// Hide all of this folder in the layers below.
    fn opaque(&mut self, path: &[&[u8]]) -> Result<(), Problem> {
        let folder = self.folder(path)?;
        xattr::set_opaque(folder.as_fd())
    }

    /// Take away what an entry before has made in the root.
    fn remove_from_root(&mut self, name: &[u8]) -> Result<(), Problem> {
        let root = Rc::clone(&self.root);
        match status(&root, name)? {
            Some(_) => self.clear(&root, name),
            None => Ok(()),
        }
    }
}

impl Tree {
    /// Do what had to wait, and tell which folders had no entry.
    pub(super) fn finish(mut self) -> Result<Implied, Failure> {
        self.open.clear();
        for path in &self.implied {
            // They were made under whatever umask this process has.
            let Ok(folder) = beneath(&self.root, path, ResolveFlags::NO_SYMLINKS) else {
                continue;
            };
            rustix::fs::fchmod(&folder, Mode::from_raw_mode(0o755))
                .map_err(|e| system("change the mode of")(e).named(path))?;
        }
        let has_acls = self.later.has_acls();
        let kept = |e| Problem::System("read the times of folders for", e).named(b"/");
        for looks in self.later.read().map_err(kept)? {
            let looks = looks.map_err(kept)?;
            // What was a folder may have been replaced by a later entry.
            let Ok(folder) = beneath(&self.root, &looks.path, ResolveFlags::NO_SYMLINKS) else {
                continue;
            };
            date(&folder, &looks, has_acls).map_err(|problem| problem.named(&looks.path))?;
        }
        Ok(Implied {
            folders: self.implied.into_iter().collect(),
            files: self.borrowed.into_values().collect(),
            whiteouts: self.whiteouts,
        })
    }

    /// Bring a file of a layer below up into this one, as overlayfs does when a link to it is made. The layers below
    /// may not be there yet: for now the file is an empty one, see [`super::adopt`].
    fn borrow(&mut self, target: &[&[u8]]) -> Result<(Rc<Folder>, u64), Problem> {
        let (parent, name) = self.place(target)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&parent, name, flags, Mode::empty()).map_err(system("make"))?;
        let inode = rustix::fs::fstat(&file).map_err(system("look at"))?.st_ino;
        let target = parent.join(name);
        self.remember_path(&target)?;
        self.borrowed.insert(
            inode,
            Borrowed {
                names: vec![target.clone()],
                target,
                inode,
            },
        );
        Ok((parent, inode))
    }

    fn remember_path(&mut self, path: &[u8]) -> Result<(), Problem> {
        self.remembered_bytes += path.len() + REMEMBERED_BYTES;
        if self.remembered_bytes > self.remembered_bytes_max {
            return Err(Problem::Rule(format!(
                "folders without an entry, whiteouts and links to layers below take more than {} bytes of memory",
                self.remembered_bytes_max
            )));
        }
        Ok(())
    }

    /// The open parent and the name of an entry that is to be made.
    fn place<'p>(&mut self, path: &[&'p [u8]]) -> Result<(Rc<Folder>, &'p [u8]), Problem> {
        let (name, parents) = path
            .split_last()
            .ok_or_else(|| Problem::Rule("it has no name".into()))?;
        Ok((self.folder(parents)?, name))
    }

    /// Make one object; what an earlier entry made in its place goes first, as in any tar.
    fn make<T>(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        make: impl Fn(&OwnedFd) -> Result<T, Errno>,
    ) -> Result<T, Problem> {
        match make(parent) {
            Err(Errno::EXIST) => {
                self.clear(parent, name)?;
                make(parent).map_err(system("make"))
            }
            result => result.map_err(system("make")),
        }
    }

    fn clear(&mut self, parent: &OwnedFd, name: &[u8]) -> Result<(), Problem> {
        // Open folders may lie beneath what goes.
        self.open.clear();
        // The components of a path have no NUL.
        let name = CString::new(name).map_err(|_| system("replace")(Errno::INVAL))?;
        remove_at(parent.as_fd(), &name).map_err(system("replace"))
    }

    /// Make a folder, or keep the one that is there. One that takes the place of something else hides what lies
    /// below, as that did.
    fn make_folder(&mut self, parent: &OwnedFd, name: &[u8], mode: Mode) -> Result<(), Problem> {
        match rustix::fs::mkdirat(parent, name, mode) {
            Err(Errno::EXIST) => {}
            result => return result.map_err(system("make")),
        }
        let Some(status) = status(parent, name)? else {
            return Err(system("make")(Errno::NOENT));
        };
        if file_type(&status) == FileType::Directory {
            return Ok(());
        }
        self.clear(parent, name)?;
        rustix::fs::mkdirat(parent, name, mode).map_err(system("make"))?;
        let folder = rustix::fs::openat(parent, name, folder_flags() | OFlags::NOFOLLOW, Mode::empty())
            .map_err(system("open"))?;
        xattr::set_opaque(folder.as_fd())
    }

    /// An open folder; it and its parents are made where the archive had no entry for them.
    fn folder(&mut self, path: &[&[u8]]) -> Result<Rc<Folder>, Problem> {
        if let Some(folder) = self.lookup(path)? {
            return Ok(folder);
        }
        let Some((name, parents)) = path.split_last() else {
            return Ok(Rc::clone(&self.root));
        };
        let parent = self.folder(parents)?;
        let key = parent.join(name);
        match status(&parent, name)? {
            Some(status) if is_whiteout(&status) => {}
            Some(status) if file_type(&status) == FileType::Symlink => {
                return Err(Problem::Rule(name::LEADS_OUT.into()));
            }
            Some(status) if file_type(&status) != FileType::Directory => {
                return Err(name::not_a_folder(&key).into());
            }
            _ => {
                self.remember_path(&key)?;
                self.implied.insert(key);
            }
        }
        self.make_folder(&parent, name, Mode::from_raw_mode(0o755))?;
        self.lookup(path)?
            .ok_or_else(|| system("open the parent of")(Errno::NOENT))
    }

    /// An open folder if there is one at this path.
    fn lookup(&mut self, path: &[&[u8]]) -> Result<Option<Rc<Folder>>, Problem> {
        if path.is_empty() {
            return Ok(Some(Rc::clone(&self.root)));
        }
        let key = path.join(&b'/');
        if let Some(position) = self.open.iter().rposition(|(k, _)| *k == key) {
            let found = self.open.remove(position);
            let folder = Rc::clone(&found.1);
            self.open.push(found);
            return Ok(Some(folder));
        }
        let mut path = key.clone();
        let mut opened = beneath(&self.root, &key, ResolveFlags::NO_SYMLINKS);
        if matches!(opened, Err(Errno::LOOP)) {
            opened = beneath(&self.root, &key, ResolveFlags::empty());
            if let Err(Errno::XDEV | Errno::LOOP) = opened {
                return Err(Problem::Rule(name::LEADS_OUT.into()));
            }
            if let Ok(folder) = &opened {
                path = self.path_of(folder)?;
            }
        }
        match opened {
            Ok(fd) => {
                if self.open.len() == OPEN_FOLDERS_MAX {
                    self.open.remove(0);
                }
                let folder = Rc::new(Folder { fd, path });
                self.open.push((key, Rc::clone(&folder)));
                Ok(Some(folder))
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(e) => Err(system("open the parent of")(e)),
        }
    }

    /// Where in the layer a folder is, as the kernel tells.
    fn path_of(&self, folder: &OwnedFd) -> Result<Vec<u8>, Problem> {
        let absolute = |fd: &OwnedFd| {
            rustix::fs::readlinkat(CWD, format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new())
                .map(CString::into_bytes)
                .map_err(system("find the parent of"))
        };
        let (root, folder) = (absolute(&self.root)?, absolute(folder)?);
        let below = folder.strip_prefix(root.as_slice());
        match below.and_then(|below| below.strip_prefix(b"/").or(below.is_empty().then_some(below))) {
            Some(path) => Ok(path.to_vec()),
            None => Err(system("find the parent of")(Errno::XDEV)),
        }
    }
}

/// Copy up to `most` bytes of the entry's data. Returns how many there were.
pub(super) fn copy(
    read: &mut impl FnMut(&mut [u8]) -> io::Result<usize>,
    file: &mut impl Write,
    buffer: &mut [u8],
    most: u64,
) -> Result<u64, Problem> {
    let mut left = most;
    while left > 0 {
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let got = read(&mut buffer[..want]).map_err(Problem::Read)?;
        if got == 0 {
            break;
        }
        file.write_all(&buffer[..got])
            .map_err(|e| Problem::System("write", e))?;
        left -= got as u64;
    }
    Ok(most - left)
}

pub(super) fn folder_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC
}

/// Open the folder at `path` without leaving `root`, its mount, or the ordinary links.
pub(crate) fn beneath(root: &OwnedFd, path: &[u8], more: ResolveFlags) -> Result<OwnedFd, Errno> {
    let path: &[u8] = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV | more;
    loop {
        match rustix::fs::openat2(root, path, folder_flags(), Mode::empty(), resolve) {
            // The kernel could not tell whether a concurrent rename moved a `..` out.
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
}

fn status(parent: &OwnedFd, name: &[u8]) -> Result<Option<rustix::fs::Stat>, Problem> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(status) => Ok(Some(status)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(system("look at")(e)),
    }
}

pub(super) fn file_type(status: &rustix::fs::Stat) -> FileType {
    FileType::from_raw_mode(status.st_mode)
}

pub(crate) fn is_whiteout(status: &rustix::fs::Stat) -> bool {
    file_type(status) == FileType::CharacterDevice && status.st_rdev == 0
}

/// Give a folder the looks that had to wait. `has_acls`: an earlier entry may have given it an ACL.
fn date(folder: &OwnedFd, looks: &Looks, has_acls: bool) -> Result<(), Problem> {
    match &looks.default_acl {
        Some(acl) => xattr::set_open_acl(folder.as_fd(), acl)?,
        None if has_acls => xattr::remove_acl(folder.as_fd())?,
        None => {}
    }
    rustix::fs::futimens(folder, &times(looks.modified)).map_err(system("set the times of"))
}

/// Owner, attributes and times of what has no descriptor of its own.
fn looks(parent: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), Problem> {
    let parent: BorrowedFd<'_> = parent.as_fd();
    if entry.kind == Kind::Symlink {
        let owner = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
        rustix::fs::chownat(parent, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(system("change the owner of"))?;
    }
    xattr::set(parent, name, &entry.xattrs)?;
    rustix::fs::utimensat(parent, name, &times(entry.modified), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(system("set the times of"))
}

pub(crate) fn times(modified: Time) -> Timestamps {
    let time = Timespec {
        tv_sec: modified.seconds,
        tv_nsec: modified.nanoseconds.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
