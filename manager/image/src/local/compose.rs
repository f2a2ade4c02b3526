//! An image that is made here: its config and manifest are written by code.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Base, Documents, LocalLayer, commit, place, prepare};
use crate::digest::Digest;
use crate::manifest::{self, Layer, OCI_MANIFEST};
use crate::reference::Reference;
use crate::store::Store;
use crate::{Error, Image, Platform};

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

impl Description {
    /// The name, checked: before any work is done for it.
    pub(crate) fn reference(&self) -> Result<Option<Reference>, Error> {
        self.name.as_deref().map(Reference::parse_new_name).transpose()
    }
}

/// Make an image of a base, if there is one, and a layer, if anything was changed.
pub(crate) fn compose(
    store: &Arc<Store>,
    base: Option<Base>,
    layer: Option<LocalLayer>,
    description: &Description,
) -> Result<Image, Error> {
    let name = description.reference()?;
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
        index: None,
    };
    let prepared = prepare(store, &documents, placed)?;
    commit(store, &prepared, name.as_ref())?;
    Image::read(&store.database(), prepared.id())
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
