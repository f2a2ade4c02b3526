//! Unpacking a tar archive in a folder that others change meanwhile.
//!
//! Unlike a layer's folder ([`crate::unpack`]), this one may turn under our hands: each object is made by a descriptor
//! of its parent, under a name that was free, and gets its owner, mode and times by its own descriptor. A folder is
//! never replaced by another thing, nor another thing by a folder.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use crate::Owners;
use crate::archive::{Archive, Entry, Failure as ArchiveFailure, Kind, Time};
use crate::unpack::{Limits, Tally, beneath, components, set_xattrs, times};

const BUFFER_BYTES: usize = 128 << 10;
/// For the times of folders, which come last.
const REMEMBERED_BYTES_MAX: usize = 12 << 20;

/// Whom the files are to belong to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Owner {
    /// As each entry says.
    OfEntry,
    One {
        uid: u32,
        gid: u32,
    },
}

/// Why an archive was not unpacked to its end.
pub(crate) enum Failure {
    /// An entry could not be made.
    Entry(Vec<u8>, io::Error),
    /// The archive breaks a rule, or ends too early.
    Archive(io::Error),
}

/// Unpack `stream` in `folder`. `mapped`: owners are those of a user namespace.
pub(crate) fn extract(
    stream: impl Read,
    folder: &OwnedFd,
    owner: Owner,
    mapped: Option<&Owners>,
    cancelled: &CancellationToken,
) -> Result<(), Failure> {
    let limits = Limits::default();
    let mut archive = Archive::new(stream, limits.entries);
    let mut tally = Tally::new(&limits);
    let mut extraction = Extraction {
        root: folder,
        dated: Vec::new(),
        remembered_bytes: 0,
        buffer: vec![0; BUFFER_BYTES],
    };
    loop {
        if cancelled.is_cancelled() {
            let ended = "the container has ended, or nobody waits for it any more";
            return Err(Failure::Archive(io::Error::new(io::ErrorKind::BrokenPipe, ended)));
        }
        let Some(mut entry) = archive.next().map_err(of_archive)? else {
            break;
        };
        tally
            .add(&entry)
            .map_err(io::Error::other)
            .and_then(|()| {
                if let Owner::One { uid, gid } = owner {
                    (entry.uid, entry.gid) = (uid, gid);
                }
                mapped.map_or(Ok(()), |mapped| mapped.placed(&mut entry))
            })
            .and_then(|()| extraction.put(&entry, &mut archive))
            .map_err(|e| Failure::Entry(entry.path, e))?;
    }
    extraction.date_folders();
    Ok(())
}

fn of_archive(failure: ArchiveFailure) -> Failure {
    match failure {
        ArchiveFailure::Read(e) => Failure::Archive(e),
        ArchiveFailure::Rule(None, rule) => Failure::Archive(io::Error::other(rule)),
        ArchiveFailure::Rule(Some(entry), rule) => Failure::Entry(entry, io::Error::other(rule)),
    }
}

struct Extraction<'a> {
    root: &'a OwnedFd,
    /// Folders, and the times that they are to have.
    dated: Vec<(Vec<u8>, Time)>,
    remembered_bytes: usize,
    buffer: Vec<u8>,
}

