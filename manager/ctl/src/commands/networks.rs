//! `network` and its subcommands, and `--network` with its like.

use proto::v1::{
    ConnectNetworkRequest, CreateNetworkRequest, DisconnectNetworkRequest, InspectNetworkRequest,
    ListNetworksRequest, NetworkPlace, PruneNetworksRequest, RemoveNetworkRequest,
};
use tonic::Code;

use super::containers::each;
use super::prune::agrees;
use crate::cli::{ConnectNetwork, CreateNetwork, Format, ListNetworks, NetworkFlags};
use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::output::{self, Table, cell};
use crate::{environment, views};

const BUILT_IN: [&str; 4] = ["bridge", "default", "host", "none"];
/// Of an id, as people see it.
const SHORT_ID: usize = 12;

/// What the flags ask for: a network that is built in, or places on others. Links are of the first of these; with a
/// network that is built in they are the container's.
pub(super) fn wanted(flags: &NetworkFlags) -> Result<(String, Vec<NetworkPlace>)> {
    let mut places = flags
        .network
        .iter()
        .map(|argument| place(argument))
        .collect::<Result<Vec<_>>>()?;
    if places.is_empty() {
        places.push(NetworkPlace {
            network: "bridge".to_owned(),
            ..NetworkPlace::default()
        });
    }
    let first = &mut places[0];
    if !flags.ip.is_empty() {
        first.ip.clone_from(&flags.ip);
    }
    if !flags.ip6.is_empty() {
        first.ip6.clone_from(&flags.ip6);
    }
    if !flags.mac_address.is_empty() {
        first.mac.clone_from(&flags.mac_address);
    }
    first.aliases.extend(flags.network_alias.iter().cloned());
    let plain = NetworkPlace {
        network: first.network.clone(),
        ..NetworkPlace::default()
    };
    let is_special = BUILT_IN.contains(&&*first.network) || first.network.contains(':');
    if is_special && places == [plain] {
        return Ok((places.remove(0).network, Vec::new()));
    }
    places[0].links.extend(flags.link.iter().cloned());
    Ok((String::new(), places))
}

/// Reads `NETWORK`, or `name=NETWORK,alias=…,ip=…,ip6=…,mac-address=…,gw-priority=…`.
fn place(argument: &str) -> Result<NetworkPlace> {
    let mut place = NetworkPlace::default();
    if !argument.contains('=') {
        argument.clone_into(&mut place.network);
        return Ok(place);
    }
    for (position, part) in argument.split(',').enumerate() {
        match part.split_once('=') {
            Some(("name", name)) => name.clone_into(&mut place.network),
            Some(("alias", alias)) => place.aliases.push(alias.to_owned()),
            Some(("ip", ip)) => ip.clone_into(&mut place.ip),
            Some(("ip6", ip6)) => ip6.clone_into(&mut place.ip6),
            Some(("mac-address", mac)) => mac.clone_into(&mut place.mac),
            Some(("gw-priority", priority)) => {
                let malformed = |_| {
                    Failure::new(format!(
                        "invalid gw-priority ({priority}) in --network {argument}: must be a whole number"
                    ))
                };
                place.gw_priority = priority.parse().map_err(malformed)?;
            }
            None if position == 0 => part.clone_into(&mut place.network),
            _ => {
                return Err(Failure::new(format!(
                    "invalid field {part:?} in --network {argument}: the fields are name, alias, ip, ip6, mac-address and gw-priority"
                )));
            }
        }
    }
    if place.network.is_empty() {
        return Err(Failure::new(format!(
            "--network {argument}: network name/id is not specified"
        )));
    }
    Ok(place)
}

pub(super) async fn create(client: &Client, flags: CreateNetwork) -> Result<u8> {
    if !flags.ipv4 {
        return Err(
            Failure::new("--ipv4=false: networks of IPv6 alone are not done in this version")
                .with_hint("leave it away: with --ipv6 a network has both"),
        );
    }
    // Of each family there may be one.
    let one = |flag: &str, values: &[String], of_v6: bool| {
        let mut of_family = values.iter().filter(|value| value.contains(':') == of_v6);
        match (of_family.next(), of_family.next()) {
            (first, None) => Ok(first.cloned().unwrap_or_default()),
            _ => Err(Failure::new(format!(
                "--{flag} is given more than once, and a network has one subnet of a family"
            ))),
        }
    };
    let request = CreateNetworkRequest {
        name: flags.name,
        driver: flags.driver,
        subnets: flags.subnet,
        gateway: one("gateway", &flags.gateway, false)?,
        ip_range: one("ip-range", &flags.ip_range, false)?,
        aux_addresses: environment::labels(&[], &flags.aux_addresses)?,
        internal: flags.internal,
        labels: environment::labels(&[], &flags.label)?,
        options: environment::labels(&[], &flags.options)?,
        ipv6: flags.ipv6,
        gateway6: one("gateway", &flags.gateway, true)?,
        ip_range6: one("ip-range", &flags.ip_range, true)?,
    };
    let reply = client.networks().create(request).await;
    let reply = reply.map_err(|status| client.failure(&status))?;
    output::print_line(&reply.into_inner().network.unwrap_or_default().id)?;
    Ok(0)
}

