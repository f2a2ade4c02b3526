//! An OCI image layout: index.json points to blobs by digest. Source: OCI image spec, image-layout.md.

use std::collections::HashSet;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::files::Files;
use super::{Content, IMAGES_MAX, Planned, refuse};
use crate::digest::{Digest, quote};
use crate::links::{self, LinkKind};
use crate::local::{Index, LocalLayer};
use crate::manifest::{self, Descriptor, Document, IndexEntry, Manifest, OCI_INDEX};
use crate::reference::Reference;
use crate::store::Held;
use crate::{Artifact, Error, Platform};

/// Indexes that point to indexes, as in a pull.
const INDEX_DEPTH_MAX: usize = 3;
/// What containerd and docker call the image, in full.
const FULL_NAME: &str = "io.containerd.image.name";
/// The spec's own. Docker and containerd put the tag alone here, skopeo and podman what they were told.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The images and artifacts that index.json names.
pub(super) fn plan(files: &Files, platform: &Platform) -> Result<Vec<Planned>, Error> {
    check_version(&files.document("oci-layout")?)?;
    let content = files.document("index.json")?;
    let Document::Index(entries) = manifest::parse(&content, OCI_INDEX, "index.json")? else {
        return Err(refuse("index.json is not an index"));
    };
    let names = names(&content)?;
    let mut planned: Vec<Planned> = Vec::new();
    for (entry, name) in entries.iter().zip(names) {
        if entry.is_attestation {
            continue;
        }
        planned.push(plan_entry(files, entry, name, platform)?);
    }
    if planned.is_empty() {
        return Err(refuse("its index.json names no image"));
    }
    if planned.len() > IMAGES_MAX {
        return Err(refuse(format!("it has more than {IMAGES_MAX} images")));
    }
    Ok(planned)
}

fn check_version(content: &[u8]) -> Result<(), Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layout {
        image_layout_version: String,
    }
    let layout: Layout = serde_json::from_slice(content)
        .map_err(|e| refuse(format!("oci-layout is not the JSON of a layout's version: {e}")))?;
    match layout.image_layout_version.as_str() {
        "1.0.0" => Ok(()),
        other => Err(refuse(format!(
            "its layout version {} is not 1.0.0",
            quote(other)
        ))),
    }
}

/// What each entry of the index calls its image.
fn names(index: &[u8]) -> Result<Vec<Option<Reference>>, Error> {
    #[derive(Deserialize)]
    struct Index {
        manifests: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        digest: String,
        #[serde(default)]
        annotations: Option<std::collections::BTreeMap<String, Value>>,
    }
    // A name with a digest is one that `save` was given: it is this entry's, or a lie.
    let parse = |name: &str, digest: &str| match Reference::parse(name)? {
        reference
            if reference
                .digest
                .as_ref()
                .is_some_and(|named| named.to_string() != digest) =>
        {
            Err(refuse(format!("its index calls {digest} {}", quote(name))))
        }
        reference => Ok(Some(reference)),
    };
    let index: Index = serde_json::from_slice(index)
        .map_err(|e| refuse(format!("index.json is not the JSON of an index: {e}")))?;
    let of_entry = |entry: Entry| {
        let annotations = entry.annotations.unwrap_or_default();
        let text = |key: &str| annotations.get(key).and_then(Value::as_str);
        match (text(FULL_NAME), text(REF_NAME)) {
            (Some(name), _) => parse(name, &entry.digest),
            // A word alone is a tag of an unknown name: docker and containerd write it so.
            (None, Some(name)) if name.contains(['/', ':']) => parse(name, &entry.digest),
            _ => Ok(None),
        }
    };
    index.manifests.into_iter().map(of_entry).collect()
}

fn plan_entry(
    files: &Files,
    entry: &IndexEntry,
    name: Option<Reference>,
    platform: &Platform,
) -> Result<Planned, Error> {
    let mut descriptor = entry.descriptor.clone();
    let mut content = document(files, &descriptor)?;
    let mut indexes = 0;
    let planned = loop {
        let digest = descriptor.digest.to_string();
        match manifest::parse(&content, &descriptor.media_type, &digest)? {
            Document::Manifest(manifest) => break image(files, content, &manifest)?,
            Document::Artifact(manifest) => break artifact(files, &descriptor, content, &manifest)?,
            Document::Index(_) if indexes == INDEX_DEPTH_MAX => {
                return Err(refuse(format!(
                    "its indexes are nested more than {INDEX_DEPTH_MAX} deep"
                )));
            }
            Document::Index(mut entries) => {
                indexes += 1;
                // Who saves an index may have had only some of its platforms.
                entries.retain(|entry| files.has(&path(&entry.descriptor.digest)));
                descriptor = manifest::choose(&entries, platform, &digest)?.descriptor.clone();
                content = document(files, &descriptor)?;
            }
        }
    };
    let index = match indexes {
        0 => None,
        _ => Some(Index {
            digest: entry.descriptor.digest.clone(),
            platform: platform.clone(),
            blobs: everything(files, &entry.descriptor)?,
        }),
    };
    Ok(Planned {
        names: name.into_iter().collect(),
        content: planned,
        index,
    })
}

