//! The harness's raw system calls: all of its `unsafe` is here.

use nix::errno::Errno;
use nix::libc;
use nix::pty::Winsize;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Let the command's standard input be the controlling terminal of a session of its own.
pub(crate) fn lead_a_session(command: &mut Command) {
    // SAFETY: setsid and TIOCSCTTY are system calls only, which is all that may happen between fork and exec.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid()?;
            Errno::result(libc::ioctl(0, libc::TIOCSCTTY, 0)).map_err(io::Error::from)?;
            Ok(())
        });
    }
}

/// Set the window size of a terminal by its master side (`tty_ioctl(4)`).
pub(crate) fn set_window_size(master: impl AsFd, size: Winsize) -> io::Result<()> {
    // SAFETY: TIOCSWINSZ reads a winsize, and `size` is one that lives over the call.
    let done = unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    Errno::result(done).map(drop).map_err(io::Error::from)
}

/// One message from a UNIX socket, into `text`: its length, and the descriptors that came with it.
pub fn receive(socket: impl AsFd, text: &mut [u8]) -> nix::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; 8]);
    let mut parts = [IoSliceMut::new(text)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let mut descriptors = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = part {
            // SAFETY: the kernel made these descriptors for us in the call above, and nothing else holds them.
            descriptors.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok((message.bytes, descriptors))
}
