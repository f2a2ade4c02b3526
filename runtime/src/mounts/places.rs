//! The rootfs while it is being filled: where mounts go, and that they go there.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use libc::{S_IFDIR, S_IFMT};
use nix::errno::Errno;
use nix::sys::stat::{Mode, fstat, mkdirat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::Context;
use super::change::proc_path;
use super::inside::{self, Target};
use super::plan::{Entry, Shares};
use crate::error::{Context as _, Error, Result};
use crate::sys::fd::close_later;
use crate::sys::mount::{self, At};

/// The rootfs while it is being filled.
pub(super) struct Places<'a> {
    pub(super) root: BorrowedFd<'a>,
    pub(super) context: &'a Context<'a>,
    pub(super) label: Option<&'a str>,
    pub(super) shares: Shares,
    /// Empty tmpfs that we mounted, by place: nobody else can have put a link into them, so what goes right below
    /// is made and mounted by name, without a walk from the root.
    pub(super) fresh: Vec<(PathBuf, OwnedFd)>,
    pub(super) read_only_later: Vec<OwnedFd>,
}

/// What is to be put somewhere.
pub(super) struct Piece<'a> {
    pub(super) mount: &'a OwnedFd,
    pub(super) is_folder: bool,
    /// The place may not be reached through a symbolic link: a procfs or sysfs elsewhere than where everybody reads
    /// it would leave a fake in its place (CVE-2019-19921, CVE-2023-27561).
    pub(super) strict: bool,
}

impl<'a> Places<'a> {
    pub(super) fn new(
        root: BorrowedFd<'a>,
        context: &'a Context<'a>,
        label: Option<&'a str>,
        shares: Shares,
    ) -> Self {
        Self {
            root,
            context,
            label,
            shares,
            fresh: Vec::new(),
            read_only_later: Vec::new(),
        }
    }

    pub(super) fn into_read_only_later(self) -> Vec<OwnedFd> {
        self.fresh.into_iter().for_each(|(_, fd)| close_later(fd));
        self.read_only_later
    }

    /// The folder `path`, if it is an empty tmpfs of ours.
    pub(super) fn fresh(&self, path: &Path) -> Option<BorrowedFd<'_>> {
        self.fresh
            .iter()
            .find(|(place, _)| place == path)
            .map(|(_, fd)| fd.as_fd())
    }

    /// Moves a detached mount to its place; the place is made if it is missing.
    pub(super) fn put(&mut self, entry: &Entry, piece: &Piece) -> Result<()> {
        let path = &entry.destination;
        let what = || format!("move the mount to {}", inside::absolute(path).display());
        if !(piece.is_folder && self.put_by_name(path, piece).context(what)?) {
            let target = if piece.is_folder {
                inside::folder(self.root, path)?
            } else {
                inside::file(self.root, path)?
            };
            check_target(entry, &target, piece.strict)?;
            mount::move_mount(piece.mount.as_fd(), At::fd(target.fd.as_fd()), false).context(what)?;
            close_later(target.fd);
        }
        self.forget(path);
        Ok(())
    }

    /// Puts a folder right below the root or below a tmpfs of ours, without a walk. False if something else than a
    /// folder is there (a link, perhaps).
    fn put_by_name(&self, path: &Path, piece: &Piece) -> io::Result<bool> {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(false);
        };
        let make = |folder: BorrowedFd| match mkdirat(folder, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(io::Error::from(errno)),
        };
        let moved = if above.as_os_str().is_empty() {
            let at = At {
                folder: self.root,
                path: Path::new(name),
            };
            match mount::move_mount(piece.mount.as_fd(), at, false) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    make(self.root)?;
                    mount::move_mount(piece.mount.as_fd(), at, false)
                }
                other => other,
            }
        } else {
            let Some(folder) = self.fresh(above) else {
                return Ok(false);
            };
            make(folder)?;
            mount::move_mount(
                piece.mount.as_fd(),
                At {
                    folder,
                    path: Path::new(name),
                },
                false,
            )
        };
        match moved {
            // The kernel's answer when one of the two is a folder and the other is not.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOTDIR)) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Makes a folder right below a tmpfs of ours and names it for mount(2): there is no link in that path.
    pub(super) fn make_in_fresh(&self, path: &Path) -> Option<PathBuf> {
        let (folder, name) = (self.fresh(path.parent()?)?, path.file_name()?);
        // What is there already was made by an entry of config.json, and may be a link to anywhere.
        mkdirat(folder, name, Mode::from_bits_truncate(0o755)).ok()?;
        Some(proc_path(folder).join(name))
    }

    /// What was mounted there or below is now hidden.
    pub(super) fn forget(&mut self, path: &Path) {
        self.fresh.retain(|(place, _)| !place.starts_with(path));
    }
}

/// Text can't tell where a path leads that has links in it; the file system that was reached can.
pub(super) fn check_target(entry: &Entry, target: &Target, strict: bool) -> Result<()> {
    if !target.through_link {
        return Ok(());
    }
    let place = inside::absolute(&entry.destination);
    if strict {
        let rule = format!("{} leads through a symbolic link in the rootfs", place.display());
        return Err(Error::spec(format!("mounts[{}].destination", entry.index), rule));
    }
    if is_procfs(target.fd.as_fd()).context(|| format!("look at {} in the rootfs", place.display()))? {
        return Err(not_in_proc(entry));
    }
    Ok(())
}

pub(super) fn not_in_proc(entry: &Entry) -> Error {
    let rule = "leads into /proc, where only a procfs may be mounted";
    Error::spec(format!("mounts[{}].destination", entry.index), rule)
}

pub(super) fn is_procfs(fd: BorrowedFd) -> io::Result<bool> {
    Ok(fstatfs(fd)?.filesystem_type() == PROC_SUPER_MAGIC)
}

pub(super) fn is_folder(fd: BorrowedFd) -> io::Result<bool> {
    Ok(fstat(fd)?.st_mode & S_IFMT == S_IFDIR)
}
