//! Which cgroup hierarchies this host has, where they are mounted, and in which group of each we are ourselves.
//!
//! The usual places are tried first: /sys/fs/cgroup is a cgroup2 mount, or a tmpfs with one folder for each line of
//! /proc/self/cgroup. Only when that does not fit is /proc/self/mountinfo read, which is long on a busy host.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, TMPFS_MAGIC, statfs};
use serde::{Deserialize, Serialize};

use super::dir::{read_piece, read_text};
use crate::error::{Context, Result};
use crate::sys::fd::{close_later, names, open};

const ROOT: &str = "/sys/fs/cgroup";
/// Where systemd mounts the cgroup2 hierarchy beside the v1 ones.
const HYBRID: &str = "unified";

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Version {
    V1,
    V2,
}

/// One mounted hierarchy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Hierarchy {
    pub(super) version: Version,
    /// v1: as in /proc/self/cgroup (`cpu`, `cpuacct`, `name=systemd`); v2: empty.
    pub(super) controllers: Vec<String>,
    pub(super) mountpoint: PathBuf,
    /// Our own group, relative to the mount point.
    pub(super) own: PathBuf,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Layout {
    pub(super) hierarchies: Vec<Hierarchy>,
}

impl Layout {
    /// `own` says whether the caller needs [`Hierarchy::own`] to be right.
    pub(super) fn find(own: bool) -> Result<Self> {
        let memberships = parse_memberships(&read_memberships()?);
        let usual = match statfs(ROOT).map(|fs| fs.filesystem_type()) {
            Ok(CGROUP2_SUPER_MAGIC) => unified(Path::new(ROOT), &memberships),
            Ok(TMPFS_MAGIC) => by_name(Path::new(ROOT), &memberships, is_cgroup2),
            _ => None,
        };
        match usual {
            Some(layout) if !own || layout.own_groups_exist() => Ok(layout),
            _ => Ok(from_mountinfo(&read("/proc/self/mountinfo")?, &memberships)),
        }
    }

    /// Only the cgroup2 hierarchy, with all controllers.
    pub(super) fn is_unified(&self) -> bool {
        self.hierarchies
            .iter()
            .all(|hierarchy| hierarchy.version == Version::V2)
    }

    /// Without a cgroup namespace a container may see a hierarchy whose mount begins below the root. Then the paths
    /// of /proc/self/cgroup do not fit the mount.
    fn own_groups_exist(&self) -> bool {
        self.hierarchies
            .iter()
            .all(|each| each.own.as_os_str().is_empty() || each.mountpoint.join(&each.own).is_dir())
    }
}

/// One line of /proc/self/cgroup: `4:cpu,cpuacct:/user.slice` or `0::/user.slice`.
#[derive(Debug, Eq, PartialEq)]
struct Membership {
    /// Empty for cgroup2.
    controllers: Vec<String>,
    path: PathBuf,
}

fn parse_memberships(text: &str) -> Vec<Membership> {
    let line = |line: &str| {
        let mut fields = line.splitn(3, ':');
        let (_id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let controllers = controllers
            .split(',')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        // A group that was removed while we are in it.
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        Some(Membership {
            controllers,
            path: PathBuf::from(path),
        })
    };
    text.lines().filter_map(line).collect()
}

/// The group of a process in the cgroup2 hierarchy, as /proc/`pid`/cgroup says.
pub(super) fn unified_group_of(pid: i32) -> Result<Option<PathBuf>> {
    let memberships = parse_memberships(&read(&format!("/proc/{pid}/cgroup"))?);
    Ok(memberships
        .into_iter()
        .find(|each| each.controllers.is_empty())
        .map(|each| each.path))
}

/// The group that systemd has a process in: in the cgroup2 hierarchy, or in the v1 one that it has for itself.
pub(super) fn systemd_group_of(pid: i32) -> Result<Option<PathBuf>> {
    let memberships = parse_memberships(&read(&format!("/proc/{pid}/cgroup"))?);
    let own = |each: &&Membership| each.controllers == ["name=systemd"];
    let found = memberships.iter().find(own);
    let found = found.or_else(|| memberships.iter().find(|each| each.controllers.is_empty()));
    Ok(found.map(|each| each.path.clone()))
}

fn relative(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).to_owned()
}

