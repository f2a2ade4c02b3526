//! Where the time of a start goes: with `$BERTH_PHASES` naming a file, the runtime and the container's init each
//! append a line `side.phase microseconds` (of `CLOCK_MONOTONIC`) whenever they have finished a phase. `hack/phases`
//! makes a table of that. Without the variable nothing is written and nothing is asked of the kernel. `--debug` logs
//! the same phases.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;

use nix::time::{ClockId, clock_gettime};

use crate::log;

static OUT: OnceLock<Option<File>> = OnceLock::new();

/// What is written to for as long as this process lives.
pub(crate) fn file() -> Option<BorrowedFd<'static>> {
    OUT.get()?.as_ref().map(AsFd::as_fd)
}

/// Called at the end of each phase. The first call decides whether anything is written.
pub(crate) fn reached(phase: &str) {
    log::debug(|| format!("reached {phase}"));
    let open = || {
        let path = std::env::var_os("BERTH_PHASES")?;
        File::options().append(true).create(true).open(path).ok()
    };
    let Some(mut out) = OUT.get_or_init(open).as_ref() else {
        return;
    };
    if let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC) {
        let microseconds = now.tv_sec() * 1_000_000 + now.tv_nsec() / 1000;
        // A measurement that can't be written must not change what is measured.
        let _ = out.write_all(format!("{phase} {microseconds}\n").as_bytes());
    }
}
