//! What this kernel's cgroups can do. A file may be missing because the kernel is built or started without it, or
//! because the other version of cgroups has another one.

use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

/// The tree of hierarchies.
pub(crate) struct Cgroups {
    root: PathBuf,
}

impl Cgroups {
    /// This machine's.
    pub(crate) fn of_this_machine() -> Self {
        Self::at(Path::new(ROOT))
    }

    pub(super) fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Whether groups have the file: `v1` in version 1's hierarchy of `controller`, where there is one, else `v2`.
    pub(super) fn offer(&self, controller: &str, v1: &[&str], v2: &[&str]) -> bool {
        let of_v1 = self.root.join(controller);
        let (folder, names) = if of_v1.is_dir() {
            (of_v1.as_path(), v1)
        } else {
            (self.root.as_path(), v2)
        };
        // Some files are in every group but the first.
        let children = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let children = children.map(|entry| entry.path());
        [folder.to_owned()]
            .into_iter()
            .chain(children)
            .any(|group| names.iter().any(|name| group.join(name).exists()))
    }

    /// The roots of all hierarchies: of version 1 one a controller, and maybe that of version 2 beside them.
    pub(crate) fn hierarchies(&self) -> Vec<PathBuf> {
        if self.root.join("cgroup.controllers").exists() {
            return vec![self.root.clone()];
        }
        let children = std::fs::read_dir(&self.root).into_iter().flatten().flatten();
        // Links lead to the hierarchy of several controllers, by one of their names.
        let folders = children.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.map(|entry| entry.path()).collect()
    }

    /// Microseconds of real-time in a period that a group of version 1 has; 0 of one that is not there.
    pub(super) fn real_time_micros(&self, group: &str) -> i64 {
        let path = self.root.join("cpu").join(group).join("cpu.rt_runtime_us");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        match text.trim().parse() {
            Ok(micros) if micros < 0 => i64::MAX,
            Ok(micros) => micros,
            Err(_) => 0,
        }
    }

    /// Whether swap is counted by group.
    pub(super) fn count_swap(&self) -> bool {
        self.offer("memory", &["memory.memsw.limit_in_bytes"], &["memory.swap.max"])
    }

    /// What groups can limit here, of [`crate::Info::LIMITS`].
    pub(crate) fn limits(&self) -> Vec<&'static str> {
        let files = [
            ("memory", "memory.limit_in_bytes", "memory.max"),
            ("memory", "memory.memsw.limit_in_bytes", "memory.swap.max"),
            ("memory", "memory.oom_control", ""),
            ("cpu", "cpu.shares", "cpu.weight"),
            ("cpu", "cpu.cfs_quota_us", "cpu.max"),
            ("cpu", "cpu.rt_runtime_us", ""),
            ("cpuset", "cpuset.cpus", "cpuset.cpus"),
            ("pids", "pids.max", "pids.max"),
        ];
        let here = crate::Info::LIMITS.into_iter().zip(files);
        here.filter(|(_, (controller, v1, v2))| {
            let v2: &[&str] = if v2.is_empty() { &[] } else { &[v2] };
            self.offer(controller, &[v1], v2)
        })
        .map(|(name, _)| name)
        .collect()
    }

    /// The CPUs or memory nodes (`cpus`, `mems`) that groups can be given, as the kernel writes them.
    pub(crate) fn set(&self, kind: &str) -> Option<String> {
        let v1 = self.root.join(format!("cpuset/cpuset.{kind}"));
        let v2 = self.root.join(format!("cpuset.{kind}.effective"));
        let text = std::fs::read_to_string(v1).or_else(|_| std::fs::read_to_string(v2));
        Some(text.ok()?.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn accounting_of_swap_is_seen_in_both_versions() {
        let folder = tempfile::tempdir().unwrap();
        let (v1, v2) = (folder.path().join("1"), folder.path().join("2"));
        fs::create_dir_all(v1.join("memory")).unwrap();
        fs::create_dir_all(v2.join("system.slice")).unwrap();
        let counts = |root: &Path| Cgroups::at(root).count_swap();
        assert!(!counts(&v1) && !counts(&v2));
        fs::write(v1.join("memory/memory.memsw.limit_in_bytes"), "").unwrap();
        fs::write(v2.join("system.slice/memory.swap.max"), "").unwrap();
        assert!(counts(&v1) && counts(&v2));
    }
}
