//! The container's terminal: made in the container from its own devpts, its master side handed to who asked for
//! it, or relayed to the caller's terminal by `run` and `exec` in the foreground.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::stat::{major, minor};
use nix::sys::termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::error::{Context, Error, Result};
use crate::sys::fd::{become_standard, file_system};
use crate::sys::socket;
use crate::sys::terminal as raw;

/// `DEVPTS_SUPER_MAGIC`.
const DEVPTS: i64 = 0x1cd1;

/// A terminal of the container.
#[derive(Debug)]
pub(crate) struct Terminal {
    pub(crate) master: OwnedFd,
    pub(crate) peer: OwnedFd,
}

impl Terminal {
    /// Makes one in the container's root. What is opened is checked to be a devpts's own ptmx, because anything
    /// may lie at that path in an image.
    pub(crate) fn make(size: Option<raw::Size>) -> Result<Self> {
        let path = "/dev/pts/ptmx";
        let what = || format!("open {path} for the terminal (is devpts mounted at /dev/pts?)");
        let flags = libc::O_NOCTTY | libc::O_NOFOLLOW;
        let master = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(path)
            .context(what)?;
        let found = master.metadata().context(what)?;
        let device = (major(found.rdev()), minor(found.rdev()));
        if !found.file_type().is_char_device()
            || device != (5, 2)
            || file_system(master.as_fd()).context(what)? != DEVPTS
        {
            return Err(Error::Refused(format!(
                "{path} in the container is not a pseudoterminal multiplexer"
            )));
        }
        let master = OwnedFd::from(master);
        raw::unlock(master.as_fd()).context(|| "unlock the terminal".into())?;
        let peer = raw::open_peer(master.as_fd()).context(|| "open the terminal's other side".into())?;
        if let Some(size) = size {
            raw::set_size(master.as_fd(), size).context(|| "set the terminal's size".into())?;
        }
        Ok(Self { master, peer })
    }

    /// Keeps it from writing a carriage return before each newline, where the runtime relays it: a caller's terminal
    /// does that itself, and a file or pipe in its place wants none. Before the program can write anything.
    pub(crate) fn leave_newlines_alone(&self) -> Result<()> {
        let what = || "set the container's terminal to plain newlines".into();
        let mut wanted = tcgetattr(&self.master).context(what)?;
        wanted.output_flags.remove(OutputFlags::ONLCR);
        tcsetattr(&self.master, SetArg::TCSANOW, &wanted).context(what)
    }

    /// Makes its other side the controlling terminal and the standard streams of the calling session leader.
    pub(crate) fn take_over(&self) -> Result<()> {
        raw::set_controlling(self.peer.as_fd()).context(|| "take the controlling terminal".into())?;
        for number in 0..3 {
            become_standard(self.peer.as_fd(), number)
                .context(|| "take the terminal as standard stream".into())?;
        }
        Ok(())
    }
}

/// Connects to the socket that shall receive a terminal or a pidfd.
pub(crate) fn connect(path: &Path) -> Result<UnixStream> {
    UnixStream::connect(path).context(|| format!("connect to {}", path.display()))
}

/// Sends a descriptor as runc does: one message with `name` and the descriptor.
pub(crate) fn hand_over(socket: &UnixStream, fd: BorrowedFd<'_>, name: &str) -> Result<()> {
    socket::send(socket, name.as_bytes(), &[fd]).context(|| format!("send {name} to its socket"))
}

/// The caller's terminal in raw mode, put back when dropped.
#[derive(Debug)]
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// `None` when standard input is no terminal.
    pub(crate) fn enter() -> Result<Option<Self>> {
        let stdin = std::io::stdin();
        let Ok(before) = tcgetattr(&stdin) else {
            return Ok(None);
        };
        let mut wanted = before.clone();
        cfmakeraw(&mut wanted);
        // Our own messages shall still begin at the left.
        wanted.output_flags.insert(OutputFlags::OPOST);
        tcsetattr(&stdin, SetArg::TCSANOW, &wanted).context(|| "put the terminal into raw mode".into())?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.before);
    }
}

/// Gives the container's terminal the size of the caller's, if that has one.
pub(crate) fn copy_size(master: BorrowedFd<'_>) {
    if let Ok(size) = raw::size(std::io::stdin().as_fd()) {
        let _ = raw::set_size(master, size);
    }
}
