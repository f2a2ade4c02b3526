//! The birth of a container process: the clone into its namespaces, and the care for it until it is complete.

use std::os::fd::OwnedFd;

use nix::sched::CloneFlags;

use crate::cgroup;
use crate::channel::{Channel, Message};
use crate::error::{Context, Error, Result};
use crate::init::Init;
use crate::namespaces::Namespaces;
use crate::sys::clone::{Side, clone3};
use crate::sys::fd::close_later;
use crate::sys::process::{Exit, exit_now, pidfd_open, pidfd_send_signal, wait};

/// A child that is killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Newborn {
    pub(crate) pid: i32,
    /// Taken away when it shall live on.
    pidfd: Option<OwnedFd>,
}

impl Newborn {
    pub(crate) fn new(pid: i32, pidfd: OwnedFd) -> Self {
        Self {
            pid,
            pidfd: Some(pidfd),
        }
    }

    pub(crate) fn pidfd(&self) -> Result<&OwnedFd> {
        self.pidfd.as_ref().ok_or(Error::Silent)
    }

    /// It lives on, in the care of who holds the pidfd.
    pub(crate) fn keep(mut self) -> Result<OwnedFd> {
        self.pidfd.take().ok_or(Error::Silent)
    }

    /// Ends it, if it has not ended by itself, and says how it ended.
    pub(crate) fn kill(mut self) -> Option<Exit> {
        let pidfd = self.pidfd.take()?;
        let _ = pidfd_send_signal(pidfd, libc::SIGKILL);
        wait(self.pid, true).ok().flatten()
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Result<Exit> {
        self.pidfd = None;
        let exit = wait(self.pid, true).context(|| format!("wait for process {}", self.pid))?;
        exit.ok_or(Error::Silent)
    }
}

impl Drop for Newborn {
    fn drop(&mut self) {
        if let Some(pidfd) = &self.pidfd {
            let _ = pidfd_send_signal(pidfd, libc::SIGKILL);
            let _ = wait(self.pid, true);
        }
    }
}

/// Clones init into its namespaces and, where there is cgroup v2, into its group.
pub(crate) fn clone_init(
    mut init: Init<'_>,
    group: &mut cgroup::Group,
    channel: Channel,
) -> Result<(Newborn, Option<OwnedFd>, Channel)> {
    let namespaces = &init.plans.namespaces;
    let flags = namespaces.clone_flags();
    let own_time = namespaces.prepare_time()?;
    let staged = namespaces.needs_intermediate();
    let first = if staged { CloneFlags::empty() } else { flags };
    let what = || "clone the container's init process".into();
    let newborn = match clone3(first.bits(), group.into_fd()).context(what)? {
        Side::Child => {
            // Init's copy of our end would keep it from hearing of our death.
            drop(channel);
            if staged {
                intermediate(init, flags)
            } else {
                init.run(None)
            }
        }
        Side::Parent { pid, pidfd } => Newborn::new(pid, pidfd),
    };
    if let Some(own) = own_time {
        Namespaces::leave_time(own)?;
    }
    if init.plans.cgroup.is_completed_later() {
        group.complete(&init.plans.cgroup, newborn.pid)?;
        let (joined, entries) = (group.joined(), group.entries()?);
        let groups = Message::Groups { joined, entries };
        channel.send(&groups)?;
        if let Message::Groups { entries, .. } = groups {
            entries.into_iter().for_each(close_later);
        }
    }
    // Init has its copies. Its end of the channel must not stay open here, or we would never hear of its death.
    let gate = init.gate.take();
    drop(init.channel);
    if !staged {
        return Ok((newborn, gate, channel));
    }
    let pid = match channel.receive()? {
        Some(Message::Pid(pid)) => pid,
        Some(Message::Failed(text)) => return Err(Error::Refused(text)),
        _ => return Err(Error::Silent),
    };
    let pidfd = pidfd_open(pid).context(|| format!("open process {pid}"))?;
    let real = Newborn::new(pid, pidfd);
    newborn.wait()?;
    Ok((real, gate, channel))
}

/// Between the runtime and init, where namespaces are joined: it joins them and makes init as its sibling.
fn intermediate(init: Init<'_>, flags: CloneFlags) -> ! {
    let make = || -> Result<_> {
        let groups = init.enter_groups()?;
        init.join_namespaces()?;
        let side = clone3((flags | CloneFlags::CLONE_PARENT).bits(), None)
            .context(|| "clone the container's init process".into())?;
        Ok((side, groups))
    };
    match make() {
        Ok((Side::Child, groups)) => init.run(Some(groups)),
        Ok((Side::Parent { pid, .. }, _)) => {
            let sent = init.channel.send(&Message::Pid(pid));
            exit_now(i32::from(sent.is_err()));
        }
        Err(error) => {
            let _ = init.channel.send(&Message::Failed(error.to_string()));
            exit_now(1)
        }
    }
}
