//! Manifests, indexes and image configs: parsing with bounds, and every rule that a pull relies on.
//!
//! Pure: bytes in, checked values out. Nothing here is fetched or stored.

mod artifact;
pub(crate) mod referrers;

use base64::Engine as _;
use oci_spec::image::ImageConfiguration;
use serde::Deserialize;

use crate::digest::{Digest, quote};
use crate::{Error, Platform};
pub(crate) use artifact::{Artifact, Part};
pub use referrers::Referrer;

/// Bound of a manifest, index or config; what the OCI distribution spec asks registries to accept at least.
pub(crate) const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
/// Bound of one compressed layer.
pub(crate) const LAYER_BYTES_MAX: u64 = 64 << 30;
/// The kernel's bound of layers under one overlay mount.
pub(crate) const LAYERS_MAX: usize = 500;
const INDEX_ENTRIES_MAX: usize = 1000;
pub(crate) const NO_SCHEMA_1: &str =
    "schema version 1 is not supported: push the image again with a current tool";
/// Places of one foreign layer.
const URLS_MAX: usize = 16;

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// What the `Accept` header of a manifest request lists.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// A checked pointer to content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    /// Where a foreign layer is to be had; empty for all that registries keep themselves.
    pub(crate) urls: Vec<String>,
    /// The content itself, if the descriptor brought it. It matches digest and size.
    pub(crate) data: Option<Vec<u8>>,
}

/// How a layer's tar is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    Plain,
    Gzip,
    Zstd,
}

impl Compression {
    /// The media type of such a layer, in OCI's words.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Compression::Plain => "application/vnd.oci.image.layer.v1.tar",
            Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// One layer of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) descriptor: Descriptor,
    pub(crate) compression: Compression,
}

/// The manifest of one image for one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Layer>,
}

/// One entry of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) descriptor: Descriptor,
    pub(crate) platform: Option<Platform>,
    /// Build attestations lie beside the images in one index, under the platform unknown/unknown.
    pub(crate) is_attestation: bool,
}

/// What a reference can point to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Document {
    Manifest(Manifest),
    Artifact(Artifact),
    Index(Vec<IndexEntry>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    schema_version: Option<i64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<serde::de::IgnoredAny>,
    /// A field of image configs.
    rootfs: Option<serde::de::IgnoredAny>,
    annotations: Option<serde_json::Value>,
}

