//! A container's root file system: the image's layers and two folders of its own, under a lease.

use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::database;
use crate::layers::is_mount;
use crate::marks::marks;
use crate::store::{EMPTY_LAYER, Store};
use crate::unpack::copy_looks;
use crate::{Error, Owners};

/// mount(2) takes one page, with the NUL at its end.
pub(crate) const MOUNT_DATA_BYTES_MAX: usize = 4096;

/// A container's root file system, as folders for an overlay mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// Read-only layers, top layer first; never empty. Of a layer that is an EROFS image this is where this process
    /// has it mounted, which other processes reach as long as this one lives and the image is here.
    pub lower: Vec<PathBuf>,
    /// The container's own layer.
    pub upper: PathBuf,
    /// The overlay file system's working folder.
    pub work: PathBuf,
    /// The mappings of the container's user namespace, if it has one of its own.
    pub owners: Option<Owners>,
}

impl Rootfs {
    /// Options for a mount of type `overlay`.
    ///
    /// With mapped owners there are `uidmap=` and `gidmap=` among them, as containerd has them, which are not the
    /// kernel's: whoever mounts it maps the layers by them (since Linux 5.19), and nothing else. Upper folder and
    /// what is written there have the host's ids, as they are.
    ///
    /// All of them together can be longer than the page that mount(2) takes when an image has very many layers
    /// (about 120 under a root path of 20 bytes). Who mounts it then has to give the layers to the kernel one by
    /// one, as `lowerdir+` by fsconfig(2). That the kernel takes them so is known when there is such a `Rootfs`.
    pub fn overlay_options(&self) -> Vec<String> {
        let lower: Vec<String> = self.lower.iter().map(|path| path.display().to_string()).collect();
        let mut options = vec![
            format!("lowerdir={}", lower.join(":")),
            format!("upperdir={}", self.upper.display()),
            format!("workdir={}", self.work.display()),
            // An index ties an upper folder to its lower ones by file handle, which copies and restores break.
            "index=off".to_owned(),
        ];
        options.extend(marks().options.iter().map(|option| (*option).to_owned()));
        options.extend(inode_option(&self.lower));
        if let Some(owners) = &self.owners {
            options.push(format!("uidmap={}", owners.uids));
            options.push(format!("gidmap={}", owners.gids));
        }
        options
    }
}

/// Each EROFS image is a file system of its own, with its own numbers of inodes (of 32 bits): they are told apart, and a
/// file keeps its number when it is copied up, as with folders of one file system.
pub(crate) fn inode_option(lower: &[PathBuf]) -> Option<String> {
    let has_mount = lower.iter().any(|path| is_mount(path));
    has_mount.then(|| "xino=on".to_owned())
}

/// Take a lease on an image for a container, and on those that it `mounts`, and make its folders. Undone as a whole if anything fails.
pub(crate) fn prepare(
    store: &Store,
    image_id: &str,
    container_id: &str,
    owners: Option<&Owners>,
    mounts: &[String],
) -> Result<Rootfs, Error> {
    check_container_id(container_id)?;
    let numbers = {
        let mut connection = store.database();
        let transaction = database::write(&mut connection)?;
        if database::image(&transaction, image_id)?.is_none() {
            return Err(Error::NoSuchImage(image_id.to_owned()));
        }
        if database::lease(&transaction, container_id)?.is_some() {
            return Err(Error::LeaseTaken(container_id.to_owned()));
        }
        database::insert_lease(&transaction, container_id, image_id, owners)?;
        for mounted in mounts {
            if database::image(&transaction, mounted)?.is_none() {
                return Err(Error::NoSuchImage(mounted.clone()));
            }
            database::insert_mounted(&transaction, container_id, mounted)?;
        }
        let numbers = database::image_layer_numbers(&transaction, image_id)?;
        transaction.commit().map_err(database::doing("commit a lease"))?;
        failpoint::reach("lease.recorded");
        numbers
    };
    let made = folders(store, &numbers, container_id, owners.cloned()).and_then(|rootfs| {
        check_length(&rootfs, image_id, takes_layers_one_by_one)?;
        make(store, &rootfs, container_id)?;
        Ok(rootfs)
    });
    made.inspect_err(|_| {
        if let Err(e) = release(store, container_id) {
            tracing::warn!(container_id, error = %e, "could not undo a half-made root file system");
        }
    })
}

