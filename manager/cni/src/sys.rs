//! What of a child process the standard library leaves to who starts it.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

/// Have it killed when the calling thread ends, which has to wait for it: with a manager that is killed goes what it asks of
/// plugins, so that the next one does not undo what another still makes.
pub(crate) fn end_with_caller(command: &mut Command) {
    // SAFETY: one system call, which allocates nothing and takes no lock.
    unsafe { command.pre_exec(|| set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from)) };
}