impl RawDocument {
    /// Whether its config is one that no container can be made by.
    fn is_artifact(&self) -> bool {
        let media_type = self
            .config
            .as_ref()
            .and_then(|config| config.media_type.as_deref());
        media_type.is_some_and(|media_type| media_type != OCI_CONFIG && media_type != DOCKER_CONFIG)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    media_type: Option<String>,
    digest: String,
    size: i64,
    artifact_type: Option<String>,
    platform: Option<RawPlatform>,
    #[serde(default)]
    annotations: Option<std::collections::BTreeMap<String, String>>,
    #[serde(default)]
    urls: Option<Vec<String>>,
    data: Option<String>,
}

#[derive(Deserialize)]
struct RawPlatform {
    os: String,
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

/// Parse a manifest or index that came with `content_type`. `digest` names it in errors.
pub(crate) fn parse(content: &[u8], content_type: &str, digest: &str) -> Result<Document, Error> {
    parse_document(content, content_type).map_err(|rule| Error::Document {
        what: if is_index(content_type) {
            "index"
        } else {
            "manifest"
        },
        digest: digest.to_owned(),
        rule,
    })
}

/// An image's manifest that was checked when it was stored.
pub(crate) fn parse_stored(content: &[u8]) -> Option<Manifest> {
    match parse_again(content)? {
        Document::Manifest(manifest) => Some(manifest),
        Document::Artifact(_) | Document::Index(_) => None,
    }
}

/// An artifact's manifest that was checked when it was stored.
pub(crate) fn parse_stored_artifact(content: &[u8]) -> Option<Artifact> {
    match parse_again(content)? {
        Document::Artifact(artifact) => Some(artifact),
        Document::Manifest(_) | Document::Index(_) => None,
    }
}

/// What a pull by this manifest shows of its progress: an image's layers, an artifact's blobs.
pub(crate) fn stored_blobs(content: &[u8]) -> Vec<Descriptor> {
    match parse_again(content) {
        Some(Document::Manifest(manifest)) => manifest
            .layers
            .into_iter()
            .map(|layer| layer.descriptor)
            .collect(),
        Some(Document::Artifact(artifact)) => artifact.blobs(),
        Some(Document::Index(_)) | None => Vec::new(),
    }
}

/// What was announced with another media type than it tells was refused; it may not tell any.
fn parse_again(content: &[u8]) -> Option<Document> {
    let raw: RawDocument = serde_json::from_slice(content).ok()?;
    parse_document(content, raw.media_type.as_deref().unwrap_or(OCI_MANIFEST)).ok()
}

/// Read a document and check what is true of all kinds.
fn read(content: &[u8]) -> Result<RawDocument, String> {
    let raw: RawDocument =
        serde_json::from_slice(content).map_err(|e| format!("it is not the JSON of a manifest: {e}"))?;
    if raw.schema_version == Some(1) || raw.fs_layers.is_some() {
        return Err(NO_SCHEMA_1.to_owned());
    }
    if raw.schema_version != Some(2) {
        return Err("schemaVersion is not 2".into());
    }
    // A document that reads as both kinds can show one image to a scanner and another to us (CVE-2021-41190).
    if raw.manifests.is_some() && (raw.layers.is_some() || raw.config.is_some()) {
        return Err("it has the fields of both an index and a manifest".into());
    }
    Ok(raw)
}

fn parse_document(content: &[u8], content_type: &str) -> Result<Document, String> {
    let raw = read(content)?;
    if let Some(media_type) = &raw.media_type
        && media_type != content_type
    {
        return Err(format!(
            "its mediaType is {}, but it was announced as {}",
            quote(media_type),
            quote(content_type)
        ));
    }
    let document = match content_type {
        OCI_INDEX | DOCKER_INDEX => index(raw.manifests.ok_or("it has no `manifests`")?),
        OCI_MANIFEST | DOCKER_MANIFEST if raw.is_artifact() => artifact::parse(raw).map(Document::Artifact),
        OCI_MANIFEST | DOCKER_MANIFEST => {
            let config = raw.config.ok_or("it has no `config`")?;
            manifest(config, raw.layers.ok_or("it has no `layers`")?)
        }
        other => Err(format!(
            "media type {} is not one of an image manifest or index",
            quote(other)
        )),
    }?;
    // What the store keeps it by has to be sound too, before anything of it is fetched: a subject, for one.
    crate::links::read(content)?;
    Ok(document)
}

fn index(entries: Vec<RawDescriptor>) -> Result<Document, String> {
    if entries.len() > INDEX_ENTRIES_MAX {
        return Err(format!(
            "it has {} entries, more than {INDEX_ENTRIES_MAX}",
            entries.len()
        ));
    }
    let mut checked = Vec::with_capacity(entries.len());
    for (position, raw) in entries.into_iter().enumerate() {
        let is_attestation = raw
            .annotations
            .as_ref()
            .is_some_and(|a| a.contains_key("vnd.docker.reference.type"));
        let platform = raw.platform.as_ref().and_then(|p| {
            let variant = p.variant.as_deref().unwrap_or_default();
            let slash = if variant.is_empty() { "" } else { "/" };
            format!("{}/{}{slash}{variant}", p.os, p.architecture)
                .parse()
                .ok()
        });
        let descriptor = descriptor(raw, &format!("manifests[{position}]"), DOCUMENT_BYTES_MAX)?;
        checked.push(IndexEntry {
            descriptor,
            platform,
            is_attestation,
        });
    }
    Ok(Document::Index(checked))
}

fn manifest(config: RawDescriptor, layers: Vec<RawDescriptor>) -> Result<Document, String> {
    let config = descriptor(config, "config", DOCUMENT_BYTES_MAX)?;
    if layers.len() > LAYERS_MAX {
        return Err(format!("it has {} layers, more than {LAYERS_MAX}", layers.len()));
    }
    let mut checked = Vec::with_capacity(layers.len());
    for (position, raw) in layers.into_iter().enumerate() {
        let field = format!("layers[{position}]");
        let descriptor = descriptor(raw, &field, LAYER_BYTES_MAX)?;
        let compression = compression(&descriptor.media_type).ok_or_else(|| {
            format!(
                "{field}.mediaType {} is not a layer type that can be unpacked",
                quote(&descriptor.media_type)
            )
        })?;
        checked.push(Layer {
            descriptor,
            compression,
        });
    }
    Ok(Document::Manifest(Manifest {
        config,
        layers: checked,
    }))
}

fn descriptor(raw: RawDescriptor, field: &str, size_max: u64) -> Result<Descriptor, String> {
    let digest = Digest::parse(&raw.digest).map_err(|e| format!("{field}.{e}"))?;
    let size = u64::try_from(raw.size).map_err(|_| format!("{field}.size {} is negative", raw.size))?;
    if size > size_max {
        return Err(format!("{field}.size {size} is more than {size_max} bytes"));
    }
    let media_type = raw
        .media_type
        .ok_or_else(|| format!("{field} has no mediaType"))?;
    let data = raw
        .data
        .map(|packed| embedded(&packed, &digest, size).map_err(|rule| format!("{field}.data {rule}")))
        .transpose()?;
    // What is not foreign comes from the registry alone: then nobody else learns of the pull, or is trusted with it.
    let urls = if is_foreign(&media_type) {
        raw.urls.unwrap_or_default()
    } else {
        Vec::new()
    };
    if urls.len() > URLS_MAX {
        return Err(format!("{field} has {} urls, more than {URLS_MAX}", urls.len()));
    }
    Ok(Descriptor {
        media_type,
        digest,
        size,
        urls,
        data,
    })
}

/// Content that stands in its descriptor, in base64.
fn embedded(packed: &str, digest: &Digest, size: u64) -> Result<Vec<u8>, String> {
    let content = base64::engine::general_purpose::STANDARD
        .decode(packed)
        .map_err(|e| format!("is not base64: {e}"))?;
    if content.len() as u64 != size {
        return Err(format!("has {} bytes, its descriptor says {size}", content.len()));
    }
    let mut hasher = digest.hasher();
    hasher.update(&content);
    let actual = hasher.finish();
    if actual != *digest {
        return Err(format!("has digest {actual}, its descriptor says {digest}"));
    }
    Ok(content)
}

fn compression(media_type: &str) -> Option<Compression> {
    let (base, compression) = match media_type.rsplit_once(['+', '.']) {
        Some((base, "gzip")) => (base, Compression::Gzip),
        Some((base, "zstd")) => (base, Compression::Zstd),
        _ => (media_type, Compression::Plain),
    };
    matches!(
        base,
        "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar"
    )
    .then_some(compression)
}

/// Whether layers of this type are not for registries to have: their publisher gives them out.
pub(crate) fn is_foreign(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
        || media_type.starts_with("application/vnd.docker.image.rootfs.foreign.")
}

/// Whether this is the media type of docker's first manifests, signed or not.
pub(crate) fn is_schema_1(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.docker.distribution.manifest.v1+")
}

/// Whether content of this media type points to manifests.
pub(crate) fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_INDEX)
}

