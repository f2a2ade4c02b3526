//! Networks, and the places of containers on them.

use std::collections::BTreeMap;

use proto::v1;
use serde::Serialize;

use super::{sorted, unless_empty, unless_zero};
use crate::time::rfc3339;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Network {
    id: String,
    name: String,
    driver: String,
    scope: &'static str,
    subnet: Option<String>,
    gateway: Option<String>,
    ip_range: Option<String>,
    subnet6: Option<String>,
    gateway6: Option<String>,
    ip_range6: Option<String>,
    aux_addresses: BTreeMap<String, String>,
    internal: bool,
    labels: BTreeMap<String, String>,
    options: BTreeMap<String, String>,
    /// Null: it is built in.
    created_at: Option<String>,
    /// By id; running or not.
    containers: BTreeMap<String, Member>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Member {
    name: String,
    mac_address: String,
    address: String,
    address6: Option<String>,
}

impl From<&v1::Network> for Network {
    fn from(network: &v1::Network) -> Self {
        let member = |member: &v1::NetworkMember| {
            let shown = Member {
                name: member.name.clone(),
                mac_address: member.mac.clone(),
                address: member.address.clone(),
                address6: unless_empty(&member.address6),
            };
            (member.id.clone(), shown)
        };
        Self {
            id: network.id.clone(),
            name: network.name.clone(),
            driver: network.driver.clone(),
            scope: "local",
            subnet: unless_empty(&network.subnet),
            gateway: unless_empty(&network.gateway),
            ip_range: unless_empty(&network.ip_range),
            subnet6: unless_empty(&network.subnet6),
            gateway6: unless_empty(&network.gateway6),
            ip_range6: unless_empty(&network.ip_range6),
            aux_addresses: sorted(&network.aux_addresses),
            internal: network.internal,
            labels: sorted(&network.labels),
            options: sorted(&network.options),
            created_at: unless_zero(network.created_unix_nanos).map(rfc3339),
            containers: network.containers.iter().map(member).collect(),
        }
    }
}

/// A container's place on a network.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Place {
    network_id: String,
    address: String,
    gateway: Option<String>,
    address6: Option<String>,
    gateway6: Option<String>,
    mac_address: String,
    aliases: Vec<String>,
    links: Vec<String>,
    link: String,
    gw_priority: i64,
    link_local_ips: Vec<String>,
    driver_opts: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugins: Option<ByPlugins>,
}

/// What CNI plugins have made of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ByPlugins {
    addresses: Vec<String>,
    routes: Vec<String>,
    dns_servers: Vec<String>,
    dns_search: Vec<String>,
}

impl From<&v1::ContainerNetwork> for Place {
    fn from(network: &v1::ContainerNetwork) -> Self {
        Self {
            network_id: network.id.clone(),
            address: network.address.clone(),
            gateway: unless_empty(&network.gateway),
            address6: unless_empty(&network.address6),
            gateway6: unless_empty(&network.gateway6),
            mac_address: network.mac.clone(),
            aliases: network.aliases.clone(),
            links: network.links.clone(),
            link: network.link.clone(),
            gw_priority: network.gw_priority,
            link_local_ips: network.link_local_ips.clone(),
            driver_opts: sorted(&network.driver_options),
            plugins: (!network.addresses.is_empty()).then(|| ByPlugins {
                addresses: network.addresses.clone(),
                routes: network.routes.clone(),
                dns_servers: network.dns_servers.clone(),
                dns_search: network.dns_search.clone(),
            }),
        }
    }
}
