//! Attributes and propagation of a mount that exists, by `mount_setattr` or, before Linux 5.12, by mount(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MOUNT_ATTR_STRICTATIME,
};
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::mount::MsFlags;
use nix::sys::stat::Mode;
use nix::sys::statfs::fstatfs;
use nix::sys::statvfs::FsFlags;

use super::options::Options;
use crate::error::{Context as _, Result};
use crate::sys::mount::{self, At, Attributes};

/// One call's worth of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) recursive: bool,
    pub(super) attributes: Attributes,
    /// Attributes that are cleared too unless they are locked: somebody who has a user namespace around us (rootless
    /// podman, rootlesskit) can't take away what its host has set, and has not asked for that by name.
    pub(super) implied: u64,
}

/// Set by the first `mount_setattr` that the kernel did not know.
static MISSING: AtomicBool = AtomicBool::new(false);
/// The same for `open_tree_attr`.
static COPY_MISSING: AtomicBool = AtomicBool::new(false);

impl Change {
    pub(super) fn propagation(kind: u64, recursive: bool) -> Self {
        Self {
            recursive,
            attributes: Attributes {
                propagation: kind,
                ..Attributes::default()
            },
            implied: 0,
        }
    }

    /// Makes the change, by `set`; without what is implied where the kernel refuses that.
    fn make<T>(self, set: impl Fn(Attributes) -> io::Result<T>) -> io::Result<T> {
        let mut whole = self.attributes;
        whole.clear |= self.implied;
        match set(whole) {
            Err(error) if self.implied != 0 && error.raw_os_error() == Some(libc::EPERM) => {
                set(self.attributes)
            }
            other => other,
        }
    }

    fn read_only() -> Self {
        let attributes = Attributes {
            set: MOUNT_ATTR_RDONLY,
            ..Attributes::default()
        };
        Self {
            recursive: false,
            attributes,
            implied: 0,
        }
    }

    /// What the options of a bind ask for, in as few calls as can be. A recursive attribute is applied last and wins.
    pub(super) fn of_bind(options: &Options, in_user_namespace: bool) -> Vec<Self> {
        let (attributes, implied) = as_for_remount(options.attributes, in_user_namespace);
        let mut changes = vec![
            Self {
                recursive: false,
                attributes,
                implied,
            },
            Self {
                recursive: true,
                attributes: options.recursive,
                implied: 0,
            },
        ];
        for (index, propagation) in options.propagation.iter().enumerate() {
            if index == 0 {
                changes[usize::from(propagation.recursive)].attributes.propagation = propagation.kind;
            } else {
                changes.push(Self::propagation(propagation.kind, propagation.recursive));
            }
        }
        changes.retain(|change| !change.attributes.is_empty());
        changes
    }

    /// What is left for a new file system, whose attributes fsmount set.
    pub(super) fn of_new(options: &Options) -> Vec<Self> {
        options
            .propagation
            .iter()
            .map(|p| Self::propagation(p.kind, p.recursive))
            .collect()
    }
}

/// As mount(2) has it, and all runtimes with it: who gives a bind one flag gives it all, and what the source has beside
/// those is gone. Without any it keeps those of the source. Access times are a field of their own. A user namespace
/// can't take away what the owner of the source has set, but for `nosymfollow`, and so keeps what is not named. Returned
/// are the attributes, and what is implied by them.
fn as_for_remount(mut attributes: Attributes, in_user_namespace: bool) -> (Attributes, u64) {
    if attributes.is_empty() {
        return (attributes, 0);
    }
    if attributes.clear & MOUNT_ATTR__ATIME != 0 || attributes.set & MOUNT_ATTR_NODIRATIME != 0 {
        attributes.clear |= MOUNT_ATTR__ATIME | MOUNT_ATTR_NODIRATIME;
    }
    attributes.clear |= MOUNT_ATTR_NOSYMFOLLOW;
    // The field of access times is cleared as a whole before another is set.
    attributes.clear &= !attributes.set | MOUNT_ATTR__ATIME;
    let implied = if in_user_namespace {
        0
    } else {
        MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
    };
    (attributes, implied & !attributes.set)
}

/// A detached copy of the mount at a place with the changes made, in one call where the kernel has it. False if
/// [`attached`] must follow.
pub(super) fn copy(at: At, recursive: bool, changes: &[Change]) -> io::Result<(OwnedFd, bool)> {
    if let Some((first, rest)) = changes.split_first()
        && first.recursive == recursive
        && !COPY_MISSING.load(Ordering::Relaxed)
    {
        match first.make(|attributes| mount::open_tree_attr(at, recursive, attributes)) {
            Ok(tree) => {
                let done = detached(tree.as_fd(), rest)?;
                return Ok((tree, done));
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                COPY_MISSING.store(true, Ordering::Relaxed);
            }
            // What is wrong, and not only to a filter around us that does not know the call, shows below.
            Err(_) => {}
        }
    }
    let tree = mount::open_tree_clone(at, recursive)?;
    let done = detached(tree.as_fd(), changes)?;
    Ok((tree, done))
}

