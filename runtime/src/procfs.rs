//! The procfs that the runtime writes to: sysctls, and the label of the next program. It is opened before the
//! container can lay anything over `/proc`, must be a whole procfs, and no step of a path in it leads into another
//! mount or through a link to a descriptor: otherwise what is meant for the kernel would be written to a file of
//! somebody's choice (CVE-2019-16884, CVE-2025-52881).

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libc::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID};
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::error::{Context as _, Error, Result};
use crate::sys::mount::{fsconfig_create, fsmount, fsopen};

/// `PROC_ROOT_INO`: the root of every procfs.
const ROOT_INODE: u64 = 1;

/// A descriptor on the root of a procfs.
#[derive(Debug)]
pub(crate) struct Procfs(OwnedFd);

impl Procfs {
    /// The host's. Must be called before the caller's root is the container's.
    pub(crate) fn of_host() -> Result<Self> {
        let what = || "open /proc".into();
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = openat(AT_FDCWD, "/proc", flags, Mode::empty()).context(what)?;
        let found = Self::of_root(root).context(what)?;
        found.ok_or_else(|| Error::Refused("/proc is not a procfs; mount one there".into()))
    }

    /// The one at `/proc` of a container that is being made, if there is one: whoever put it there, a procfs is the
    /// kernel's.
    pub(crate) fn of_container(rootfs: BorrowedFd) -> Option<Self> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS);
        let root = openat2(rootfs, "proc", how).ok()?;
        Self::of_root(root).ok()?
    }

    /// What is open, if it is the root of a procfs.
    fn of_root(root: OwnedFd) -> nix::Result<Option<Self>> {
        let is_procfs =
            fstatfs(&root)?.filesystem_type() == PROC_SUPER_MAGIC && fstat(&root)?.st_ino == ROOT_INODE;
        Ok(is_procfs.then_some(Self(root)))
    }

    /// A new one that nobody else sees.
    fn private() -> io::Result<Self> {
        let context = fsopen(c"proc")?;
        fsconfig_create(context.as_fd())?;
        let attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
        fsmount(context.as_fd(), attributes).map(Self)
    }

    /// Writes a file. Where something is mounted over it (as in a container that this is run in), that of a private
    /// procfs is written instead.
    pub(crate) fn write(&self, path: &str, text: &str) -> io::Result<()> {
        let file = match self.open(path) {
            Err(error) if error.raw_os_error() == Some(libc::EXDEV) => Self::private()?.open(path),
            other => other,
        };
        file?.write_all(text.as_bytes())
    }

    /// Writes a sysctl of the caller's namespaces.
    ///
    /// The kernel keeps what was looked up of one procfs for all namespaces in one list by its name, and goes through it
    /// at each look: with 500 containers it takes 0.1 ms to find `net` of one of them. So `own`, the procfs of the
    /// container alone, is asked first; this one, where something lies over that.
    pub(crate) fn write_sysctl(&self, own: Option<&Self>, path: &str, text: &str) -> io::Result<()> {
        match own.map(|own| own.open(path)) {
            Some(Ok(mut file)) => file.write_all(text.as_bytes()),
            None | Some(Err(_)) => self.write(path, text),
        }
    }

    fn open(&self, path: &str) -> io::Result<File> {
        let how = OpenHow::new().flags(OFlag::O_WRONLY | OFlag::O_CLOEXEC).resolve(
            ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::RESOLVE_NO_XDEV,
        );
        Ok(openat2(&self.0, path, how)?.into())
    }

    /// The root of process `pid`.
    pub(crate) fn root_of(&self, pid: i32) -> Result<OwnedFd> {
        let path = format!("{pid}/root");
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        openat(&self.0, path.as_str(), flags, Mode::empty()).context(|| format!("open /proc/{path}"))
    }
}

impl From<Procfs> for OwnedFd {
    fn from(procfs: Procfs) -> Self {
        procfs.0
    }
}

impl AsFd for Procfs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
