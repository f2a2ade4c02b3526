//! `tmpcopyup`: a new tmpfs starts with what the image has at its place: folders, files, links, nodes, with owner,
//! mode, time of change and extended attributes.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use libc::{S_IFDIR, S_IFLNK, S_IFMT, S_IFREG};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{
    FileStat, Mode, SFlag, UtimensatFlags, fchmod, fstat, fstatat, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, symlinkat};

use super::inside;
use crate::error::{Context as _, Result};
use crate::sys::xattr;

/// Deeper than any image is by accident; the copy holds two descriptors a level.
const DEPTH_MAX: u32 = 256;

/// Copies what is below `path` in the rootfs into `tmpfs`, a mount that nobody else sees yet.
pub(super) fn copy(root: BorrowedFd, path: &Path, tmpfs: BorrowedFd) -> Result<()> {
    let what = || {
        format!(
            "copy {} of the rootfs into the tmpfs over it",
            inside::absolute(path).display()
        )
    };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let source = match inside::open(root, path, flags, nix::fcntl::ResolveFlag::empty()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.context(what)?,
    };
    let target = open_folder(tmpfs, c".").context(what)?;
    folder(source, target.as_fd(), 0).context(what)?;
    Ok(())
}

fn folder(source: OwnedFd, target: BorrowedFd, depth: u32) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(io::Error::other(format!(
            "folders are nested more than {DEPTH_MAX} deep"
        )));
    }
    let found = fstat(&source)?;
    attributes(source.as_fd(), target)?;
    let mut listing = Dir::from_fd(source)?;
    // The names first: the listing's descriptor is also what they are opened from.
    let names = listing.iter().map(|entry| Ok(entry?.file_name().to_owned()));
    let names = names.collect::<io::Result<Vec<CString>>>()?;
    for name in names {
        if name.as_c_str() != c"." && name.as_c_str() != c".." {
            entry(listing.as_fd(), target, &name, depth)?;
        }
    }
    dress(target, &found)
}

fn entry(from: BorrowedFd, to: BorrowedFd, name: &CStr, depth: u32) -> io::Result<()> {
    let found = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    match found.st_mode & S_IFMT {
        S_IFDIR => {
            mkdirat(to, name, Mode::from_bits_truncate(0o700))?;
            let target = open_folder(to, name)?;
            folder(open_folder(from, name)?, target.as_fd(), depth + 1)
        }
        S_IFREG => file(from, to, name, &found),
        S_IFLNK => {
            let link = readlinkat(from, name)?;
            symlinkat(link.as_os_str(), to, name)?;
            Ok(own(to, name, &found)?)
        }
        kind => {
            let mode = Mode::from_bits_truncate(found.st_mode & 0o7777);
            match mknodat(to, name, SFlag::from_bits_truncate(kind), mode, found.st_rdev) {
                // A user namespace may not make devices; a tmpfs in one could not use them either.
                Err(Errno::EPERM) => return Ok(()),
                other => other?,
            }
            Ok(own(to, name, &found)?)
        }
    }
}

fn file(from: BorrowedFd, to: BorrowedFd, name: &CStr, found: &FileStat) -> io::Result<()> {
    let flags = OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    // Not to hang if somebody has just put a fifo there.
    let source = openat(
        from,
        name,
        flags | OFlag::O_RDONLY | OFlag::O_NONBLOCK,
        Mode::empty(),
    )?;
    let new = flags | OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
    let target = openat(to, name, new, Mode::from_bits_truncate(0o600))?;
    let (mut source, mut target) = (File::from(source), File::from(target));
    io::copy(&mut source, &mut target)?;
    dress(target.as_fd(), found)?;
    attributes(source.as_fd(), target.as_fd())
}

/// Owner, mode and time; the owner first, since a change of it takes the set-id bits away.
fn dress(target: BorrowedFd, found: &FileStat) -> io::Result<()> {
    fchownat(
        target,
        c"",
        Some(Uid::from_raw(found.st_uid)),
        Some(Gid::from_raw(found.st_gid)),
        AtFlags::AT_EMPTY_PATH,
    )?;
    fchmod(target, Mode::from_bits_truncate(found.st_mode & 0o7777))?;
    let time = TimeSpec::new(found.st_mtime, found.st_mtime_nsec);
    let name = format!("/proc/self/fd/{}", target.as_raw_fd());
    Ok(utimensat(
        nix::fcntl::AT_FDCWD,
        name.as_str(),
        &time,
        &time,
        UtimensatFlags::FollowSymlink,
    )?)
}

fn own(folder: BorrowedFd, name: &CStr, found: &FileStat) -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(found.st_uid), Gid::from_raw(found.st_gid));
    fchownat(folder, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
}

/// Attributes that a tmpfs can't hold, or that only the host's root may set, are left behind.
fn attributes(source: BorrowedFd, target: BorrowedFd) -> io::Result<()> {
    let names = match xattr::list(source) {
        Err(error) if is_unsupported(&error) => return Ok(()),
        other => other?,
    };
    for name in names.split_inclusive(|byte| *byte == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        match xattr::get(source, name).and_then(|value| xattr::set(target, name, &value)) {
            Err(error) if is_unsupported(&error) || error.kind() == io::ErrorKind::PermissionDenied => {}
            other => other?,
        }
    }
    Ok(())
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENODATA))
}

fn open_folder(parent: BorrowedFd, name: &CStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}
