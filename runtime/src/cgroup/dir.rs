//! One cgroup directory, opened once: its files are read and written relative to that descriptor, so that a
//! directory that is removed and made anew by someone else is never written to by mistake. Any directory can stand
//! in for a cgroup, which is how the tests work without root.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;

use crate::error::{Context, Result};

/// The most that is read of one kernel file. The longest are lists of mounts and of processes.
const MAX_FILE_BYTES: usize = 64 << 20;
const BLOCK_BYTES: usize = 4096;

#[derive(Debug)]
pub(super) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl Dir {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = openat(AT_FDCWD, path, flags, Mode::empty())?;
        Ok(Self {
            fd,
            path: path.to_owned(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    pub(super) fn open_file(&self, file: &str, access: OFlag) -> io::Result<File> {
        // No O_CREAT: in a cgroup file system it would turn "no such file" into "permission denied".
        let flags = access | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        Ok(File::from(openat(&self.fd, file, flags, Mode::empty())?))
    }

    /// The whole text of a file.
    pub(super) fn read(&self, file: &str) -> io::Result<String> {
        read_text(&mut self.open_file(file, OFlag::O_RDONLY)?)
    }

    /// As [`Dir::read`], where `None` says that this kernel or controller has no such file.
    pub(super) fn read_if_there(&self, file: &str) -> io::Result<Option<String>> {
        match self.read(file) {
            Ok(text) => Ok(Some(text)),
            Err(error) if is_gone(&error) || is(&error, Errno::EOPNOTSUPP) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes in one call, as cgroup files want it.
    pub(super) fn write(&self, file: &str, value: &str) -> io::Result<()> {
        write_once(
            &mut self.open_file(file, OFlag::O_WRONLY | OFlag::O_TRUNC)?,
            value,
        )
    }

    /// Reads and names the file in the error.
    pub(super) fn get(&self, file: &str) -> Result<String> {
        self.read(file)
            .context(|| format!("read {}", self.path.join(file).display()))
    }

    /// Writes and names the file and the value in the error.
    pub(super) fn set(&self, file: &str, value: &str) -> Result<()> {
        self.write(file, value)
            .context(|| format!("write {value:?} to {}", self.path.join(file).display()))
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Reads a file whose text the kernel makes in one piece, as one value or one list is: a read that leaves room in
/// the buffer has got the end.
pub(super) fn read_piece(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut end = 0;
    while end == bytes.len() && end <= MAX_FILE_BYTES {
        bytes.resize(end + BLOCK_BYTES, 0);
        end += file.read(&mut bytes[end..])?;
    }
    bytes.truncate(end);
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Reads to the end. Kernel files tell no size, so the standard library would begin with small reads to probe.
pub(super) fn read_text(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut end = 0;
    loop {
        bytes.resize(end + BLOCK_BYTES, 0);
        match file.read(&mut bytes[end..]) {
            Ok(0) => break,
            Ok(length) => end += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if end > MAX_FILE_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "longer than any known kernel file",
            ));
        }
    }
    bytes.truncate(end);
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// A cgroup file takes a value whole or not at all.
pub(super) fn write_once(file: &mut File, value: &str) -> io::Result<()> {
    loop {
        match file.write(value.as_bytes()) {
            Ok(length) if length == value.len() => return Ok(()),
            Ok(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::WriteZero,
                    "the kernel took only a part",
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether a file or its whole group is not there (ENODEV: the group was removed under an open file).
pub(super) fn is_gone(error: &io::Error) -> bool {
    is(error, Errno::ENOENT) || is(error, Errno::ENODEV)
}

pub(super) fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}
