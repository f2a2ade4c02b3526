//! Two unpacked layers compared, file by file: what was unpacked just now, and what lies in the store.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::finding::Difference;
use crate::overlay::{Xattr, all_xattrs};
use crate::unpack::{beneath, is_whiteout, join};

const BUFFER_BYTES: usize = 128 << 10;
/// The kernel's own, of this inode on this machine.
const NOT_OF_THE_LAYER: [&[u8]; 3] = [b"security.selinux", b"security.ima", b"security.evm"];

/// What was compared, and how it differs.
pub(super) struct Compared<'a> {
    pub(super) path: &'a [u8],
    /// Of a file's content.
    pub(super) bytes: u64,
    pub(super) differences: Vec<Difference>,
}

/// An error of the tree that was unpacked just now, or of who is told.
pub(super) enum Stop<E> {
    Wanted(Vec<u8>, io::Error),
    Told(E),
}

/// Compare the tree at `found` with the one at `wanted`, and tell of each object in either. Folders in `undated` have
/// whatever time they were made at.
pub(super) fn compare<E>(
    wanted: &Path,
    found: OwnedFd,
    undated: &HashSet<Vec<u8>>,
    tell: &mut dyn FnMut(Compared<'_>) -> Result<(), E>,
) -> Result<(), Stop<E>> {
    let root = |path: &Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from)
    };
    let of_root = |e| Stop::Wanted(Vec::new(), e);
    let mut walk = Walk {
        wanted: root(wanted).map_err(of_root)?,
        found,
        undated,
        links: HashMap::new(),
        linked: HashMap::new(),
        buffers: [vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]],
        tell,
    };
    let (wanted_root, found_root) = (Object::of_folder(&walk.wanted), Object::of_folder(&walk.found));
    let (wanted_root, found_root) = (wanted_root.map_err(of_root)?, found_root.map_err(of_root)?);
    walk.pair(b"", &wanted_root, Ok(found_root))?;
    // Depth first, a folder before what is in it.
    let mut folders = vec![Vec::new()];
    while let Some(path) = folders.pop() {
        folders.extend(walk.folder(&path)?.into_iter().rev());
    }
    Ok(())
}

struct Walk<'a, E> {
    wanted: OwnedFd,
    found: OwnedFd,
    undated: &'a HashSet<Vec<u8>>,
    /// Of files with several names: by inode in one tree the inode in the other, both ways.
    links: HashMap<u64, u64>,
    linked: HashMap<u64, u64>,
    buffers: [Vec<u8>; 2],
    tell: &'a mut dyn FnMut(Compared<'_>) -> Result<(), E>,
}

