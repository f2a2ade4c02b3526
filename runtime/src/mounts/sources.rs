//! What only the parent of init may do for binds. It opens an idmapped bind of a container without a user namespace in
//! advance, and init inherits it. All else init opens itself, in its mount namespace, where what the host has set for a
//! mount is locked: then no root in a user namespace can take that away. It asks the parent to map owners, which needs
//! rights in the user namespace of the file system itself, and for a source that the container's root may not reach.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use libc::MS_SHARED;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;
use nix::sys::statfs::fstatfs;
use nix::sys::statvfs::FsFlags;
use nix::unistd::{chroot, fchdir};
use oci_spec::runtime::LinuxIdMapping;

use super::change::{self, Change};
use super::inside;
use super::options::IdMap;
use super::plan::{Entry, Kind, Mapping, Plan};
use crate::error::{Context as _, Error, Result};
use crate::sys::credentials::own_users;
use crate::sys::mount::{self, At, Attributes};
use crate::sys::user_namespace;

/// Detached mounts by index in `mounts`. Dropping it lets go of them.
#[derive(Debug, Default)]
pub(crate) struct Sources(BTreeMap<usize, OwnedFd>);

impl Sources {
    pub(super) fn get(&self, index: usize) -> Option<&OwnedFd> {
        self.0.get(&index)
    }
}

impl Plan {
    /// Opens what only the parent may open. Must be called by the parent, single-threaded, before it makes the
    /// init process; empty and free of system calls for most containers.
    pub(crate) fn open_sources(&self) -> Result<Sources> {
        let mut sources = BTreeMap::new();
        for entry in &self.mounts {
            if let Kind::Bind {
                source,
                idmap: Some(mapping),
            } = &entry.kind
                && entry.inner_source.is_none()
                && !self.user_namespace
            {
                let tree = self.open_source(entry, source)?;
                entry.map_owners(tree.as_fd(), source, mapping)?;
                sources.insert(entry.index, tree);
            }
        }
        Ok(Sources(sources))
    }

    /// Refuses what only root's rights can do.
    pub(crate) fn check_without_root(&self) -> Result<()> {
        let mapped = |entry: &&Entry| matches!(&entry.kind, Kind::Bind { idmap: Some(_), .. });
        self.mounts.iter().find(mapped).map_or(Ok(()), |entry| {
            let field = format!("mounts[{}].uidMappings", entry.index);
            Err(Error::spec(field, "an idmapped bind needs root's rights"))
        })
    }

    /// Opens a source in the caller's mount namespace.
    fn open_source(&self, entry: &Entry, source: &Path) -> Result<OwnedFd> {
        let what = || format!("mounts[{}]: open {}", entry.index, source.display());
        let at = At {
            folder: AT_FDCWD,
            path: source,
        };
        let tree = mount::open_tree_clone(at, entry.options.bind_recursive).context(what)?;
        if self
            .propagation
            .is_none_or(|propagation| propagation.kind != MS_SHARED)
        {
            // A copy made outside the new namespace is a peer of the host's mount; see root::host_propagation.
            let cut = [Change::propagation(libc::MS_SLAVE, true)];
            if !change::detached(tree.as_fd(), &cut).context(what)? {
                let why = "a bind with a user namespace or idmap needs mount_setattr (Linux 5.12)";
                return Err(Error::Refused(format!("{}: {why}", what())));
            }
        }
        Ok(tree)
    }

    /// Init may ask for help with one of the mounts.
    pub(crate) fn need_help(&self) -> bool {
        self.mounts.iter().any(|entry| match &entry.kind {
            Kind::Bind { idmap, .. } => {
                self.user_namespace || idmap.is_some() && entry.inner_source.is_some()
            }
            _ => false,
        })
    }

    /// Maps the owners of the files of a bind that init has opened.
    pub(crate) fn map_owners(&self, index: usize, tree: BorrowedFd) -> Result<()> {
        match self.mounts.get(index).map(|entry| (entry, &entry.kind)) {
            Some((
                entry,
                Kind::Bind {
                    source,
                    idmap: Some(mapping),
                },
            )) => entry.map_owners(tree, source, mapping),
            _ => Err(Error::Silent),
        }
    }