impl Extraction<'_> {
    fn put<R: Read>(&mut self, entry: &Entry, archive: &mut Archive<R>) -> io::Result<()> {
        let path = components(&entry.path).map_err(io::Error::other)?;
        let Some((name, parents)) = path.split_last() else {
            // The folder itself: it is the container's, and stays as it is.
            return Ok(());
        };
        let parent = self.parent(parents)?;
        let is_folder = entry.kind == Kind::Directory;
        let there = match rustix::fs::statat(&parent, *name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) => Some(FileType::from_raw_mode(status.st_mode) == FileType::Directory),
            Err(Errno::NOENT) => None,
            Err(e) => return Err(e.into()),
        };
        match there {
            Some(true) if !is_folder => {
                return Err(io::Error::other("cannot overwrite directory with non-directory"));
            }
            Some(false) if is_folder => {
                return Err(io::Error::other("cannot overwrite non-directory with directory"));
            }
            Some(false) => rustix::fs::unlinkat(&parent, *name, AtFlags::empty())?,
            Some(true) | None => {}
        }
        match entry.kind {
            Kind::Directory => self.folder(&parent, name, &path.join(&b'/'), entry, there.is_some()),
            Kind::File => self.file(&parent, name, entry, archive),
            Kind::HardLink => {
                let target = components(&entry.link).map_err(io::Error::other)?;
                let Some((target_name, target_parents)) = target.split_last() else {
                    return Err(io::Error::other("it is a hard link to the folder itself"));
                };
                let from = beneath(self.root, &target_parents.join(&b'/'), ResolveFlags::NO_SYMLINKS)?;
                Ok(rustix::fs::linkat(
                    &from,
                    *target_name,
                    &parent,
                    *name,
                    AtFlags::empty(),
                )?)
            }
            Kind::Symlink => {
                rustix::fs::symlinkat(entry.link.as_slice(), &parent, *name)?;
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let link = rustix::fs::openat(&parent, *name, flags, Mode::empty())?;
                own(link.as_fd(), entry)?;
                let nofollow = AtFlags::SYMLINK_NOFOLLOW;
                Ok(rustix::fs::utimensat(
                    &parent,
                    *name,
                    &times(entry.modified),
                    nofollow,
                )?)
            }
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => node(&parent, name, entry),
        }
    }

    /// The open folder of an entry; those that the archive has no entry for are made.
    fn parent(&self, path: &[&[u8]]) -> io::Result<OwnedFd> {
        let mut here = rustix::fs::openat(self.root, ".", FOLDER, Mode::empty())?;
        for name in path {
            let made = rustix::fs::mkdirat(&here, *name, Mode::from_raw_mode(0o755));
            match made {
                Ok(()) | Err(Errno::EXIST) => here = open_folder(&here, name)?,
                Err(e) => return Err(e.into()),
            }
            if made.is_ok() {
                // Whatever this process masks.
                rustix::fs::fchmod(&here, Mode::from_raw_mode(0o755))?;
            }
        }
        Ok(here)
    }

    fn folder(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        entry: &Entry,
        is_there: bool,
    ) -> io::Result<()> {
        if !is_there {
            rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700))?;
        }
        let folder = open_folder(parent, name)?;
        own(folder.as_fd(), entry)?;
        rustix::fs::fchmod(&folder, Mode::from_raw_mode(entry.mode))?;
        set_xattrs(folder.as_fd(), &entry.xattrs)?;
        self.remembered_bytes += path.len() + size_of::<(Vec<u8>, Time)>();
        if self.remembered_bytes <= REMEMBERED_BYTES_MAX {
            self.dated.push((path.to_vec(), entry.modified));
        }
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        archive: &mut Archive<R>,
    ) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(
            parent,
            name,
            flags,
            Mode::from_raw_mode(0o600),
        )?);
        let whole = [(0, entry.size)];
        let extents = entry.extents.as_ref().map(|extents| {
            let extents = extents.iter().map(|extent| (extent.offset, extent.length));
            extents.collect::<Vec<_>>()
        });
        for (offset, length) in extents.as_deref().unwrap_or(&whole) {
            file.seek(SeekFrom::Start(*offset))?;
            self.copy(archive, &mut file, *length)?;
        }
        file.set_len(entry.size)?;
        own(file.as_fd(), entry)?;
        // chown takes away setuid bits and capabilities, so both come after it.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode))?;
        set_xattrs(file.as_fd(), &entry.xattrs)?;
        Ok(rustix::fs::futimens(&file, &times(entry.modified))?)
    }

    fn copy<R: Read>(&mut self, archive: &mut Archive<R>, file: &mut File, length: u64) -> io::Result<()> {
        let mut left = length;
        while left > 0 {
            let want = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let got = archive.read_data(&mut self.buffer[..want])?;
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            file.write_all(&self.buffer[..got])?;
            left -= got as u64;
        }
        Ok(())
    }

    /// Folders get their times when nothing is made in them any more. One that has moved meanwhile keeps what it has.
    fn date_folders(&self) {
        for (path, modified) in self.dated.iter().rev() {
            let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
            let found = names.iter().try_fold(None::<OwnedFd>, |here, name| {
                let here = here.as_ref().unwrap_or(self.root);
                open_folder(here, name).map(Some)
            });
            if let Ok(Some(folder)) = found {
                let _ = rustix::fs::futimens(&folder, &times(*modified));
            }
        }
    }
}