impl<E> Walk<'_, E> {
    /// Compare what is in one folder, and give the folders in it that are in both trees.
    fn folder(&mut self, path: &[u8]) -> Result<Vec<Vec<u8>>, Stop<E>> {
        let there = |e: io::Error| Stop::Wanted(path.to_vec(), e);
        let wanted = open_folder(&self.wanted, path).map_err(there)?;
        let wanted_names = names(&wanted).map_err(there)?;
        let found = open_folder(&self.found, path).and_then(|folder| Ok((names(&folder)?, folder)));
        let (found_names, found) = match found {
            Ok(found) => found,
            Err(error) => {
                self.say(path, 0, vec![Difference::Unreadable(error)])?;
                return Ok(Vec::new());
            }
        };
        let mut folders = Vec::new();
        for name in &wanted_names {
            let path = join(path, name);
            let object = Object::open(&wanted, name).map_err(|e| Stop::Wanted(path.clone(), e))?;
            let is_folder = self.pair(&path, &object, Object::open(&found, name))?;
            if is_folder {
                folders.push(path);
            }
        }
        for name in found_names.difference(&wanted_names) {
            self.say(&join(path, name), 0, vec![Difference::Extra])?;
        }
        Ok(folders)
    }

    /// Compare one object; whether it is a folder in both trees.
    fn pair(&mut self, path: &[u8], wanted: &Object, found: io::Result<Object>) -> Result<bool, Stop<E>> {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                let is_gone = error.kind() == io::ErrorKind::NotFound;
                let difference = if is_gone {
                    Difference::Missing
                } else {
                    Difference::Unreadable(error)
                };
                self.say(path, 0, vec![difference])?;
                return Ok(false);
            }
        };
        if wanted.kind() != found.kind() {
            let difference = Difference::Kind(wanted.kind(), found.kind());
            self.say(path, 0, vec![difference])?;
            return Ok(false);
        }
        let there = |e: io::Error| Stop::Wanted(path.to_vec(), e);
        let mut differences = looks(wanted, &found, self.undated.contains(path));
        let of_wanted = wanted.xattrs().map_err(there)?;
        match found.xattrs() {
            Ok(of_found) => differences.extend(xattrs(&of_wanted, &of_found)),
            Err(e) => differences.push(Difference::Unreadable(e)),
        }
        let mut bytes = 0;
        match wanted.kind() {
            "symbolic link" => {
                let target = wanted.target().map_err(there)?;
                match found.target() {
                    Ok(other) if other == target => {}
                    Ok(other) => differences.push(Difference::Target(target, other)),
                    Err(e) => differences.push(Difference::Unreadable(e)),
                }
            }
            "file" => {
                bytes = wanted.size();
                if bytes != found.size() {
                    differences.push(Difference::Size(bytes, found.size()));
                } else if !self.was_compared(wanted, &found)
                    && let Some(difference) = self.content(wanted, &found).map_err(there)?
                {
                    differences.push(difference);
                }
            }
            _ => {}
        }
        if wanted.kind() != "folder" {
            differences.extend(self.links(wanted, &found));
        }
        self.say(path, bytes, differences)?;
        Ok(wanted.kind() == "folder")
    }

    /// Whether the same two files were seen under another name.
    fn was_compared(&self, wanted: &Object, found: &Object) -> bool {
        self.links.get(&wanted.status.st_ino) == Some(&found.status.st_ino)
    }

    fn links(&mut self, wanted: &Object, found: &Object) -> Vec<Difference> {
        let (wanted, found) = (&wanted.status, &found.status);
        let mut differences = Vec::new();
        if wanted.st_nlink != found.st_nlink {
            differences.push(Difference::LinkCount(wanted.st_nlink, found.st_nlink));
        }
        if wanted.st_nlink > 1 || found.st_nlink > 1 {
            let there = *self.links.entry(wanted.st_ino).or_insert(found.st_ino);
            let back = *self.linked.entry(found.st_ino).or_insert(wanted.st_ino);
            if (there, back) != (found.st_ino, wanted.st_ino) {
                differences.push(Difference::Links);
            }
        }
        differences
    }

    /// Compare two files of one size. An error is one of `wanted`.
    fn content(&mut self, wanted: &Object, found: &Object) -> io::Result<Option<Difference>> {
        let mut wanted = wanted.read()?;
        let mut found = match found.read() {
            Ok(found) => found,
            Err(e) => return Ok(Some(Difference::Unreadable(e))),
        };
        let [left, right] = &mut self.buffers;
        let mut offset = 0;
        loop {
            let got = wanted.read(left)?;
            if got == 0 {
                return Ok(None);
            }
            if let Err(e) = found.read_exact(&mut right[..got]) {
                return Ok(Some(Difference::Unreadable(e)));
            }
            if left[..got] != right[..got] {
                let same = left.iter().zip(right.iter()).take_while(|(a, b)| a == b).count();
                return Ok(Some(Difference::Content(offset + same as u64)));
            }
            offset += got as u64;
        }
    }

    fn say(&mut self, path: &[u8], bytes: u64, differences: Vec<Difference>) -> Result<(), Stop<E>> {
        let compared = Compared {
            path,
            bytes,
            differences,
        };
        (self.tell)(compared).map_err(Stop::Told)
    }
}

