//! What `inspect` tells of an image or artifact, under docker's names: scripts read `.[0].Config.Cmd`. What only docker
//! has (graph driver, times of tags) is left out.
//!
//! Source: docker's Engine API, `ImageInspect`.

use std::collections::BTreeMap;

use proto::v1;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{embedded, sorted, unless_empty, unless_zero};
use crate::time::rfc3339;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ImageDetails {
    id: String,
    repo_tags: Vec<String>,
    repo_digests: Vec<String>,
    comment: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    author: String,
    /// How a container is run by default; null of an artifact.
    config: Option<Value>,
    architecture: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
    os: String,
    /// At a registry.
    size: u64,
    #[serde(rename = "RootFS", skip_serializing_if = "Option::is_none")]
    root_fs: Option<RootFs>,
    descriptor: ManifestDigest,
    /// Docker has no field for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact: Option<Artifact>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RootFs {
    r#type: &'static str,
    /// diffIDs, base first.
    layers: Vec<String>,
}

#[derive(Serialize)]
struct ManifestDigest {
    digest: String,
}

/// Under the names that its manifest has them by.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Artifact {
    #[serde(rename = "artifactType")]
    kind: String,
    config: Option<Descriptor>,
    layers: Vec<Descriptor>,
    annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
    annotations: BTreeMap<String, String>,
}

impl From<&v1::InspectImageResponse> for ImageDetails {
    fn from(found: &v1::InspectImageResponse) -> Self {
        let image = found.image.clone().unwrap_or_default();
        let published = embedded(&found.config_json).unwrap_or_default();
        let created = text(&published["created"]).or_else(|| {
            unless_zero(image.created_unix_seconds)
                .map(|seconds| rfc3339(seconds.saturating_mul(1_000_000_000)))
        });
        let config = match &published["config"] {
            Value::Null => json!(Map::new()),
            config => config.clone(),
        };
        let is_image = found.artifact.is_none();
        // A name with a digest is no tag.
        let tags = image.names.iter().filter(|name| !name.contains('@'));
        Self {
            repo_tags: tags.map(|name| familiar(name).to_owned()).collect(),
            repo_digests: image
                .repo_digests
                .iter()
                .map(|name| familiar(name).to_owned())
                .collect(),
            comment: last_comment(&published).unwrap_or_default(),
            created,
            author: text(&published["author"]).unwrap_or_default(),
            config: is_image.then_some(config),
            architecture: image.architecture,
            variant: unless_empty(&image.variant),
            os: image.os,
            size: image.size_bytes,
            root_fs: is_image.then(|| RootFs {
                r#type: "layers",
                layers: found.layers.clone(),
            }),
            descriptor: ManifestDigest {
                digest: image.manifest_digest,
            },
            artifact: found.artifact.as_ref().map(|artifact| Artifact {
                kind: image.artifact_type,
                config: artifact.config.as_ref().map(Descriptor::from),
                layers: artifact.blobs.iter().map(Descriptor::from).collect(),
                annotations: sorted(&artifact.annotations),
                subject: unless_empty(&artifact.subject),
            }),
            id: image.id,
        }
    }
}

impl From<&v1::artifact::Blob> for Descriptor {
    fn from(blob: &v1::artifact::Blob) -> Self {
        Self {
            media_type: blob.media_type.clone(),
            digest: blob.digest.clone(),
            size: blob.size_bytes,
            annotations: sorted(&blob.annotations),
        }
    }
}

/// A name as people type it.
pub(crate) fn familiar(name: &str) -> &str {
    match name.strip_prefix("docker.io/") {
        Some(path) => path.strip_prefix("library/").unwrap_or(path),
        None => name,
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(ToOwned::to_owned)
}

/// What was said of the last step of its build, as of a commit.
fn last_comment(published: &Value) -> Option<String> {
    text(&published["history"].as_array()?.last()?["comment"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspected(found: &v1::InspectImageResponse) -> Value {
        serde_json::to_value(ImageDetails::from(found)).unwrap()
    }

    #[test]
    fn an_image_is_told_in_dockers_fields() {
        let config = json!({
            "created": "2026-01-02T03:04:05.6+01:00", "author": "me", "architecture": "arm64", "os": "linux",
            "config": {"Cmd": ["sh"], "Env": ["A=b"]}, "history": [{"comment": "base"}, {"comment": "mine"}],
        });
        let found = v1::InspectImageResponse {
            image: Some(v1::Image {
                id: "sha256:11".into(),
                names: vec!["docker.io/library/box:1".into(), "quay.io/a@sha256:22".into()],
                repo_digests: vec!["docker.io/library/box@sha256:22".into()],
                manifest_digest: "sha256:22".into(),
                created_unix_seconds: 1,
                size_bytes: 7,
                architecture: "arm64".into(),
                os: "linux".into(),
                variant: "v8".into(),
                ..v1::Image::default()
            }),
            config_json: config.to_string(),
            layers: vec!["sha256:33".into()],
            artifact: None,
        };
        let wanted = json!({
            "Id": "sha256:11", "RepoTags": ["box:1"], "RepoDigests": ["box@sha256:22"], "Comment": "mine",
            "Created": "2026-01-02T03:04:05.6+01:00", "Author": "me", "Config": {"Cmd": ["sh"], "Env": ["A=b"]},
            "Architecture": "arm64", "Variant": "v8", "Os": "linux", "Size": 7,
            "RootFS": {"Type": "layers", "Layers": ["sha256:33"]}, "Descriptor": {"digest": "sha256:22"},
        });
        assert_eq!(inspected(&found), wanted);
        let bare = inspected(&v1::InspectImageResponse::default());
        assert_eq!((&bare["Config"], &bare["Created"]), (&json!({}), &Value::Null));
    }

    #[test]
    fn an_artifact_has_no_config_of_containers() {
        let found = v1::InspectImageResponse {
            image: Some(v1::Image {
                artifact_type: "a/b".into(),
                ..v1::Image::default()
            }),
            artifact: Some(v1::Artifact {
                subject: "sha256:44".into(),
                blobs: vec![v1::artifact::Blob {
                    media_type: "c/d".into(),
                    digest: "sha256:55".into(),
                    size_bytes: 3,
                    annotations: [("e".to_owned(), "f".to_owned())].into(),
                }],
                ..v1::Artifact::default()
            }),
            ..v1::InspectImageResponse::default()
        };
        let told = inspected(&found);
        assert!(told["Config"].is_null() && told.get("RootFS").is_none(), "{told}");
        let wanted = json!({
            "artifactType": "a/b", "config": null, "annotations": {}, "subject": "sha256:44",
            "layers": [{"mediaType": "c/d", "digest": "sha256:55", "size": 3, "annotations": {"e": "f"}}],
        });
        assert_eq!(told["Artifact"], wanted);
    }
}
