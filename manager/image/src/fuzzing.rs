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
    let _ = crate::registry::parse_challenge(header);
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
