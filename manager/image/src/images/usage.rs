//! What images take of the disk, shared and alone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Kept, history};
use crate::database::{self, LayerRow};
use crate::{Error, store::Store};

/// What one image or artifact takes.
#[derive(Debug, Clone)]
pub struct ImageUsage {
    /// Which one.
    pub kept: Kept,
    /// Unpacked layers that other images have too.
    pub shared_bytes: u64,
    /// Unpacked layers that no other image has.
    pub unique_bytes: u64,
    /// Compressed blobs, manifests and config.
    pub content_bytes: u64,
    /// Containers made of it.
    pub containers: u32,
}

/// What all images take.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    /// Each image.
    pub images: Vec<ImageUsage>,
    /// Unpacked layers, each once.
    pub layers_bytes: u64,
    /// Compressed content, each once.
    pub content_bytes: u64,
    /// What removing all images that no container and no lease needs would free.
    pub reclaimable_bytes: u64,
}

/// One image with what it is made of.
struct Made {
    kept: Kept,
    layers: Vec<LayerRow>,
    contents: Vec<database::ContentRow>,
    containers: u32,
    is_needed: bool,
}

pub(super) fn usage(store: &Arc<Store>) -> Result<Usage, Error> {
    let all_layers = database::layers(&store.database())?;
    let sizes: HashMap<String, u64> = all_layers
        .iter()
        .map(|layer| layer.chain_id.clone())
        .zip(history::sizes(store, &all_layers)?)
        .collect();
    let (made, all_contents) = {
        let connection = store.database();
        let mut made = Vec::new();
        for id in database::image_ids(&connection)? {
            let kept = Kept::read(&connection, &id)?;
            made.push(Made {
                layers: database::image_layers(&connection, &id)?,
                contents: database::contents_of(&connection, kept.manifest_digest())?,
                containers: database::containers_of(&connection, &id)?,
                is_needed: database::user_of(&connection, &id)?.is_some(),
                kept,
            });
        }
        (made, database::all_contents(&connection)?)
    };
    let size = |layer: &LayerRow| sizes.get(&layer.chain_id).copied().unwrap_or(0);
    let mut users: HashMap<&str, u32> = HashMap::new();
    for layer in made.iter().flat_map(|made| &made.layers) {
        *users.entry(&layer.chain_id).or_default() += 1;
    }
    let is_shared = |layer: &&LayerRow| users.get(layer.chain_id.as_str()).is_some_and(|users| *users > 1);
    let images: Vec<ImageUsage> = made
        .iter()
        .map(|made| ImageUsage {
            kept: made.kept.clone(),
            shared_bytes: made.layers.iter().filter(is_shared).map(size).sum(),
            unique_bytes: made
                .layers
                .iter()
                .filter(|layer| !is_shared(layer))
                .map(size)
                .sum(),
            content_bytes: made.contents.iter().map(|content| content.size_bytes).sum(),
            containers: made.containers,
        })
        .collect();
    let needed = || made.iter().filter(|made| made.is_needed);
    let needed_layers: HashSet<&str> = needed()
        .flat_map(|made| &made.layers)
        .map(|layer| layer.chain_id.as_str())
        .collect();
    let needed_contents: HashSet<&str> = needed()
        .flat_map(|made| &made.contents)
        .map(|content| content.digest.as_str())
        .collect();
    let free_layers = sizes
        .iter()
        .filter(|(chain_id, _)| !needed_layers.contains(chain_id.as_str()));
    let free_contents = all_contents
        .iter()
        .filter(|content| !needed_contents.contains(content.digest.as_str()));
    Ok(Usage {
        images,
        layers_bytes: sizes.values().sum(),
        content_bytes: all_contents.iter().map(|content| content.size_bytes).sum(),
        reclaimable_bytes: free_layers.map(|(_, bytes)| bytes).sum::<u64>()
            + free_contents.map(|content| content.size_bytes).sum::<u64>(),
    })
}
