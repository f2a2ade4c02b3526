//! One object of a layer as a tar entry: its looks, and its data if it has any.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::data::{Data, extents};
use crate::archive::{Entry, Kind};
use crate::marks::marks;
use crate::unpack::modified;

/// The kernel's bound of a list of attributes, and of one value.
const XATTR_BYTES_MAX: usize = 64 << 10;
/// Not taken along: overlayfs's own marks, and what only means something on this machine.
const LEFT_OUT: [&[u8]; 5] = [
    b"trusted.overlay.",
    b"user.overlay.",
    b"security.selinux",
    b"security.ima",
    b"security.evm",
];

/// An object of a layer.
pub(crate) struct Item {
    pub(crate) entry: Entry,
    /// What may have data.
    object: Option<OwnedFd>,
    /// Names one object, whatever its names.
    pub(super) inode: (u64, u64),
    pub(super) link_count: u64,
}

impl Item {
    /// A folder, which has one name only.
    pub(super) fn of_folder(entry: Entry) -> Item {
        Item {
            entry,
            object: None,
            inode: (0, 0),
            link_count: 1,
        }
    }

    /// Open its data, holes and all, as zeros.
    pub(crate) fn open_whole(&mut self, cancelled: &CancellationToken) -> io::Result<Data> {
        let (Kind::File, Some(object)) = (self.entry.kind, &self.object) else {
            return Ok(Data::none());
        };
        Ok(Data::of(data_of(object)?, self.entry.size, None, cancelled))
    }

    /// Open its data, and tell its holes in its entry. A hard link has no data of its own.
    pub(crate) fn open(&mut self, cancelled: &CancellationToken) -> io::Result<Data> {
        let (Kind::File, Some(object)) = (self.entry.kind, &self.object) else {
            return Ok(Data::none());
        };
        let file = data_of(object)?;
        self.entry.extents = extents(&file, self.entry.size)?;
        Ok(Data::of(
            file,
            self.entry.size,
            self.entry.extents.as_ref(),
            cancelled,
        ))
    }
}

/// Read what is called `name` in `parent`, through one descriptor, so that all that is told of it is of one object. A
/// device is never opened for reading, whatever a container puts in a file's place meanwhile: some act on that.
///
/// `None` for a socket, which no archive can have, for a folder, and for what has gone.
pub(crate) fn item(parent: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> io::Result<Option<Item>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let object = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(object) => object,
        Err(Errno::NOENT) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    opened(object, path)
}

/// The same for what is open.
pub(crate) fn opened(object: OwnedFd, path: &[u8]) -> io::Result<Option<Item>> {
    let status = rustix::fs::fstat(&object)?;
    let kind = match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Symlink => Kind::Symlink,
        // A whiteout: it was deleted after it was found.
        FileType::CharacterDevice if status.st_rdev == 0 => return Ok(None),
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Fifo => Kind::Fifo,
        _ => return Ok(None),
    };
    let link = match kind {
        Kind::Symlink => rustix::fs::readlinkat(&object, "", Vec::new())?.into_bytes(),
        _ => Vec::new(),
    };
    let xattrs = xattrs(object.as_fd())?;
    Ok(Some(Item {
        entry: looks(path.to_vec(), kind, link, &status, xattrs),
        object: Some(object),
        inode: (status.st_dev, status.st_ino),
        link_count: status.st_nlink,
    }))
}

/// The entry of a folder that is open.
pub(crate) fn folder(folder: BorrowedFd<'_>, path: Vec<u8>) -> io::Result<Entry> {
    let status = rustix::fs::fstat(folder)?;
    let xattrs = xattrs(folder)?;
    Ok(looks(path, Kind::Directory, Vec::new(), &status, xattrs))
}

fn looks(
    mut path: Vec<u8>,
    kind: Kind,
    link: Vec<u8>,
    status: &Stat,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
) -> Entry {
    if kind == Kind::Directory {
        // As all tars write them; the root is `./`.
        path.extend_from_slice(if path.is_empty() { b"./" } else { b"/" });
    }
    let device = match kind {
        Kind::CharDevice | Kind::BlockDevice => (
            rustix::fs::major(status.st_rdev),
            rustix::fs::minor(status.st_rdev),
        ),
        _ => (0, 0),
    };
    Entry {
        path,
        link,
        kind,
        size: match kind {
            Kind::File => status.st_size.cast_unsigned(),
            _ => 0,
        },
        extents: None,
        mode: status.st_mode & 0o7777,
        uid: status.st_uid,
        gid: status.st_gid,
        modified: modified(status),
        device,
        xattrs,
    }
}

/// The attributes that go along with an object, sorted.
fn xattrs(object: BorrowedFd<'_>) -> io::Result<Vec<Xattr>> {
    all_xattrs(object, |name| {
        if marks().foreign.iter().any(|foreign| foreign.to_bytes() == name) {
            return Err(io::Error::other(format!(
                "it has the attribute {}: the overlay was mounted with options that are not ours",
                String::from_utf8_lossy(name)
            )));
        }
        Ok(!LEFT_OUT.iter().any(|left_out| name.starts_with(left_out)))
    })
}

/// Name and value.
pub(crate) type Xattr = (Vec<u8>, Vec<u8>);

/// Those attributes of an object that are wanted, sorted.
pub(crate) fn all_xattrs(
    object: BorrowedFd<'_>,
    is_wanted: impl Fn(&[u8]) -> io::Result<bool>,
) -> io::Result<Vec<Xattr>> {
    let path = itself(object);
    let mut names = vec![0u8; XATTR_BYTES_MAX];
    let length = match rustix::fs::listxattr(path.as_str(), &mut names) {
        Err(Errno::OPNOTSUPP) => 0,
        length => length?,
    };
    let mut xattrs = Vec::new();
    let mut value = vec![0u8; if length == 0 { 0 } else { XATTR_BYTES_MAX }];
    for name in names[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        if !is_wanted(name)? {
            continue;
        }
        match rustix::fs::getxattr(path.as_str(), name, &mut value) {
            Ok(size) => xattrs.push((name.to_vec(), value[..size].to_vec())),
            // Removed meanwhile.
            Err(Errno::NODATA) => {}
            Err(e) => return Err(e.into()),
        }
    }
    xattrs.sort();
    Ok(xattrs)
}

/// Whether an object has an attribute, whatever its value.
pub(super) fn has_attribute(object: BorrowedFd<'_>, name: &CStr) -> bool {
    rustix::fs::getxattr(itself(object), name, &mut [0u8; 8]).is_ok()
}

fn data_of(object: &OwnedFd) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(
        itself(object.as_fd()),
        flags,
        Mode::empty(),
    )?))
}

/// What the kernel calls the place of an object.
pub(crate) fn kernel_path(object: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    Ok(rustix::fs::readlink(itself(object), Vec::new())?.into_bytes())
}

/// A path for calls that take no such descriptor: it leads to the object that is open, and to no other.
fn itself(object: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", object.as_raw_fd())
}