/// Parse an image config and check that it fits its manifest. Gives the diffIDs, base first.
pub(crate) fn parse_config(
    content: &[u8],
    digest: &Digest,
    layers: usize,
) -> Result<(ImageConfiguration, Vec<Digest>), Error> {
    let refuse = |rule: String| Error::Document {
        what: "image config",
        digest: digest.to_string(),
        rule,
    };
    let config: ImageConfiguration = serde_json::from_slice(content)
        .map_err(|e| refuse(format!("it is not the JSON of an image config: {e}")))?;
    if config.rootfs().typ() != "layers" {
        return Err(refuse(format!(
            "rootfs.type is {}, not \"layers\"",
            quote(config.rootfs().typ())
        )));
    }
    let diff_ids: Vec<Digest> = config
        .rootfs()
        .diff_ids()
        .iter()
        .map(|text| Digest::parse(text))
        .collect::<Result<_, _>>()
        .map_err(|e| refuse(format!("rootfs.diff_ids: {e}")))?;
    if diff_ids.len() != layers {
        return Err(refuse(format!(
            "it has {} diff_ids, but its manifest has {layers} layers",
            diff_ids.len()
        )));
    }
    if config.os().to_string() != "linux" {
        return Err(refuse(format!(
            "it is made for {}, this engine runs linux",
            quote(&config.os().to_string())
        )));
    }
    Ok((config, diff_ids))
}

