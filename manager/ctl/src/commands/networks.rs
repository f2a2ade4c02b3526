//! `network` and its subcommands, and `--network` with its like.

use std::collections::HashMap;

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
use crate::{csv, environment, views};

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
    first.link_local_ips.extend(flags.link_local_ip.iter().cloned());
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

/// Reads `NETWORK`, or `name=NETWORK,alias=…,ip=…,ip6=…,link-local-ip=…,mac-address=…,gw-priority=…,driver-opt=…`, a line of CSV.
fn place(argument: &str) -> Result<NetworkPlace> {
    let mut place = NetworkPlace::default();
    if !argument.contains('=') {
        argument.clone_into(&mut place.network);
        return Ok(place);
    }
    let malformed = |why: String| Failure::new(format!("--network {argument}: {why}"));
    let parts = csv::split(argument).map_err(|why| malformed(why.to_owned()))?;
    for (position, part) in parts.iter().enumerate() {
        match part.split_once('=') {
            Some(("name", name)) => name.clone_into(&mut place.network),
            Some(("alias", alias)) => place.aliases.push(alias.to_owned()),
            Some(("ip", ip)) => ip.clone_into(&mut place.ip),
            Some(("ip6", ip6)) => ip6.clone_into(&mut place.ip6),
            Some(("link-local-ip", address)) => place.link_local_ips.push(address.to_owned()),
            Some(("mac-address", mac)) => mac.clone_into(&mut place.mac),
            Some(("driver-opt", option)) => {
                let (key, value) = driver_option(option).map_err(malformed)?;
                place.driver_options.insert(key, value);
            }
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
                    "invalid field {part:?} in --network {argument}: the fields are name, alias, ip, ip6, link-local-ip, mac-address, gw-priority and driver-opt"
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

/// Each is a line of CSV with as many options as it has fields.
fn driver_options(lines: &[String]) -> Result<HashMap<String, String>> {
    let mut options = HashMap::new();
    for line in lines {
        let malformed = |why: String| Failure::new(format!("--driver-opt {line}: {why}"));
        for field in csv::split(line).map_err(|why| malformed(why.to_owned()))? {
            let (key, value) = driver_option(&field).map_err(malformed)?;
            options.insert(key, value);
        }
    }
    Ok(options)
}

fn driver_option(text: &str) -> std::result::Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or_default();
    let (key, value) = (key.trim(), value.trim());
    if key.is_empty() {
        return Err(format!(
            "invalid key/value pair format in driver options: {text:?}"
        ));
    }
    // Docker takes it for an option that it does not know, and says nothing.
    if key.starts_with("net.") {
        return Err(format!(
            "{key} is no option: several sysctls are one, to be put in quotes, as \
             '\"com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.forwarding=1,{text}\"'"
        ));
    }
    Ok((key.to_owned(), value.to_owned()))
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
            link_local_ips: flags.link_local_ip,
            gw_priority: flags.gw_priority,
            driver_options: driver_options(&flags.driver_opt)?,
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
        let several =
            "name=web,gw-priority=-3,\"driver-opt=a.sysctls=net.x=1,net.y=2\",driver-opt=a.ifname=wan";
        let several = place(several).unwrap();
        assert_eq!(several.gw_priority, -3);
        assert_eq!(several.driver_options["a.sysctls"], "net.x=1,net.y=2");
        assert_eq!(several.driver_options["a.ifname"], "wan");
        assert!(
            place("name=web,driver-opt=a")
                .unwrap_err()
                .contains("invalid key/value")
        );
        let unquoted = "name=web,driver-opt=a.sysctls=net.x=1,driver-opt=net.y=2";
        assert!(place(unquoted).unwrap_err().contains("in quotes"));
    }

    #[test]
    fn driver_options_are_lines_of_csv() {
        let read = |lines: &[&str]| {
            let lines: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
            driver_options(&lines).map_err(|failure| failure.message)
        };
        let options = read(&["\"a=net.x=1,net.y=2\",b=1", "c=2"]).unwrap();
        assert_eq!(
            (&*options["a"], &*options["b"], &*options["c"]),
            ("net.x=1,net.y=2", "1", "2")
        );
        assert!(read(&["a=net.x=1,net.y=2"]).unwrap_err().contains("in quotes"));
        assert!(read(&["=1"]).unwrap_err().contains("invalid key/value"));
    }
}
