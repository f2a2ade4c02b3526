//! Volumes, and the mounts of containers.

use std::collections::BTreeMap;

use proto::v1;
use proto::v1::mount::Kind;
use serde::Serialize;

use super::{sorted, unless_empty};
use crate::time::rfc3339;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Volume {
    name: String,
    driver: String,
    mountpoint: String,
    scope: String,
    /// Whatever its plugin says.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<serde_json::Value>,
    labels: BTreeMap<String, String>,
    options: BTreeMap<String, String>,
    created_at: String,
    anonymous: bool,
    /// IDs of those that use it.
    containers: Vec<String>,
}

impl From<&v1::Volume> for Volume {
    fn from(volume: &v1::Volume) -> Self {
        Self {
            name: volume.name.clone(),
            driver: volume.driver.clone(),
            mountpoint: volume.mountpoint.clone(),
            scope: volume.scope.clone(),
            status: serde_json::from_str(&volume.status_json).ok(),
            labels: sorted(&volume.labels),
            options: sorted(&volume.options),
            created_at: rfc3339(volume.created_unix_nanos),
            anonymous: volume.anonymous,
            containers: volume.containers.clone(),
        }
    }
}

/// One place in a container where something else than its image is seen.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mount {
    #[serde(rename = "type")]
    kind: &'static str,
    /// A path of the host, or the name of a volume or an image.
    source: Option<String>,
    target: String,
    read_only: bool,
    propagation: Option<String>,
    anonymous: bool,
}

impl From<&v1::Mount> for Mount {
    fn from(mount: &v1::Mount) -> Self {
        let (kind, source, propagation, anonymous) = match &mount.kind {
            Some(Kind::Bind(bind)) => ("bind", bind.source.as_str(), bind.propagation.as_str(), false),
            Some(Kind::Volume(volume)) => ("volume", volume.name.as_str(), "", volume.anonymous),
            Some(Kind::Image(image)) => ("image", image.source.as_str(), "", false),
            Some(Kind::Tmpfs(_)) | None => ("tmpfs", "", "", false),
        };
        Self {
            kind,
            source: unless_empty(source),
            target: mount.target.clone(),
            read_only: mount.read_only,
            propagation: unless_empty(propagation),
            anonymous,
        }
    }
}
