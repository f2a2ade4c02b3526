//! Disk usage, history and removals as messages.

use proto::v1;

use crate::translate;

pub(crate) fn disk_usage(usage: engine::DiskUsage) -> v1::DiskUsageResponse {
    let engine::DiskUsage {
        images: usage,
        containers,
        volumes,
    } = usage;
    v1::DiskUsageResponse {
        images: usage
            .images
            .iter()
            .map(|of_image| v1::disk_usage_response::Image {
                image: Some(translate::kept(&of_image.kept)),
                shared_bytes: of_image.shared_bytes,
                unique_bytes: of_image.unique_bytes,
                content_bytes: of_image.content_bytes,
                containers: of_image.containers,
            })
            .collect(),
        containers: containers
            .into_iter()
            .map(|container| v1::disk_usage_response::Container {
                id: container.id,
                name: container.name,
                upper_bytes: container.upper_bytes,
                log_bytes: container.log_bytes,
                running: container.is_running,
            })
            .collect(),
        volumes: volumes
            .into_iter()
            .map(|volume| v1::disk_usage_response::Volume {
                name: volume.name,
                bytes: volume.bytes,
                containers: u32::try_from(volume.containers).unwrap_or(u32::MAX),
            })
            .collect(),
        layers_bytes: usage.layers_bytes,
        content_bytes: usage.content_bytes,
        reclaimable_bytes: usage.reclaimable_bytes,
    }
}

pub(crate) fn step(step: image::Step) -> v1::history_response::Step {
    v1::history_response::Step {
        created_unix_seconds: step.created_unix_seconds,
        created_by: step.created_by,
        author: step.author,
        comment: step.comment,
        empty_layer: step.empty_layer,
        diff_id: step.diff_id,
        size_bytes: step.size_bytes,
    }
}
