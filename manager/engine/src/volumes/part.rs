//! A part of a volume, or of an image, that a container is to see in the place of all of it.
//!
//! Another container may put a link in its place at any moment, so that no path in a volume may be given to the runtime:
//! it is opened beneath the volume's root, and what is open is mounted where only the manager can change anything, until
//! the runtime has it.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::local;
use crate::{Error, names};

/// A place of the manager's own to mount something at. It is unmounted, and gone, when this is dropped.
pub(crate) struct MountPoint {
    pub(crate) place: PathBuf,
}

impl MountPoint {
    /// Make one below `folder`, by `make`.
    pub(crate) fn make(
        folder: &Path,
        make: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<MountPoint, Error> {
        let place = folder.join(names::random_id()?);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .and_then(|()| make(&place))
            .map_err(Error::file("make the mount point", &place))?;
        Ok(MountPoint { place })
    }

    /// Mount `subpath` of the volume at `data` somewhere below `folder`.
    pub(super) fn of_part(
        data: &Path,
        volume: &str,
        subpath: &str,
        folder: &Path,
    ) -> Result<MountPoint, Error> {
        let of = format!("volume {volume}");
        MountPoint::of_part_in(data, of, subpath, ResolveFlag::RESOLVE_BENEATH, folder)
    }

    /// The same for `subpath` of an image that is mounted at `root`. Links in it lead where a container of it would see
    /// them lead.
    pub(super) fn of_image(
        root: &Path,
        image: &str,
        subpath: &str,
        folder: &Path,
    ) -> Result<MountPoint, Error> {
        let of = format!("image {image}");
        MountPoint::of_part_in(root, of, subpath, ResolveFlag::RESOLVE_IN_ROOT, folder)
    }

    fn of_part_in(
        root: &Path,
        of: String,
        subpath: &str,
        bound: ResolveFlag,
        folder: &Path,
    ) -> Result<MountPoint, Error> {
        let part = open_in(root, subpath, bound).map_err(|source| Error::Subpath {
            of,
            subpath: subpath.to_owned(),
            source,
        })?;
        let point = MountPoint::make(folder, |place| make_place(&part, place))?;
        let source = format!("/proc/self/fd/{}", part.as_raw_fd());
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(
            Some(source.as_str()),
            &point.place,
            None::<&str>,
            flags,
            None::<&str>,
        )
        .map_err(|error| Error::file("mount a part at", &point.place)(error.into()))?;
        Ok(point)
    }
}

impl Drop for MountPoint {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.place) {
            tracing::warn!(%error, "left behind, until the next start of the manager");
        }
    }
}

/// Take away the mount points that a manager before this one has left.
pub(super) fn remove_all(folder: &Path) -> Result<(), Error> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::file("list", folder))?,
    };
    entries.flatten().try_for_each(|entry| remove(&entry.path()))
}

/// Unmount, and remove the mount point alone, which is empty.
fn remove(place: &Path) -> Result<(), Error> {
    local::unmount(place)?;
    fs::remove_file(place)
        .or_else(|_| fs::remove_dir(place))
        .map_err(Error::file("remove the mount point", place))
}

fn make_place(part: &OwnedFd, place: &Path) -> io::Result<()> {
    let kind = SFlag::from_bits_truncate(fstat(part)?.st_mode) & SFlag::S_IFMT;
    if kind == SFlag::S_IFDIR {
        DirBuilder::new().mode(0o700).create(place)
    } else {
        File::create_new(place).map(drop)
    }
}

/// Open a file or folder in a volume or an image. Links in it are followed, but not out of it: those that lead there are
/// refused, or are meant from its root.
fn open_in(root: &Path, path: &str, bound: ResolveFlag) -> io::Result<OwnedFd> {
    let root = open(
        root,
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(bound | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    loop {
        match openat2(root.as_fd(), path, how) {
            // The kernel could not tell whether a concurrent rename moved a `..` out.
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            result => return Ok(result?),
        }
    }
}
