//! Images into one archive that is an OCI image layout and a docker archive at once: blobs by digest, index.json for
//! the one, manifest.json for the other.
//!
//! The documents come first, so that a reader of the stream knows what each blob is when it comes. Blobs are copied
//! as they are, and hashed once more on the way: what was damaged on this disk does not travel on. The same images
//! make the same archive. Sources: OCI image spec, image-layout.md and annotations.md; `docker save` since 25.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::archive::Entry;
use crate::digest::{Digest, Hasher};
use crate::local::Base;
use crate::manifest::{OCI_INDEX, OCI_MANIFEST};
use crate::pack::Packer;
use crate::reference::Reference;
use crate::store::{Held, Key, Store};
use crate::{Error, database, images, manifest};

/// All that goes into the archive, held until it is written.
#[derive(Default)]
struct Plan {
    /// Entries of index.json.
    index: Vec<Value>,
    /// Entries of manifest.json, by image id.
    docker: BTreeMap<String, Value>,
    blobs: BTreeMap<Digest, Arc<Held>>,
}

/// Write images, by name or id, as one archive.
pub(crate) fn save(store: &Arc<Store>, names_or_ids: &[String], archive: impl Write) -> Result<(), Error> {
    let mut plan = Plan::default();
    for wanted in names_or_ids {
        let (id, name) = images::find(&store.database(), wanted)?;
        plan.add(store, &id, name.as_deref())?;
        if let Some(name) = &name {
            plan.add_index(store, name)?;
        }
    }
    plan.write(archive)
}

impl Plan {
    fn add(&mut self, store: &Arc<Store>, id: &str, name: Option<&str>) -> Result<(), Error> {
        let base = Base::hold(store, id)?;
        let manifest = Digest::of(&base.manifest_json);
        let lost = |what: &str| Error::Incomplete {
            image: id.to_owned(),
            what: what.to_owned(),
        };
        for (digest, what) in [(&manifest, "manifest"), (&base.manifest.config.digest, "config")] {
            let held = store
                .hold(&Key::Blob(digest.clone()))?
                .ok_or_else(|| lost(what))?;
            self.blobs.insert(digest.clone(), held);
        }
        for (layer, placed) in base.manifest.layers.iter().zip(base.placed) {
            self.blobs.insert(layer.descriptor.digest.clone(), placed.blob);
        }
        self.describe(&base.manifest_json, &manifest, name, OCI_MANIFEST);
        let entry = self.docker.entry(id.to_owned()).or_insert_with(|| {
            let paths: Vec<String> = base
                .manifest
                .layers
                .iter()
                .map(|layer| path(&layer.descriptor.digest))
                .collect();
            json!({"Config": path(&base.manifest.config.digest), "RepoTags": [], "Layers": paths})
        });
        if let (Some(name), Some(tags)) = (name, entry["RepoTags"].as_array_mut()) {
            let tag = Value::from(familiar(name));
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        Ok(())
    }

    /// If all platforms of a name are here, the archive has the index of its publisher, under the same digest.
    fn add_index(&mut self, store: &Arc<Store>, name: &str) -> Result<(), Error> {
        let target = database::target_of(&store.database(), name)?.unwrap_or_default();
        let Ok(digest) = Digest::parse(&target) else {
            return Ok(());
        };
        let contents = store.hold_contents(&digest)?;
        let is_index = contents
            .first()
            .is_some_and(|(row, _)| manifest::is_index(&row.media_type));
        if !is_index || !database::is_complete(&store.database(), &target)? {
            return Ok(());
        }
        let index = store.document(&digest)?.unwrap_or_default();
        // In the place of the one image of it that was added.
        self.index.pop();
        self.describe(&index, &digest, Some(name), OCI_INDEX);
        self.blobs.extend(
            contents
                .into_iter()
                .map(|(_, held)| (held.digest().clone(), held)),
        );
        Ok(())
    }

    /// Add an entry to index.json.
    fn describe(&mut self, manifest: &[u8], digest: &Digest, name: Option<&str>, default_type: &str) {
        let parsed: Value = serde_json::from_slice(manifest).unwrap_or_default();
        let media_type = parsed["mediaType"].as_str().unwrap_or(default_type);
        let mut entry =
            json!({"mediaType": media_type, "digest": digest.to_string(), "size": manifest.len()});
        if let Some(name) = name {
            let tag = Reference::parse(name).ok().and_then(|reference| reference.tag);
            entry["annotations"] = json!({"io.containerd.image.name": name});
            if let Some(tag) = tag {
                entry["annotations"]["org.opencontainers.image.ref.name"] = tag.into();
            }
        }
        if !self.index.contains(&entry) {
            self.index.push(entry);
        }
    }

    fn write(self, archive: impl Write) -> Result<(), Error> {
        let mut packer = Packer::new(archive);
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": self.index});
        let docker: Vec<Value> = self.docker.into_values().collect();
        for (name, document) in [
            ("oci-layout", json!({"imageLayoutVersion": "1.0.0"})),
            ("index.json", index),
            ("manifest.json", docker.into()),
        ] {
            packer
                .append_document(name, document.to_string().as_bytes())
                .map_err(Error::Output)?;
        }
        for (digest, held) in &self.blobs {
            write_blob(&mut packer, digest, held)?;
        }
        packer.finish().map(drop).map_err(Error::Output)
    }
}

fn write_blob<W: Write>(packer: &mut Packer<W>, digest: &Digest, held: &Held) -> Result<(), Error> {
    let place = held.path();
    let open = || -> io::Result<(File, u64)> {
        let file = File::open(place)?;
        let size = file.metadata()?.len();
        Ok((file, size))
    };
    let (file, size) = open().map_err(|e| Error::io("open", place, e))?;
    let mut content = Hashed {
        file,
        hasher: digest.hasher(),
        failure: None,
    };
    let entry = Entry::plain(path(digest).as_bytes(), size);
    if let Err(error) = packer.append(&entry, &mut content) {
        return Err(match content.failure {
            Some(e) => Error::io("read", place, e),
            None => Error::Output(error),
        });
    }
    let actual = content.hasher.finish();
    if actual != *digest {
        return Err(Error::Digest {
            what: "blob",
            expected: digest.to_string(),
            actual: actual.to_string(),
        });
    }
    Ok(())
}

/// A blob's file, hashed while it is read; what fails here is told from what fails where it is written to.
struct Hashed {
    file: File,
    hasher: Hasher,
    failure: Option<io::Error>,
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.file.read(buffer) {
            Ok(got) => {
                self.hasher.update(&buffer[..got]);
                Ok(got)
            }
            Err(error) => {
                let words = error.to_string();
                self.failure = Some(error);
                Err(io::Error::other(words))
            }
        }
    }
}

fn path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm_name(), digest.hex())
}

/// A name as docker's own tools write it.
fn familiar(name: &str) -> &str {
    let short = name.strip_prefix("docker.io/").unwrap_or(name);
    short.strip_prefix("library/").unwrap_or(short)
}
