//! Images whose bytes are on this machine already: loaded, imported or committed. The counterpart of a pull, with
//! the same pass over each layer, the same places and the same commit.

mod base;
mod compose;
mod layer;
mod prepare;

pub(crate) use base::Base;
pub use compose::Description;
pub(crate) use compose::{compose, manifest_json};
pub(crate) use layer::{HashedBlob, LayerWriter};
pub(crate) use prepare::{Documents, Index, Prepared, commit, prepare};

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::Error;
use crate::content::Scratch;
use crate::digest::{Digest, chain_ids};
use crate::inflate::{Format, Inflated};
use crate::layer::{Pass, complete, feed_file};
use crate::manifest::Layer;
use crate::progress::Counters;
use crate::store::{Held, Key, Store};
use crate::unpack::{Form, Limits, Unpacked};
use crate::write_back::WriteBack;

/// Pieces that wait between the file and the pass.
const PIECES_MAX: usize = 4;
const PIECE_BYTES: usize = 64 << 10;

/// A layer whose blob is here.
pub(crate) struct LocalLayer {
    pub(crate) layer: Layer,
    pub(crate) diff_id: Digest,
    pub(crate) blob: Arc<Held>,
}

/// A layer in its place, with its blob.
pub(crate) struct Placed {
    pub(crate) layer: Arc<Held>,
    pub(crate) blob: Arc<Held>,
}

/// Put layers above those that are in their places, base first: each is unpacked and verified as in a pull, unless
/// the same layer is here.
pub(crate) fn place(
    store: &Arc<Store>,
    layers: impl IntoIterator<Item = LocalLayer>,
    base: Vec<Digest>,
    mut below: Vec<Arc<Held>>,
) -> Result<Vec<Placed>, Error> {
    let mut diff_ids = base;
    let mut all = Vec::new();
    for local in layers {
        diff_ids.push(local.diff_id.clone());
        let chain_id = chain_ids(&diff_ids)
            .pop()
            .unwrap_or_else(|| local.diff_id.clone());
        let key = Key::Layer(chain_id);
        let layer = match store.hold(&key)? {
            Some(layer) => {
                check(&local)?;
                layer
            }
            None => unpack(store, &local, &below, &key)?,
        };
        below.push(Arc::clone(&layer));
        all.push(Placed {
            layer,
            blob: local.blob,
        });
    }
    Ok(all)
}

/// Whether a blob is the layer that it is said to be. The layer is here already and has no need of it, but who pushes or
/// saves the image sends this blob.
fn check(local: &LocalLayer) -> Result<(), Error> {
    let (layer, path) = (&local.layer, local.blob.path());
    let failed = |e| Error::io("read", path, e);
    let file = File::open(path).map_err(failed)?;
    let mut content =
        Inflated::new(file, Format::Layer(layer.compression), &Limits::default()).map_err(failed)?;
    let mut hasher = local.diff_id.hasher();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match content.read(&mut piece).map_err(failed)? {
            0 => break,
            got => hasher.update(&piece[..got]),
        }
    }
    let actual = hasher.finish();
    if actual == local.diff_id {
        return Ok(());
    }
    Err(Error::Digest {
        what: "uncompressed layer",
        expected: local.diff_id.to_string(),
        actual: actual.to_string(),
    })
}

/// One pass over a blob on this machine, into the layer's place.
fn unpack(
    store: &Arc<Store>,
    local: &LocalLayer,
    below: &[Arc<Held>],
    key: &Key,
) -> Result<Arc<Held>, Error> {
    let (scratch, unpacked) = unpack_aside(store, local, store.form(), Some(store.write_back()))?;
    let bytes = complete(scratch.path(), unpacked, below, &local.layer, &local.diff_id)?;
    store.publish_sized(key, scratch, Some(bytes))
}

/// One pass over a blob on this machine, to what goes away with its value. It is still to be completed. `write_back`
/// hears of what will stay.
pub(crate) fn unpack_aside(
    store: &Arc<Store>,
    local: &LocalLayer,
    form: Form,
    write_back: Option<WriteBack>,
) -> Result<(Scratch, Unpacked), Error> {
    let scratch = store.scratch_layer(form)?;
    let descriptor = &local.layer.descriptor;
    let pass = Pass {
        layer: local.layer.clone(),
        diff_id: local.diff_id.clone(),
        place: scratch.path().to_owned(),
        form,
        limits: Limits::default(),
        write_back,
        counters: Arc::new(Counters::new(descriptor.digest.to_string(), descriptor.size)),
    };
    let (sink, source) = mpsc::channel::<Bytes>(PIECES_MAX);
    let (path, counters) = (local.blob.path(), Arc::clone(&pass.counters));
    let (fed, made) = std::thread::scope(|scope| {
        let feeder = scope.spawn(move || feed_file(path, &sink, &counters));
        let made = pass.run(source, None);
        (feeder.join(), made)
    });
    fed.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    Ok((scratch, made?))
}
