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
use crate::images::{Found, find};
use crate::local::Base;
use crate::manifest::OCI_INDEX;
use crate::pack::Packer;
use crate::reference::Reference;
use crate::store::{Held, Store};
use crate::{Error, Kept, database};

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
        let found = find(&store.database(), wanted)?;
        match found {
            Found::Image(id) => {
                let manifest = plan.add_kept(store, &id, None)?;
                plan.add(store, &manifest, None)?;
            }
            Found::Name(reference) => plan.add_name(store, &reference)?,
        }
    }
    plan.write(archive)
}

impl Plan {
    /// An index goes along if all of it is here; else only its image that is, as a layout with holes is none.
    fn add_name(&mut self, store: &Arc<Store>, reference: &Reference) -> Result<(), Error> {
        let name = reference.name();
        let (image, target) = {
            let connection = store.database();
            let target = database::target_of(&connection, &name)?.unwrap_or_default();
            let target = match Digest::parse(&target) {
                Ok(digest) if database::is_complete(&connection, &target)? => Some(digest),
                _ => None,
            };
            (database::name(&connection, &name)?, target)
        };
        let manifest = match image {
            Some(row) => Some(self.add_kept(store, &row.image_id, Some(&name))?),
            None => None,
        };
        let target = target.or(manifest).ok_or_else(|| Error::Incomplete {
            image: name,
            what: "content".to_owned(),
        })?;
        self.add(store, &target, Some(reference))
    }

    /// Add what manifest.json is to have of an image or artifact. Gives its manifest, all of which is here.
    fn add_kept(&mut self, store: &Arc<Store>, id: &str, name: Option<&str>) -> Result<Digest, Error> {
        let artifact = {
            let connection = store.database();
            match Kept::read(&connection, id)? {
                Kept::Image(_) => None,
                Kept::Artifact(_) => Some(database::is_complete(&connection, id)?),
            }
        };
        let Some(is_complete) = artifact else {
            return self.add_image(store, id, name);
        };
        // Docker's archives know images only.
        let digest = Digest::parse(id).ok().filter(|_| is_complete);
        digest.ok_or_else(|| Error::Incomplete {
            image: id.to_owned(),
            what: "blobs".to_owned(),
        })
    }

    fn add_image(&mut self, store: &Arc<Store>, id: &str, name: Option<&str>) -> Result<Digest, Error> {
        let base = Base::hold(store, id)?;
        let entry = self.docker.entry(id.to_owned()).or_insert_with(|| {
            let layers = base.manifest.layers.iter();
            let paths: Vec<String> = layers.map(|layer| path(&layer.descriptor.digest)).collect();
            json!({"Config": path(&base.manifest.config.digest), "RepoTags": [], "Layers": paths})
        });
        if let (Some(name), Some(tags)) = (name, entry["RepoTags"].as_array_mut()) {
            let tag = Value::from(familiar(name));
            // A name with a digest is no tag.
            if !name.contains('@') && !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        Ok(Digest::of(&base.manifest_json))
    }

    /// Add a manifest or index to index.json, and all of what it points to that is here.
    fn add(&mut self, store: &Arc<Store>, target: &Digest, name: Option<&Reference>) -> Result<(), Error> {
        let contents = store.hold_contents(target)?;
        let Some((row, _)) = contents
            .first()
            .filter(|(row, _)| row.digest == target.to_string())
        else {
            return Err(Error::Incomplete {
                image: name.map_or_else(|| target.to_string(), Reference::to_string),
                what: "manifest".to_owned(),
            });
        };
        let mut entry = json!({"mediaType": row.media_type, "digest": row.digest, "size": row.size_bytes});
        if let Some(reference) = name {
            entry["annotations"] = json!({"io.containerd.image.name": reference.name()});
            if let Some(tag) = &reference.tag {
                entry["annotations"]["org.opencontainers.image.ref.name"] = tag.as_str().into();
            }
        }
        if !self.index.contains(&entry) {
            self.index.push(entry);
        }
        for (_, held) in contents {
            self.blobs.insert(held.digest().clone(), held);
        }
        Ok(())
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
