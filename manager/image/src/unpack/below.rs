//! Looking at the layers below one that is being made, as an overlay of them would show them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, SeekFrom, Stat};
use rustix::io::Errno;

use super::name::split;
use super::tree::{beneath, file_type, is_whiteout};
use super::{Failure, xattr};
use crate::archive::Time;

/// What is copied at once, or not at all if it is zeros.
const PIECE_BYTES: usize = 64 << 10;

/// What was copied from the layers below. Links there are links here: the same content is copied once.
pub(super) struct Copies<T> {
    bytes_max: u64,
    pub(super) bytes: u64,
    /// By device and inode below, where the copy is.
    pub(super) made: HashMap<(u64, u64), T>,
}

/// Where the content of a file of the layers below is.
pub(super) enum Source<T> {
    Copied(T),
    Below(File, Stat),
}

impl<T: Copy> Copies<T> {
    pub(super) fn new(bytes_max: u64) -> Copies<T> {
        Copies {
            bytes_max,
            bytes: 0,
            made: HashMap::new(),
        }
    }

    /// Find the file that `entry` is a link to. `hidden`: its own layer shows nothing from below there.
    pub(super) fn find(
        &mut self,
        entry: &[u8],
        target: &[u8],
        hidden: bool,
        below: &[OwnedFd],
    ) -> Result<Source<T>, Failure> {
        let refused = |why: &str| Failure::Rule {
            entry: Some(entry.to_vec()),
            rule: format!("its link target {:?} {why}", String::from_utf8_lossy(target)),
        };
        let found = if hidden {
            Ok(None)
        } else {
            find_file(below, target)
        };
        let found = found.map_err(system(entry, "copy the link target of"))?;
        let Some((model, status)) = found else {
            return Err(refused("is neither in this layer nor in those below"));
        };
        if file_type(&status) != FileType::RegularFile {
            return Err(refused("is in a layer below, and not a regular file"));
        }
        if let Some(copy) = self.made.get(&identity(&status)) {
            return Ok(Source::Copied(*copy));
        }
        let size = size_of(&status);
        if size > self.bytes_max - self.bytes {
            return Err(refused(
                "is in a layer below, and makes this layer larger than allowed",
            ));
        }
        self.bytes += size;
        Ok(Source::Below(File::from(model), status))
    }
}

/// What a file is told by, whatever its names.
pub(super) fn identity(status: &Stat) -> (u64, u64) {
    (status.st_dev, status.st_ino)
}

pub(super) fn size_of(status: &Stat) -> u64 {
    u64::try_from(status.st_size).unwrap_or(0)
}

pub(crate) fn modified(status: &Stat) -> Time {
    Time {
        seconds: status.st_mtime,
        nanoseconds: u32::try_from(status.st_mtime_nsec).unwrap_or(0),
    }
}

pub(super) fn system<'a>(entry: &'a [u8], action: &'static str) -> impl Fn(io::Error) -> Failure + 'a {
    move |source| Failure::System {
        entry: entry.to_vec(),
        action,
        source,
    }
}

/// Copy a file's content to where it is to begin, and leave holes and zeros out. Where this ends is left to the caller.
pub(super) fn copy_data(from: &File, to: &mut (impl Write + Seek), begin: u64, size: u64) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut end = 0;
    while end < size {
        let start = match rustix::fs::seek(from, SeekFrom::Data(end)) {
            Err(Errno::NXIO) => break,
            start => start?,
        };
        end = rustix::fs::seek(from, SeekFrom::Hole(start))?;
        rustix::fs::seek(from, SeekFrom::Start(start))?;
        to.seek(io::SeekFrom::Start(begin + start))?;
        let mut left = from.take(end - start);
        loop {
            let got = left.read(&mut piece)?;
            match &piece[..got] {
                [] => break,
                // An image tells of no holes, whatever its files had.
                zeros if zeros.iter().all(|b| *b == 0) => {
                    to.seek(io::SeekFrom::Current(got as i64))?;
                }
                bytes => to.write_all(bytes)?,
            }
        }
    }
    Ok(())
}

/// The file at `path` that an overlay of the layers below shows.
pub(super) fn find_file(below: &[OwnedFd], path: &[u8]) -> io::Result<Option<(OwnedFd, Stat)>> {
    let (parent, name) = split(path);
    topmost(below, path, |layer| {
        let parent = beneath(layer, parent, ResolveFlags::NO_SYMLINKS)?;
        let status = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if is_whiteout(&status) {
            return Err(Errno::NOTDIR);
        }
        let flags = match file_type(&status) {
            FileType::RegularFile => OFlags::RDONLY | OFlags::NONBLOCK,
            // To tell what it is; a device must not be opened.
            _ => OFlags::PATH,
        };
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok((rustix::fs::openat(&parent, name, flags, Mode::empty())?, status))
    })
}

/// The folder at `path` that an overlay of these layers would show on top.
pub(super) fn find_folder(layers: &[OwnedFd], path: &[u8]) -> io::Result<Option<OwnedFd>> {
    topmost(layers, path, |layer| {
        beneath(layer, path, ResolveFlags::NO_SYMLINKS)
    })
}

/// What the first of these layers has that has anything at `path`, unless it hides there what the others have.
fn topmost<T>(
    layers: &[OwnedFd],
    path: &[u8],
    find: impl Fn(&OwnedFd) -> Result<T, Errno>,
) -> io::Result<Option<T>> {
    for layer in layers {
        match find(layer) {
            Ok(found) => return Ok(Some(found)),
            // A file, link or whiteout, there or on the way, hides the layers below.
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
pub(super) fn has_opaque_ancestor(layer: &OwnedFd, path: &[u8]) -> bool {
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
