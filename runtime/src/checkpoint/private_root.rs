//! A root for CRIU: it wants one that is a mount and whose parent nothing lies over. That is made in a mount namespace
//! of its own, which ends with the processes in it, however they end.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::error::{Context, Result};

/// The caller is in the new mount namespace until this is dropped. CRIU has to be started, and the folders that it
/// works in have to be opened, meanwhile: it mounts there.
#[derive(Debug)]
pub(super) struct PrivateRoot {
    before: File,
    working_directory: PathBuf,
    pub(super) path: PathBuf,
}

impl PrivateRoot {
    /// Binds `rootfs` at a place below `folder`, over which a small tmpfs is laid. The caller must have one thread.
    pub(super) fn enter(folder: &Path, rootfs: &Path) -> Result<Self> {
        let root = Self {
            before: File::open("/proc/self/ns/mnt").context(|| "open the own mount namespace".into())?,
            working_directory: std::env::current_dir().context(|| "find the working directory".into())?,
            path: folder.join("root"),
        };
        unshare(CloneFlags::CLONE_NEWNS).context(|| "make a mount namespace for CRIU".into())?;
        let none = None::<&str>;
        let slave = MsFlags::MS_REC | MsFlags::MS_SLAVE;
        mount(none, "/", none, slave, none).context(|| "make CRIU's mounts its own".into())?;
        let (tmpfs, options) = (Some("tmpfs"), Some("size=64k,mode=0700"));
        mount(tmpfs, folder, tmpfs, MsFlags::empty(), options)
            .context(|| format!("mount a tmpfs at {}", folder.display()))?;
        fs::create_dir(&root.path).context(|| format!("make {}", root.path.display()))?;
        let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(rootfs), &root.path, none, bind, none).context(|| format!("bind {}", rootfs.display()))?;
        Ok(root)
    }
}

impl Drop for PrivateRoot {
    fn drop(&mut self) {
        // Into a namespace that we have just left this can't fail, and there would be nothing to do about it.
        let _ = setns(self.before.as_fd(), CloneFlags::CLONE_NEWNS);
        let _ = std::env::set_current_dir(&self.working_directory);
    }
}
