//! Listing and signalling every process of a container, wherever it went in the groups below.

use nix::errno::Errno;

use super::dir::{Dir, is, is_gone};
use super::make;
use super::paths::Paths;
use super::place::{self, Place};
use super::tree;
use crate::error::{Context, Result};
use crate::sys::process::{pidfd_open, pidfd_send_signal};

/// Rounds of listing and killing before giving up on processes that keep appearing.
const ROUNDS: usize = 100;

impl Paths {
    /// The hierarchy that is asked for processes. They are in all of them; the ones named here are those that hosts
    /// with v1 practically always have.
    fn listing(&self) -> Option<&Place> {
        let v1 = ["devices", "freezer", "pids"]
            .iter()
            .find_map(|name| place::v1(&self.places, name));
        v1.or_else(|| self.places.first())
    }

    /// All processes of the container, in increasing order. Empty if the groups are gone.
    pub(crate) fn processes(&self) -> Result<Vec<i32>> {
        let Some(place) = self.listing() else {
            return Ok(Vec::new());
        };
        match Dir::open(&place.path) {
            Ok(dir) => tree::processes(&dir),
            Err(error) if is_gone(&error) => Ok(Vec::new()),
            Err(error) => Err(error).context(|| format!("open cgroup {}", place.path.display())),
        }
    }

    /// Sends a signal to every process. SIGKILL reaches also those that are being forked meanwhile, and those of a
    /// frozen container, which is thawed for that.
    pub(crate) fn kill_all(&self, signal: i32) -> Result<()> {
        if signal == libc::SIGKILL {
            return self.kill_all_hard();
        }
        for pid in self.processes()? {
            send(pid, signal)?;
        }
        Ok(())
    }

    fn kill_all_hard(&self) -> Result<()> {
        let at_once = self.cgroup_kill()?;
        let mut sent: Vec<i32> = Vec::new();
        for _ in 0..ROUNDS {
            let new: Vec<i32> = self
                .processes()?
                .into_iter()
                .filter(|pid| !sent.contains(pid))
                .collect();
            if new.is_empty() {
                break;
            }
            // Whoever stands still can't fork away between the listing and the signal.
            let frozen = !at_once && self.freezer_exists() && self.freeze().is_ok();
            let pids = if frozen { self.processes()? } else { new };
            for pid in &pids {
                send(*pid, libc::SIGKILL)?;
            }
            sent.extend(pids);
            if frozen {
                self.thaw()?;
            }
        }
        // A process of a frozen v1 group dies only when it runs again.
        if self.is_frozen()? { self.thaw() } else { Ok(()) }
    }

    fn freezer_exists(&self) -> bool {
        place::v1(&self.places, "freezer")
            .or_else(|| place::v2(&self.places))
            .is_some()
    }

    /// Has the kernel kill all processes of the cgroup2 group (Linux 5.14). `false` if it can't.
    fn cgroup_kill(&self) -> Result<bool> {
        let Some(place) = place::v2(&self.places) else {
            return Ok(false);
        };
        let dir = match Dir::open(&place.path) {
            Err(error) if is_gone(&error) => return Ok(true),
            Err(_) => make::open(&place.path)?,
            Ok(dir) => dir,
        };
        match dir.write("cgroup.kill", "1") {
            Ok(()) => Ok(true),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error).context(|| format!("kill cgroup {}", place.path.display())),
        }
    }
}

fn send(pid: i32, signal: i32) -> Result<()> {
    let sent = pidfd_open(pid).and_then(|pidfd| pidfd_send_signal(&pidfd, signal));
    match sent {
        // It has ended meanwhile.
        Err(error) if is(&error, Errno::ESRCH) => Ok(()),
        sent => sent.context(|| format!("send signal {signal} to process {pid}")),
    }
}
