//! The init of a container that lives on without its shim. It is nobody's child that `delete` could wait for; the kernel
//! tells all the same how it ends, to whoever holds a pidfd of it.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::bundle::{self, INIT_PID_FILE};
use crate::runtime::{CallLog, Runtime};
use crate::sys;

/// How long its new parent may take to reap it: before that the kernel tells nothing.
const REAPING: Duration = Duration::from_millis(200);
const LOOK: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(super) struct Living(OwnedFd);

impl Living {
    /// Nothing when it has ended, or was never made.
    pub(super) fn find(runtime: &Runtime, id: &str, bundle: &Path) -> Option<Self> {
        let pid = bundle::read_pid(&bundle.join(INIT_PID_FILE))?;
        let process = sys::open_pidfd(pid).ok()?;
        // It lives now, so it has had this pid since before the descriptor was opened.
        let log = CallLog::shared(bundle);
        (runtime.living_pid(id, log.path()) == Some(pid)).then_some(Self(process))
    }

    /// What it ended with, now that the runtime has killed it: it may have ended before that by itself. Kernels before
    /// Linux 6.15 do not tell.
    pub(super) fn exit_status(&self) -> Option<u32> {
        let end = Instant::now() + REAPING;
        let _ = sys::wait_readable(&self.0, REAPING);
        let mut told = sys::exit_status(&self.0);
        while matches!(told, Ok(None)) && Instant::now() < end {
            std::thread::sleep(LOOK);
            told = sys::exit_status(&self.0);
        }
        told.ok().flatten()
    }
}
