//! One object of a layer as a tar entry: its looks, and the open file if it has data.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::FOREIGN;
use crate::archive::{Entry, Kind, Time};

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
    /// Where its data is.
    pub(crate) file: Option<File>,
}

/// Read what is called `name` in `parent`. `None` for a socket, which no archive can have, and for what has gone or
/// was replaced since `status` was taken.
pub(crate) fn item(
    parent: BorrowedFd<'_>,
    name: &[u8],
    status: &Stat,
    path: &[u8],
) -> io::Result<Option<Item>> {
    let kind = match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Symlink => Kind::Symlink,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Directory => Kind::Directory,
        FileType::Fifo => Kind::Fifo,
        _ => return Ok(None),
    };
    let read = || -> io::Result<Item> {
        let (mut status, mut file) = (*status, None);
        if kind == Kind::File {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let opened = rustix::fs::openat(parent, name, flags, Mode::empty())?;
            let now = rustix::fs::fstat(&opened)?;
            if (now.st_dev, now.st_ino) != (status.st_dev, status.st_ino) {
                return Err(Errno::NOENT.into());
            }
            status = now;
            file = Some(File::from(opened));
        }
        let link = match kind {
            Kind::Symlink => rustix::fs::readlinkat(parent, name, Vec::new())?.into_bytes(),
            _ => Vec::new(),
        };
        let xattrs = xattrs(parent, name)?;
        let entry = looks(path.to_vec(), kind, link, &status, xattrs);
        Ok(Item { entry, file })
    };
    match read() {
        Ok(item) => Ok(Some(item)),
        Err(e) if e.kind() == io::ErrorKind::NotFound || is_replaced(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

/// What the calls answer when there is another kind of thing by now.
fn is_replaced(error: &io::Error) -> bool {
    let replaced = [Errno::LOOP, Errno::NOTDIR, Errno::INVAL, Errno::NXIO];
    Errno::from_io_error(error).is_some_and(|errno| replaced.contains(&errno))
}

/// The folder itself, as its own `.`.
pub(crate) fn folder(folder: BorrowedFd<'_>, path: Vec<u8>) -> io::Result<Entry> {
    let status = rustix::fs::fstat(folder)?;
    let xattrs = xattrs(folder, b".")?;
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
        mode: status.st_mode & 0o7777,
        uid: status.st_uid,
        gid: status.st_gid,
        modified: Time {
            seconds: status.st_mtime,
            nanoseconds: u32::try_from(status.st_mtime_nsec).unwrap_or(0),
        },
        device,
        xattrs,
    }
}

/// The attributes that go along with an object, sorted.
fn xattrs(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = beside(parent, name);
    let mut names = vec![0u8; XATTR_BYTES_MAX];
    let length = match rustix::fs::llistxattr(path.as_slice(), &mut names) {
        Err(Errno::OPNOTSUPP) => 0,
        length => length?,
    };
    let mut xattrs = Vec::new();
    let mut value = vec![0u8; if length == 0 { 0 } else { XATTR_BYTES_MAX }];
    for name in names[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        if FOREIGN.iter().any(|foreign| foreign.as_bytes() == name) {
            return Err(io::Error::other(format!(
                "it has the attribute {}: the overlay was mounted with options that are not ours",
                String::from_utf8_lossy(name)
            )));
        }
        if LEFT_OUT.iter().any(|left_out| name.starts_with(left_out)) {
            continue;
        }
        match rustix::fs::lgetxattr(path.as_slice(), name, &mut value) {
            Ok(size) => xattrs.push((name.to_vec(), value[..size].to_vec())),
            // Removed meanwhile.
            Err(Errno::NODATA) => {}
            Err(e) => return Err(e.into()),
        }
    }
    xattrs.sort();
    Ok(xattrs)
}

/// A path for calls that take no descriptor of a link or a device; the parent's descriptor keeps it from being
/// swapped, and the last component is not followed.
pub(super) fn beside(parent: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}
