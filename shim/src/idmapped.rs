//! Mounts with containerd's options `uidmap=` and `gidmap=`, by which the root of a pod with a user namespace is given
//! the pod's owners without a change of the files. An overlay itself can't be mapped, so its lower layers are.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::sys;

/// The maps as the kernel wants them, a line for each range.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Maps {
    uids: String,
    gids: String,
}

impl Maps {
    /// Takes one of the two options; false when it is another one.
    pub(crate) fn take(&mut self, option: &str) -> bool {
        let lines = |list: &str| list.replace(':', " ").replace(',', "\n");
        match option.split_once('=') {
            Some(("uidmap", list)) => self.uids = lines(list),
            Some(("gidmap", list)) => self.gids = lines(list),
            _ => return false,
        }
        true
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.uids.is_empty() && self.gids.is_empty()
    }

    pub(crate) fn namespace(&self) -> io::Result<OwnedFd> {
        sys::user_namespace(&self.uids, &self.gids).map_err(|error| {
            let maps = format!("uids {:?}, gids {:?}", self.uids, self.gids);
            io::Error::new(error.kind(), format!("a user namespace of {maps}: {error}"))
        })
    }
}

/// Lays a mapped copy of what is mounted at `rootfs` over it.
pub(crate) fn map_in_place(rootfs: &Path, maps: &Maps) -> io::Result<()> {
    let namespace = maps.namespace()?;
    sys::attach(&clone_mapped(rootfs, namespace.as_fd(), 0)?, rootfs)
}

/// A mapped copy of what is mounted at `source`. An error tells whether it is for the kernel or for the file system.
fn clone_mapped(source: &Path, namespace: BorrowedFd, attributes: u64) -> io::Result<OwnedFd> {
    sys::clone_mapped(source, namespace, attributes).map_err(|error| {
        let reason = match error.raw_os_error() {
            Some(libc::ENOSYS) => format!("Linux {} can't, 5.12 and later can", release()),
            Some(libc::EINVAL) => {
                let kind = file_system(source).unwrap_or_else(|_| "unknown".into());
                format!("a file system of type {kind} can't on Linux {}", release())
            }
            _ => "the kernel refused".into(),
        };
        let source = source.display();
        io::Error::new(
            error.kind(),
            format!("map the owners of {source}: {reason}: {error}"),
        )
    })
}

/// What is said when an overlay of mapped layers can't be mounted.
pub(crate) fn overlay_error(error: io::Error) -> io::Error {
    if error.raw_os_error() != Some(libc::EINVAL) {
        return error;
    }
    let hint = format!(
        "layers with mapped owners are known since Linux 5.19, this is {}",
        release()
    );
    io::Error::new(error.kind(), format!("{error} ({hint})"))
}

/// The kernel's version, for people.
fn release() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease");
    release.map_or_else(|_| "of unknown version".into(), |text| text.trim().to_owned())
}

/// The type of the file system that `path` is on, by its mount.
fn file_system(path: &Path) -> io::Result<String> {
    let place = fs::File::options()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(path)?;
    let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", place.as_raw_fd()))?;
    let mount = about.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    let mount = mount.map(str::trim).ok_or(io::ErrorKind::NotFound)?;
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let line = table.lines().find(|line| line.split(' ').next() == Some(mount));
    // proc_pid_mountinfo(5): the type comes after the dash that ends the optional fields.
    let kind = line.and_then(|line| line.split_once(" - ")?.1.split(' ').next());
    Ok(kind.ok_or(io::ErrorKind::NotFound)?.to_owned())
}

/// Mapped copies of an overlay's lower layers, mounted for as long as the overlay is being made: it holds on to what
/// it was made of.
#[derive(Debug)]
pub(crate) struct Layers {
    folder: PathBuf,
    mounted: Vec<PathBuf>,
}

impl Layers {
    /// Mounts them below `folder`, which must not be there yet.
    pub(crate) fn mount(lower: &[&str], maps: &Maps, folder: &Path) -> io::Result<Self> {
        let namespace = maps.namespace()?;
        fs::create_dir(folder)?;
        let mut layers = Self {
            folder: folder.to_owned(),
            mounted: Vec::new(),
        };
        for (number, layer) in lower.iter().enumerate() {
            let place = folder.join(number.to_string());
            fs::create_dir(&place)?;
            layers.mounted.push(place.clone());
            // An overlay only reads them, and whoever removes the folder with one of them mounted must not reach the
            // image's own files.
            let read_only = libc::MOUNT_ATTR_RDONLY;
            let mapped = clone_mapped(Path::new(layer), namespace.as_fd(), read_only)?;
            sys::attach(&mapped, &place)?;
        }
        Ok(layers)
    }

    pub(crate) fn option(&self) -> String {
        let paths = self.mounted.iter().map(|path| path.display().to_string());
        format!("lowerdir={}", paths.collect::<Vec<_>>().join(":"))
    }
}

impl Drop for Layers {
    fn drop(&mut self) {
        let _ = remove_layers(&self.folder);
    }
}

/// Takes away what [`Layers`] has mounted below `folder`. Only a mount that stays is an error.
pub(crate) fn remove_layers(folder: &Path) -> io::Result<()> {
    for place in fs::read_dir(folder).into_iter().flatten().flatten() {
        sys::unmount_all(&place.path())?;
        let _ = fs::remove_dir(place.path());
    }
    let _ = fs::remove_dir(folder);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_options_become_lines_of_the_kernels_maps() {
        let mut maps = Maps::default();
        assert!(maps.is_empty());
        assert!(maps.take("uidmap=0:1000:10,10:2000:20"));
        assert!(maps.take("gidmap=0:3000:65536"));
        assert!(!maps.take("lowerdir=/a:/b"));
        assert_eq!(maps.uids, "0 1000 10\n10 2000 20");
        assert_eq!(maps.gids, "0 3000 65536");
    }
}
