//! The root of a container that has no mount namespace of its own. Its mounts are the host's mounts then, as the
//! specification has it; all lie on one mount over the rootfs, whose number stands in the state folder before the
//! mount is there, so that `delete` takes away that one and no other, whenever `create` was killed.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use libc::MS_PRIVATE;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, chroot, fchdir};

use super::change::{self, Change};
use crate::error::{Context as _, Error, Result};
use crate::sys::mount::{self, At};

/// Holds the mount's number and the rootfs that it lies on.
const NAME: &str = "mount";

/// Puts a private mount over the rootfs. The host's own mounts keep their propagation: what is mounted below goes
/// nowhere else, and what the host mounts stays as it is.
pub(super) fn prepare(rootfs: &Path, state: &Path) -> Result<OwnedFd> {
    let what = || format!("make the rootfs {} a mount", rootfs.display());
    let rootfs = fs::canonicalize(rootfs).context(what)?;
    let at = At {
        folder: AT_FDCWD,
        path: &rootfs,
    };
    refuse_another(&rootfs, state)?;
    let private = [Change::propagation(MS_PRIVATE, true)];
    let (tree, _) = change::copy(at, true, &private).context(what)?;
    let number = mount::number(tree.as_fd()).context(|| {
        "find the number of a mount (a container without a mount namespace needs Linux 6.8)".into()
    })?;
    let note = state.join(NAME);
    let mut text = format!("{number}\n").into_bytes();
    text.extend_from_slice(rootfs.as_os_str().as_encoded_bytes());
    fs::write(&note, text).context(|| format!("write {}", note.display()))?;
    mount::move_mount(tree.as_fd(), at, true).context(what)?;
    // On a shared mount it has become shared.
    change::attached(tree.as_fd(), &private).context(what)?;
    Ok(tree)
}

/// One rootfs can't have two such containers: the mounts of the second would lie over those of the first.
fn refuse_another(rootfs: &Path, state: &Path) -> Result<()> {
    let folders = state.parent().and_then(|root| fs::read_dir(root).ok());
    for folder in folders.into_iter().flatten().flatten().map(|entry| entry.path()) {
        let note = fs::read(folder.join(NAME)).unwrap_or_default();
        if folder != state && read(&note).is_some_and(|(_, taken)| taken == rootfs) {
            let other = folder.file_name().unwrap_or_default().display();
            return Err(Error::Refused(format!(
                "linux.namespaces: without a mount namespace, the rootfs {} is that of container {other} alone",
                rootfs.display()
            )));
        }
    }
    Ok(())
}

/// Makes the mount the caller's root. There is nothing to pivot: the host's root stays everybody else's.
pub(super) fn enter(root: &OwnedFd) -> Result<()> {
    let what = || "chroot into the rootfs".into();
    fchdir(root).context(what)?;
    chroot(".").context(what)?;
    chdir("/").context(what)
}

/// Unmounts what the container had, if the state folder tells of a mount and it is still there.
pub(crate) fn take_back(state: &Path) -> io::Result<()> {
    let note = state.join(NAME);
    let text = match fs::read(&note) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if let Some((number, rootfs)) = read(&text)
        && mount::exists(number)?
    {
        let fd = open(&rootfs, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        if mount::number(fd.as_fd())? == number {
            let place = format!("/proc/self/fd/{}", fd.as_raw_fd());
            match umount2(place.as_str(), MntFlags::MNT_DETACH) {
                // Another delete was faster.
                Ok(()) | Err(Errno::EINVAL) => {}
                Err(errno) => return Err(errno.into()),
            }
        } else if mount::exists(number)? {
            let text = format!(
                "something is mounted over the container's root {}: unmount that first",
                rootfs.display()
            );
            return Err(io::Error::other(text));
        }
    }
    match fs::remove_file(note) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Nothing of a note that was not written whole: its mount is not there yet.
fn read(text: &[u8]) -> Option<(u64, PathBuf)> {
    use std::os::unix::ffi::OsStringExt as _;
    let end = text.iter().position(|byte| *byte == b'\n')?;
    let number = std::str::from_utf8(&text[..end]).ok()?.parse().ok()?;
    let rootfs = PathBuf::from(std::ffi::OsString::from_vec(text[end + 1..].to_vec()));
    Some((number, rootfs))
}
