//! Signals that wake the event loop.
//!
//! A handler that writes to an eventfd, not a signalfd: a signalfd needs the signals blocked, std's `Command` hands
//! that mask down to what it starts, and to undo it the child would need a `fork` with a hook where `posix_spawn`
//! (which does not copy our page tables) is enough. Handlers are reset by exec on their own.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use super::{check, eventfd, read};

static WAKE: AtomicI32 = AtomicI32::new(-1);
static TERMINATE: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(signal: libc::c_int) {
    // SAFETY: errno is this thread's own; it is put back so that the interrupted code sees its own error.
    unsafe {
        let errno = libc::__errno_location();
        let saved = *errno;
        if signal != libc::SIGCHLD {
            TERMINATE.store(true, Ordering::Relaxed);
        }
        let one: u64 = 1;
        libc::write(
            WAKE.load(Ordering::Relaxed),
            (&raw const one).cast(),
            size_of::<u64>(),
        );
        *errno = saved;
    }
}

/// Readable after `SIGCHLD`, `SIGTERM` or `SIGINT`.
#[derive(Debug)]
pub(crate) struct SignalPipe {
    fd: OwnedFd,
}

impl SignalPipe {
    /// Installs the handlers. One such object a process.
    pub(crate) fn install() -> io::Result<Self> {
        let fd = eventfd()?;
        WAKE.store(fd.as_raw_fd(), Ordering::Relaxed);
        for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT] {
            // SAFETY: sigaction is plain data, all zero is a valid value.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
            action.sa_flags = libc::SA_RESTART | libc::SA_NOCLDSTOP;
            // SAFETY: the handler only does what is async-signal-safe; `action` lives through the call.
            check(unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) })?;
        }
        Ok(Self { fd })
    }

    /// Empties the eventfd; true when a signal asked for the end of this process since the last call.
    pub(crate) fn acknowledge(&self) -> bool {
        let mut count = [0u8; 8];
        let _ = read(&self.fd, &mut count);
        TERMINATE.swap(false, Ordering::Relaxed)
    }
}

impl AsFd for SignalPipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for SignalPipe {
    fn drop(&mut self) {
        WAKE.store(-1, Ordering::Relaxed);
    }
}
