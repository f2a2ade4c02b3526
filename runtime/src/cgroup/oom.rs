//! Learning that the kernel killed for lack of memory in a container.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::layout::Version;
use super::make;
use super::paths::Paths;
use super::place::{self, Place};
use crate::error::{Context, Error, Result};
use crate::sys::notify;

/// What [`OomWatch::take`] found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Oom {
    /// Nothing new.
    None,
    /// At least one event since the last call.
    Happened,
    /// The container's group is gone, no event will come.
    Gone,
}

/// Poll [`OomWatch::fd`] for input, then call [`OomWatch::take`]. The end of the container is not always told here:
/// watch for it by other means too.
#[derive(Debug)]
pub(crate) struct OomWatch {
    /// v1: an eventfd; v2: an inotify descriptor on memory.events.
    file: File,
    version: Version,
    group: PathBuf,
    kills: u64,
}

impl Paths {
    fn memory(&self) -> Result<&Place> {
        place::v1(&self.places, "memory")
            .or_else(|| place::v2(&self.places))
            .ok_or_else(|| Error::Refused("the container has no memory cgroup to watch".to_owned()))
    }

    pub(crate) fn oom_watch(&self) -> Result<OomWatch> {
        let place = self.memory()?;
        let what = || format!("watch {} for lack of memory", place.path.display());
        let file = match place.version {
            Version::V1 => {
                let dir = make::open(&place.path)?;
                let event = notify::eventfd().context(what)?;
                let control = dir
                    .open_file("memory.oom_control", OFlag::O_RDONLY)
                    .context(what)?;
                dir.set(
                    "cgroup.event_control",
                    &format!("{} {}", event.as_raw_fd(), control.as_raw_fd()),
                )?;
                event
            }
            Version::V2 => notify::watch_modified(&place.path.join("memory.events")).context(what)?,
        };
        let (version, group) = (place.version, place.path.clone());
        Ok(OomWatch {
            file,
            version,
            kills: kills(&group),
            group,
        })
    }
}

/// The number of processes that the kernel killed for lack of memory in a v2 group; 0 if the group is gone.
fn kills(group: &Path) -> u64 {
    std::fs::read_to_string(group.join("memory.events")).map_or(0, |text| count(&text))
}

fn count(text: &str) -> u64 {
    let value = |line: &str| line.strip_prefix("oom_kill ")?.trim().parse().ok();
    text.lines().find_map(value).unwrap_or(0)
}

impl OomWatch {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Never blocks.
    pub(crate) fn take(&mut self) -> Result<Oom> {
        let mut buffer = [0; 4096];
        let mut any = false;
        loop {
            match self.file.read(&mut buffer) {
                Ok(_) => any = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(error).context(|| format!("read events of {}", self.group.display()));
                }
            }
        }
        if !self.group.exists() {
            return Ok(Oom::Gone);
        }
        // A v1 event says all: also of an OOM without a kill, where the killer is disabled.
        if self.version == Version::V1 {
            return Ok(if any { Oom::Happened } else { Oom::None });
        }
        // A v2 file is modified for other counters too.
        let kills = kills(&self.group);
        let more = kills > self.kills;
        self.kills = self.kills.max(kills);
        Ok(if more { Oom::Happened } else { Oom::None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_v2_watch_tells_each_kill_once() {
        let path = super::super::tests::scratch("oom");
        let events = path.join("memory.events");
        std::fs::write(&events, "low 0\noom 1\noom_kill 1\noom_group_kill 0\n").unwrap();
        let place = Place {
            version: Version::V2,
            controllers: Vec::new(),
            mountpoint: path.clone(),
            path: path.clone(),
        };
        let paths = Paths::new(vec![place]);
        let mut watch = paths.oom_watch().unwrap();
        assert_eq!(watch.take().unwrap(), Oom::None);
        std::fs::write(&events, "low 0\noom 1\noom_kill 3\n").unwrap();
        assert_eq!(watch.take().unwrap(), Oom::Happened);
        assert_eq!(watch.take().unwrap(), Oom::None);
        std::fs::remove_dir_all(&path).unwrap();
        assert_eq!(watch.take().unwrap(), Oom::Gone);
    }
}
