//! How far a container is kept apart, as `inspect` tells it.

use std::collections::BTreeMap;

use proto::v1;
use serde::Serialize;

use super::unless_empty;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Isolation {
    pid: Option<String>,
    ipc: Option<String>,
    uts: Option<String>,
    cgroup: Option<String>,
    userns: Option<String>,
    uid_map: Option<String>,
    gid_map: Option<String>,
    security_opts: Vec<String>,
    sysctls: BTreeMap<String, String>,
    group_add: Vec<String>,
}

impl From<&v1::ContainerIsolation> for Isolation {
    fn from(isolation: &v1::ContainerIsolation) -> Self {
        Self {
            pid: unless_empty(&isolation.pid),
            ipc: unless_empty(&isolation.ipc),
            uts: unless_empty(&isolation.uts),
            cgroup: unless_empty(&isolation.cgroup),
            userns: unless_empty(&isolation.userns),
            uid_map: unless_empty(&isolation.uid_map),
            gid_map: unless_empty(&isolation.gid_map),
            security_opts: isolation.security_opts.clone(),
            sysctls: isolation.sysctls.clone().into_iter().collect(),
            group_add: isolation.group_add.clone(),
        }
    }
}