fn image(files: &Files, content: Vec<u8>, manifest: &Manifest) -> Result<Content, Error> {
    let config = document(files, &manifest.config)?;
    let config = String::from_utf8(config).map_err(|_| Error::Document {
        what: "image config",
        digest: manifest.config.digest.to_string(),
        rule: "it is not UTF-8".into(),
    })?;
    Ok(Content::Image {
        layers: layers(files, manifest, &config)?,
        manifest: Some(content),
        config,
    })
}

fn artifact(
    files: &Files,
    descriptor: &Descriptor,
    content: Vec<u8>,
    manifest: &manifest::Artifact,
) -> Result<Content, Error> {
    let mut blobs = Vec::new();
    for descriptor in std::iter::once(descriptor).chain(&manifest.blobs()) {
        let kept = files.find(&path(&descriptor.digest))?;
        check_size(descriptor, kept.size)?;
        blobs.push(files.blob(kept)?);
    }
    Ok(Content::Artifact {
        row: Artifact::row(&descriptor.digest, content, manifest)?,
        blobs,
    })
}

/// An index, and all of what it points to that the archive has: images of other platforms, attestations.
fn everything(files: &Files, index: &Descriptor) -> Result<Vec<Arc<Held>>, Error> {
    let mut seen = HashSet::new();
    let mut blobs = Vec::new();
    let mut waiting = vec![index.clone()];
    while let Some(descriptor) = waiting.pop() {
        let path = path(&descriptor.digest);
        if !seen.insert(descriptor.digest.clone()) || !files.has(&path) {
            continue;
        }
        let kept = files.find(&path)?;
        check_size(&descriptor, kept.size)?;
        if links::is_document(&descriptor.media_type) {
            let linked = links::read(&files.document(&path)?).map_err(|rule| Error::Document {
                what: "manifest",
                digest: descriptor.digest.to_string(),
                rule,
            })?;
            let needed = linked
                .links
                .into_iter()
                .filter(|link| link.kind != LinkKind::Subject);
            waiting.extend(needed.map(|link| link.target));
        }
        blobs.push(files.blob(kept)?);
    }
    Ok(blobs)
}

fn layers(files: &Files, manifest: &Manifest, config: &str) -> Result<Vec<LocalLayer>, Error> {
    let (_, diff_ids) =
        manifest::parse_config(config.as_bytes(), &manifest.config.digest, manifest.layers.len())?;
    let mut layers = Vec::new();
    for (layer, diff_id) in manifest.layers.iter().zip(diff_ids) {
        let kept = files.find(&path(&layer.descriptor.digest))?;
        check_size(&layer.descriptor, kept.size)?;
        layers.push(LocalLayer {
            layer: layer.clone(),
            diff_id,
            blob: files.blob(kept)?,
        });
    }
    Ok(layers)
}

/// A document that a descriptor points to. That it has the descriptor's digest was checked when it was read.
fn document(files: &Files, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
    let content = files.document(&path(&descriptor.digest))?;
    check_size(descriptor, content.len() as u64)?;
    Ok(content)
}

fn check_size(descriptor: &Descriptor, actual: u64) -> Result<(), Error> {
    if descriptor.size == actual {
        return Ok(());
    }
    Err(refuse(format!(
        "blob {} has {actual} bytes, and its descriptor says {}",
        descriptor.digest, descriptor.size
    )))
}

fn path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm_name(), digest.hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_called_what_their_writer_called_them() {
        let index = |annotations: &str| {
            let json = format!(r#"{{"manifests":[{{"annotations":{annotations}}}]}}"#);
            let names = names(json.as_bytes());
            names.map(|names| names[0].as_ref().map(Reference::name))
        };
        let full = r#"{"io.containerd.image.name":"quay.io/a/b:1","org.opencontainers.image.ref.name":"1"}"#;
        assert_eq!(index(full).unwrap().as_deref(), Some("quay.io/a/b:1"));
        let skopeo = r#"{"org.opencontainers.image.ref.name":"box:2"}"#;
        assert_eq!(index(skopeo).unwrap().as_deref(), Some("docker.io/library/box:2"));
        for nameless in ["null", "{}", r#"{"org.opencontainers.image.ref.name":"latest"}"#] {
            assert_eq!(index(nameless).unwrap(), None, "{nameless}");
        }
        assert!(index(r#"{"io.containerd.image.name":"BAD NAME"}"#).is_err());
    }
}
