//! Mounts of type `cgroup`: the container's own groups at the customary places, whatever version the host has.
//!
//! On v1 and hybrid hosts that is a small tmpfs with a folder for each hierarchy. Each is a bind of the container's
//! group and not a new cgroup mount: inside a cgroup namespace both look the same (the group is the root of what
//! mountinfo shows), without one only the bind keeps the host's other groups out of sight, and in a user namespace
//! only the bind is allowed.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use libc::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID};
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::mount::MsFlags;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::symlinkat;

use super::change::{self, Change};
use super::filesystem::FileSystem;
use super::inside;
use super::options::Parameter;
use super::places::Places;
use super::plan::Entry;
use crate::error::{Context as _, Result};
use crate::sys::fd::close_later;
use crate::sys::mount::{self, At};

pub(super) fn mount(places: &mut Places, entry: &Entry) -> Result<()> {
    if places.context.unified {
        return places.new_file_system(entry, "cgroup2", "cgroup");
    }
    let place = inside::absolute(&entry.destination);
    let data = [Parameter {
        key: "mode".into(),
        value: Some("755".into()),
    }];
    let tmpfs = FileSystem {
        fs_type: "tmpfs",
        source: "tmpfs",
        attributes: MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
        read_only: false,
        superblock: &[],
        data: &data,
        label: None,
    };
    let tmpfs = places.put_new(entry, &tmpfs)?;
    fill(&tmpfs, &places.context.cgroups, &place)?;
    let mut attributes = entry.options.attributes;
    attributes.set |= entry.options.recursive.set;
    let what = || format!("set the options of {}", place.display());
    if !change::detached(
        tmpfs.as_fd(),
        &[Change {
            recursive: true,
            attributes,
            implied: 0,
        }],
    )
    .context(what)?
    {
        let each = [Change {
            recursive: false,
            attributes,
            implied: 0,
        }];
        for name in places.context.cgroups.keys() {
            let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
            let group = openat(&tmpfs, name.as_str(), flags, Mode::empty()).context(what)?;
            change::attached(group.as_fd(), &each).context(what)?;
        }
        change::attached(tmpfs.as_fd(), &each).context(what)?;
    }
    close_later(tmpfs);
    Ok(())
}

/// Binds each group into the tmpfs. Hierarchies with several controllers also go by the name of each.
fn fill(tmpfs: &OwnedFd, groups: &BTreeMap<String, PathBuf>, place: &Path) -> Result<()> {
    for (name, group) in groups {
        let what = || {
            format!(
                "bind the cgroup {} at {}/{name}",
                group.display(),
                place.display()
            )
        };
        mkdirat(tmpfs, name.as_str(), Mode::from_bits_truncate(0o755)).context(what)?;
        // The tmpfs is new and ours: no name in it is a link. So mount(2) may be told the place by a path.
        let target = change::proc_path(tmpfs.as_fd()).join(name);
        let bound = mount::mount(group, &target, "", MsFlags::MS_BIND, "");
        if bound.is_err() {
            let from = At {
                folder: AT_FDCWD,
                path: group,
            };
            let to = At {
                folder: tmpfs.as_fd(),
                path: Path::new(name),
            };
            let tree = mount::open_tree_clone(from, false).context(what)?;
            mount::move_mount(tree.as_fd(), to, false).context(what)?;
            close_later(tree);
        }
        if name.contains(',') {
            for controller in name.split(',') {
                let what = || format!("link {}/{controller} to {name}", place.display());
                symlinkat(name.as_str(), tmpfs, controller).context(what)?;
            }
        }
    }
    Ok(())
}