/// Changes a mount that may still be detached. False if the kernel can only change attached ones: then [`attached`]
/// must follow.
pub(super) fn detached(mount: BorrowedFd, changes: &[Change]) -> io::Result<bool> {
    for change in changes {
        if !set(At::fd(mount), *change)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Changes a mount that is in place.
pub(super) fn attached(mount: BorrowedFd, changes: &[Change]) -> io::Result<()> {
    for change in changes {
        if !set(At::fd(mount), *change)? {
            remount(mount, *change)?;
        }
    }
    Ok(())
}

/// Changes the mount at the caller's root.
pub(super) fn of_root(change: Change) -> io::Result<()> {
    let path = Path::new("/");
    let at = At {
        folder: AT_FDCWD,
        path,
    };
    if set(at, change)? {
        return Ok(());
    }
    let root = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    remount(root.as_fd(), change)
}

/// Makes one mount read-only, not those below.
pub(super) fn read_only(mount: BorrowedFd, what: impl FnOnce() -> String) -> Result<()> {
    attached(mount, &[Change::read_only()]).context(what)
}

/// The descriptor's own name, for calls that take only a path.
pub(super) fn proc_path(fd: BorrowedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn set(at: At, change: Change) -> io::Result<bool> {
    if MISSING.load(Ordering::Relaxed) {
        return Ok(false);
    }
    match change.make(|attributes| mount::mount_setattr(at, change.recursive, attributes, None)) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            MISSING.store(true, Ordering::Relaxed);
            Ok(false)
        }
        other => other.map(|()| true),
    }
}

fn remount(mount: BorrowedFd, change: Change) -> io::Result<()> {
    let target = proc_path(mount);
    let by_path = |flags| mount::mount(Path::new(""), &target, "", flags, "");
    let Attributes {
        set,
        clear,
        propagation,
    } = change.attributes;
    if set | clear | change.implied != 0 {
        if change.recursive {
            let why = "recursive mount attributes need mount_setattr (Linux 5.12)";
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        let has = bits_of(fstatfs(mount)?.flags());
        change.make(|attributes| {
            let flags = flags_of(has & !attributes.clear | attributes.set);
            by_path(MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags)
        })?;
    }
    if propagation != 0 {
        let recursion = if change.recursive {
            MsFlags::MS_REC
        } else {
            MsFlags::empty()
        };
        by_path(MsFlags::from_bits_truncate(propagation) | recursion)?;
    }
    Ok(())
}

/// The attributes that a mount has now.
fn bits_of(flags: FsFlags) -> u64 {
    let pairs = [
        (FsFlags::ST_RDONLY, MOUNT_ATTR_RDONLY),
        (FsFlags::ST_NOSUID, MOUNT_ATTR_NOSUID),
        (FsFlags::ST_NODEV, MOUNT_ATTR_NODEV),
        (FsFlags::ST_NOEXEC, MOUNT_ATTR_NOEXEC),
        (FsFlags::ST_NOATIME, MOUNT_ATTR_NOATIME),
        (FsFlags::ST_NODIRATIME, MOUNT_ATTR_NODIRATIME),
    ];
    pairs
        .iter()
        .filter(|(flag, _)| flags.contains(*flag))
        .fold(0, |bits, (_, bit)| bits | bit)
}

/// Attributes as mount(2) names them.
pub(super) fn flags_of(bits: u64) -> MsFlags {
    let pairs = [
        (MOUNT_ATTR_RDONLY, MsFlags::MS_RDONLY),
        (MOUNT_ATTR_NOSUID, MsFlags::MS_NOSUID),
        (MOUNT_ATTR_NODEV, MsFlags::MS_NODEV),
        (MOUNT_ATTR_NOEXEC, MsFlags::MS_NOEXEC),
        (MOUNT_ATTR_NODIRATIME, MsFlags::MS_NODIRATIME),
    ];
    let flags = pairs
        .iter()
        .filter(|(bit, _)| bits & bit != 0)
        .fold(MsFlags::empty(), |all, (_, flag)| all | *flag);
    flags
        | match bits & MOUNT_ATTR__ATIME {
            MOUNT_ATTR_NOATIME => MsFlags::MS_NOATIME,
            MOUNT_ATTR_STRICTATIME => MsFlags::MS_STRICTATIME,
            _ => MsFlags::MS_RELATIME,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str], in_user_namespace: bool) -> (Attributes, u64) {
        as_for_remount(Options::parse(words).unwrap().attributes, in_user_namespace)
    }

    #[test]
    fn a_bind_with_one_flag_has_no_other_of_its_source() {
        assert_eq!(of(&["bind", "rprivate"], false), (Attributes::default(), 0));
        let others = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
        let (read_only, implied) = of(&["bind", "ro"], false);
        assert_eq!(
            (read_only.set, read_only.clear),
            (MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSYMFOLLOW)
        );
        assert_eq!(implied, others);
        let (dev, implied) = of(&["bind", "dev"], false);
        assert_eq!(dev.clear, MOUNT_ATTR_NOSYMFOLLOW | MOUNT_ATTR_NODEV);
        assert_eq!(implied, others | MOUNT_ATTR_RDONLY);
    }

    #[test]
    fn a_user_namespace_keeps_what_is_not_named() {
        let (read_only, implied) = of(&["ro"], true);
        assert_eq!((read_only.clear, implied), (MOUNT_ATTR_NOSYMFOLLOW, 0));
        let (suid, implied) = of(&["suid"], true);
        assert_eq!(suid.clear, MOUNT_ATTR_NOSYMFOLLOW | MOUNT_ATTR_NOSUID);
        assert_eq!(implied, 0);
    }

    #[test]
    fn access_times_are_chosen_as_a_whole() {
        let (chosen, _) = of(&["nodiratime"], true);
        assert_eq!(chosen.set, MOUNT_ATTR_NODIRATIME);
        assert_eq!(chosen.clear, MOUNT_ATTR__ATIME | MOUNT_ATTR_NOSYMFOLLOW);
        let (chosen, _) = of(&["strictatime"], true);
        let all = MOUNT_ATTR__ATIME | MOUNT_ATTR_NODIRATIME | MOUNT_ATTR_NOSYMFOLLOW;
        assert_eq!((chosen.set, chosen.clear), (MOUNT_ATTR_STRICTATIME, all));
    }
}
