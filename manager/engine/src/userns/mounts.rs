//! Mounts with mapped owners that the manager makes itself, and whether a file system can have such.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use image::{IdMap, Owners, Rootfs, View};
use nix::sys::statfs::statfs;

use crate::Error;
use crate::sys::mapped;
use crate::volumes::MountPoint;

/// A namespace of these ids, in which nobody is.
fn namespace(owners: &Owners) -> Result<OwnedFd, Error> {
    let lines = |map: &IdMap| map.to_string().replace(':', " ").replace(',', "\n");
    mapped::user_namespace(&lines(&owners.uids), &lines(&owners.gids)).map_err(Error::file(
        "make a user namespace for the owners of",
        Path::new("a container's files"),
    ))
}

/// Refuse what can have no mapped owners, before a start would fail on it.
pub(crate) fn check(path: &Path, owners: &Owners) -> Result<(), Error> {
    clone(path, &namespace(owners)?).map(drop)
}

fn clone(path: &Path, namespace: &OwnedFd) -> Result<OwnedFd, Error> {
    mapped::clone_mapped(path, namespace.as_fd(), true).map_err(|source| {
        let kind = statfs(path).map_or(0, |status| status.filesystem_type().0);
        let rule = format!(
            "map the owners of {}, for the container's user namespace: {source} (a file system of magic number {kind:#x}, \
             see statfs(2)); Linux 5.12 and later can with ext4, xfs and btrfs, 6.3 with tmpfs: have the manager's --root \
             and its volumes on one of these, or say --userns host",
            path.display()
        );
        Error::invalid("userns", rule)
    })
}

/// Refuse a folder that the container's root cannot go through, as one of those above it is closed to others: below it
/// its own root file system is mounted.
pub(crate) fn check_way(folder: &Path, owners: &Owners) -> Result<(), Error> {
    for above in folder.ancestors() {
        let status = above.metadata().map_err(Error::file("look at", above))?;
        if status.permissions().mode() & 0o001 == 0 {
            let rule = format!(
                "the container's root, the host's user {}, cannot go through {place} to its root file system: `chmod o+x \
                 {place}`, or have the manager's --state elsewhere",
                owners.root().0,
                place = above.display()
            );
            return Err(Error::invalid("userns", rule));
        }
    }
    Ok(())
}

/// The layers of `rootfs` with the owners of its namespace, mounted below `parts` as long as the second is there: an
/// overlay of them holds on to what it was made of.
pub(crate) fn layers(rootfs: &Rootfs, parts: &Path) -> Result<(Rootfs, Vec<MountPoint>), Error> {
    let Some(owners) = &rootfs.owners else {
        return Ok((rootfs.clone(), Vec::new()));
    };
    let points = mapped_layers(&rootfs.lower, owners, parts)?;
    let mapped = Rootfs {
        lower: points.iter().map(|point| point.place.clone()).collect(),
        owners: None,
        ..rootfs.clone()
    };
    Ok((mapped, points))
}

/// The same of an image that a container with these owners is to see.
pub(crate) fn view(
    view: View,
    owners: Option<&Owners>,
    parts: &Path,
) -> Result<(View, Vec<MountPoint>), Error> {
    let Some(owners) = owners else {
        return Ok((view, Vec::new()));
    };
    let points = mapped_layers(&view.lower, owners, parts)?;
    let lower = points.iter().map(|point| point.place.clone()).collect();
    Ok((View { lower }, points))
}

fn mapped_layers(layers: &[PathBuf], owners: &Owners, parts: &Path) -> Result<Vec<MountPoint>, Error> {
    let namespace = namespace(owners)?;
    let mut points = Vec::new();
    for layer in layers {
        let tree = clone(layer, &namespace)?;
        let point = MountPoint::make(parts, |place| std::fs::create_dir(place))?;
        mapped::attach(&tree, &point.place).map_err(Error::file("mount a layer at", &point.place))?;
        points.push(point);
    }
    Ok(points)
}
