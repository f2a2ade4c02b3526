//! The limit of open files. A shim of many execs needs more than the 1024 that service managers give, and a container
//! must not get another limit by that than it would have had.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use super::check;

/// This process's limit, and the lower one that it was started with and hands on.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    raised: libc::rlimit,
    inherited: libc::rlimit,
}

impl OpenFiles {
    /// Raises this process's own limit as far as it may.
    pub(crate) fn raise() -> io::Result<Self> {
        let inherited = get()?;
        let raised = libc::rlimit {
            rlim_cur: inherited.rlim_max,
            ..inherited
        };
        set(raised)?;
        Ok(Self { raised, inherited })
    }

    /// Starts a process that has the limit from before.
    pub(crate) fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let inherited = self.inherited;
        if inherited.rlim_cur == self.raised.rlim_cur {
            return command.spawn();
        }
        // Ours for the moment of the spawn, since std starts a process without copying this one's page tables only
        // when there is nothing to do between fork and exec.
        set(inherited)?;
        let result = command.spawn();
        set(self.raised)?;
        match result {
            // With so many files open the spawn itself finds no number.
            Err(error) if error.raw_os_error() == Some(libc::EMFILE) => {
                // SAFETY: `setrlimit` is async-signal-safe, and nothing allocates on the way to success.
                unsafe { command.pre_exec(move || set(inherited)) };
                command.spawn()
            }
            result => result,
        }
    }
}

fn get() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` lives through the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    Ok(limit)
}

fn set(limit: libc::rlimit) -> io::Result<()> {
    // SAFETY: `limit` lives through the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }).map(drop)
}
