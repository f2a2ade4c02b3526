//! What a pull is after: from the target of its name, through indexes, to one platform's manifest and config, or to an
//! artifact.
//!
//! A document that is here is not fetched again: its bytes were checked against its digest when it came.

use std::collections::HashSet;
use std::sync::Arc;

use super::Pull;
use crate::database::{ImageRow, NameRow};
use crate::digest::Digest;
use crate::links::{self, LinkKind};
use crate::manifest::{self, Descriptor, Document, IndexEntry, Layer, Manifest};
use crate::registry::{Fetched, Sources};
use crate::store::{Held, Key};
use crate::{Artifact, Error, Platform, blocking};

/// Indexes that point to indexes.
const INDEX_DEPTH_MAX: usize = 3;
/// Documents and blobs below one index, of all its platforms.
const CONTENTS_MAX: usize = 5000;
/// Bytes of them, as their descriptors tell: more than any disk of today should be filled with by one name.
const CONTENT_BYTES_MAX: u64 = 1 << 40;

/// What documents say, fetched and checked.
pub(super) struct Plan {
    pub(super) row: ImageRow,
    /// Base first, with their diffIDs; none of an artifact.
    pub(super) layers: Vec<(Layer, Digest)>,
    /// All that were read: indexes, manifests, configs.
    pub(super) documents: Vec<Arc<Held>>,
    /// What is kept without being unpacked: blobs of other platforms, and of an artifact.
    pub(super) others: Vec<Descriptor>,
    pub(super) target: NameRow,
}

/// One image or artifact, as its manifest and config say.
struct Chosen {
    row: ImageRow,
    layers: Vec<(Layer, Digest)>,
    blobs: Vec<Descriptor>,
}

impl Pull {
    /// Fetch and check what says what the image is. `unmoved`: the target, if it is here.
    pub(super) async fn plan(
        &self,
        registry: Option<&Sources>,
        unmoved: Option<&Digest>,
    ) -> Result<Plan, Error> {
        let mut fetched = self.top(registry, unmoved).await?;
        let target_digest = fetched.digest.to_string();
        let mut documents = vec![self.keep_document(&fetched).await?];
        let mut entries = Vec::new();
        let mut indexes = 0;
        let chosen = loop {
            match parse(&fetched)? {
                Document::Manifest(manifest) => {
                    break self.image(registry, &fetched, manifest, &mut documents).await?;
                }
                Document::Artifact(artifact) => break self.artifact(fetched, &artifact)?,
                Document::Index(_) if indexes == INDEX_DEPTH_MAX => return Err(too_deep(&fetched.digest)),
                Document::Index(of_index) => {
                    indexes += 1;
                    let chosen = self.choose(registry, &of_index, &fetched.digest).await?;
                    let descriptor = of_index[chosen].descriptor.clone();
                    entries.extend(of_index);
                    fetched = self.fetch(registry, &descriptor).await?;
                    documents.push(self.keep_document(&fetched).await?);
                }
            }
        };
        let mut others = match registry {
            Some(registry) if self.all_platforms => {
                self.everything(registry, &entries, &chosen, &mut documents)
                    .await?
            }
            _ => Vec::new(),
        };
        others.extend(chosen.blobs);
        Ok(Plan {
            target: NameRow {
                image_id: chosen.row.id.clone(),
                target_digest,
                platform: self.platform().to_string(),
            },
            row: chosen.row,
            layers: chosen.layers,
            documents,
            others,
        })
    }

    /// An image, by its manifest and config.
    async fn image(
        &self,
        registry: Option<&Sources>,
        fetched: &Fetched,
        manifest: Manifest,
        documents: &mut Vec<Arc<Held>>,
    ) -> Result<Chosen, Error> {
        let config_json = self.config(registry, &manifest).await?;
        let config_digest = &manifest.config.digest;
        let (config, diff_ids) =
            manifest::parse_config(config_json.as_bytes(), config_digest, manifest.layers.len())?;
        if let Some(wanted) = &self.wanted
            && config.architecture().to_string() != wanted.architecture
        {
            return Err(Error::Document {
                what: "image config",
                digest: config_digest.to_string(),
                rule: format!("it is made for linux/{}, not for {wanted}", config.architecture()),
            });
        }
        documents.push(
            self.keep_bytes(config_digest, config_json.clone().into_bytes())
                .await?,
        );
        let layers: u64 = manifest.layers.iter().map(|layer| layer.descriptor.size).sum();
        Ok(Chosen {
            row: ImageRow {
                id: config_digest.to_string(),
                manifest_digest: fetched.digest.to_string(),
                size_bytes: layers + manifest.config.size + fetched.content.len() as u64,
                config_json,
                artifact_type: None,
                names: Vec::new(),
            },
            layers: manifest.layers.into_iter().zip(diff_ids).collect(),
            blobs: Vec::new(),
        })
    }

