//! History and disk usage, in the shape that JSON output promises.

use proto::v1;
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
pub(crate) struct DiskUsage {
    images: Vec<ImageUsage>,
    containers: Vec<ContainerUsage>,
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
        Self {
            images: usage.images.iter().map(image).collect(),
            containers: usage.containers.iter().map(container).collect(),
            layers_bytes: usage.layers_bytes,
            content_bytes: usage.content_bytes,
            reclaimable_bytes: usage.reclaimable_bytes,
        }
    }
}
