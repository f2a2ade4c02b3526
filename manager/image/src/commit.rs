//! A container's writable layer: what it changes, as a list and as the new layer of an image; and the whole root
//! file system of a container as a tar stream.
//!
//! The new layer is packed, and then unpacked from its own blob by the same pass as a pulled one. Copying the upper
//! folder would be cheaper, but then this machine would run something else than all others that pull the image, if
//! packing ever went wrong.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use crate::archive::Entry;
use crate::local::{Base, Description, LayerWriter, LocalLayer, compose};
use crate::overlay::{self, Change, Layers};
use crate::pack::Packer;
use crate::store::Store;
use crate::{Error, Image, database, rootfs};

/// Whiteouts and opaque folders in a layer: OCI image spec, layer.md, "Whiteouts".
const MARK: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is not in the image.
    Added,
    /// It is in the image, with other content or looks, or something in it has changed.
    Changed,
    /// It is in the image only.
    Deleted,
}

/// One difference between a container and its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// What became of it.
    pub kind: ChangeKind,
    /// Absolute in the container; bytes, as names are.
    pub path: Vec<u8>,
}

/// The differences between a container and its image, sorted by path.
pub(crate) fn diff(
    store: &Store,
    container_id: &str,
    mount_points: &BTreeSet<Vec<u8>>,
) -> Result<Vec<FileChange>, Error> {
    let layers = layers(store, container_id)?;
    let mut found = Vec::new();
    let absolute = |path: &[u8]| [b"/", path.strip_suffix(b"/").unwrap_or(path)].concat();
    overlay::changes(&layers, mount_points, &mut |change| {
        let (kind, path) = match change {
            Change::Put { item, existed: true } => (ChangeKind::Changed, item.entry.path),
            Change::Put { item, existed: false } => (ChangeKind::Added, item.entry.path),
            Change::Deleted { path, .. } => (ChangeKind::Deleted, path),
            Change::Opaque { .. } => return Ok(()),
        };
        // The root's own entry says nothing to people.
        if path != b"./" {
            let path = absolute(&path);
            found.push(FileChange { kind, path });
        }
        Ok(())
    })
    .map_err(|failure| unreadable(container_id, failure))?;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Write all that a container has, merged with its image, as a tar stream.
pub(crate) fn export(store: &Store, container_id: &str, stream: impl Write) -> Result<(), Error> {
    overlay::export(&layers(store, container_id)?, stream)
        .map(drop)
        .map_err(|failure| unreadable(container_id, failure))?;
    check_whole(store, container_id)
}

/// What disappears while it is read is left out, so what was read is only whole if the container is still there: a
/// removal gives up its lease before it takes files away.
fn check_whole(store: &Store, container_id: &str) -> Result<(), Error> {
    rootfs::find(store, container_id).map(drop)
}

/// Make an image of a container's image and what the container has changed in it.
pub(crate) fn commit(
    store: &Arc<Store>,
    container_id: &str,
    mount_points: &BTreeSet<Vec<u8>>,
    description: &Description,
) -> Result<Image, Error> {
    description.reference()?;
    let image_id = database::lease(&store.database(), container_id)?
        .ok_or_else(|| Error::NoSuchLease(container_id.to_owned()))?;
    let base = Base::hold(store, &image_id)?;
    let layer = pack(store, container_id, mount_points)?;
    check_whole(store, container_id)?;
    failpoint::reach("commit.packed");
    compose(store, Some(base), layer, description)
}

/// The container's changes as a layer; `None` if there are none.
fn pack(
    store: &Arc<Store>,
    container_id: &str,
    mount_points: &BTreeSet<Vec<u8>>,
) -> Result<Option<LocalLayer>, Error> {
    let layers = layers(store, container_id)?;
    let mut packer = Packer::new(LayerWriter::create(store)?);
    let mut changed = false;
    let walked = overlay::changes(&layers, mount_points, &mut |change| {
        changed = true;
        match change {
            Change::Put { item, .. } => {
                check_name(&item.entry.path)?;
                match item.file {
                    Some(file) => packer.append(&item.entry, file),
                    None => packer.append(&item.entry, io::empty()),
                }
            }
            Change::Opaque { path } => packer.append(&mark(&path, OPAQUE), io::empty()),
            // The opaque folder above says so.
            Change::Deleted { hidden: true, .. } => Ok(()),
            Change::Deleted { path, .. } => {
                let (folder, name) = match path.iter().rposition(|b| *b == b'/') {
                    Some(slash) => (&path[..slash], &path[slash + 1..]),
                    None => (&path[..0], &path[..]),
                };
                packer.append(&mark(folder, &[MARK, name].concat()), io::empty())
            }
        }
    });
    if let Err(failure) = walked {
        let of_store = packer.stream_mut().failure();
        return Err(of_store.unwrap_or_else(|| unreadable(container_id, failure)));
    }
    if !changed {
        return Ok(None);
    }
    let writer = packer.finish().map_err(Error::Input)?;
    writer.finish(store).map(Some)
}

/// An empty file that says something about the layers below.
fn mark(folder: &[u8], name: &[u8]) -> Entry {
    let path = if folder.is_empty() {
        name.to_vec()
    } else {
        [folder, name].join(&b'/')
    };
    Entry {
        mode: 0,
        ..Entry::plain(&path, 0)
    }
}

/// A path for an error: it may be as long as Linux takes, and longer.
fn shown(path: &[u8]) -> String {
    const LENGTH_MAX: usize = 300;
    let path = format!("/{}", String::from_utf8_lossy(path));
    match path.char_indices().nth(LENGTH_MAX) {
        Some((end, _)) => format!("{}…", &path[..end]),
        None => path,
    }
}

/// A name that means a deletion in a layer cannot be kept in one.
fn check_name(path: &[u8]) -> io::Result<()> {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
    if name.starts_with(MARK) {
        return Err(io::Error::other(
            "names that begin with `.wh.` mean deletions in a layer: no image can have such a file",
        ));
    }
    Ok(())
}

fn layers(store: &Store, container_id: &str) -> Result<Layers, Error> {
    let rootfs = rootfs::find(store, container_id)?;
    if let Some(owners) = &rootfs.owners {
        return Err(Error::Mapped {
            action: "read the changes of",
            container: container_id.to_owned(),
            owners: owners.uids.to_string(),
        });
    }
    let top: &Path = &rootfs.upper;
    let paths = std::iter::once(top).chain(rootfs.lower.iter().map(AsRef::as_ref));
    Layers::open(paths).map_err(|e| Error::io("open the layers of", &rootfs.upper, e))
}

fn unreadable(container_id: &str, (path, source): (Vec<u8>, io::Error)) -> Error {
    Error::Container {
        container: container_id.to_owned(),
        path: shown(&path),
        source,
    }
}