    fn artifact(&self, fetched: Fetched, manifest: &manifest::Artifact) -> Result<Chosen, Error> {
        if self.images_only {
            return Err(Error::Artifact {
                name: self.reference.to_string(),
                artifact_type: manifest.kind.clone(),
            });
        }
        Ok(Chosen {
            row: Artifact::row(&fetched.digest, fetched.content, manifest)?,
            layers: Vec::new(),
            blobs: manifest.blobs(),
        })
    }

    /// What the name points to.
    async fn top(&self, registry: Option<&Sources>, unmoved: Option<&Digest>) -> Result<Fetched, Error> {
        if let Some(digest) = unmoved
            && let Some(content) = self.document_here(digest).await?
            && let Ok(linked) = links::read(&content)
        {
            return Ok(Fetched {
                content,
                media_type: linked.media_type,
                digest: digest.clone(),
            });
        }
        let target = self.reference.target();
        let registry = registry.ok_or_else(|| Error::NotHere(self.reference.to_string()))?;
        registry
            .manifest(&target, None, self.reference.digest.as_ref())
            .await
    }

    /// What a descriptor points to.
    async fn fetch(&self, registry: Option<&Sources>, descriptor: &Descriptor) -> Result<Fetched, Error> {
        let here = self.document_here(&descriptor.digest).await?;
        if let Some(content) = here.filter(|content| content.len() as u64 == descriptor.size) {
            return Ok(Fetched {
                content,
                media_type: descriptor.media_type.clone(),
                digest: descriptor.digest.clone(),
            });
        }
        let digest = descriptor.digest.to_string();
        let registry = registry.ok_or_else(|| Error::NotHere(digest.clone()))?;
        registry
            .manifest(&digest, Some(descriptor), Some(&descriptor.digest))
            .await
    }

    /// The position of the entry to go on with. Without a registry, of those that are here.
    async fn choose(
        &self,
        registry: Option<&Sources>,
        entries: &[IndexEntry],
        digest: &Digest,
    ) -> Result<usize, Error> {
        let (offered, positions): (Vec<IndexEntry>, Vec<usize>) = if registry.is_some() {
            (entries.to_vec(), (0..entries.len()).collect())
        } else {
            let mut here = Vec::new();
            for (position, entry) in entries.iter().enumerate() {
                if self.document_here(&entry.descriptor.digest).await?.is_some() {
                    here.push((entry.clone(), position));
                }
            }
            here.into_iter().unzip()
        };
        let platform = self.platform();
        match manifest::choose(&offered, &platform, &digest.to_string()) {
            Ok(chosen) => Ok(offered
                .iter()
                .position(|entry| std::ptr::eq(entry, chosen))
                .map_or(0, |position| positions[position])),
            Err(_) if registry.is_none() => Err(Error::NoSuchPlatform {
                name: self.reference.to_string(),
                wanted: platform.to_string(),
                here: offered
                    .iter()
                    .filter_map(|entry| Some(entry.platform.as_ref()?.to_string()))
                    .collect(),
            }),
            // Of an index without this machine's platform, all can be kept all the same.
            Err(error) if self.all_platforms && self.wanted.is_none() => entries
                .iter()
                .position(|entry| {
                    !entry.is_attestation
                        && entry
                            .platform
                            .as_ref()
                            .is_some_and(|p: &Platform| p.os == "linux")
                })
                .ok_or(error),
            Err(error) => Err(error),
        }
    }

