//! Manifests of artifacts: what registries keep beside container images, such as charts, models and signatures. What
//! is in their blobs is for others to know; here they are only kept whole.
//!
//! Source: OCI image spec, manifest.md, "Guidelines for Artifact Usage".

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use super::{Descriptor, LAYER_BYTES_MAX, RawDescriptor, RawDocument, descriptor, is_foreign};
use crate::digest::Digest;
use crate::links::check_media_type;

/// Bytes of all blobs of one artifact, as their descriptors tell: more than any disk of today should be filled with by
/// one name.
const ARTIFACT_BYTES_MAX: u64 = 1 << 40;

/// The manifest of an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Artifact {
    /// Its artifact type; of one that does not tell, the media type of its config.
    pub(crate) kind: String,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) config: Part,
    pub(crate) layers: Vec<Part>,
}

/// A blob of an artifact, and what its manifest says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) descriptor: Descriptor,
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Artifact {
    /// What registries have of it beside its manifest, each blob once: the empty config is a layer, too, where there
    /// is no other.
    pub(crate) fn blobs(&self) -> Vec<Descriptor> {
        let mut seen = HashSet::new();
        let parts = std::iter::once(&self.config).chain(&self.layers);
        let all = parts.map(|part| &part.descriptor);
        all.filter(|blob| !is_foreign(&blob.media_type) && seen.insert(&blob.digest))
            .cloned()
            .collect()
    }
}

pub(super) fn parse(raw: RawDocument) -> Result<Artifact, String> {
    // An artifact is known by its manifest's digest, an image by its config's: nothing may be both.
    if raw.rootfs.is_some() {
        return Err("it has the fields of both a manifest and an image config".into());
    }
    let config = part(raw.config.ok_or("it has no `config`")?, "config")?;
    let layers = raw.layers.ok_or("it has no `layers`")?.into_iter().enumerate();
    let layers = layers.map(|(position, raw)| part(raw, &format!("layers[{position}]")));
    let layers: Vec<Part> = layers.collect::<Result<_, _>>()?;
    let kind = raw.artifact_type.filter(|kind| !kind.is_empty());
    let kind = kind.unwrap_or_else(|| config.descriptor.media_type.clone());
    check_media_type(&kind)?;
    check_sizes(std::iter::once(&config).chain(&layers))?;
    let annotations = match raw.annotations {
        Some(Value::Object(annotations)) => annotations,
        _ => serde_json::Map::new(),
    };
    let annotations = annotations.into_iter().filter_map(|(key, value)| match value {
        Value::String(text) => Some((key, text)),
        _ => None,
    });
    Ok(Artifact {
        kind,
        annotations: annotations.collect(),
        config,
        layers,
    })
}

fn part(mut raw: RawDescriptor, field: &str) -> Result<Part, String> {
    let annotations = raw.annotations.take().unwrap_or_default();
    let descriptor = descriptor(raw, field, LAYER_BYTES_MAX)?;
    if descriptor.media_type.is_empty() {
        return Err(format!("{field}.mediaType is empty"));
    }
    Ok(Part {
        descriptor,
        annotations,
    })
}

fn check_sizes<'a>(parts: impl Iterator<Item = &'a Part>) -> Result<(), String> {
    let mut sizes: HashMap<&Digest, u64> = HashMap::new();
    for Part { descriptor, .. } in parts {
        let size = *sizes.entry(&descriptor.digest).or_insert(descriptor.size);
        if size != descriptor.size {
            return Err(format!("it tells two sizes of {}", descriptor.digest));
        }
    }
    let bytes = sizes.values().fold(0u64, |sum, size| sum.saturating_add(*size));
    if bytes > ARTIFACT_BYTES_MAX {
        return Err(format!(
            "its blobs together are more than {ARTIFACT_BYTES_MAX} bytes"
        ));
    }
    Ok(())
}