pub(super) async fn list(client: &Client, flags: ListNetworks, format: Format) -> Result<u8> {
    let request = ListNetworksRequest {
        filters: flags.filters,
    };
    let reply = client.networks().list(request).await;
    let networks = reply
        .map_err(|status| client.failure(&status))?
        .into_inner()
        .networks;
    let id = |id: &str| {
        if flags.no_trunc {
            id
        } else {
            id.get(..SHORT_ID).unwrap_or(id)
        }
        .to_owned()
    };
    if flags.quiet {
        let ids = networks.iter().map(|network| id(&network.id) + "\n");
        output::print(&ids.collect::<String>())?;
    } else if format == Format::Json {
        output::print_json(&networks.iter().map(views::Network::from).collect::<Vec<_>>())?;
    } else {
        let mut table = Table::new(&["NETWORK ID", "NAME", "DRIVER", "SCOPE"]);
        for network in &networks {
            table.row([
                cell(id(&network.id)),
                cell(&network.name),
                cell(&network.driver),
                cell("local"),
            ]);
        }
        table.print()?;
    }
    Ok(0)
}

/// What is there is shown, even if something else that was asked for is not.
pub(super) async fn inspect(client: &Client, networks: Vec<String>) -> Result<u8> {
    let mut found = Vec::new();
    let mut code = 0;
    for network in networks {
        match client.networks().inspect(InspectNetworkRequest { network }).await {
            Ok(reply) => found.push(views::Network::from(
                &reply.into_inner().network.unwrap_or_default(),
            )),
            Err(status) => {
                client.failure(&status).report();
                code = 1;
            }
        }
    }
    output::print_json(&found)?;
    Ok(code)
}

pub(super) async fn remove(client: &Client, networks: Vec<String>, force: bool) -> Result<u8> {
    each(client, networks, async |client, network| {
        let request = RemoveNetworkRequest {
            network: network.clone(),
        };
        match client.networks().remove(request).await {
            Err(status) if force && status.code() == Code::NotFound => Ok(network),
            removed => removed.map(|_| network),
        }
    })
    .await
}

pub(super) async fn prune(client: &Client, filters: Vec<String>, force: bool) -> Result<u8> {
    if !force && !agrees("Remove all networks that no container is on?")? {
        return Ok(0);
    }
    let pruned = client.networks().prune(PruneNetworksRequest { filters }).await;
    let deleted = pruned
        .map_err(|status| client.failure(&status))?
        .into_inner()
        .deleted;
    if !deleted.is_empty() {
        output::print_line("Deleted Networks:")?;
    }
    let names = deleted.into_iter().map(|name| name + "\n");
    output::print(&names.collect::<String>())?;
    Ok(0)
}

pub(super) async fn connect(client: &Client, flags: ConnectNetwork) -> Result<u8> {
    let request = ConnectNetworkRequest {
        container: flags.container,
        place: Some(NetworkPlace {
            network: flags.network,
            aliases: flags.alias,
            links: flags.link,
            ip: flags.ip,
            ip6: flags.ip6,
            gw_priority: flags.gw_priority,
            ..NetworkPlace::default()
        }),
    };
    let connected = client.networks().connect_container(request).await;
    connected.map_err(|status| client.failure(&status))?;
    Ok(0)
}

pub(super) async fn disconnect(
    client: &Client,
    network: String,
    container: String,
    force: bool,
) -> Result<u8> {
    let request = DisconnectNetworkRequest {
        container,
        network,
        force,
    };
    let disconnected = client.networks().disconnect_container(request).await;
    disconnected.map_err(|status| client.failure(&status))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_named_alone_or_with_fields() {
        let place = |text: &str| place(text).map_err(|failure| failure.message);
        assert_eq!(place("web").unwrap().network, "web");
        let fields =
            place("name=web,alias=a,alias=b,ip=10.0.0.2,ip6=fd00::2,mac-address=02:00:00:00:00:01").unwrap();
        assert_eq!(
            (&*fields.network, fields.aliases.len(), &*fields.ip, &*fields.ip6),
            ("web", 2, "10.0.0.2", "fd00::2")
        );
        assert_eq!(place("web,alias=a").unwrap().network, "web");
        assert!(place("web,gw=1").unwrap_err().contains("gw=1"));
        assert!(place("ip=10.0.0.2").unwrap_err().contains("not specified"));
    }
}
