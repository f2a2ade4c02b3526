//! What the image store keeps, images and artifacts alike, as messages.

use std::collections::BTreeMap;

use image::{Artifact, Blob, Kept};
use proto::v1;

pub(crate) fn kept(kept: &Kept) -> v1::Image {
    match kept {
        Kept::Image(image) => super::image(image),
        Kept::Artifact(artifact) => v1::Image {
            id: artifact.id.clone(),
            names: artifact.names.clone(),
            manifest_digest: artifact.id.clone(),
            size_bytes: artifact.size_bytes,
            created_unix_seconds: artifact.created_unix_seconds,
            repo_digests: artifact.repo_digests.clone(),
            labels: unsorted(&artifact.annotations),
            artifact_type: artifact.artifact_type.clone(),
            ..v1::Image::default()
        },
    }
}

/// All that is known of one.
pub(crate) fn inspected(found: &Kept) -> v1::InspectImageResponse {
    let image = Some(kept(found));
    match found {
        Kept::Image(of) => v1::InspectImageResponse {
            image,
            config_json: of.config_json.clone(),
            layers: of.diff_ids.clone(),
            artifact: None,
        },
        Kept::Artifact(of) => v1::InspectImageResponse {
            image,
            artifact: Some(details(of)),
            ..v1::InspectImageResponse::default()
        },
    }
}

fn details(artifact: &Artifact) -> v1::Artifact {
    v1::Artifact {
        config: Some(blob(&artifact.config)),
        blobs: artifact.blobs.iter().map(blob).collect(),
        annotations: unsorted(&artifact.annotations),
        subject: artifact.subject.clone().unwrap_or_default(),
    }
}

fn blob(blob: &Blob) -> v1::artifact::Blob {
    v1::artifact::Blob {
        media_type: blob.media_type.clone(),
        digest: blob.digest.clone(),
        size_bytes: blob.size_bytes,
        annotations: unsorted(&blob.annotations),
    }
}

fn unsorted(map: &BTreeMap<String, String>) -> std::collections::HashMap<String, String> {
    map.clone().into_iter().collect()
}