/// The root file system that [`prepare`] made.
pub(crate) fn find(store: &Store, container_id: &str) -> Result<Rootfs, Error> {
    check_container_id(container_id)?;
    let connection = store.database();
    let image_id = database::lease(&connection, container_id)?
        .ok_or_else(|| Error::NoSuchLease(container_id.to_owned()))?;
    let numbers = database::image_layer_numbers(&connection, &image_id)?;
    let owners = database::lease_owners(&connection, container_id)?;
    drop(connection);
    let rootfs = folders(store, &numbers, container_id, owners)?;
    if !rootfs.upper.is_dir() {
        // Its process died between lease and folders, or somebody else removed them.
        return Err(Error::NoSuchLease(container_id.to_owned()));
    }
    Ok(rootfs)
}

/// Give the lease back and remove the folders. What is not there is fine.
pub(crate) fn release(store: &Store, container_id: &str) -> Result<(), Error> {
    check_container_id(container_id)?;
    let own = store.container_path(container_id);
    let released = database::delete_lease(&store.database(), container_id);
    failpoint::reach("release.recorded");
    store.doom(&own);
    if released.is_err() {
        // On a full disk there is room for that only now.
        store.settle_removals();
        database::delete_lease(&store.database(), container_id)?;
    }
    if own.exists() {
        let rule = "it could not be moved away, something may be mounted there".into();
        return Err(Error::Store { path: own, rule });
    }
    Ok(())
}

fn folders(
    store: &Store,
    numbers: &[u64],
    container_id: &str,
    owners: Option<Owners>,
) -> Result<Rootfs, Error> {
    let folders = numbers.iter().rev().map(|number| store.layer_folder(*number));
    let mut lower: Vec<PathBuf> = folders.collect::<Result<_, _>>()?;
    if lower.is_empty() {
        lower.push(store.layer_path(EMPTY_LAYER));
    }
    let own = store.container_path(container_id);
    Ok(Rootfs {
        lower,
        upper: own.join("upper"),
        work: own.join("work"),
        owners,
    })
}

fn make(store: &Store, rootfs: &Rootfs, container_id: &str) -> Result<(), Error> {
    let own = store.container_path(container_id);
    let make = |path: &Path, mode| {
        std::fs::DirBuilder::new()
            .mode(mode)
            .create(path)
            .map_err(|e| Error::io("make", path, e))
    };
    make(&own, 0o700)?;
    make(&rootfs.work, 0o700)?;
    make(&rootfs.upper, 0o755)?;
    // The upper folder is the container's `/`: it has to look like the image's.
    let model = &rootfs.lower[0];
    let open = |path: &Path| std::fs::File::open(path).map(OwnedFd::from);
    open(model)
        .and_then(|model| copy_looks(&model, &open(&rootfs.upper)?))
        .map_err(|e| Error::io("copy owner, attributes, mode and time to", &rootfs.upper, e))?;
    let Some(owners) = &rootfs.owners else {
        return Ok(());
    };
    let give = |path: &Path, user, group| {
        let owner = (owners.uids.mapped(user)?, owners.gids.mapped(group)?);
        std::os::unix::fs::chown(path, Some(owner.0), Some(owner.1))
            .map_err(|e| Error::io("change the owner of", path, e))
    };
    let root = model.metadata().map_err(|e| Error::io("look at", model, e))?;
    give(&rootfs.upper, root.uid(), root.gid())?;
    give(&rootfs.work, 0, 0)
}

