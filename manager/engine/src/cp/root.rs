//! The root of a container, running or not, as an open descriptor.

use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use image::LiveTree;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use tokio::sync::watch;

use crate::container::Container;
use crate::engine::{Inner, blocking};
use crate::lifecycle::{Loan, Pace, Snapshot};
use crate::volumes::MountPoint;
use crate::{Error, run, userns};

/// mount(2) takes one page, with the NUL at its end.
const MOUNT_DATA_BYTES_MAX: usize = 4096;

pub(super) struct Root {
    pub(super) container: Arc<Container>,
    tree: LiveTree,
    held: Held,
}

/// What keeps the tree what it is.
enum Held {
    /// Its run goes on.
    Running(watch::Receiver<Snapshot>),
    /// It cannot start.
    Stopped(#[expect(dead_code, reason = "it is dropped late")] Loan),
}

impl Root {
    pub(super) async fn open(engine: &Arc<Inner>, container: &str, pace: &Pace) -> Result<Root, Error> {
        let handle = engine.containers.find(container)?;
        // Asked first: from now on it does not start until we are done.
        let loan = handle.borrow(pace.clone()).await?;
        let container = handle.snapshot().container;
        let (of, id, pid) = (Arc::clone(engine), container.id.clone(), container.pid);
        let is_running = loan.is_none();
        let root = blocking(move || {
            if is_running {
                let ended = || Error::shim(&id, format!("the main process (number {pid}) has just ended"));
                run::open_of_process(&id, pid, "root", ended).map(OwnedFd::from)
            } else {
                mounted(&of, &id)
            }
        })
        .await?;
        Ok(Root {
            tree: LiveTree::new(root, &container.id, container.request.isolation.owners.clone()),
            held: loan.map_or_else(|| Held::Running(handle.watch()), Held::Stopped),
            container,
        })
    }

    pub(super) fn tree(&self) -> &LiveTree {
        &self.tree
    }

    /// The states of the container, if it runs.
    pub(super) fn run(&self) -> Option<watch::Receiver<Snapshot>> {
        match &self.held {
            Held::Running(state) => Some(state.clone()),
            Held::Stopped(_) => None,
        }
    }

    /// Refuse what a container shows only while it runs, and changes of one that is not to be changed.
    pub(super) fn check(&self, path: &str, changes: bool) -> Result<(), Error> {
        if matches!(self.held, Held::Running(_)) {
            return Ok(());
        }
        let refused = |why: String| Err(Error::wrong_state("copy files of", &self.container, why));
        if changes && self.container.request.read_only {
            return refused("its root file system is read-only".to_owned());
        }
        // By its name, and by where links lead.
        let mut leads_to = Vec::new();
        for part in Path::new(path).ancestors() {
            // Of what is not there, the folder that it would be in.
            if let Ok(found) = self.tree.resolve(part.as_os_str().as_bytes()) {
                leads_to = found;
                break;
            }
        }
        let leads_to = String::from_utf8_lossy(&leads_to);
        for mount in &self.container.mounts {
            let real = self.tree.resolve(mount.target.as_bytes()).unwrap_or_default();
            let real = String::from_utf8_lossy(&real);
            if is_below(path, &mount.target) || (!real.is_empty() && is_below(&leads_to, &real)) {
                return refused(format!(
                    "{path} is in what is mounted at {}, which is seen only while it runs; start it first",
                    mount.target
                ));
            }
        }
        Ok(())
    }
}

/// Whether `path` is `folder` or lies in it, by their names.
fn is_below(path: &str, folder: &str) -> bool {
    let names = |path| Path::new(path).components().collect::<Vec<_>>();
    names(path).starts_with(&names(folder))
}

/// Mount the layers of a container that does not run, where only this descriptor leads.
fn mounted(engine: &Inner, id: &str) -> Result<OwnedFd, Error> {
    let rootfs = engine.images.rootfs(id)?;
    let (rootfs, _layers) = userns::mounts::layers(&rootfs, &engine.config.parts())?;
    let options = rootfs.overlay_options().join(",");
    if options.len() >= MOUNT_DATA_BYTES_MAX {
        return Err(Error::invalid(
            "container",
            format!(
                "its image has too many layers ({}) to be opened while it does not run; start it first",
                rootfs.lower.len()
            ),
        ));
    }
    let point = MountPoint::make(&engine.config.parts(), |place| {
        DirBuilder::new().mode(0o700).create(place)
    })?;
    mount(
        Some("overlay"),
        &point.place,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .map_err(|error| Error::file("mount the layers at", &point.place)(error.into()))?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    // What is open stays when the mount point goes.
    open(&point.place, flags, Mode::empty()).map_err(|error| Error::file("open", &point.place)(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_below_a_mount_by_whole_names() {
        assert!(is_below("/data", "/data/"));
        assert!(is_below("/data/./a", "/data"));
        assert!(!is_below("/database", "/data"));
        assert!(!is_below("/", "/data"));
    }
}
