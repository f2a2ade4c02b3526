//! Images whose bytes are on this machine already: loaded, imported or committed. The counterpart of a pull, with
//! the same pass over each layer, the same places and the same commit.

mod layer;

pub(crate) use layer::LayerWriter;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::content::{BlobWriter, Scratch};
use crate::database::{self, ImageRow, NameRow};
use crate::digest::{Digest, Hasher, chain_ids};
use crate::layer::Pass;
use crate::manifest::{self, Compression, Descriptor, Layer, Manifest, OCI_MANIFEST};
use crate::progress::Counters;
use crate::reference::Reference;
use crate::store::{Held, Key, Parts, Store};
use crate::unpack::{Limits, adopt};
use crate::{Error, Image, Platform};

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
            Some(layer) => layer,
            None => store.publish(&key, unpack(store, &local, &below)?)?,
        };
        below.push(Arc::clone(&layer));
        all.push(Placed {
            layer,
            blob: local.blob,
        });
    }
    Ok(all)
}

/// One pass over a blob on this machine.
fn unpack(store: &Arc<Store>, local: &LocalLayer, below: &[Arc<Held>]) -> Result<Scratch, Error> {
    let folder = store.scratch_folder()?;
    let descriptor = &local.layer.descriptor;
    let pass = Pass {
        layer: local.layer.clone(),
        diff_id: local.diff_id.clone(),
        folder: folder.path().to_owned(),
        limits: Limits::default(),
        counters: Arc::new(Counters::new(descriptor.digest.to_string(), descriptor.size)),
    };
    let (sink, source) = mpsc::channel::<Bytes>(PIECES_MAX);
    let path = local.blob.path();
    let (fed, made) = std::thread::scope(|scope| {
        let feeder = scope.spawn(move || feed(path, &sink));
        let made = pass.run(source, None);
        (feeder.join(), made)
    });
    fed.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    let paths: Vec<&Path> = below.iter().rev().map(|held| held.path()).collect();
    adopt(folder.path(), &made?, &paths).map_err(|e| Error::io("complete the layer in", folder.path(), e))?;
    Ok(folder)
}

fn feed(path: &Path, sink: &mpsc::Sender<Bytes>) -> Result<(), Error> {
    let mut file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    loop {
        let mut piece = vec![0; PIECE_BYTES];
        let got = file.read(&mut piece).map_err(|e| Error::io("read", path, e))?;
        piece.truncate(got);
        // The pass may have refused the layer by now; it says why.
        if got == 0 || sink.blocking_send(piece.into()).is_err() {
            return Ok(());
        }
    }
}

/// The newest state of an image that is here: what goes on top of it needs all this.
pub(crate) struct Base {
    pub(crate) config: Value,
    pub(crate) manifest: Manifest,
    /// The manifest as it was pulled.
    pub(crate) manifest_json: Vec<u8>,
    pub(crate) diff_ids: Vec<Digest>,
    pub(crate) placed: Vec<Placed>,
}

impl Base {
    /// Hold all of an image.
    pub(crate) fn hold(store: &Arc<Store>, id: &str) -> Result<Base, Error> {
        let row = database::image(&store.database(), id)?.ok_or_else(|| Error::NoSuchImage(id.to_owned()))?;
        let image = Image::from_row(row)?;
        let lost = |what: &str| Error::Incomplete {
            image: id.to_owned(),
            what: what.to_owned(),
        };
        let manifest = Digest::parse(&image.manifest_digest).map_err(|_| lost("manifest"))?;
        let content = store
            .hold(&Key::Blob(manifest))?
            .ok_or_else(|| lost("manifest"))?;
        let content =
            std::fs::read(content.path()).map_err(|e| Error::io("read the manifest", content.path(), e))?;
        let manifest = manifest::parse_stored(&content).ok_or_else(|| lost("manifest"))?;
        let diff_ids: Vec<Digest> = image
            .diff_ids
            .iter()
            .filter_map(|text| Digest::parse(text).ok())
            .collect();
        let mut placed = Vec::new();
        for (chain_id, layer) in chain_ids(&diff_ids).into_iter().zip(&manifest.layers) {
            let digest = &layer.descriptor.digest;
            placed.push(Placed {
                layer: store
                    .hold(&Key::Layer(chain_id))?
                    .ok_or_else(|| lost("unpacked layers"))?,
                blob: store
                    .hold(&Key::Blob(digest.clone()))?
                    .ok_or_else(|| lost(&format!("layer {digest}")))?,
            });
        }
        Ok(Base {
            config: serde_json::from_str(&image.config_json).unwrap_or_default(),
            manifest,
            manifest_json: content,
            diff_ids,
            placed,
        })
    }
}

