//! Where a container's control groups are, and what they say: members and out-of-memory kills.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::sys::{self, Interest};

/// The folders of one container's groups. On a hybrid machine both fields are set; where no v1 controller is, the
/// unified group has them all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cgroup {
    /// v1: folder by controller.
    pub v1: BTreeMap<String, PathBuf>,
    pub unified: Option<PathBuf>,
}

impl Cgroup {
    /// The groups that a process is in now, and this process is not. `None` when it is in none but such ones and the
    /// root groups.
    ///
    /// A runtime that may make no groups (a normal user's) leaves a container in its own, which are those of this
    /// process: what is counted there is not the container's, and least of all may all in there be killed.
    pub(crate) fn of_process(pid: u32) -> Option<Self> {
        let membership = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let shared = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let membership = without(&membership, &shared);
        // The mount table has a few entries for each container of the host, so it is read only when the groups are
        // not where systemd and everybody else mounts them.
        let mut mounts = None;
        let cgroup = locate(&membership, |controller, path| {
            usual_place(controller, path).or_else(|| {
                let mounts = mounts.get_or_insert_with(|| {
                    std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()
                });
                mounted_place(mounts, controller, path)
            })
        });
        (cgroup != Self::default()).then_some(cgroup)
    }

    /// The groups that these lie in.
    pub(crate) fn parent(&self) -> Self {
        let parent = |folder: &PathBuf| folder.parent().map(Path::to_owned);
        Self {
            v1: self
                .v1
                .iter()
                .filter_map(|(controller, folder)| Some((controller.clone(), parent(folder)?)))
                .collect(),
            unified: self.unified.as_ref().and_then(parent),
        }
    }

    /// Whether statistics are those of cgroup v2.
    pub(crate) fn is_unified(&self) -> bool {
        !self.v1.contains_key("memory") && !self.v1.contains_key("cpuacct") && self.unified.is_some()
    }

    /// All processes of the container, in the host's numbers.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let folder = ["pids", "memory", "cpu", "freezer", "devices"]
            .iter()
            .find_map(|controller| self.v1.get(*controller))
            .or(self.unified.as_ref())
            .or(self.v1.values().next());
        let mut pids = Vec::new();
        if let Some(folder) = folder {
            collect_pids(folder, 0, &mut pids);
        }
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// SIGKILL for all processes. They need not be our children: each is held by a pidfd while the group is read again,
    /// in which a pid that was given away meanwhile is not found.
    pub(crate) fn kill_all(&self) {
        const HELD_MAX: usize = 64;
        for pids in self.pids().chunks(HELD_MAX) {
            let held: Vec<_> = pids.iter().map(|pid| (pid, sys::open_pidfd(*pid))).collect();
            let members = self.pids();
            for (pid, process) in held {
                if let Ok(process) = process
                    && members.binary_search(pid).is_ok()
                {
                    let _ = sys::kill_by_pidfd(&process);
                }
            }
        }
    }

    /// How many processes the kernel killed for want of memory. `None` when the groups are gone or don't tell.
    pub(crate) fn oom_kills(&self) -> Option<u64> {
        if let Some(folder) = self.v1.get("memory") {
            return flat_value(
                &std::fs::read_to_string(folder.join("memory.oom_control")).ok()?,
                "oom_kill",
            );
        }
        flat_value(
            &std::fs::read_to_string(self.unified.as_ref()?.join("memory.events")).ok()?,
            "oom_kill",
        )
    }

    /// A descriptor that wakes up when memory runs out; none when no memory controller is there.
    pub(crate) fn watch_memory(&self) -> io::Result<Option<MemoryWatch>> {
        if let Some(folder) = self.v1.get("memory") {
            let eventfd = sys::eventfd()?;
            let control = File::open(folder.join("memory.oom_control"))?;
            let line = format!("{} {}", eventfd.as_raw_fd(), control.as_raw_fd());
            File::options()
                .write(true)
                .open(folder.join("cgroup.event_control"))?
                .write_all(line.as_bytes())?;
            return Ok(Some(MemoryWatch::Eventfd(eventfd)));
        }
        let events = self.unified.as_ref().map(|folder| folder.join("memory.events"));
        match events.map(File::open) {
            Some(Ok(file)) => {
                let watch = MemoryWatch::Events(file);
                watch.settle();
                Ok(Some(watch))
            }
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(None),
        }
    }
}

/// What tells that memory has run out. Not inotify: a user may have 128 of those, and one shim has one container.
#[derive(Debug)]
pub(crate) enum MemoryWatch {
    /// v1: registered with `memory.oom_control`; readable after an event.
    Eventfd(OwnedFd),
    /// v2: `memory.events` itself, which has priority data from a change until it is read again (cgroup-v2.rst).
    Events(File),
}

impl MemoryWatch {
    pub(crate) fn interest(&self) -> Interest {
        match self {
            Self::Eventfd(_) => Interest::Readable,
            Self::Events(_) => Interest::Priority,
        }
    }

    /// Takes note of what was told, so that only the next event wakes up again.
    pub(crate) fn settle(&self) {
        let mut buffer = [0; 512];
        // The group may be gone; the caller finds that out when it reads the counts.
        match self {
            Self::Eventfd(eventfd) => drop(sys::read(eventfd, &mut buffer[..8])),
            Self::Events(file) => drop(file.read_at(&mut buffer, 0)),
        }
    }
}

impl AsFd for MemoryWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Eventfd(eventfd) => eventfd.as_fd(),
            Self::Events(file) => file.as_fd(),
        }
    }
}

