//! Taking the images of an archive: an OCI image layout or a docker archive, or both in one.
//!
//! The archive comes as a stream, and what says what its files are may come last. So its files are kept as scratch
//! while they come, hashed on the way; then images are planned from the documents among them, all layers are
//! unpacked and verified as in a pull, and only when all of that is done are the images committed, one after the
//! other. What does not become part of an image goes away with its value.

mod docker;
mod files;
mod layout;
mod legacy;

use std::io::Read;
use std::sync::Arc;

use crate::database::ImageRow;
use crate::digest::Digest;
use crate::local::{Base, Documents, Index, LocalLayer, Prepared, commit, manifest_json, place, prepare};
use crate::reference::Reference;
use crate::store::{Held, Store};
use crate::{Error, Kept, Platform};
use files::Files;

/// Images in one archive.
const IMAGES_MAX: usize = 1000;

/// An image or artifact of the archive, by its documents, which are checked.
struct Planned {
    names: Vec<Reference>,
    content: Content,
    /// What it was chosen from.
    index: Option<Index>,
}

enum Content {
    Image {
        /// `None`: the archive has none, so it is made of the config and the layers.
        manifest: Option<Vec<u8>>,
        config: String,
        /// They are not checked yet.
        layers: Vec<LocalLayer>,
    },
    Artifact {
        row: ImageRow,
        blobs: Vec<Arc<Held>>,
    },
}

/// Read the archive to its end, and make its images and artifacts ready.
pub(crate) fn load(
    store: &Arc<Store>,
    archive: impl Read,
    platform: Option<&Platform>,
) -> Result<Vec<Kept>, Error> {
    let files = Files::read(store, archive)?;
    failpoint::reach("load.read");
    let planned = if files.has("index.json") && files.has("oci-layout") {
        layout::plan(&files, &platform.cloned().unwrap_or_else(Platform::host))?
    } else if files.has("manifest.json") {
        docker::plan(&files)?
    } else if files.has("repositories") {
        legacy::plan(&files)?
    } else {
        return Err(refuse(
            "it has no index.json with an oci-layout, no manifest.json and no repositories: it is neither an OCI image \
             layout nor a docker archive (for a root file system there is `import`)",
        ));
    };
    let mut ready = Vec::new();
    for planned in planned {
        ready.push((planned.names.clone(), planned.prepare(store)?));
    }
    failpoint::reach("load.prepared");
    let mut all = Vec::new();
    for (names, prepared) in &ready {
        commit(store, prepared, names.first())?;
        for name in names.iter().skip(1) {
            commit(store, prepared, Some(name))?;
        }
        let mut kept = Kept::read(&store.database(), prepared.id())?;
        // It may have others here; these are the archive's.
        *kept.names_mut() = names.iter().map(Reference::name).collect();
        all.push(kept);
    }
    Ok(all)
}

impl Planned {
    fn prepare(self, store: &Arc<Store>) -> Result<Prepared, Error> {
        let (manifest, config, local) = match self.content {
            Content::Image {
                manifest,
                config,
                layers,
            } => (manifest, config, layers),
            Content::Artifact { row, blobs } => {
                return Ok(Prepared::artifact(row, blobs, self.index.as_ref()));
            }
        };
        let layers: Vec<_> = local.iter().map(|local| local.layer.clone()).collect();
        let manifest = if let Some(manifest) = manifest {
            manifest
        } else {
            // Where the same image was pulled, its own manifest is the better one: it can be pushed as it was.
            let id = Digest::of(config.as_bytes()).to_string();
            if let Ok(base) = Base::hold(store, &id) {
                let documents = Documents {
                    manifest: &base.manifest_json,
                    config: &config,
                    layers: &base.manifest.layers,
                    index: None,
                };
                return prepare(store, &documents, base.placed);
            }
            manifest_json(&config, &layers).into_bytes()
        };
        let placed = place(store, local, Vec::new(), Vec::new())?;
        let documents = Documents {
            manifest: &manifest,
            config: &config,
            layers: &layers,
            index: self.index.as_ref(),
        };
        prepare(store, &documents, placed)
    }
}

fn refuse(rule: impl Into<String>) -> Error {
    Error::Archive { rule: rule.into() }
}
