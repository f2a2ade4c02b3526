//! Removing groups: one call for each that is empty, and patience for those that are not yet. A group stays busy for
//! a moment after its last process has been waited for.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::dir::{Dir, is};
use super::paths::Paths;
use super::systemd::Unit;
use super::tree;
use crate::error::{Error, Result};

/// Pauses double from the first to the longest, until they add up to the last.
const FIRST_PAUSE: Duration = Duration::from_micros(200);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Only a process that is stuck in the kernel takes that long to die.
const LONGEST_DEATH: Duration = Duration::from_secs(10);

impl Paths {
    /// Removes the groups with all groups below them. What can't be removed does not keep the others.
    pub(crate) fn remove(&self) -> Result<()> {
        let stopped = self.unit.as_ref().map_or(Ok(()), Unit::stop);
        let paths: Vec<_> = self
            .places
            .iter()
            .filter(|place| place.path != place.mountpoint)
            .collect();
        stopped.and(remove_all(
            &paths.iter().map(|place| &place.path).collect::<Vec<_>>(),
        ))
    }

    /// Removes the groups of a container that was never on record. Its init may still be dying in there; anybody who
    /// stays belongs to another container of the same path, which was there first. So nobody is killed.
    pub(crate) fn remove_abandoned(&self) -> Result<()> {
        let end = Instant::now() + LONGEST_DEATH;
        loop {
            match self.processes()?.len() {
                0 => return self.remove(),
                count if Instant::now() > end => {
                    let paths: Vec<_> = self
                        .places
                        .iter()
                        .map(|place| place.path.display().to_string())
                        .collect();
                    return Err(Error::Refused(format!(
                        "cgroup {} holds {count} processes of another container",
                        paths.join(", ")
                    )));
                }
                _ => sleep(LONGEST_PAUSE / 20),
            }
        }
    }
}

pub(super) fn remove_all(paths: &[&PathBuf]) -> Result<()> {
    let mut left: Vec<&Path> = paths.iter().map(|path| path.as_path()).collect();
    let mut refused = Vec::new();
    let (mut pause, mut waited) = (FIRST_PAUSE, Duration::ZERO);
    loop {
        left.retain(|path| match remove_tree(path) {
            Ok(()) => false,
            Err(error) if is(&error, Errno::EBUSY) => true,
            Err(error) => {
                refused.push(format!("{}: {error}", path.display()));
                false
            }
        });
        if left.is_empty() || waited >= LONGEST_WAIT {
            break;
        }
        sleep(pause);
        waited += pause;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    refused.extend(
        left.iter()
            .map(|path| format!("{}: processes are left in it", path.display())),
    );
    if refused.is_empty() {
        return Ok(());
    }
    Err(Error::Refused(format!("remove cgroup {}", refused.join("; "))))
}

fn remove_tree(path: &Path) -> std::io::Result<()> {
    let removed = || match std::fs::remove_dir(path) {
        Err(error) if is(&error, Errno::ENOENT) => Ok(()),
        result => result,
    };
    match removed() {
        Err(error) if is(&error, Errno::EBUSY) || is(&error, Errno::ENOTEMPTY) => {
            match Dir::open(path) {
                Err(error) if is(&error, Errno::ENOENT) => return Ok(()),
                dir => tree::remove_children(&dir?)?,
            }
            removed()
        }
        result => result,
    }
}
