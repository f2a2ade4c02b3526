//! Stopping all processes of a container at once. On v1 and hybrid hosts through the freezer hierarchy, where the
//! processes certainly are; on v2 through `cgroup.freeze`.

use std::io::Read;
use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::dir::{Dir, is_gone};
use super::layout::Version;
use super::make;
use super::paths::Paths;
use super::place::{self, Place};
use crate::error::{Context, Error, Result};

const LONGEST_FREEZE: Duration = Duration::from_secs(10);

impl Paths {
    fn freezer(&self) -> Result<&Place> {
        place::v1(&self.places, "freezer")
            .or_else(|| place::v2(&self.places))
            .ok_or_else(|| {
                Error::Refused("the container has no cgroup that can freeze its processes".to_owned())
            })
    }

    /// Returns when every process stands still. If that can't be had, all run on.
    pub(crate) fn freeze(&self) -> Result<()> {
        let place = self.freezer()?;
        let dir = make::open(&place.path)?;
        let frozen = match place.version {
            Version::V1 => freeze_v1(&dir),
            Version::V2 => freeze_v2(&dir),
        };
        if frozen.is_err() {
            drop(mark(&dir, place.version, false));
        }
        frozen
    }

    pub(crate) fn thaw(&self) -> Result<()> {
        let place = self.freezer()?;
        mark(&make::open(&place.path)?, place.version, false)
    }

    /// Whether [`Paths::freeze`] was called last. A container whose groups are gone, or that never had any, is not
    /// frozen.
    pub(crate) fn is_frozen(&self) -> Result<bool> {
        let Ok(place) = self.freezer() else {
            return Ok(false);
        };
        match Dir::open(&place.path) {
            Ok(dir) => is_marked(&dir, place.version),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error).context(|| format!("open cgroup {}", place.path.display())),
        }
    }
}

/// Whether the group itself was told to freeze (not only one above it).
pub(super) fn is_marked(dir: &Dir, version: Version) -> Result<bool> {
    let file = match version {
        Version::V1 => "freezer.self_freezing",
        Version::V2 => "cgroup.freeze",
    };
    let text = dir
        .read_if_there(file)
        .context(|| format!("read {}", dir.path().join(file).display()))?;
    Ok(text.is_some_and(|text| text.trim() == "1"))
}

fn mark(dir: &Dir, version: Version, frozen: bool) -> Result<()> {
    match (version, frozen) {
        (Version::V1, true) => dir.set("freezer.state", "FROZEN"),
        (Version::V1, false) => dir.set("freezer.state", "THAWED"),
        (Version::V2, true) => dir.set("cgroup.freeze", "1"),
        (Version::V2, false) => dir.set("cgroup.freeze", "0"),
    }
}

fn timeout(dir: &Dir) -> Error {
    let seconds = LONGEST_FREEZE.as_secs();
    Error::Refused(format!(
        "cgroup {} did not freeze within {seconds} s",
        dir.path().display()
    ))
}

/// v1 may stay at FREEZING while processes come and go in the group; asking again helps, and now and then letting
/// them run (as runc found by experience).
fn freeze_v1(dir: &Dir) -> Result<()> {
    let end = Instant::now() + LONGEST_FREEZE;
    for round in 1.. {
        if round % 50 == 0 {
            mark(dir, Version::V1, false)?;
            sleep(Duration::from_millis(10));
        }
        mark(dir, Version::V1, true)?;
        if dir.get("freezer.state")?.trim() == "FROZEN" {
            return Ok(());
        }
        if Instant::now() > end {
            break;
        }
        // The first rounds follow at once: a few processes freeze within microseconds.
        if round > 5 {
            sleep(Duration::from_micros(500));
        }
    }
    Err(timeout(dir))
}

/// The kernel tells by a poll event on `cgroup.events` when all stand still.
fn freeze_v2(dir: &Dir) -> Result<()> {
    let what = || format!("freeze cgroup {}", dir.path().display());
    let mut events = dir.open_file("cgroup.events", OFlag::O_RDONLY).context(what)?;
    mark(dir, Version::V2, true)?;
    let end = Instant::now() + LONGEST_FREEZE;
    loop {
        let mut text = String::new();
        std::io::Seek::rewind(&mut events).context(what)?;
        events.read_to_string(&mut text).context(what)?;
        if text.lines().any(|line| line == "frozen 1") {
            return Ok(());
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(timeout(dir));
        }
        // Bounded, should an event be missed.
        let wait = PollTimeout::try_from(left.min(Duration::from_millis(100))).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], wait) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context(what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_tell_whether_they_were_told_to_freeze() {
        let path = super::super::tests::scratch("freezer");
        let dir = Dir::open(&path).unwrap();
        assert!(!is_marked(&dir, Version::V1).unwrap() && !is_marked(&dir, Version::V2).unwrap());
        std::fs::write(path.join("freezer.self_freezing"), "1\n").unwrap();
        std::fs::write(path.join("cgroup.freeze"), "0\n").unwrap();
        assert!(is_marked(&dir, Version::V1).unwrap() && !is_marked(&dir, Version::V2).unwrap());
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_v2_freeze_waits_for_the_event() {
        let path = super::super::tests::scratch("freeze-v2");
        std::fs::write(path.join("cgroup.freeze"), "0").unwrap();
        std::fs::write(path.join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        let events = path.join("cgroup.events");
        let kernel = std::thread::spawn(move || {
            std::fs::write(events, "populated 1\nfrozen 1\n").unwrap();
        });
        freeze_v2(&Dir::open(&path).unwrap()).unwrap();
        kernel.join().unwrap();
        assert_eq!(std::fs::read_to_string(path.join("cgroup.freeze")).unwrap(), "1");
        std::fs::remove_dir_all(path).unwrap();
    }
}
