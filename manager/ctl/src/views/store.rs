//! History, leases, disk usage and the check of the store, in the shape that JSON output promises.

use proto::v1::{self, check_progress};
use serde::Serialize;

use super::{Image, unless_empty, unless_zero};
use crate::time::rfc3339;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Step {
    created_at: Option<String>,
    created_by: String,
    author: Option<String>,
    comment: Option<String>,
    /// Nothing for an empty layer.
    diff_id: Option<String>,
    size_bytes: u64,
}

impl From<&v1::history_response::Step> for Step {
    fn from(step: &v1::history_response::Step) -> Self {
        Self {
            created_at: unless_zero(step.created_unix_seconds)
                .map(|seconds| rfc3339(seconds.saturating_mul(1_000_000_000))),
            created_by: step.created_by.clone(),
            author: unless_empty(&step.author),
            comment: unless_empty(&step.comment),
            diff_id: unless_empty(&step.diff_id),
            size_bytes: step.size_bytes,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Lease {
    id: String,
    images: Vec<LeasedImage>,
    expires_at: String,
}

#[derive(Serialize)]
struct LeasedImage {
    id: String,
    names: Vec<String>,
}

impl From<&v1::Lease> for Lease {
    fn from(lease: &v1::Lease) -> Self {
        let image = |image: &v1::lease::Image| LeasedImage {
            id: image.id.clone(),
            names: image.names.clone(),
        };
        Self {
            id: lease.id.clone(),
            images: lease.images.iter().map(image).collect(),
            expires_at: rfc3339(lease.expires_unix_seconds.saturating_mul(1_000_000_000)),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DiskUsage {
    images: Vec<ImageUsage>,
    containers: Vec<ContainerUsage>,
    volumes: Vec<VolumeUsage>,
    layers_bytes: u64,
    content_bytes: u64,
    reclaimable_bytes: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ImageUsage {
    #[serde(flatten)]
    image: Image,
    shared_bytes: u64,
    unique_bytes: u64,
    content_bytes: u64,
    containers: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerUsage {
    id: String,
    name: String,
    upper_bytes: u64,
    log_bytes: u64,
    running: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VolumeUsage {
    name: String,
    bytes: u64,
    containers: u32,
}

impl From<&v1::DiskUsageResponse> for DiskUsage {
    fn from(usage: &v1::DiskUsageResponse) -> Self {
        let image = |of: &v1::disk_usage_response::Image| ImageUsage {
            image: Image::from(&of.image.clone().unwrap_or_default()),
            shared_bytes: of.shared_bytes,
            unique_bytes: of.unique_bytes,
            content_bytes: of.content_bytes,
            containers: of.containers,
        };
        let container = |of: &v1::disk_usage_response::Container| ContainerUsage {
            id: of.id.clone(),
            name: of.name.clone(),
            upper_bytes: of.upper_bytes,
            log_bytes: of.log_bytes,
            running: of.running,
        };
        let volume = |of: &v1::disk_usage_response::Volume| VolumeUsage {
            name: of.name.clone(),
            bytes: of.bytes,
            containers: of.containers,
        };
        Self {
            volumes: usage.volumes.iter().map(volume).collect(),
            images: usage.images.iter().map(image).collect(),
            containers: usage.containers.iter().map(container).collect(),
            layers_bytes: usage.layers_bytes,
            content_bytes: usage.content_bytes,
            reclaimable_bytes: usage.reclaimable_bytes,
        }
    }
}

/// What a check found, in the shape that JSON output promises.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Check {
    pub(crate) checked: Checked,
    pub(crate) findings: Vec<Finding>,
    pub(crate) not_checked: Vec<NotChecked>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Checked {
    images: u64,
    layers: u64,
    files: u64,
    blobs: u64,
    bytes: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Finding {
    kind: String,
    image: Option<String>,
    digest: Option<String>,
    path: Option<String>,
    what: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NotChecked {
    image: String,
    layer: String,
    reason: String,
}

impl From<check_progress::Counts> for Checked {
    fn from(counts: check_progress::Counts) -> Self {
        Self {
            images: counts.images,
            layers: counts.layers,
            files: counts.files,
            blobs: counts.blobs,
            bytes: counts.bytes,
        }
    }
}

impl From<check_progress::Finding> for Finding {
    fn from(finding: check_progress::Finding) -> Self {
        let path = String::from_utf8_lossy(&finding.path).into_owned();
        Self {
            // The root of a layer has a path, which is empty.
            path: (matches!(finding.kind.as_str(), "file" | "leftover")).then_some(path),
            image: unless_empty(&finding.image),
            digest: unless_empty(&finding.digest),
            kind: finding.kind,
            what: finding.what,
        }
    }
}

impl From<check_progress::NotChecked> for NotChecked {
    fn from(layer: check_progress::NotChecked) -> Self {
        Self {
            image: layer.image,
            layer: layer.layer,
            reason: layer.reason,
        }
    }
}
