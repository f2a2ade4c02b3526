//! A docker archive: manifest.json names configs and layers by their paths in the archive.
//!
//! Layers are plain or compressed; each is verified against the diffID that the config has for it, and configs
//! against the digest in their names. Source: moby's image/spec/v1.2.md, and `docker save` itself.

use serde::Deserialize;

use super::files::Files;
use super::{Content, IMAGES_MAX, Planned, refuse};
use crate::Error;
use crate::digest::{Digest, quote};
use crate::local::LocalLayer;
use crate::manifest::{self, LAYERS_MAX, Layer};
use crate::reference::Reference;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// The images that manifest.json names.
pub(super) fn plan(files: &Files) -> Result<Vec<Planned>, Error> {
    let items: Vec<Item> = serde_json::from_slice(&files.document("manifest.json")?)
        .map_err(|e| refuse(format!("manifest.json is not the JSON of a docker archive: {e}")))?;
    if items.is_empty() || items.len() > IMAGES_MAX {
        return Err(refuse(format!(
            "manifest.json names {} images, it needs 1 to {IMAGES_MAX}",
            items.len()
        )));
    }
    items.into_iter().map(|item| image(files, item)).collect()
}

fn image(files: &Files, item: Item) -> Result<Planned, Error> {
    let paths = item.layers.unwrap_or_default();
    if paths.len() > LAYERS_MAX {
        return Err(refuse(format!(
            "an image has {} layers, more than {LAYERS_MAX}",
            paths.len()
        )));
    }
    let config = String::from_utf8(files.document(&item.config)?)
        .map_err(|_| refuse(format!("config {} is not UTF-8", quote(&item.config))))?;
    let digest = Digest::of(config.as_bytes());
    let (_, diff_ids) = manifest::parse_config(config.as_bytes(), &digest, paths.len())?;
    let mut layers = Vec::new();
    for (path, diff_id) in paths.iter().zip(diff_ids) {
        layers.push(layer(files, path, diff_id)?);
    }
    let names: Result<Vec<Reference>, Error> = item
        .repo_tags
        .unwrap_or_default()
        .iter()
        .map(|name| Reference::parse_new_name(name))
        .collect();
    Ok(Planned {
        names: names?,
        content: Content::Image {
            manifest: None,
            config,
            layers,
        },
        index: None,
    })
}

/// The file at `path` as a layer, packed as it is.
pub(super) fn layer(files: &Files, path: &str, diff_id: Digest) -> Result<LocalLayer, Error> {
    let kept = files.find(path)?;
    let compression = kept.compression()?;
    Ok(LocalLayer {
        layer: Layer::new(kept.digest.clone(), kept.size, compression),
        diff_id,
        blob: files.blob(kept)?,
    })
}
