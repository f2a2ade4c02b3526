//! How an image was built: the steps that its config tells, each with the layer that it made.

use super::{Kept, find, measure::tree_bytes};
use crate::database::{self, LayerRow};
use crate::store::{Key, Store};
use crate::{Error, digest::Digest};

/// One step of a build.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Step {
    /// When it was done; 0 if that is not told.
    pub created_unix_seconds: i64,
    /// The instruction.
    pub created_by: String,
    /// Who did it.
    pub author: String,
    /// What was said of it.
    pub comment: String,
    /// Whether it changed no files.
    pub empty_layer: bool,
    /// Digest of its uncompressed layer; empty for an empty one.
    pub diff_id: String,
    /// Files of its unpacked layer.
    pub size_bytes: u64,
}

/// The steps of an image, base first. Layers that its history leaves out are steps of which nothing is told.
pub(super) fn history(store: &std::sync::Arc<Store>, name_or_id: &str) -> Result<Vec<Step>, Error> {
    let (image, rows) = {
        let connection = store.database();
        let id = find::image_id(&connection, name_or_id)?;
        (
            Kept::read(&connection, &id)?.into_image(name_or_id)?,
            database::image_layers(&connection, &id)?,
        )
    };
    let mut layers = image.diff_ids.iter().zip(sizes(store, &rows)?);
    let mut steps = Vec::new();
    let of_layer = |step: Step, layer: Option<(&String, u64)>| match layer {
        Some((diff_id, size_bytes)) => Step {
            diff_id: diff_id.clone(),
            size_bytes,
            ..step
        },
        None => step,
    };
    for told in image.config.history().iter().flatten() {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let created = told.created().as_deref();
        let step = Step {
            created_unix_seconds: created
                .and_then(|text| text.parse::<jiff::Timestamp>().ok())
                .map_or(0, jiff::Timestamp::as_second),
            created_by: text(told.created_by()),
            author: text(told.author()),
            comment: text(told.comment()),
            empty_layer: told.empty_layer().unwrap_or(false),
            ..Step::default()
        };
        let layer = if step.empty_layer { None } else { layers.next() };
        steps.push(of_layer(step, layer));
    }
    steps.extend(layers.map(|layer| of_layer(Step::default(), Some(layer))));
    Ok(steps)
}

/// Bytes of the files of each layer. One unpacked when that was not recorded is measured now, once.
pub(super) fn sizes(store: &std::sync::Arc<Store>, layers: &[LayerRow]) -> Result<Vec<u64>, Error> {
    let mut sizes = Vec::with_capacity(layers.len());
    for layer in layers {
        if let Some(bytes) = layer.unpacked_bytes {
            sizes.push(bytes);
            continue;
        }
        let held = match Digest::parse(&layer.chain_id) {
            Ok(chain_id) => store.hold(&Key::Layer(chain_id))?,
            Err(_) => None,
        };
        // Lost, by somebody else's doing: the next pull makes it anew.
        let Some(held) = held else {
            sizes.push(0);
            continue;
        };
        // That of a mounted image is a link.
        let folder = held.layer_folder()?.join(".");
        let bytes = tree_bytes(&folder).map_err(|e| Error::io("measure", held.path(), e))?;
        database::set_unpacked_bytes(&store.database(), &layer.chain_id, bytes)?;
        sizes.push(bytes);
    }
    Ok(sizes)
}
