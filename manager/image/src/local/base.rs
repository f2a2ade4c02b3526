//! An image that is here, as the base of another one.

use std::sync::Arc;

use serde_json::Value;

use super::Placed;
use crate::digest::{Digest, chain_ids};
use crate::manifest::{self, Manifest};
use crate::store::{Key, Store};
use crate::{Error, Image};

/// All of an image, held.
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
        let image = Image::read(&store.database(), id)?;
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