/// The entry of an index for `wanted`, or the next best that this CPU also runs.
pub(crate) fn choose<'a>(
    entries: &'a [IndexEntry],
    wanted: &Platform,
    digest: &str,
) -> Result<&'a IndexEntry, Error> {
    let images = || entries.iter().filter(|e| !e.is_attestation);
    let best = images()
        .filter_map(|e| Some((e.platform.as_ref()?.fitness(wanted)?, e)))
        // `max_by_key` takes the last of equals; the first is what other engines take.
        .rev()
        .max_by_key(|(fitness, _)| *fitness)
        .map(|(_, e)| e)
        // An index that tells no platforms at all has one image for everybody.
        .or_else(|| images().find(|e| e.platform.is_none() && images().count() == 1));
    best.ok_or_else(|| {
        let offered: Vec<String> = images()
            .filter_map(|e| e.platform.as_ref())
            .map(Platform::to_string)
            .collect();
        Error::Document {
            what: "index",
            digest: digest.to_owned(),
            rule: format!("it has no image for {wanted}, only for: {}", offered.join(", ")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest_json(config_type: &str, layers: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"{config_type}","digest":"{D}","size":2}},"layers":[{layers}]}}"#
        )
    }

    fn layer_json(media_type: &str, size: i64) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{D}","size":{size}}}"#)
    }

    fn refusal(json: &str, content_type: &str) -> String {
        parse(json.as_bytes(), content_type, D).unwrap_err().to_string()
    }

    #[test]
    fn oci_and_docker_layer_types_say_their_compression() {
        for (media_type, compression) in [
            ("application/vnd.oci.image.layer.v1.tar", Compression::Plain),
            ("application/vnd.oci.image.layer.v1.tar+gzip", Compression::Gzip),
            ("application/vnd.oci.image.layer.v1.tar+zstd", Compression::Zstd),
            (
                "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
                Compression::Gzip,
            ),
            (
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
                Compression::Gzip,
            ),
            ("application/vnd.docker.image.rootfs.diff.tar", Compression::Plain),
        ] {
            let json = manifest_json(OCI_CONFIG, &layer_json(media_type, 1));
            let Document::Manifest(manifest) = parse(json.as_bytes(), OCI_MANIFEST, D).unwrap() else {
                panic!("{media_type}")
            };
            assert_eq!(manifest.layers[0].compression, compression, "{media_type}");
        }
    }

    #[test]
    fn broken_manifests_are_refused_with_the_rule() {
        let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
        for (json, part) in [
            ("[".to_owned(), "JSON"),
            ("{}".to_owned(), "schemaVersion"),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(), "version 1"),
            (r#"{"schemaVersion":2}"#.to_owned(), "config"),
            (
                manifest_json("a/b", "").replacen('{', r#"{"rootfs":{},"#, 1),
                "image config",
            ),
            (manifest_json("", ""), "empty"),
            (
                manifest_json("a/b", &layer_json("", 2)),
                "layers[0].mediaType is empty",
            ),
            (manifest_json("a/b", &layer_json("c/d", 3)), "two sizes"),
            (
                manifest_json(OCI_CONFIG, &layer_json("text/plain", 1)),
                "layers[0].mediaType",
            ),
            (manifest_json(OCI_CONFIG, &layer_json(gzip, -1)), "negative"),
            (
                manifest_json(OCI_CONFIG, &layer_json(gzip, i64::MAX)),
                "more than",
            ),
            (
                manifest_json(OCI_CONFIG, &vec![layer_json(gzip, 1); 501].join(",")),
                "501 layers",
            ),
            (
                manifest_json(OCI_CONFIG, "").replace("\"layers\"", "\"manifests\":[],\"layers\""),
                "both",
            ),
            (
                manifest_json(OCI_CONFIG, "").replacen('{', r#"{"mediaType":"a/b","#, 1),
                "announced",
            ),
            (
                manifest_json(OCI_CONFIG, "").replace("sha256:e3", "sha256:E3"),
                "hexadecimal",
            ),
        ] {
            let error = refusal(&json, OCI_MANIFEST);
            assert!(error.contains(part), "{json}: {error}");
        }
        assert!(refusal(&manifest_json(OCI_CONFIG, ""), "text/html").contains("media type"));
        assert!(refusal(&manifest_json(OCI_CONFIG, ""), OCI_INDEX).contains("no `manifests`"));
    }

    #[test]
    fn what_has_no_images_config_is_an_artifact() {
        let artifact = |json: &str| match parse(json.as_bytes(), OCI_MANIFEST, D).unwrap() {
            Document::Artifact(artifact) => artifact,
            other => panic!("{other:?}"),
        };
        let chart = artifact(&manifest_json("application/vnd.cncf.helm.config.v1+json", ""));
        assert_eq!(chart.kind, "application/vnd.cncf.helm.config.v1+json");
        // The empty config, told twice.
        let empty = manifest_json("application/vnd.oci.empty.v1+json", &layer_json("a/b", 2));
        let empty = artifact(&empty.replacen('{', r#"{"artifactType":"c/d","#, 1));
        assert_eq!((empty.kind.as_str(), empty.blobs().len()), ("c/d", 1));
        let foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar";
        let other = manifest_json("a/b", &layer_json(foreign, 9).replace("e3b0", "e3b1"));
        assert_eq!(
            artifact(&other).blobs().len(),
            1,
            "the rest is not for registries to have"
        );
    }

    fn entry(platform: &str) -> IndexEntry {
        let descriptor = Descriptor {
            media_type: OCI_MANIFEST.into(),
            digest: Digest::of(platform.as_bytes()),
            size: 1,
            urls: Vec::new(),
            data: None,
        };
        IndexEntry {
            descriptor,
            platform: platform.parse().ok(),
            is_attestation: platform == "unknown/unknown",
        }
    }

    #[test]
    fn the_platform_that_fits_best_is_chosen() {
        let all = [
            "unknown/unknown",
            "linux/386",
            "linux/amd64",
            "linux/arm/v5",
            "linux/arm/v6",
            "linux/arm64",
        ];
        let entries: Vec<IndexEntry> = all.iter().map(|p| entry(p)).collect();
        for (wanted, chosen) in [
            ("linux/amd64", Some("linux/amd64")),
            ("linux/amd64/v3", Some("linux/amd64")),
            ("linux/arm64", Some("linux/arm64")),
            ("linux/aarch64", Some("linux/arm64")),
            ("linux/arm/v7", Some("linux/arm/v6")),
            ("linux/arm/v5", Some("linux/arm/v5")),
            ("linux/s390x", None),
            ("windows/amd64", None),
        ] {
            let got = choose(&entries, &wanted.parse().unwrap(), D);
            match chosen {
                Some(chosen) => {
                    assert_eq!(got.unwrap().platform, Some(chosen.parse().unwrap()), "{wanted}");
                }
                None => assert!(got.unwrap_err().to_string().contains("linux/386"), "{wanted}"),
            }
        }
    }

    #[test]
    fn a_config_has_to_fit_its_manifest() {
        let digest = Digest::of(b"");
        let json = |os: &str, kind: &str, ids: &str| {
            format!(
                r#"{{"architecture":"amd64","os":"{os}","rootfs":{{"type":"{kind}","diff_ids":[{ids}]}}}}"#
            )
        };
        let id = format!("\"{D}\"");
        assert_eq!(
            parse_config(json("linux", "layers", &id).as_bytes(), &digest, 1)
                .unwrap()
                .1
                .len(),
            1
        );
        for (content, part) in [
            (json("linux", "layers", ""), "0 diff_ids"),
            (json("linux", "tree", &id), "rootfs.type"),
            (json("windows", "layers", &id), "windows"),
            (json("linux", "layers", "\"sha256:1\""), "diff_ids"),
            ("{}".to_owned(), "JSON"),
        ] {
            let error = parse_config(content.as_bytes(), &digest, 1)
                .unwrap_err()
                .to_string();
            assert!(error.contains(part), "{content}: {error}");
        }
    }
}
