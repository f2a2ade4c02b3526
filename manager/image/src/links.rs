//! What a manifest or index points to, whatever it is of: an image, a list of images, an artifact.
//!
//! The store keeps content by these links, of documents that it never interprets further too: manifests of other
//! platforms, signatures, attestations. So nothing is asked of them but that their pointers are sound. What is to be
//! unpacked goes through [`crate::manifest`], which is strict.

use serde::Deserialize;

use crate::digest::Digest;
use crate::manifest::{
    DOCKER_INDEX, DOCKER_MANIFEST, DOCUMENT_BYTES_MAX, Descriptor, LAYER_BYTES_MAX, OCI_INDEX, OCI_MANIFEST,
    is_foreign,
};

/// Pointers in one document. The spec sets no bound; images with more layers cannot be mounted.
const LINKS_MAX: usize = 2000;
const MEDIA_TYPE_LENGTH_MAX: usize = 255;

/// What a pointer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkKind {
    /// An entry of an index.
    Manifest,
    /// A manifest's config.
    Config,
    /// A manifest's layer, or an artifact's blob.
    Layer,
    /// A layer that its publisher gives out, and registries need not have.
    Foreign,
    /// What a document says something about. It stays when its subject stays, and does not keep it.
    Subject,
}

impl LinkKind {
    /// The word in the database.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            LinkKind::Manifest => "manifest",
            LinkKind::Config => "config",
            LinkKind::Layer => "layer",
            LinkKind::Foreign => "foreign",
            LinkKind::Subject => "subject",
        }
    }
}

/// One pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) kind: LinkKind,
    pub(crate) target: Descriptor,
}

/// A document's own media type, and its pointers in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Linked {
    pub(crate) media_type: String,
    pub(crate) links: Vec<Link>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<Vec<RawDescriptor>>,
    #[serde(default)]
    config: Option<RawDescriptor>,
    #[serde(default)]
    layers: Option<Vec<RawDescriptor>>,
    /// The field of artifact manifests before OCI 1.1 was done.
    #[serde(default)]
    blobs: Option<Vec<RawDescriptor>>,
    #[serde(default)]
    subject: Option<RawDescriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: i64,
}

/// Whether content of this media type is a document with pointers.
pub(crate) fn is_document(media_type: &str) -> bool {
    matches!(
        media_type,
        OCI_INDEX | OCI_MANIFEST | DOCKER_INDEX | DOCKER_MANIFEST
    ) || media_type == "application/vnd.oci.artifact.manifest.v1+json"
}

/// Read a document's pointers, or say which rule it breaks.
pub(crate) fn read(content: &[u8]) -> Result<Linked, String> {
    if content.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(format!("it is longer than {DOCUMENT_BYTES_MAX} bytes"));
    }
    let raw: Raw =
        serde_json::from_slice(content).map_err(|e| format!("it is not the JSON of a manifest: {e}"))?;
    // A document that is both can be one thing to us and another to somebody else (CVE-2021-41190).
    if raw.manifests.is_some() && (raw.layers.is_some() || raw.config.is_some() || raw.blobs.is_some()) {
        return Err("it has the fields of both an index and a manifest".into());
    }
    if raw.manifests.is_none() && raw.layers.is_none() && raw.config.is_none() && raw.blobs.is_none() {
        return Err("it has neither `manifests` nor `layers`".into());
    }
    let shape = if raw.manifests.is_some() {
        OCI_INDEX
    } else {
        OCI_MANIFEST
    };
    let groups = [
        (LinkKind::Manifest, raw.manifests.unwrap_or_default()),
        (LinkKind::Config, raw.config.into_iter().collect()),
        (LinkKind::Layer, raw.layers.unwrap_or_default()),
        (LinkKind::Layer, raw.blobs.unwrap_or_default()),
        (LinkKind::Subject, raw.subject.into_iter().collect()),
    ];
    let mut links = Vec::new();
    for (kind, descriptors) in groups {
        if links.len() + descriptors.len() > LINKS_MAX {
            return Err(format!("it points to more than {LINKS_MAX} others"));
        }
        for raw in descriptors {
            let target = descriptor(raw)?;
            let is_foreign = kind == LinkKind::Layer && is_foreign(&target.media_type);
            let kind = if is_foreign { LinkKind::Foreign } else { kind };
            links.push(Link { kind, target });
        }
    }
    let media_type = raw.media_type.unwrap_or_else(|| shape.to_owned());
    check_media_type(&media_type)?;
    Ok(Linked { media_type, links })
}

fn descriptor(raw: RawDescriptor) -> Result<Descriptor, String> {
    check_media_type(&raw.media_type)?;
    let size = u64::try_from(raw.size).map_err(|_| format!("a size of {} is negative", raw.size))?;
    if size > LAYER_BYTES_MAX {
        return Err(format!("a size of {size} is more than {LAYER_BYTES_MAX} bytes"));
    }
    Ok(Descriptor {
        digest: Digest::parse(&raw.digest)?,
        size,
        media_type: raw.media_type,
        urls: Vec::new(),
        data: None,
    })
}

pub(crate) fn check_media_type(media_type: &str) -> Result<(), String> {
    if media_type.len() <= MEDIA_TYPE_LENGTH_MAX && media_type.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(())
    } else {
        Err("a media type is longer than 255 bytes, or has other than printable ASCII".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn pointer(media_type: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{D}","size":2}}"#)
    }

    fn kinds(json: &str) -> Vec<LinkKind> {
        let linked = read(json.as_bytes()).unwrap();
        linked.links.iter().map(|link| link.kind).collect()
    }

    #[test]
    fn images_indexes_and_artifacts_tell_what_they_point_to() {
        use LinkKind::{Config, Layer, Manifest, Subject};
        let p = pointer("a/b");
        assert_eq!(
            kinds(&format!(r#"{{"config":{p},"layers":[{p},{p}]}}"#)),
            [Config, Layer, Layer]
        );
        assert_eq!(kinds(&format!(r#"{{"manifests":[{p}]}}"#)), [Manifest]);
        assert_eq!(
            kinds(&format!(
                r#"{{"artifactType":"x","config":{p},"layers":[{p}],"subject":{p}}}"#
            )),
            [Config, Layer, Subject]
        );
        let linked = read(format!(r#"{{"manifests":[{p}]}}"#).as_bytes()).unwrap();
        assert_eq!(linked.media_type, OCI_INDEX, "told by its shape");
    }

    #[test]
    fn unsound_pointers_are_refused() {
        let p = pointer("a/b");
        for (json, part) in [
            ("{}".to_owned(), "neither"),
            (format!(r#"{{"manifests":[],"config":{p}}}"#), "both"),
            (
                r#"{"layers":[{"digest":"sha256:1","size":1}]}"#.to_owned(),
                "digest",
            ),
            (
                format!(r#"{{"layers":[{{"digest":"{D}","size":-1}}]}}"#),
                "negative",
            ),
            (
                format!(r#"{{"layers":[{{"digest":"{D}","size":{}}}]}}"#, i64::MAX),
                "more than",
            ),
            (format!(r#"{{"layers":[{}]}}"#, pointer("a\u{7f}b")), "media type"),
            (format!(r#"{{"layers":[{}]}}"#, vec![p; 2001].join(",")), "2000"),
        ] {
            let rule = read(json.as_bytes()).unwrap_err();
            assert!(rule.contains(part), "{json:.80}: {rule}");
        }
    }
}