/// Many layers are only for a kernel that takes them one by one.
fn check_length(
    rootfs: &Rootfs,
    image_id: &str,
    takes_layers_one_by_one: impl FnOnce() -> bool,
) -> Result<(), Error> {
    let bytes: usize = rootfs
        .overlay_options()
        .iter()
        .map(|option| option.len() + 1)
        .sum();
    if bytes < MOUNT_DATA_BYTES_MAX || takes_layers_one_by_one() {
        return Ok(());
    }
    Err(Error::TooManyLayers {
        image: image_id.to_owned(),
        layers: rootfs.lower.len(),
        bytes,
        bytes_max: MOUNT_DATA_BYTES_MAX,
    })
}

/// Since 6.5, `lowerdir+` appends one layer. A kernel that knows it tells a wrong value from an unknown name, but
/// with the same error number; so it is asked with a right one.
fn takes_layers_one_by_one() -> bool {
    use rustix::mount::{FsOpenFlags, fsconfig_set_string, fsopen};
    let tried = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .and_then(|context| fsconfig_set_string(&context, "lowerdir+", "/"));
    tried.is_ok()
}

/// A container id names a folder.
fn check_container_id(id: &str) -> Result<(), Error> {
    if is_id(id) {
        Ok(())
    } else {
        Err(Error::ContainerId(id.chars().take(ID_MAX_BYTES).collect()))
    }
}

pub(crate) const ID_MAX_BYTES: usize = 128;

/// What an id may look like, of a container or a lease.
pub(crate) fn is_id(id: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric();
    (1..=ID_MAX_BYTES).contains(&id.len())
        && id.as_bytes().first().is_some_and(|b| word(*b))
        && id.bytes().all(|b| word(b) || b"_.-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlay_options_name_the_top_layer_first() {
        let rootfs = Rootfs {
            lower: vec!["/r/s/2".into(), "/r/s/1".into()],
            upper: "/r/containers/a/upper".into(),
            work: "/r/containers/a/work".into(),
            owners: None,
        };
        assert_eq!(
            rootfs.overlay_options(),
            [
                "lowerdir=/r/s/2:/r/s/1",
                "upperdir=/r/containers/a/upper",
                "workdir=/r/containers/a/work",
                "index=off",
                "redirect_dir=off",
                "metacopy=off"
            ]
        );
        let mapped = Rootfs {
            owners: Some(Owners {
                uids: "0:1000:10,10:2000:5".parse().unwrap(),
                gids: "0:3000:10".parse().unwrap(),
            }),
            ..rootfs
        };
        assert_eq!(
            mapped.overlay_options()[6..],
            ["uidmap=0:1000:10,10:2000:5", "gidmap=0:3000:10"]
        );
    }

    fn with_layers(count: usize) -> Rootfs {
        Rootfs {
            lower: (0..count)
                .map(|i| format!("/var/lib/berth/images/layers/{i}").into())
                .collect(),
            upper: "/var/lib/berth/images/containers/a/upper".into(),
            work: "/var/lib/berth/images/containers/a/work".into(),
            owners: None,
        }
    }

    #[test]
    fn more_layers_than_a_page_of_options_need_a_kernel_that_takes_them_one_by_one() {
        assert!(check_length(&with_layers(100), "sha256:a", || false).is_ok());
        assert!(check_length(&with_layers(400), "sha256:a", || true).is_ok());
        let refused = check_length(&with_layers(400), "sha256:a", || false)
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("sha256:a") && refused.contains("400 layers") && refused.contains("4096"),
            "{refused}"
        );
    }

    #[test]
    fn container_ids_cannot_leave_their_folder() {
        assert!(check_container_id("0a1b2c-d_e.f").is_ok());
        for id in ["", ".", "..", "a/b", "-a", "a b", "a\0", &"a".repeat(129)] {
            assert!(check_container_id(id).is_err(), "{id:?}");
        }
    }
}