/// An object of a tree, open so that nothing is done by that.
struct Object {
    fd: OwnedFd,
    status: Stat,
}

impl Object {
    fn open(parent: &OwnedFd, name: &[u8]) -> io::Result<Object> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Object::of(rustix::fs::openat(parent, name, flags, Mode::empty())?)
    }

    fn of_folder(folder: &OwnedFd) -> io::Result<Object> {
        Object::of(folder.try_clone()?)
    }

    fn of(fd: OwnedFd) -> io::Result<Object> {
        let status = rustix::fs::fstat(&fd)?;
        Ok(Object { fd, status })
    }

    fn kind(&self) -> &'static str {
        match FileType::from_raw_mode(self.status.st_mode) {
            FileType::RegularFile => "file",
            FileType::Directory => "folder",
            FileType::Symlink => "symbolic link",
            _ if is_whiteout(&self.status) => "whiteout",
            FileType::CharacterDevice => "character device",
            FileType::BlockDevice => "block device",
            FileType::Fifo => "fifo",
            _ => "socket",
        }
    }

    fn size(&self) -> u64 {
        self.status.st_size.cast_unsigned()
    }

    fn xattrs(&self) -> io::Result<Vec<Xattr>> {
        all_xattrs(self.fd.as_fd(), |name| Ok(!NOT_OF_THE_LAYER.contains(&name)))
    }

    fn target(&self) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(&self.fd, "", Vec::new())?.into_bytes())
    }

    /// The content of a regular file.
    fn read(&self) -> io::Result<File> {
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::NOATIME | OFlags::CLOEXEC;
        Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
    }
}

fn looks(wanted: &Object, found: &Object, is_undated: bool) -> Vec<Difference> {
    let (wanted, found) = (&wanted.status, &found.status);
    let mut differences = Vec::new();
    let mode = |status: &Stat| status.st_mode & 0o7777;
    if mode(wanted) != mode(found) {
        differences.push(Difference::Mode(mode(wanted), mode(found)));
    }
    let owner = |status: &Stat| (status.st_uid, status.st_gid);
    // A whiteout is made without a time, and may get the group of its folder; nobody sees either.
    let is_seen = !is_whiteout(wanted);
    if owner(wanted) != owner(found) && is_seen {
        differences.push(Difference::Owner(owner(wanted), owner(found)));
    }
    let device = |status: &Stat| {
        (
            rustix::fs::major(status.st_rdev),
            rustix::fs::minor(status.st_rdev),
        )
    };
    if device(wanted) != device(found) {
        differences.push(Difference::Device(device(wanted), device(found)));
    }
    let modified = |status: &Stat| (status.st_mtime, u32::try_from(status.st_mtime_nsec).unwrap_or(0));
    if modified(wanted) != modified(found) && !is_undated && is_seen {
        differences.push(Difference::Modified(modified(wanted), modified(found)));
    }
    differences
}

fn xattrs(wanted: &[Xattr], found: &[Xattr]) -> Vec<Difference> {
    let (wanted, found): (BTreeSet<_>, BTreeSet<_>) = (wanted.iter().collect(), found.iter().collect());
    let differing = wanted.symmetric_difference(&found).map(|(name, _)| name.clone());
    let names: BTreeSet<Vec<u8>> = differing.collect();
    names.into_iter().map(Difference::Xattr).collect()
}

fn open_folder(root: &OwnedFd, path: &[u8]) -> io::Result<OwnedFd> {
    Ok(beneath(root, path, ResolveFlags::NO_SYMLINKS)?)
}

fn names(folder: &OwnedFd) -> io::Result<BTreeSet<Vec<u8>>> {
    let list = Dir::read_from(folder)?;
    let names = list.map(|entry| entry.map(|entry| entry.file_name().to_bytes().to_vec()));
    let names: Result<BTreeSet<Vec<u8>>, Errno> = names.collect();
    let mut names = names?;
    names.retain(|name| name != b"." && name != b"..");
    Ok(names)
}
