//! Doors for the fuzz targets in `fuzz/`: each takes bytes from outside and must neither panic nor leave its bounds.

use std::path::Path;

/// Image references: what is accepted reads back as the same.
pub fn reference(text: &str) {
    if let Ok(reference) = crate::reference::Reference::parse(text) {
        let again =
            crate::reference::Reference::parse(&reference.to_string()).expect("a normal form is a reference");
        assert_eq!(again, reference);
    }
}

/// Manifests, indexes and image configs.
pub fn manifest(content: &[u8]) {
    use crate::manifest::{self, DOCKER_INDEX, DOCKER_MANIFEST, Document, OCI_INDEX, OCI_MANIFEST};
    for media_type in [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST] {
        if let Ok(Document::Index(entries)) = manifest::parse(content, media_type, "sha256:0") {
            let _ = manifest::choose(&entries, &crate::Platform::host(), "sha256:0");
        }
    }
    let _ = manifest::parse_config(content, &crate::digest::Digest::of(content), 1);
}

/// The `WWW-Authenticate` header.
pub fn challenge(header: &str) {
    let _ = crate::registry::fuzzing::parse_challenge(header);
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

/// How far a registry says an upload is.
pub fn range(header: &str) {
    crate::registry::fuzzing::parse_range(header);
}

/// A token server's answer.
pub fn token(content: &[u8]) {
    crate::registry::fuzzing::parse_token(content);
}

/// The records of a PAX header.
pub fn pax(content: &[u8]) {
    crate::archive::fuzzing::pax(content);
}

/// A layer's tar, unpacked into the empty folder `root`.
pub fn tar(content: &[u8], root: &Path) {
    let limits = crate::unpack::Limits {
        entries: 1000,
        content_bytes: 1 << 20,
        ..crate::unpack::Limits::default()
    };
    let _ = crate::unpack::unpack(content, root, &limits);
}

/// Dockerfile instructions for an image's config.
pub fn instruction(text: &str) {
    let mut config = serde_json::json!({"Env": ["A=b"], "Cmd": ["c"]});
    let _ = crate::apply_instructions(&mut config, &[text.to_owned()]);
    assert!(config.is_object());
}

/// An archive of images, loaded into a store that lives as long as the process; `root` is where its first call makes
/// it. What is refused leaves nothing.
pub fn archive(content: &[u8], root: &Path) {
    static STORE: std::sync::OnceLock<std::sync::Arc<crate::store::Store>> = std::sync::OnceLock::new();
    let store = STORE.get_or_init(|| crate::reconcile::open(root).expect("open a store"));
    if crate::load::load(store, content, None).is_err() {
        let left = std::fs::read_dir(store.scratch_root()).map_or(0, Iterator::count);
        assert_eq!(left, 0, "a refused archive left something");
    }
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