    /// Opens the source of a bind with the host's rights, in the mount namespace of init (a pidfd) and as seen from
    /// `root`. The caller must have one thread.
    pub(crate) fn open_for(&self, init: BorrowedFd, index: usize, root: BorrowedFd) -> Result<OwnedFd> {
        let Some((entry, Kind::Bind { source, .. })) =
            self.mounts.get(index).map(|entry| (entry, &entry.kind))
        else {
            return Err(Error::Silent);
        };
        let what = || format!("mounts[{index}]: open {}", source.display());
        if own_users().1 != 0 {
            // We could do no more than init.
            return Err(io::Error::from(Errno::EACCES)).context(what);
        }
        let recursive = entry.options.bind_recursive;
        let visit = Visit::begin(init).context(|| "enter the container's mount namespace".into())?;
        let open = || {
            fchdir(root)?;
            chroot(".")?;
            let inner = entry.open_inner_source(root)?;
            let of_host = At {
                folder: AT_FDCWD,
                path: source,
            };
            let at = inner.as_ref().map_or(of_host, |inner| At::fd(inner.as_fd()));
            mount::open_tree_clone(at, recursive)
        };
        let opened = open();
        visit
            .end()
            .context(|| "leave the container's mount namespace".into())?;
        match opened {
            Err(error)
                if !recursive
                    && entry.inner_source.is_none()
                    && error.raw_os_error() == Some(libc::EINVAL) =>
            {
                self.open_without_those_below(entry, source)
            }
            other => other.context(what),
        }
    }

    /// In the mount namespace of a user namespace no mount of the host's can be had without those below it, which may
    /// hide something. Who asks for that on the host may show it; but here nothing locks what is set for the mount.
    fn open_without_those_below(&self, entry: &Entry, source: &Path) -> Result<OwnedFd> {
        let what = || format!("mounts[{}]: open {}", entry.index, source.display());
        let tree = self.open_source(entry, source)?;
        let set = fstatfs(&tree).map_err(io::Error::from).context(what)?.flags();
        let kept = FsFlags::ST_RDONLY | FsFlags::ST_NOSUID | FsFlags::ST_NODEV | FsFlags::ST_NOEXEC;
        if set.intersects(kept) {
            let why = "other mounts lie below it, and without them the container could take away what the host has \
                       set for it, such as ro or nosuid: bind it with rbind";
            return Err(Error::Refused(format!("{}: {why}", what())));
        }
        Ok(tree)
    }
}

/// The time that the process is in another's mount namespace.
struct Visit {
    namespace: File,
    root: OwnedFd,
    working_directory: OwnedFd,
}

impl Visit {
    fn begin(process: BorrowedFd) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let before = Self {
            namespace: File::open("/proc/self/ns/mnt")?,
            root: open("/", flags, Mode::empty())?,
            working_directory: open(".", flags, Mode::empty())?,
        };
        setns(process, CloneFlags::CLONE_NEWNS)?;
        Ok(before)
    }

    fn end(self) -> io::Result<()> {
        setns(self.namespace, CloneFlags::CLONE_NEWNS)?;
        fchdir(self.root)?;
        chroot(".")?;
        Ok(fchdir(self.working_directory)?)
    }
}

impl Entry {
    /// A source in the rootfs. The host's path to it leads through that, where a link could point back to the host: so
    /// it is followed from the rootfs, as inside the container.
    pub(super) fn open_inner_source(&self, root: BorrowedFd) -> io::Result<Option<OwnedFd>> {
        let found = self.inner_source.as_ref();
        let found = found.map(|path| inside::locate(root, path)).transpose()?;
        Ok(found.map(|target| target.fd))
    }

    fn map_owners(&self, tree: BorrowedFd, source: &Path, mapping: &Mapping) -> Result<()> {
        let what = || format!("mounts[{}]: map the owners of {}", self.index, source.display());
        let namespace = match mapping {
            Mapping::Ids { uids, gids } => {
                user_namespace::with_maps(&lines(uids), &lines(gids)).context(what)?
            }
            Mapping::Namespace(path) => File::open(path).context(what)?.into(),
        };
        let recursive = self.options.idmap == Some(IdMap::Recursive);
        let nothing_else = Attributes::default();
        mount::mount_setattr(At::fd(tree), recursive, nothing_else, Some(namespace.as_fd())).context(what)
    }
}

/// As `/proc/PID/uid_map` takes it. For an idmapped mount "container" is the owner on disk and "host" the one shown,
/// as the specification has it.
fn lines(mappings: &[LinuxIdMapping]) -> String {
    mappings.iter().fold(String::new(), |mut text, mapping| {
        let _ = writeln!(
            text,
            "{} {} {}",
            mapping.container_id(),
            mapping.host_id(),
            mapping.size()
        );
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxIdMappingBuilder;

    #[test]
    fn mappings_are_written_as_the_kernel_reads_them() {
        let mapping = |container: u32, host: u32, size: u32| {
            LinuxIdMappingBuilder::default()
                .container_id(container)
                .host_id(host)
                .size(size)
                .build()
                .unwrap()
        };
        assert_eq!(
            lines(&[mapping(0, 1000, 1), mapping(1, 100_000, 65536)]),
            "0 1000 1\n1 100000 65536\n"
        );
    }
}