impl Layer {
    /// A layer that has no descriptor yet.
    pub(crate) fn new(digest: Digest, size: u64, compression: Compression) -> Layer {
        let media_type = compression.media_type().to_owned();
        Layer {
            descriptor: Descriptor {
                media_type,
                digest,
                size,
            },
            compression,
        }
    }
}

/// What is said of an image that is made here.
#[derive(Debug, Clone, Default)]
pub struct Description {
    /// A name for it, in any of docker's forms; one that pointed elsewhere moves.
    pub name: Option<String>,
    /// Who made it.
    pub author: String,
    /// What it is, for its history.
    pub comment: String,
    /// How its layer was made, for its history.
    pub created_by: String,
    /// The `config` object of the image config: `Cmd`, `Env`, …
    pub config: Value,
    /// What it runs on, if no other image below it tells.
    pub platform: Option<Platform>,
}

/// Make an image of a base, if there is one, and a layer, if anything was changed.
pub(crate) fn compose(
    store: &Arc<Store>,
    base: Option<Base>,
    layer: Option<LocalLayer>,
    description: &Description,
) -> Result<Image, Error> {
    let name = description.name.as_deref().map(Reference::parse).transpose()?;
    let mut config = config_json(base.as_ref(), layer.as_ref(), description);
    let (mut diff_ids, mut placed, mut layers) = match base {
        Some(base) => (base.diff_ids, base.placed, base.manifest.layers),
        None => Default::default(),
    };
    if let Some(layer) = layer {
        let below = placed.iter().map(|placed| Arc::clone(&placed.layer)).collect();
        let (packed, diff_id) = (layer.layer.clone(), layer.diff_id.clone());
        placed.extend(place(store, [layer], diff_ids.clone(), below)?);
        layers.push(packed);
        diff_ids.push(diff_id);
    }
    let diff_ids: Vec<String> = diff_ids.iter().map(Digest::to_string).collect();
    config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
    let config = config.to_string();
    let manifest = manifest_json(&config, &layers);
    failpoint::reach("local.composed");
    let documents = Documents {
        manifest: manifest.as_bytes(),
        config: &config,
        layers: &layers,
    };
    let prepared = prepare(store, &documents, placed)?;
    commit(store, &prepared, name.as_ref(), None)
}

/// What says what an image is.
pub(crate) struct Documents<'a> {
    pub(crate) manifest: &'a [u8],
    pub(crate) config: &'a str,
    pub(crate) layers: &'a [Layer],
}

/// An image of which all is here and held, but nothing says so yet.
pub(crate) struct Prepared {
    row: ImageRow,
    platform: Platform,
    layers: Vec<Arc<Held>>,
    blobs: Vec<Arc<Held>>,
}

/// Keep the documents of an image whose layers are in their places.
pub(crate) fn prepare(
    store: &Arc<Store>,
    documents: &Documents<'_>,
    placed: Vec<Placed>,
) -> Result<Prepared, Error> {
    let Documents {
        manifest,
        config,
        layers,
    } = documents;
    let (manifest_digest, id) = (Digest::of(manifest), Digest::of(config.as_bytes()));
    let (parsed, _) = manifest::parse_config(config.as_bytes(), &id, layers.len())?;
    let (layer_holds, mut blobs): (Vec<_>, Vec<_>) = placed.into_iter().map(|p| (p.layer, p.blob)).unzip();
    blobs.push(store.keep_bytes(&manifest_digest, manifest)?);
    blobs.push(store.keep_bytes(&id, config.as_bytes())?);
    let sizes: u64 = layers.iter().map(|layer| layer.descriptor.size).sum();
    let row = ImageRow {
        id: id.to_string(),
        manifest_digest: manifest_digest.to_string(),
        size_bytes: sizes + (manifest.len() + config.len()) as u64,
        config_json: (*config).to_owned(),
        names: Vec::new(),
    };
    Ok(Prepared {
        row,
        platform: platform_of(&parsed),
        layers: layer_holds,
        blobs,
    })
}

