//! What `run` and `exec` do while their process runs in the foreground: pass signals on, relay a terminal, wait.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{read, write};

use crate::error::{Context, Result};
use crate::sys::process::{Exit, next_signal, pidfd_send_signal, wait};
use crate::terminal::{RawMode, copy_size};

/// Waits for the child behind `pidfd` and passes every signal that we get on to it. All signals must be blocked.
/// Other children (orphans, of whom we are the subreaper) are reaped on the way.
pub(crate) fn follow(pid: i32, pidfd: &OwnedFd) -> Result<Exit> {
    loop {
        // Blocked since before the child was made, SIGCHLD can't have been missed.
        pass_on(next_signal().context(|| "wait for a signal".into())?, pidfd);
        if let Some(exit) = reap(pid)? {
            return Ok(exit);
        }
    }
}

/// As `follow`, with the container's terminal relayed to ours.
pub(crate) fn follow_terminal(pid: i32, pidfd: &OwnedFd, master: &OwnedFd) -> Result<Exit> {
    let signals = SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .context(|| "open a signalfd".into())?;
    let _raw = RawMode::enter()?;
    copy_size(master.as_fd());
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    let mut relay = Relay::default();
    loop {
        if let Some(exit) = reap(pid)? {
            relay.drain(master.as_fd(), stdout.as_fd());
            return Ok(exit);
        }
        relay.turn(&signals, stdin.as_fd(), stdout.as_fd(), master.as_fd())?;
        while let Ok(Some(signal)) = signals.read_signal() {
            match signal.ssi_signo as i32 {
                libc::SIGWINCH => copy_size(master.as_fd()),
                signal => pass_on(signal, pidfd),
            }
        }
    }
}

fn pass_on(signal: i32, pidfd: &OwnedFd) {
    // SIGURG comes from Go callers for their own use; a stop would stop the container, not us.
    if !matches!(
        signal,
        libc::SIGCHLD | libc::SIGPIPE | libc::SIGURG | libc::SIGTTIN | libc::SIGTTOU
    ) {
        let _ = pidfd_send_signal(pidfd, signal);
    }
}

/// Reaps all children that have ended; the exit of `pid` if it was among them.
fn reap(pid: i32) -> Result<Option<Exit>> {
    loop {
        match wait(-1, false) {
            Ok(Some(exit)) if exit.pid == pid => return Ok(Some(exit)),
            Ok(Some(_)) => {}
            Ok(None) => return Ok(None),
            Err(e) => return Err(e).context(|| format!("wait for process {pid}")),
        }
    }
}

/// Bytes on their way between two terminals.
#[derive(Debug, Default)]
struct Relay {
    input: Vec<u8>,
    input_ended: bool,
    output_ended: bool,
}

const CHUNK_BYTES: usize = 16 << 10;

impl Relay {
    /// Waits until something can be moved, and moves it.
    fn turn(
        &mut self,
        signals: &SignalFd,
        stdin: BorrowedFd<'_>,
        stdout: BorrowedFd<'_>,
        master: BorrowedFd<'_>,
    ) -> Result<()> {
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::POLLIN, !self.output_ended);
        wanted.set(PollFlags::POLLOUT, !self.input.is_empty());
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        // A hung-up master is reported whatever is asked for, so it has to leave the set.
        if !wanted.is_empty() {
            fds.push(PollFd::new(master, wanted));
        }
        if self.input.is_empty() && !self.input_ended {
            fds.push(PollFd::new(stdin, PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => return Ok(()),
            other => drop(other.context(|| "wait for the terminal".into())?),
        }
        let ready = |fd: BorrowedFd<'_>, flags: PollFlags| {
            fds.iter().any(|each| {
                each.as_fd().as_raw_fd() == fd.as_raw_fd()
                    && each.revents().is_some_and(|got| got.intersects(flags))
            })
        };
        let (readable, writable) = (
            PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR,
            PollFlags::POLLOUT,
        );
        let (input_ready, output_ready, room) = (
            ready(stdin, readable),
            ready(master, readable),
            ready(master, writable),
        );
        if output_ready {
            self.output_ended |= !copy(master, stdout);
        }
        if input_ready {
            let mut buffer = [0; 4096];
            match read(stdin, &mut buffer) {
                Ok(length @ 1..) => self.input.extend_from_slice(&buffer[..length]),
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                _ => {
                    // The end of a file or pipe is told to the container's program as a terminal tells it.
                    self.input_ended = true;
                    self.input.push(END_OF_TRANSMISSION);
                }
            }
        }
        if room && let Ok(length) = write(master, &self.input) {
            self.input.drain(..length);
        }
        Ok(())
    }

    /// What the process wrote before it ended.
    fn drain(&mut self, master: BorrowedFd<'_>, stdout: BorrowedFd<'_>) {
        while !self.output_ended {
            let mut fds = [PollFd::new(master, PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::ZERO) {
                Ok(1..) => self.output_ended |= !copy(master, stdout),
                Err(Errno::EINTR) => {}
                _ => return,
            }
        }
    }
}

/// Control-D.
const END_OF_TRANSMISSION: u8 = 4;

/// Moves one chunk; `false` at the end.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut buffer = [0; CHUNK_BYTES];
    match read(from, &mut buffer) {
        Ok(0) => false,
        Ok(length) => {
            let mut rest = &buffer[..length];
            while !rest.is_empty() {
                match write(to, rest) {
                    Ok(written) => rest = &rest[written..],
                    Err(Errno::EINTR) => {}
                    Err(Errno::EAGAIN) => {
                        let _ = poll(&mut [PollFd::new(to, PollFlags::POLLOUT)], PollTimeout::NONE);
                    }
                    // Nobody reads our output; the container runs on.
                    Err(_) => break,
                }
            }
            true
        }
        Err(Errno::EINTR | Errno::EAGAIN) => true,
        // EIO: the last process closed the terminal.
        Err(_) => false,
    }
}
