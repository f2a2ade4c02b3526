//! Whom a container asks for names, as it was asked for.

use proto::v1;
use serde::Serialize;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Names {
    servers: Vec<String>,
    search: Vec<String>,
    options: Vec<String>,
    hosts: Vec<Host>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Host {
    name: String,
    address: String,
}

impl From<&v1::Names> for Names {
    fn from(names: &v1::Names) -> Self {
        let host = |host: &v1::names::Host| Host {
            name: host.name.clone(),
            address: host.address.clone(),
        };
        Self {
            servers: names.servers.clone(),
            search: names.search.clone(),
            options: names.options.clone(),
            hosts: names.hosts.iter().map(host).collect(),
        }
    }
}
