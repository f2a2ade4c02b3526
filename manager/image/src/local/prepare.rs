//! From layers in their places to an image that is ready.

use std::sync::Arc;

use super::Placed;
use crate::database::{ImageRow, NameRow};
use crate::digest::Digest;
use crate::manifest::{self, Layer};
use crate::reference::Reference;
use crate::store::{Held, Parts, Store};
use crate::{Error, Platform};

/// What says what an image is.
pub(crate) struct Documents<'a> {
    pub(crate) manifest: &'a [u8],
    pub(crate) config: &'a str,
    pub(crate) layers: &'a [Layer],
    /// What it was chosen from, if that is more than its own manifest.
    pub(crate) index: Option<&'a Index>,
}

/// An index from which an image was chosen.
pub(crate) struct Index {
    pub(crate) digest: Digest,
    /// The platform that it was chosen for.
    pub(crate) platform: Platform,
    /// The index, and all of what it points to that is here.
    pub(crate) blobs: Vec<Arc<Held>>,
}

/// An image or artifact of which all is here and held, but nothing says so yet.
pub(crate) struct Prepared {
    row: ImageRow,
    target: NameRow,
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
        index,
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
        artifact_type: None,
        names: Vec::new(),
    };
    let mut prepared = Prepared {
        target: NameRow {
            image_id: row.id.clone(),
            target_digest: row.manifest_digest.clone(),
            platform: platform_of(&parsed).to_string(),
        },
        row,
        layers: layer_holds,
        blobs,
    };
    if let Some(index) = index {
        prepared.choose_from(index);
    }
    Ok(prepared)
}

impl Prepared {
    /// An artifact with all of its blobs, its manifest among them.
    pub(crate) fn artifact(row: ImageRow, blobs: Vec<Arc<Held>>, index: Option<&Index>) -> Prepared {
        let mut prepared = Prepared {
            target: NameRow {
                image_id: row.id.clone(),
                target_digest: row.manifest_digest.clone(),
                platform: String::new(),
            },
            row,
            layers: Vec::new(),
            blobs,
        };
        if let Some(index) = index {
            prepared.choose_from(index);
        }
        prepared
    }

    /// What its name points to is an index.
    fn choose_from(&mut self, index: &Index) {
        self.target.target_digest = index.digest.to_string();
        self.target.platform = index.platform.to_string();
        self.blobs.extend(index.blobs.iter().cloned());
    }

    pub(crate) fn id(&self) -> &str {
        &self.row.id
    }
}

/// Make an image ready, and point a name to it if it has one.
pub(crate) fn commit(store: &Arc<Store>, prepared: &Prepared, name: Option<&Reference>) -> Result<(), Error> {
    store.commit(&Parts {
        row: prepared.row.clone(),
        name: name.map(|name| (name.name(), prepared.target.clone())),
        layers: prepared.layers.clone(),
        blobs: prepared.blobs.clone(),
    })
}

fn platform_of(config: &oci_spec::image::ImageConfiguration) -> Platform {
    let variant = config.variant().clone().unwrap_or_default();
    let slash = if variant.is_empty() { "" } else { "/" };
    let (os, architecture) = (config.os(), config.architecture());
    format!("{os}/{architecture}{slash}{variant}")
        .parse()
        .unwrap_or_else(|_| Platform::host())
}
