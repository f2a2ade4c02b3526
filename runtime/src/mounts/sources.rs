//! What the parent opens for the init process, as detached mounts that init inherits and puts in place: binds of a
//! container with a user namespace, whose mapped root may not reach a source (what it reaches it opens itself), and
//! idmapped binds, which need rights in the user namespace of the file system itself. A source that lies in the rootfs
//! is opened by init, when the mounts before it are made, and only its owners are mapped by the parent.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use libc::MS_SHARED;
use nix::fcntl::AT_FDCWD;
use oci_spec::runtime::LinuxIdMapping;

use super::change::{self, Change};
use super::options::IdMap;
use super::plan::{Entry, Kind, Mapping, Plan};
use crate::error::{Context as _, Error, Result};
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
            if let Kind::Bind { source, idmap } = &entry.kind
                && entry.inner_source.is_none()
                && (self.user_namespace || idmap.is_some())
            {
                sources.insert(entry.index, self.open_source(entry, source, idmap.as_ref())?);
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

    fn open_source(&self, entry: &Entry, source: &Path, mapping: Option<&Mapping>) -> Result<OwnedFd> {
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
        if let Some(mapping) = mapping {
            entry.map_owners(tree.as_fd(), source, mapping)?;
        }
        Ok(tree)
    }

    /// For each mount that init will send, in its order: maps the owners of its files.
    pub(crate) fn owner_maps(&self) -> impl Iterator<Item = impl Fn(BorrowedFd) -> Result<()>> {
        self.mounts.iter().filter_map(|entry| match &entry.kind {
            Kind::Bind {
                source,
                idmap: Some(mapping),
            } if entry.inner_source.is_some() => {
                Some(move |tree: BorrowedFd<'_>| entry.map_owners(tree, source, mapping))
            }
            _ => None,
        })
    }
}

impl Entry {
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
