//! Doors for the fuzz targets in `fuzz/`: each takes bytes from outside and must neither panic nor leave its bounds.

mod archives;

use std::path::Path;

pub use archives::{archive, documents, entries, pax, tar, zstd};

/// Image references: what is accepted reads back as the same.
pub fn reference(text: &str) {
    if let Ok(reference) = crate::reference::Reference::parse(text) {
        let again =
            crate::reference::Reference::parse(&reference.to_string()).expect("a normal form is a reference");
        assert_eq!(again, reference);
    }
}

/// Manifests, indexes and image configs. Whatever is read of one to be fetched is kept by the store too, which has a
/// reader of its own that knows no kinds.
pub fn manifest(content: &[u8]) {
    use crate::links;
    use crate::manifest::{self, DOCKER_INDEX, DOCKER_MANIFEST, Document, OCI_INDEX, OCI_MANIFEST};
    for media_type in [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST] {
        let Ok(document) = manifest::parse(content, media_type, "sha256:0") else {
            continue;
        };
        let wanted: Vec<_> = match &document {
            Document::Index(entries) => {
                if let Ok(chosen) = manifest::choose(entries, &crate::Platform::host(), "sha256:0") {
                    assert!(entries.contains(chosen) && !chosen.is_attestation);
                }
                entries.iter().map(|entry| &entry.descriptor).collect()
            }
            Document::Manifest(manifest) => {
                let layers = manifest.layers.iter().map(|layer| &layer.descriptor);
                layers.chain([&manifest.config]).collect()
            }
            Document::Artifact(artifact) => artifact
                .layers
                .iter()
                .chain([&artifact.config])
                .map(|part| &part.descriptor)
                .collect(),
        };
        let linked = links::read(content).expect("what is pulled can be kept");
        for descriptor in wanted {
            let mut kept = linked.links.iter().map(|link| &link.target);
            assert!(kept.any(|kept| kept.digest == descriptor.digest));
        }
    }
    for layers in 0..3 {
        let digest = crate::digest::Digest::of(content);
        if let Ok((_, diff_ids)) = manifest::parse_config(content, &digest, layers) {
            assert_eq!(diff_ids.len(), layers);
        }
    }
}

/// The `WWW-Authenticate` header.
pub fn challenge(header: &str) {
    crate::registry::fuzzing::parse_challenge(header);
    crate::registry::fuzzing::parse_scopes(header);
}

/// The file hosts.toml.
pub fn hosts(text: &str) {
    crate::registry::fuzzing::parse_hosts(text);
}

/// What registries answer about referrers: an index that ours is added to reads back with it, once.
pub fn referrers(content: &[u8]) {
    use crate::manifest::{Referrer, referrers};
    let new = Referrer::of(
        content,
        &crate::digest::Digest::of(content),
        crate::manifest::OCI_MANIFEST,
    );
    if let Ok(Some(index)) = referrers::add(Some(content), &new) {
        let entries = referrers::parse(&index).expect("what is written can be read");
        assert_eq!(entries.last(), Some(&new));
        assert_eq!(referrers::add(Some(&index), &new), Ok(None));
    }
}

/// What registries answer to a search, with the link to the next page.
pub fn search(content: &[u8]) {
    crate::registry::fuzzing::parse_search(content);
}

/// How far a registry says that an upload is, and where it says that it goes on.
pub fn upload(header: &str) {
    crate::registry::fuzzing::parse_range(header);
    crate::registry::fuzzing::follow(header);
}

/// A token server's answer.
pub fn token(content: &[u8]) {
    crate::registry::fuzzing::parse_token(content);
}

/// Names in a layer: a path and a link's target, with a NUL between them.
pub fn names(content: &[u8]) {
    let mut parts = content.splitn(2, |byte| *byte == 0);
    let (path, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    crate::unpack::fuzzing::names(path, target);
}

/// Dockerfile instructions for an image's config.
pub fn instruction(text: &str) {
    let mut config = serde_json::json!({"Env": ["A=b"], "Cmd": ["c"]});
    let _ = crate::apply_instructions(&mut config, &[text.to_owned()]);
    assert!(config.is_object());
}

/// The trust policy.
pub fn policy(content: &[u8]) {
    use crate::trust::fuzzing::Policy;
    let name = crate::reference::Reference::parse("r.example/a/b:c").expect("it is a reference");
    if let Ok(policy) = Policy::parse(content, Path::new("/etc/berth/policy.json")) {
        assert!(!policy.of_registry(&name).requirements.is_empty());
    }
}

/// The payload of a "simple signing" signature, and its annotations.
pub fn simple_signing(content: &[u8]) {
    crate::trust::fuzzing::simple(content);
}

/// A sigstore bundle.
pub fn bundle(content: &[u8]) {
    crate::trust::fuzzing::bundle(content);
}

/// A Notary Project envelope, as JWS and as COSE.
pub fn notation(content: &[u8]) {
    crate::trust::fuzzing::notation(content);
}

/// A certificate of a signer, in DER.
pub fn certificate(content: &[u8]) {
    crate::trust::fuzzing::certificate(content);
}
