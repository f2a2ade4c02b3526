//! Mounts with containerd's options `uidmap=` and `gidmap=`, by which the root of a pod with a user namespace is given
//! the pod's owners without a change of the files. An overlay itself can't be mapped, so its lower layers are.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
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
    sys::attach(&sys::clone_mapped(rootfs, namespace.as_fd(), 0)?, rootfs)
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
            let mapped =
                sys::clone_mapped(Path::new(layer), namespace.as_fd(), read_only).map_err(|error| {
                    io::Error::new(error.kind(), format!("map the owners of {layer}: {error}"))
                })?;
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
