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
        let is_procfs = fstatfs(&root).context(what)?.filesystem_type() == PROC_SUPER_MAGIC
            && fstat(&root).context(what)?.st_ino == ROOT_INODE;
        if is_procfs {
            Ok(Self(root))
        } else {
            Err(Error::Refused("/proc is not a procfs; mount one there".into()))
        }
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

impl AsFd for Procfs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