/// Moves this process into an existing group (the `ShimCgroup` option).
pub(crate) fn join(path: &str) -> io::Result<()> {
    let relative = path.trim_start_matches('/');
    let mut joined = 0;
    let mut candidates = vec![PathBuf::from("/sys/fs/cgroup")];
    candidates.extend(
        std::fs::read_dir("/sys/fs/cgroup")?
            .flatten()
            .map(|entry| entry.path()),
    );
    for mount in candidates {
        let procs = mount.join(relative).join("cgroup.procs");
        if procs.is_file() {
            std::fs::write(procs, "0")?;
            joined += 1;
        }
    }
    if joined == 0 {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("no control group {path} in any hierarchy"),
        ));
    }
    Ok(())
}

fn collect_pids(folder: &Path, depth: u32, pids: &mut Vec<u32>) {
    const DEPTH_MAX: u32 = 16;
    const PIDS_MAX: usize = 1 << 16;
    if depth > DEPTH_MAX || pids.len() > PIDS_MAX {
        return;
    }
    if let Ok(text) = std::fs::read_to_string(folder.join("cgroup.procs")) {
        pids.extend(
            text.lines()
                .filter_map(|line| line.parse::<u32>().ok())
                .filter(|pid| *pid > 0),
        );
    }
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_pids(&entry.path(), depth + 1, pids);
        }
    }
}

/// The number behind `key` in lines of `key value`.
pub(crate) fn flat_value(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The lines of `membership` that are not in `shared`.
fn without(membership: &str, shared: &str) -> String {
    let own = |line: &&str| !shared.lines().any(|other| other == *line);
    membership
        .lines()
        .filter(own)
        .flat_map(|line| [line, "\n"])
        .collect()
}

/// Joins what /proc/PID/cgroup says with where the hierarchies are: `place` finds the folder of a path in the hierarchy
/// with a controller, or in the unified one.
fn locate(membership: &str, mut place: impl FnMut(Option<&str>, &str) -> Option<PathBuf>) -> Cgroup {
    let mut cgroup = Cgroup::default();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        // In the root group there is nothing that is the container's own.
        if path == "/" || path.contains("/..") {
            continue;
        }
        if controllers.is_empty() {
            cgroup.unified = place(None, path);
            continue;
        }
        for controller in controllers.split(',') {
            if let Some(folder) = place(Some(controller), path) {
                cgroup.v1.insert(controller.to_owned(), folder);
            }
        }
    }
    cgroup
}

fn usual_place(controller: Option<&str>, path: &str) -> Option<PathBuf> {
    let mounts = match controller {
        Some(controller) => vec![controller.strip_prefix("name=").unwrap_or(controller)],
        None => vec!["unified", ""],
    };
    let mounts = mounts
        .into_iter()
        .map(|mount| Path::new("/sys/fs/cgroup").join(mount));
    mounts
        .map(|mount| mount.join(path.trim_start_matches('/')))
        .find(|folder| folder.join("cgroup.procs").exists())
}

fn mounted_place(mountinfo: &str, controller: Option<&str>, path: &str) -> Option<PathBuf> {
    mount_point(mountinfo, controller).map(|(root, point)| below(&root, &point, path))
}

/// A mount shows a part of the hierarchy that begins at `root`.
fn below(root: &str, point: &Path, path: &str) -> PathBuf {
    let inside = path.strip_prefix(root.trim_end_matches('/')).unwrap_or(path);
    point.join(inside.trim_start_matches('/'))
}

/// (root, mount point) of the hierarchy with `controller`, or of the unified one.
fn mount_point(mountinfo: &str, controller: Option<&str>) -> Option<(String, PathBuf)> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let (kind, _, options) = (right.next()?, right.next()?, right.next()?);
        let found = match controller {
            None => kind == "cgroup2",
            Some(controller) => kind == "cgroup" && options.split(',').any(|option| option == controller),
        };
        found.then(|| (root.to_owned(), point.into()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 25 0:27 / /sys/fs/cgroup/cpu rw,relatime shared:1 - cgroup cgroup rw,cpu
32 25 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
33 25 0:29 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
34 25 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn groups_that_the_shim_is_in_are_not_the_containers() {
        let shim = "9:name=systemd:/\n4:memory:/user\n0::/\n";
        let of = "9:name=systemd:/\n4:memory:/user/c1\n0::/\n";
        assert_eq!(without(of, shim), "4:memory:/user/c1\n");
        assert_eq!(without(shim, shim), "");
    }

    #[test]
    fn groups_are_found_on_a_hybrid_machine() {
        let membership = "3:memory:/berth/c1\n2:cpu:/berth/c1\n1:name=systemd:/\n0::/berth/c1\n";
        let cgroup = locate(membership, |controller, path| {
            mounted_place(HYBRID, controller, path)
        });
        assert_eq!(cgroup.v1["memory"], Path::new("/sys/fs/cgroup/memory/berth/c1"));
        assert_eq!(
            cgroup.unified.as_deref(),
            Some(Path::new("/sys/fs/cgroup/unified/berth/c1"))
        );
        assert!(!cgroup.v1.contains_key("name=systemd"));
        assert!(!cgroup.is_unified());
    }

    #[test]
    fn groups_are_found_on_a_unified_machine_and_below_a_bound_root() {
        let mounts = "30 25 0:26 /outer /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let place = |controller: Option<&str>, path: &str| mounted_place(mounts, controller, path);
        let cgroup = locate("0::/outer/c2\n", place);
        assert_eq!(cgroup.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/c2")));
        assert!(cgroup.is_unified());
        assert_eq!(locate("0::/\n", place), Cgroup::default());
    }

    #[test]
    fn flat_values_need_the_whole_key() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(flat_value(text, "oom_kill"), Some(3));
        assert_eq!(flat_value(text, "oom"), None);
    }
}
