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

use tokio_util::sync::CancellationToken;

use crate::archive::Entry;
use crate::local::{Base, Description, LayerWriter, LocalLayer, compose};
use crate::overlay::{self, Change, Layers};
use crate::pack::Packer;
use crate::store::Store;
use crate::unpack::{Copy, Limits, Tally, split};
use crate::{Error, Image, Owners, database, rootfs};

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

/// Tell `visit` the differences between a container and its image: a folder before what is in it, sorted in each.
pub(crate) fn diff(
    store: &Store,
    container_id: &str,
    mount_points: &BTreeSet<Vec<u8>>,
    cancelled: &CancellationToken,
    visit: &mut dyn FnMut(FileChange) -> io::Result<()>,
) -> Result<(), Error> {
    let layers = layers(store, container_id)?;
    let absolute = |path: &[u8]| [b"/", path.strip_suffix(b"/").unwrap_or(path)].concat();
    overlay::changes(&layers, mount_points, cancelled, &mut |change| {
        let (kind, path) = match change {
            Change::Put { item, existed: true } => (ChangeKind::Changed, item.entry.path),
            Change::Put { item, existed: false } => (ChangeKind::Added, item.entry.path),
            Change::Deleted { path, .. } => (ChangeKind::Deleted, path),
            Change::Opaque { .. } => return Ok(()),
        };
        // The root's own entry says nothing to people.
        if path == b"./" {
            return Ok(());
        }
        let path = absolute(&path);
        visit(FileChange { kind, path })
    })
    .map_err(|failure| unreadable(container_id, failure))
}

/// Write all that a container has, merged with its image, as a tar stream.
pub(crate) fn export(
    store: &Store,
    container_id: &str,
    cancelled: &CancellationToken,
    stream: impl Write,
) -> Result<(), Error> {
    overlay::export(&layers(store, container_id)?, cancelled, stream)
        .map(drop)
        .map_err(|failure| unreadable(container_id, failure))?;
    check_whole(store, container_id)
}

/// Copy the folder at `path` in a container's root file system into the empty folder `to`, with all that files have.
/// False: there is no such folder.
///
/// `shifted`: the copies get the owners that a user namespace gives them on the host.
pub(crate) fn copy_folder(
    store: &Store,
    container_id: &str,
    path: &[u8],
    to: &Path,
    shifted: Option<&Owners>,
) -> Result<bool, Error> {
    let layers = layers(store, container_id)?;
    let unreadable = |failure| unreadable(container_id, failure);
    let found = overlay::folder(&layers, path).map_err(|e| unreadable((path.to_vec(), e)))?;
    let Some(folder) = found else {
        return Ok(false);
    };
    let mut copy = Copy::begin(to, &folder.path).map_err(|e| Error::io("open", to, e))?;
    let mut put = |entry: &Entry, data: overlay::Data| {
        let Some(owners) = shifted else {
            return copy.put(entry, data);
        };
        let mut entry = entry.clone();
        owners.placed(&mut entry)?;
        copy.put(&entry, data)
    };
    overlay::walk(&layers, folder, &CancellationToken::new(), &mut put).map_err(unreadable)?;
    copy.finish().map_err(|e| Error::io("complete", to, e))?;
    Ok(true)
}

/// What disappears while it is read is left out, so what was read is only whole if the container is still there: a
/// removal gives up its lease before it takes files away.
fn check_whole(store: &Store, container_id: &str) -> Result<(), Error> {
    rootfs::find(store, container_id).map(drop)
}

/// What a container has changed in its image, packed as a layer: the container is not needed any more.
pub struct Changes {
    base: Base,
    /// `None` if there are none.
    layer: Option<LocalLayer>,
}

/// Whether a layer may have all that a container has changed, by what can be told without reading it.
pub(crate) fn weigh(
    store: &Store,
    container_id: &str,
    mount_points: &BTreeSet<Vec<u8>>,
    cancelled: &CancellationToken,
) -> Result<(), Error> {
    let layers = layers(store, container_id)?;
    let mut tally = Tally::new(&Limits::default());
    overlay::changes(&layers, mount_points, cancelled, &mut |change| match change {
        Change::Put { item, .. } => check(&mut tally, &item.entry),
        Change::Opaque { .. } | Change::Deleted { .. } => Ok(()),
    })
    .map_err(|failure| unreadable(container_id, failure))
}

/// Pack what a container has changed.
pub(crate) fn pack(
    store: &Arc<Store>,
    container_id: &str,
    mount_points: &BTreeSet<Vec<u8>>,
    cancelled: &CancellationToken,
) -> Result<Changes, Error> {
    let image_id = database::lease(&store.database(), container_id)?
        .ok_or_else(|| Error::NoSuchLease(container_id.to_owned()))?;
    let base = Base::hold(store, &image_id)?;
    let layer = pack_layer(store, container_id, mount_points, cancelled)?;
    check_whole(store, container_id)?;
    if cancelled.is_cancelled() {
        return Err(Error::CommitCancelled(container_id.to_owned()));
    }
    failpoint::reach("commit.packed");
    Ok(Changes { base, layer })
}

/// Make an image of a container's image and its changes.
pub(crate) fn commit(
    store: &Arc<Store>,
    changes: Changes,
    description: &Description,
) -> Result<Image, Error> {
    compose(store, Some(changes.base), changes.layer, description)
}

fn pack_layer(
    store: &Arc<Store>,
    container_id: &str,
    mount_points: &BTreeSet<Vec<u8>>,
    cancelled: &CancellationToken,
) -> Result<Option<LocalLayer>, Error> {
    let layers = layers(store, container_id)?;
    let mut tally = Tally::new(&Limits::default());
    let mut packer = Packer::new(LayerWriter::create(store)?);
    let mut changed = false;
    let walked = overlay::changes(&layers, mount_points, cancelled, &mut |change| {
        changed = true;
        let marked = match change {
            Change::Put { mut item, .. } => {
                // It may have grown since it was weighed.
                check(&mut tally, &item.entry)?;
                let data = item.open(cancelled)?;
                return packer.append(&item.entry, data);
            }
            Change::Opaque { path } => mark(&path, OPAQUE),
            // The opaque folder above says so.
            Change::Deleted { hidden: true, .. } => return Ok(()),
            Change::Deleted { path, .. } => {
                let (folder, name) = split(&path);
                mark(folder, &[MARK, name].concat())
            }
        };
        tally.foresee(&marked).map_err(io::Error::other)?;
        packer.append(&marked, io::empty())
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

/// Whether the new layer can have an entry beside those that it has.
fn check(tally: &mut Tally, entry: &Entry) -> io::Result<()> {
    check_name(&entry.path)?;
    tally.foresee(entry).map_err(io::Error::other)
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
    let top: &Path = &rootfs.upper;
    let paths = std::iter::once(top).chain(rootfs.lower.iter().map(AsRef::as_ref));
    Layers::open(paths, rootfs.owners).map_err(|e| Error::io("open the layers of", &rootfs.upper, e))
}

fn unreadable(container_id: &str, (path, source): (Vec<u8>, io::Error)) -> Error {
    Error::Container {
        container: container_id.to_owned(),
        path: shown(&path),
        source,
    }
}
