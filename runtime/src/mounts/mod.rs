//! The file system of a container: what config.json says of `root`, `mounts`, `linux.devices`, `maskedPaths`,
//! `readonlyPaths`, `rootfsPropagation` and `mountLabel`, first checked as plain data ([`Plan`]), then built by the
//! init process in its new mount namespace ([`Rootfs`]).
//!
//! The image is not trusted. Paths inside it go through `inside` (openat2 below the root) and end in a descriptor;
//! mounts are made detached, get all their attributes, and are then put in place in one step, so none is ever
//! visible half done or at another place than was checked. Kernels without one of these calls (found by ENOSYS,
//! once) get mount(2) on `/proc/self/fd/N`, which names the same descriptor.
//!
//! Called by the init process in this order, which the types hold it to:
//!
//! ```text
//! parent:  Plan::from_spec(spec, bundle)          checks everything that can be checked before
//!          plan.open_sources()                    idmapped binds, without a user namespace
//! init:    plan.build(&context)  -> Rootfs        root, mounts, devices, links
//! parent:  plan.map_owners(), plan.open_for()     meanwhile, when init asks: see Parent
//! init:    rootfs.bind_console(pts)               with a terminal; before or after pivot
//!          rootfs.pivot(no_pivot)                 the root is now the container's; working folder is /
//!          rootfs.finish()                        masks, read-only paths, read-only root, propagation
//! ```

mod cgroup;
mod change;
mod copy_up;
mod devices;
mod entry;
mod external;
mod filesystem;
mod inside;
#[cfg(test)]
mod kernel_tests;
mod node;
mod options;
mod places;
mod plan;
mod protect;
mod root;
mod shared;
mod sources;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::sys::fd::close_later;
use crate::sys::process::set_umask;
use places::Places;

pub(crate) use plan::Plan;
pub(crate) use shared::take_back;
pub(crate) use sources::Sources;

/// What init asks of its parent, which has the host's rights. `index` is that of the entry in `mounts`.
pub(crate) trait Parent {
    /// Maps the owners of a bind that init has opened; see [`Plan::map_owners`].
    fn map_owners(&self, index: usize, tree: &OwnedFd) -> Result<()>;
    /// Opens the source of a bind, as seen from `root`; see [`Plan::open_for`].
    fn open_source(&self, index: usize, root: OwnedFd) -> Result<OwnedFd>;
}

/// What the init process knows of its surroundings and the mounts depend on.
#[derive(Default)]
pub(crate) struct Context<'a> {
    /// The container has a user namespace of its own: device nodes are bound, not made, and what the kernel lets
    /// only the owner of a namespace mount is bound from the host.
    pub(crate) user_namespace: bool,
    /// `/sys/fs/cgroup` is one cgroup2 hierarchy (not v1, not hybrid).
    pub(crate) unified: bool,
    /// The container's own groups, for mounts of type `cgroup`. The key is the name of the hierarchy's folder below
    /// `/sys/fs/cgroup` (`memory`, `cpu,cpuacct`, `systemd`, in hybrid also `unified`); the value the group's
    /// absolute folder on the host. With `unified` one entry, whatever its key.
    pub(crate) cgroups: BTreeMap<String, PathBuf>,
    /// The container has no mount namespace: its state folder, which notes what is mounted.
    pub(crate) without_namespace: Option<PathBuf>,
    /// What the parent opened; empty when nothing had to be.
    pub(crate) sources: Sources,
    /// None where mounts are made for their places alone.
    pub(crate) parent: Option<&'a dyn Parent>,
}

/// A root file system that is built. Holds descriptors into it until it is dropped; they close on exec.
pub(crate) struct Rootfs<'a> {
    plan: &'a Plan,
    root: OwnedFd,
    has_namespace: bool,
    /// A tmpfs that is to be read-only stays writable until all that goes below it has been made.
    read_only_later: Vec<OwnedFd>,
}

impl Plan {
    /// Makes the root, all mounts, devices and links, in the caller's mount namespace, which must be the container's
    /// own, unless the context says that it has none.
    pub(crate) fn build(&self, context: &Context) -> Result<Rootfs<'_>> {
        let umask_before = set_umask(0);
        let built = self.build_without_umask(context);
        set_umask(umask_before);
        built
    }

    fn build_without_umask(&self, context: &Context) -> Result<Rootfs<'_>> {
        let root = match &context.without_namespace {
            None => root::prepare(self)?,
            Some(state) => shared::prepare(&self.rootfs, state)?,
        };
        let mut places = Places::new(root.as_fd(), context, self.label.as_deref(), self.shares);
        for entry in &self.mounts {
            places.mount(entry)?;
        }
        if self.set_up_dev {
            devices::set_up(self, &places)?;
        }
        let read_only_later = places.into_read_only_later();
        Ok(Rootfs {
            plan: self,
            root,
            has_namespace: context.without_namespace.is_none(),
            read_only_later,
        })
    }
}

impl AsFd for Rootfs<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

impl Rootfs<'_> {
    /// Puts the container's terminal onto `/dev/console`. `pts` is the terminal's own end, of the container's devpts.
    pub(crate) fn bind_console(&self, pts: BorrowedFd) -> Result<()> {
        devices::bind_console(self.root.as_fd(), pts)
    }

    /// Makes the root file system the root of the calling process and takes the host's away. `no_pivot` (for a
    /// rootfs on an initramfs, which can't be pivoted away from) moves it over the root instead.
    pub(crate) fn pivot(&self, no_pivot: bool) -> Result<()> {
        if !self.has_namespace {
            shared::enter(&self.root)
        } else if no_pivot {
            root::move_over(self.root.as_fd(), &self.plan.rootfs)
        } else {
            root::pivot(self.root.as_fd(), self.plan.propagation)
        }
    }

    /// Makes a folder where the image has none, while the root may still be written. The path never leads through a
    /// link of procfs to a descriptor that the runtime has open (as CVE-2024-21626 did).
    pub(crate) fn make_folder(&self, path: &Path) -> Result<()> {
        let below = inside::names(path);
        if below.as_os_str().is_empty() || path.is_dir() {
            return Ok(());
        }
        inside::folder(self.root.as_fd(), &below).map(|folder| close_later(folder.fd))
    }

    /// Takes away what the container must not see or change. The calling process must have pivoted.
    pub(crate) fn finish(self) -> Result<()> {
        for mount in &self.read_only_later {
            change::read_only(mount.as_fd(), || "make a tmpfs read-only".into())?;
        }
        protect::read_only_paths(self.root.as_fd(), &self.plan.read_only_paths)?;
        protect::masked_paths(
            self.root.as_fd(),
            &self.plan.masked_paths,
            self.plan.label.as_deref(),
        )?;
        if self.plan.read_only {
            change::read_only(self.root.as_fd(), || "make the rootfs read-only".into())?;
        }
        root::propagate(self.root.as_fd(), self.plan.propagation)?;
        close_later(self.root);
        Ok(())
    }
}
