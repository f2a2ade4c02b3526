//! From layers in their places to an image that is ready.

use std::sync::Arc;

use super::Placed;
use crate::database::{ImageRow, NameRow};
use crate::digest::Digest;
use crate::manifest::{self, Layer};
use crate::reference::Reference;
use crate::store::{Held, Parts, Store};
use crate::{Error, Image, Platform};

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
    Image::read(&store.database(), &id)
}

fn platform_of(config: &oci_spec::image::ImageConfiguration) -> Platform {
    let variant = config.variant().clone().unwrap_or_default();
    let slash = if variant.is_empty() { "" } else { "/" };
    let (os, architecture) = (config.os(), config.architecture());
    format!("{os}/{architecture}{slash}{variant}")
        .parse()
        .unwrap_or_else(|_| Platform::host())
}