    async fn config(&self, registry: Option<&Sources>, manifest: &Manifest) -> Result<String, Error> {
        let descriptor = &manifest.config;
        let here = self.document_here(&descriptor.digest).await?;
        let content = match (here, registry) {
            (Some(content), _) if content.len() as u64 == descriptor.size => content,
            (_, Some(registry)) => registry.small_blob(descriptor).await?,
            (_, None) => return Err(Error::NotHere(descriptor.digest.to_string())),
        };
        String::from_utf8(content).map_err(|_| Error::Document {
            what: "image config",
            digest: manifest.config.digest.to_string(),
            rule: "it is not UTF-8".into(),
        })
    }

    /// Fetch the documents of all platforms too; gives the blobs that they need, each once, but not those of
    /// `chosen`, and not those that registries do not have.
    async fn everything(
        &self,
        registry: &Sources,
        entries: &[IndexEntry],
        chosen: &Chosen,
        documents: &mut Vec<Arc<Held>>,
    ) -> Result<Vec<Descriptor>, Error> {
        let mut seen: HashSet<Digest> = documents.iter().map(|held| held.digest().clone()).collect();
        let layers = chosen.layers.iter().map(|(layer, _)| &layer.descriptor);
        seen.extend(layers.chain(&chosen.blobs).map(|blob| blob.digest.clone()));
        let mut waiting: Vec<(Descriptor, usize)> = entries
            .iter()
            .map(|entry| (entry.descriptor.clone(), 1))
            .collect();
        let mut blobs = Vec::new();
        let mut bytes = 0u64;
        while let Some((descriptor, depth)) = waiting.pop() {
            if !seen.insert(descriptor.digest.clone()) {
                continue;
            }
            bytes = bytes.saturating_add(descriptor.size);
            if seen.len() > CONTENTS_MAX || bytes > CONTENT_BYTES_MAX {
                return Err(self.too_much());
            }
            if !links::is_document(&descriptor.media_type) {
                blobs.push(descriptor);
                continue;
            }
            if depth > INDEX_DEPTH_MAX {
                return Err(too_deep(&descriptor.digest));
            }
            let fetched = self.fetch(Some(registry), &descriptor).await?;
            let linked = links::read(&fetched.content).map_err(|rule| Error::Document {
                what: "manifest",
                digest: descriptor.digest.to_string(),
                rule,
            })?;
            documents.push(self.keep_document(&fetched).await?);
            let needed = linked
                .links
                .into_iter()
                .filter(|link| !matches!(link.kind, LinkKind::Subject | LinkKind::Foreign));
            waiting.extend(needed.map(|link| (link.target, depth + 1)));
        }
        Ok(blobs)
    }

    fn too_much(&self) -> Error {
        Error::Document {
            what: "index",
            digest: self.reference.to_string(),
            rule: format!(
                "all of its platforms together are more than {CONTENTS_MAX} manifests and blobs, or more than \
                 {CONTENT_BYTES_MAX} bytes: pull one platform of it"
            ),
        }
    }

    async fn document_here(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let (store, digest) = (Arc::clone(&self.shared.store), digest.clone());
        blocking(move || store.document(&digest)).await
    }

    async fn keep_document(&self, fetched: &Fetched) -> Result<Arc<Held>, Error> {
        self.keep_bytes(&fetched.digest, fetched.content.clone()).await
    }

    async fn keep_bytes(&self, digest: &Digest, content: Vec<u8>) -> Result<Arc<Held>, Error> {
        let (store, digest) = (Arc::clone(&self.shared.store), digest.clone());
        blocking(move || store.keep_bytes(&digest, &content)).await
    }

    /// A hold on a blob that is here.
    pub(super) async fn blob_here(&self, digest: &Digest) -> Result<Option<Arc<Held>>, Error> {
        let (store, key) = (Arc::clone(&self.shared.store), Key::Blob(digest.clone()));
        blocking(move || store.hold(&key)).await
    }
}

fn parse(fetched: &Fetched) -> Result<Document, Error> {
    manifest::parse(&fetched.content, &fetched.media_type, &fetched.digest.to_string())
}

fn too_deep(digest: &Digest) -> Error {
    Error::Document {
        what: "index",
        digest: digest.to_string(),
        rule: format!("indexes are nested more than {INDEX_DEPTH_MAX} deep"),
    }
}