/// Make an image ready, and point a name to it if it has one. `target` is what the name stands for if that is not
/// the manifest: the index that it was chosen from.
pub(crate) fn commit(
    store: &Arc<Store>,
    prepared: &Prepared,
    name: Option<&Reference>,
    target: Option<&Digest>,
) -> Result<Image, Error> {
    let id = prepared.row.id.clone();
    let row = NameRow {
        image_id: id.clone(),
        target_digest: target.map_or_else(|| prepared.row.manifest_digest.clone(), Digest::to_string),
        platform: prepared.platform.to_string(),
    };
    store.commit(&Parts {
        row: prepared.row.clone(),
        name: name.map(|name| (name.name(), row)),
        layers: prepared.layers.clone(),
        blobs: prepared.blobs.clone(),
    })?;
    let row = database::image(&store.database(), &id)?.ok_or(Error::NoSuchImage(id))?;
    Image::from_row(row)
}

pub(crate) fn platform_of(config: &oci_spec::image::ImageConfiguration) -> Platform {
    let variant = config.variant().clone().unwrap_or_default();
    let slash = if variant.is_empty() { "" } else { "/" };
    let (os, architecture) = (config.os(), config.architecture());
    format!("{os}/{architecture}{slash}{variant}")
        .parse()
        .unwrap_or_else(|_| Platform::host())
}

/// The config, but for its `rootfs`. Fields that we do not know stay as the base has them.
fn config_json(base: Option<&Base>, layer: Option<&LocalLayer>, description: &Description) -> Value {
    let created = jiff::Timestamp::now().to_string();
    let mut config = if let Some(base) = base {
        base.config.clone()
    } else {
        let platform = description.platform.clone().unwrap_or_else(Platform::host);
        let mut config = json!({"architecture": platform.architecture, "os": platform.os});
        if !platform.variant.is_empty() {
            config["variant"] = platform.variant.into();
        }
        config
    };
    if let Some(fields) = config.as_object_mut() {
        // Docker's notes on the container that its own commits were made in.
        fields.remove("container");
        fields.remove("container_config");
    }
    let mut step = json!({"created": created, "created_by": description.created_by});
    if !description.author.is_empty() {
        step["author"] = description.author.as_str().into();
        config["author"] = description.author.as_str().into();
    }
    if !description.comment.is_empty() {
        step["comment"] = description.comment.as_str().into();
    }
    if layer.is_none() {
        step["empty_layer"] = true.into();
    }
    config["created"] = created.into();
    config["config"] = description.config.clone();
    match config["history"].as_array_mut() {
        Some(history) => history.push(step),
        None => config["history"] = json!([step]),
    }
    config
}

/// A manifest in OCI's words; layers keep their bytes, whoever made them.
pub(crate) fn manifest_json(config: &str, layers: &[Layer]) -> String {
    let layers: Vec<Value> = layers
        .iter()
        .map(|layer| {
            let descriptor = &layer.descriptor;
            json!({
                "mediaType": layer.compression.media_type(), "digest": descriptor.digest.to_string(),
                "size": descriptor.size,
            })
        })
        .collect();
    json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": {
            "mediaType": manifest::OCI_CONFIG, "digest": Digest::of(config.as_bytes()).to_string(), "size": config.len(),
        },
        "layers": layers,
    })
    .to_string()
}

/// A blob while it is written, hashed on the way.
pub(crate) struct HashedBlob {
    writer: BlobWriter,
    hasher: Hasher,
    bytes: u64,
    /// Why a write failed: passing through `io::Error` would lose it.
    failure: Option<Error>,
}

impl HashedBlob {
    pub(crate) fn create(store: &Store, hasher: Hasher) -> Result<HashedBlob, Error> {
        Ok(HashedBlob {
            writer: store.blob_writer()?,
            hasher,
            bytes: 0,
            failure: None,
        })
    }

    pub(crate) fn failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// The file, its digest and its size.
    pub(crate) fn finish(self) -> (Scratch, Digest, u64) {
        (self.writer.finish(), self.hasher.finish(), self.bytes)
    }

    /// Keep it as the blob of a layer.
    pub(crate) fn into_layer(
        self,
        store: &Arc<Store>,
        compression: Compression,
        diff_id: Digest,
    ) -> Result<LocalLayer, Error> {
        let (scratch, digest, size) = self.finish();
        let blob = store.publish(&Key::Blob(digest.clone()), scratch)?;
        Ok(LocalLayer {
            layer: Layer::new(digest, size, compression),
            diff_id,
            blob,
        })
    }
}

impl Write for HashedBlob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(error) = self.writer.write(bytes) {
            let words = error.to_string();
            self.failure = Some(error);
            return Err(io::Error::other(words));
        }
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