fn node(parent: &OwnedFd, name: &[u8], entry: &Entry) -> io::Result<()> {
    let kind = match entry.kind {
        Kind::CharDevice => FileType::CharacterDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        _ => FileType::Fifo,
    };
    let device = rustix::fs::makedev(entry.device.0, entry.device.1);
    rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(0o600), device)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&node)?.st_mode) != kind {
        return Err(io::Error::other("somebody has put another thing in its place"));
    }
    own(node.as_fd(), entry)?;
    // By its descriptor: a name could have become a link.
    let itself = format!("/proc/self/fd/{}", node.as_raw_fd());
    rustix::fs::chmodat(CWD, &itself, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
    Ok(rustix::fs::utimensat(
        CWD,
        &itself,
        &times(entry.modified),
        AtFlags::empty(),
    )?)
}

fn own(object: BorrowedFd<'_>, entry: &Entry) -> io::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
    Ok(rustix::fs::chownat(object, "", uid, gid, AtFlags::EMPTY_PATH)?)
}

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A folder by its single name. Volumes and other mounts of the container are entered.
fn open_folder(parent: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(parent, name, FOLDER, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::Packer;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn unpack(entries: &[(Entry, &[u8])], folder: &std::path::Path) -> Result<(), String> {
        let mut packer = Packer::new(Vec::new());
        for (entry, data) in entries {
            packer.append(entry, *data).unwrap();
        }
        let stream = packer.finish().unwrap();
        let root = OwnedFd::from(File::open(folder).unwrap());
        let unpacked = extract(
            stream.as_slice(),
            &root,
            Owner::OfEntry,
            None,
            &CancellationToken::new(),
        );
        unpacked.map_err(|failure| match failure {
            Failure::Entry(path, e) => format!("{}: {e}", String::from_utf8_lossy(&path)),
            Failure::Archive(e) => e.to_string(),
        })
    }

    fn entry(path: &str, kind: Kind, size: u64) -> Entry {
        Entry {
            kind,
            mode: 0o751,
            modified: Time {
                seconds: 1000,
                nanoseconds: 0,
            },
            ..Entry::plain(path.as_bytes(), size)
        }
    }

    #[test]
    fn files_and_folders_get_their_looks() {
        let folder = tempfile::tempdir().unwrap();
        let entries = [
            (entry("a/", Kind::Directory, 0), &b""[..]),
            (entry("a/file", Kind::File, 3), b"abc"),
            (entry("b/c/file", Kind::File, 0), b""),
        ];
        unpack(&entries, folder.path()).unwrap();
        unpack(&entries, folder.path()).unwrap();
        for path in ["a", "a/file"] {
            let found = folder.path().join(path).metadata().unwrap();
            assert_eq!((found.mode() & 0o7777, found.mtime()), (0o751, 1000), "{path}");
        }
        assert_eq!(fs::read(folder.path().join("a/file")).unwrap(), b"abc");
    }

    #[test]
    fn nothing_leads_out_and_folders_stay_folders() {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
        fs::create_dir_all(root.join("folder/full")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(root.join("file"), "x").unwrap();
        symlink(&outside, root.join("link")).unwrap();
        let hard = |link: &str| Entry {
            link: link.as_bytes().to_vec(),
            ..entry("hard", Kind::HardLink, 0)
        };
        for (entry, word) in [
            (entry("link/file", Kind::File, 0), "link/file"),
            (entry("../file", Kind::File, 0), "`..`"),
            (entry("folder", Kind::File, 0), "cannot overwrite directory"),
            (
                entry("file/", Kind::Directory, 0),
                "cannot overwrite non-directory",
            ),
            (
                entry("link/", Kind::Directory, 0),
                "cannot overwrite non-directory",
            ),
            (hard("link/file"), "hard"),
            (hard("../outside"), "`..`"),
        ] {
            let refused = unpack(&[(entry, b"")], &root).unwrap_err();
            assert!(refused.contains(word), "{refused}");
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        // A link is replaced, and not followed.
        unpack(&[(entry("link", Kind::File, 0), b"")], &root).unwrap();
        assert!(root.join("link").symlink_metadata().unwrap().is_file());
    }
}