fn unified(root: &Path, memberships: &[Membership]) -> Option<Layout> {
    let own = memberships.iter().find(|each| each.controllers.is_empty())?;
    let hierarchy = Hierarchy {
        version: Version::V2,
        controllers: Vec::new(),
        mountpoint: root.to_owned(),
        own: relative(&own.path),
    };
    Some(Layout {
        hierarchies: vec![hierarchy],
    })
}

fn is_cgroup2(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// `None` if a hierarchy is not where its name says: then mountinfo has to tell.
fn by_name(root: &Path, memberships: &[Membership], is_cgroup2: impl Fn(&Path) -> bool) -> Option<Layout> {
    let folder = open(root, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty()).ok()?;
    let there: BTreeSet<_> = names(folder.as_fd()).ok()?.into_iter().collect();
    close_later(folder.into());
    let mut hierarchies = Vec::with_capacity(memberships.len());
    for membership in memberships {
        let (version, name) = if membership.controllers.is_empty() {
            (Version::V2, HYBRID.to_owned())
        } else {
            let joined = membership.controllers.join(",");
            (
                Version::V1,
                joined.strip_prefix("name=").map_or(joined.clone(), str::to_owned),
            )
        };
        // Where systemd has its folder, the file system may be unmounted.
        let is_mounted = || version == Version::V1 || is_cgroup2(&root.join(&name));
        if !there.contains(OsStr::new(&name)) || !is_mounted() {
            // A host with v1 alone still has the line `0::/`.
            if version == Version::V2 {
                continue;
            }
            return None;
        }
        hierarchies.push(Hierarchy {
            version,
            controllers: membership.controllers.clone(),
            mountpoint: root.join(name),
            own: relative(&membership.path),
        });
    }
    Some(Layout { hierarchies })
}

fn from_mountinfo(text: &str, memberships: &[Membership]) -> Layout {
    let mut hierarchies: Vec<Hierarchy> = Vec::new();
    for line in text.lines() {
        let Some((mount_root, mountpoint, kind, options)) = parse_mount(line) else {
            continue;
        };
        let (version, membership) = match kind {
            "cgroup2" => (
                Version::V2,
                memberships.iter().find(|each| each.controllers.is_empty()),
            ),
            "cgroup" => {
                let options: BTreeSet<&str> = options.split(',').collect();
                let holds = |each: &&Membership| {
                    !each.controllers.is_empty()
                        && each
                            .controllers
                            .iter()
                            .all(|name| options.contains(name.as_str()))
                };
                (Version::V1, memberships.iter().find(holds))
            }
            _ => continue,
        };
        let Some(membership) = membership else { continue };
        // The first mount of a hierarchy counts, as in runc.
        let known = |each: &Hierarchy| each.version == version && each.controllers == membership.controllers;
        if hierarchies.iter().any(known) {
            continue;
        }
        let own = membership.path.strip_prefix(&mount_root).map(Path::to_owned);
        hierarchies.push(Hierarchy {
            version,
            controllers: membership.controllers.clone(),
            mountpoint,
            own: own.unwrap_or_else(|_| relative(&membership.path)),
        });
    }
    Layout { hierarchies }
}

/// Root, mount point, file system type and super block options of one line of mountinfo, see
/// `proc_pid_mountinfo(5)`.
fn parse_mount(line: &str) -> Option<(PathBuf, PathBuf, &str, &str)> {
    let (head, tail) = line.split_once(" - ")?;
    let mut head = head.split(' ').skip(3);
    let (root, mountpoint) = (unescape(head.next()?), unescape(head.next()?));
    let mut tail = tail.split(' ');
    let kind = tail.next()?;
    Some((root, mountpoint, kind, tail.nth(1)?))
}

/// mountinfo writes blanks and backslashes as `\040`.
fn unescape(field: &str) -> PathBuf {
    let bytes = field.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        let byte = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 4 } else { 1 };
    }
    PathBuf::from(OsStr::from_bytes(&plain))
}

