//! A scratch folder, a unique name, and the look at the end for what was left behind.

use crate::process::DEADLINE;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// One test's part of the machine. All that belongs to the test has [`Sandbox::id`] or the scratch folder in
/// its name, by which whatever is left at the end is found, reported and removed.
pub struct Sandbox {
    id: String,
    folder: tempfile::TempDir,
    owned: std::cell::RefCell<Vec<PathBuf>>,
}

impl Sandbox {
    /// # Panics
    /// When the test is not root, or the scratch folder can't be made.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests make namespaces, mounts and cgroups: run them as root"
        );
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::Builder::new()
            .prefix("berth-")
            .tempdir()
            .expect("make a scratch folder");
        // Process ids come again, and what an earlier run left must not be taken for ours.
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |age| age.subsec_nanos());
        let id = format!("bt{}r{:x}x{number}", std::process::id(), now >> 14);
        // Tests of user namespaces reach the rootfs as other users.
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("open the folder");
        Self {
            id,
            folder,
            owned: std::cell::RefCell::default(),
        }
    }

    /// A name that no other test has; good as a container id, and as the start of one.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The scratch folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A folder that must be empty or gone at the end, such as a runtime's `--root`.
    pub fn owns(&self, folder: &Path) {
        self.owned.borrow_mut().push(folder.to_owned());
    }

    /// All that is left of this test now, a line each; empty when all is clean.
    pub fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        found.extend(
            self.mounts()
                .into_iter()
                .map(|target| format!("mount {}", target.display())),
        );
        found.extend(
            self.cgroups()
                .into_iter()
                .map(|group| format!("cgroup {}", group.display())),
        );
        found.extend(
            self.processes()
                .into_iter()
                .map(|pid| format!("process {pid}: {}", command_line(pid))),
        );
        for folder in self.owned.borrow().iter() {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            found.extend(entries.map(|entry| format!("file {}", entry.path().display())));
        }
        found
    }

    /// Wait until nothing is left, or fail with the list.
    #[track_caller]
    pub fn assert_clean(&self) {
        let until = Instant::now() + DEADLINE / 3;
        loop {
            let found = self.leftovers();
            if found.is_empty() {
                return;
            }
            assert!(Instant::now() < until, "left behind:\n{}", found.join("\n"));
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn mounts(&self) -> Vec<PathBuf> {
        let table = fs::read_to_string("/proc/self/mountinfo").expect("read the mounts");
        let targets = table
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .map(PathBuf::from);
        targets.filter(|target| target.starts_with(self.path())).collect()
    }

    /// The groups with our name in theirs, deepest first.
    fn cgroups(&self) -> Vec<PathBuf> {
        fn walk(folder: &Path, id: &str, depth: u32, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                let ours = entry.path().to_string_lossy().contains(id);
                if ours || depth < 3 {
                    walk(&entry.path(), id, depth + u32::from(!ours), found);
                }
                if ours {
                    found.push(entry.path());
                }
            }
        }
        let mut found = Vec::new();
        // The id ends in a number: "x1" must not find "x12".
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            if hierarchy.file_type().is_ok_and(|kind| kind.is_dir()) {
                walk(&hierarchy.path(), &self.id, 1, &mut found);
            }
        }
        found.retain(|group| names_id(&group.to_string_lossy(), &self.id));
        found
    }

    /// Processes that name the scratch folder or the id in their arguments, or live in a root below it.
    fn processes(&self) -> Vec<i32> {
        let own = std::process::id() as i32;
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<i32>().ok())
            else {
                continue;
            };
            let folder = self.path().to_string_lossy();
            let state = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let is_zombie = state
                .rsplit(") ")
                .next()
                .is_some_and(|rest| rest.starts_with(['Z', 'X']));
            let line = command_line(pid);
            let named = line.contains(&*folder) || names_id(&line, &self.id);
            let inside = ["root", "cwd"].iter().any(|link| {
                fs::read_link(entry.path().join(link)).is_ok_and(|target| target.starts_with(self.path()))
            });
            if pid != own && !is_zombie && (named || inside) {
                found.push(pid);
            }
        }
        found
    }

    /// Take away all that is left, so that one failed test does not fail the next.
    fn sweep(&self) {
        for _ in 0..5 {
            for pid in self.processes() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            for group in self.cgroups() {
                for pid in fs::read_to_string(group.join("cgroup.procs"))
                    .unwrap_or_default()
                    .lines()
                {
                    let pid = pid.parse().unwrap_or(0);
                    if pid > 1 && pid != std::process::id() as i32 {
                        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                    }
                }
                if group.join("freezer.state").exists() {
                    let _ = fs::write(group.join("freezer.state"), "THAWED");
                }
                let _ = fs::remove_dir(&group);
            }
            for target in self.mounts().iter().rev() {
                let _ = umount2(target, MntFlags::MNT_DETACH);
            }
            if self.processes().is_empty() && self.cgroups().is_empty() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let failed = thread::panicking();
        let until = Instant::now() + if failed { Duration::ZERO } else { DEADLINE / 3 };
        let mut found = self.leftovers();
        while !found.is_empty() && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
            found = self.leftovers();
        }
        self.sweep();
        assert!(failed || found.is_empty(), "left behind:\n{}", found.join("\n"));
    }
}

fn command_line(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// Whether `text` holds `id` other than as the start of a longer number.
fn names_id(text: &str, id: &str) -> bool {
    text.match_indices(id)
        .any(|(at, _)| !text[at + id.len()..].starts_with(|next: char| next.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_not_found_in_a_longer_one() {
        assert!(names_id("/berth/bt7x1", "bt7x1"));
        assert!(names_id("/berth/bt7x12 bt7x1-a", "bt7x1"));
        assert!(!names_id("/berth/bt7x12", "bt7x1"));
    }
}