/// /proc/self/cgroup. The kernel makes its text as one piece, so one read has it all.
fn read_memberships() -> Result<String> {
    let what = || "read /proc/self/cgroup".into();
    let mut file = open(Path::new("/proc/self/cgroup"), OFlag::O_RDONLY, Mode::empty()).context(what)?;
    let text = read_piece(&mut file).context(what)?;
    close_later(file.into());
    Ok(text)
}

fn read(path: &str) -> Result<String> {
    let what = || format!("read {path}");
    let mut file = File::open(path).context(what)?;
    let text = read_text(&mut file).context(what)?;
    close_later(file.into());
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBERSHIPS: &str = "9:name=systemd:/\n4:memory:/a/b\n2:cpu,cpuacct:/docker/x\n0::/init.scope\n";

    fn names(layout: &Layout) -> Vec<(String, PathBuf, PathBuf)> {
        let each = |each: &Hierarchy| {
            (
                each.controllers.join(","),
                each.mountpoint.clone(),
                each.own.clone(),
            )
        };
        layout.hierarchies.iter().map(each).collect()
    }

    #[test]
    fn usual_folders_of_a_hybrid_host() {
        let root = tempfile();
        for name in ["systemd", "memory", "cpu,cpuacct", "unified"] {
            std::fs::create_dir(root.join(name)).unwrap();
        }
        let layout = by_name(&root, &parse_memberships(MEMBERSHIPS), |_| true).unwrap();
        assert_eq!(
            names(&layout),
            [
                ("name=systemd".into(), root.join("systemd"), "".into()),
                ("memory".into(), root.join("memory"), "a/b".into()),
                ("cpu,cpuacct".into(), root.join("cpu,cpuacct"), "docker/x".into()),
                (String::new(), root.join("unified"), "init.scope".into()),
            ]
        );
        assert!(!layout.is_unified() && !layout.own_groups_exist());
        // The folder of an unmounted hierarchy is only a folder.
        let layout = by_name(&root, &parse_memberships(MEMBERSHIPS), |_| false).unwrap();
        assert_eq!(names(&layout).len(), 3);
        std::fs::remove_dir(root.join("memory")).unwrap();
        assert_eq!(by_name(&root, &parse_memberships(MEMBERSHIPS), |_| true), None);
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn mountinfo_tells_mount_points_and_their_roots() {
        let text = "22 27 0:21 / /proc rw - proc proc rw\n\
            32 31 0:29 /docker/x /sys/fs/cgroup/cpuacct,cpu rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n\
            33 31 0:32 / /cg\\040dir/memory rw shared:9 - cgroup cgroup rw,memory\n\
            34 31 0:32 / /again/memory rw shared:9 - cgroup cgroup rw,memory\n\
            35 31 0:37 / /cg/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
            36 31 0:38 / /cg/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let layout = from_mountinfo(text, &parse_memberships(MEMBERSHIPS));
        assert_eq!(
            names(&layout),
            [
                (
                    "cpu,cpuacct".into(),
                    "/sys/fs/cgroup/cpuacct,cpu".into(),
                    "".into()
                ),
                ("memory".into(), "/cg dir/memory".into(), "a/b".into()),
                ("name=systemd".into(), "/cg/systemd".into(), "".into()),
                (String::new(), "/cg/unified".into(), "init.scope".into()),
            ]
        );
    }

    #[test]
    fn a_unified_host_has_one_hierarchy() {
        let layout = unified(
            Path::new("/sys/fs/cgroup"),
            &parse_memberships("0::/user.slice/a (deleted)\n"),
        );
        let layout = layout.unwrap();
        assert!(layout.is_unified());
        assert_eq!(layout.hierarchies[0].own, Path::new("user.slice/a"));
    }

    fn tempfile() -> PathBuf {
        super::super::tests::scratch("layout")
    }
}
