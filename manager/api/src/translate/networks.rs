//! Networks, and containers' places on them.

use std::net::IpAddr;
use std::sync::Arc;

use engine::{Engine, Error, Joined, Joining, Link, Network, NetworkInspection, Told, UserNetwork};
use proto::v1;

/// What a container's request says of networks: one that is built in, another container's, or those that users made.
pub(crate) fn wanted(
    network: &str,
    places: Vec<v1::NetworkPlace>,
) -> Result<(Network, String, Vec<Joining>), Error> {
    let mut networks = places.into_iter().map(joining).collect::<Result<Vec<_>, _>>()?;
    if !networks.is_empty() && network.is_empty() {
        return Ok((Network::User, String::new(), networks));
    }
    let (kind, network_of) = Network::parse(network)?;
    if kind == Network::User && networks.is_empty() {
        networks.push(Joining {
            network: network.to_owned(),
            ..Joining::default()
        });
    }
    Ok((kind, network_of, networks))
}

fn joining(place: v1::NetworkPlace) -> Result<Joining, Error> {
    if let "bridge" | "default" | "host" | "none" = place.network.as_str() {
        let rule = format!(
            "{}: addresses, aliases, priorities and options of one's own are supported on user defined networks only, and at a container's making it is not combined with those",
            place.network
        );
        return Err(Error::Invalid {
            field: "network",
            rule,
        });
    }
    connecting(place)
}

/// A place on a network that a container is to have besides.
pub(crate) fn connecting(place: v1::NetworkPlace) -> Result<Joining, Error> {
    let invalid = |field, rule| Error::Invalid { field, rule };
    if place.network.contains(':') {
        return Err(invalid(
            "network",
            format!(
                "{:?} comes alone, with the addresses and names that it has",
                place.network
            ),
        ));
    }
    let address = match place.ip.as_str() {
        "" => None,
        text => {
            let malformed = |_| invalid("ip", format!("{text:?} is no IPv4 address"));
            Some(text.parse().map_err(malformed)?)
        }
    };
    let address6 = match place.ip6.as_str() {
        "" => None,
        text => {
            let malformed = |_| invalid("ip6", format!("{text:?} is no IPv6 address"));
            Some(text.parse().map_err(malformed)?)
        }
    };
    let link_local = |text: &String| {
        let malformed = |_| {
            invalid(
                "link-local-ip",
                format!("invalid link-local IP address: {text:?}"),
            )
        };
        text.parse().map_err(malformed)
    };
    let link_local = place.link_local_ips.iter().map(link_local);
    let link_local = link_local.collect::<Result<_, _>>()?;
    let mac = match place.mac.as_str() {
        "" => None,
        text => {
            let malformed = || invalid("mac-address", format!("{text:?} is no MAC address"));
            Some(mac(text).ok_or_else(malformed)?)
        }
    };
    Ok(Joining {
        network: place.network,
        aliases: place.aliases,
        links: links(&place.links)?,
        address,
        mac,
        address6,
        gw_priority: place.gw_priority,
        link_local,
        driver_options: place.driver_options.into_iter().collect(),
    })
}

pub(crate) fn links(texts: &[String]) -> Result<Vec<Link>, Error> {
    texts.iter().map(|text| Link::parse(text)).collect()
}

pub(crate) fn place(joining: Joining) -> v1::NetworkPlace {
    v1::NetworkPlace {
        network: joining.network,
        aliases: joining.aliases,
        links: joining.links.iter().map(ToString::to_string).collect(),
        ip: joining
            .address
            .map(|address| address.to_string())
            .unwrap_or_default(),
        mac: joining.mac.map(mac_text).unwrap_or_default(),
        ip6: joining
            .address6
            .map(|address| address.to_string())
            .unwrap_or_default(),
        gw_priority: joining.gw_priority,
        link_local_ips: joining.link_local.iter().map(IpAddr::to_string).collect(),
        driver_options: joining.driver_options.into_iter().collect(),
    }
}

pub(crate) fn network(found: NetworkInspection) -> v1::Network {
    let network = found.network;
    let prefix = network.subnet.map_or(0, |subnet| subnet.prefix);
    let prefix6 = network.v6.as_ref().map_or(0, |v6| v6.subnet.prefix);
    let text = |value: Option<String>| value.unwrap_or_default();
    let driver = network.driver.clone();
    let member = |(id, member): (String, engine::Member)| v1::NetworkMember {
        id,
        name: member.name,
        address: match prefix {
            // Of plugins, if they have given one.
            0 if member.address.octets()[0] == 0 => String::new(),
            0 => member.address.to_string(),
            prefix => format!("{}/{prefix}", member.address),
        },
        mac: shown_mac(&driver, member.mac),
        address6: text(member.address6.map(|address| format!("{address}/{prefix6}"))),
    };
    let aux = network.aux_addresses.into_iter();
    let aux = aux.map(|(name, address)| (name, IpAddr::from(address)));
    let v6 = network.v6.as_ref();
    let aux6 = v6.into_iter().flat_map(|v6| &v6.aux_addresses);
    let aux6 = aux6.map(|(name, address)| (name.clone(), IpAddr::from(*address)));
    v1::Network {
        id: network.id,
        name: network.name,
        driver: network.driver,
        subnet: text(network.subnet.map(|subnet| subnet.to_string())),
        gateway: text(network.gateway.map(|gateway| gateway.to_string())),
        ip_range: text(network.ip_range.map(|range| range.to_string())),
        aux_addresses: aux
            .chain(aux6)
            .map(|(name, address)| (name, address.to_string()))
            .collect(),
        internal: network.internal,
        labels: network.labels.into_iter().collect(),
        options: network.options.into_iter().collect(),
        created_unix_nanos: network.created_unix_nanos,
        containers: found.members.into_iter().map(member).collect(),
        subnet6: text(v6.map(|v6| v6.subnet.to_string())),
        gateway6: text(v6.map(|v6| v6.gateway.to_string())),
        ip_range6: text(v6.and_then(|v6| v6.ip_range).map(|range| range.to_string())),
    }
}

/// Add to a container's message the networks on which it is.
pub(crate) fn add(engine: &Engine, mut message: v1::Container) -> v1::Container {
    let networks = engine.networks_of(&message.id);
    let id = message.id.clone();
    let shown = |(network, joined): (Arc<UserNetwork>, Joined)| {
        let told = engine.told(&id, &network.id);
        of_container((network, joined), told.as_deref())
    };
    message.networks = networks.into_iter().map(shown).collect();
    if let (true, Some(first)) = (message.address.is_empty(), message.networks.first()) {
        message.address.clone_from(&first.address);
        message.network.clone_from(&first.name);
    }
    message
}

fn of_container((network, joined): (Arc<UserNetwork>, Joined), told: Option<&Told>) -> v1::ContainerNetwork {
    let prefix = network.subnet.map_or(0, |subnet| subnet.prefix);
    let text = |value: Option<String>| value.unwrap_or_default();
    let v6 = network.v6.as_ref().zip(joined.address6);
    let mut shown = v1::ContainerNetwork {
        id: network.id.clone(),
        name: network.name.clone(),
        address: format!("{}/{prefix}", joined.address),
        gateway: network
            .gateway
            .map(|gateway| gateway.to_string())
            .unwrap_or_default(),
        mac: shown_mac(&network.driver, joined.mac()),
        link: joined.inside(),
        address6: text(v6.map(|(v6, address)| format!("{address}/{}", v6.subnet.prefix))),
        gateway6: text(v6.map(|(v6, _)| v6.gateway.to_string())),
        links: joined.wanted.links.iter().map(ToString::to_string).collect(),
        gw_priority: joined.wanted.gw_priority,
        link_local_ips: joined.wanted.link_local.iter().map(IpAddr::to_string).collect(),
        driver_options: joined.wanted.driver_options.into_iter().collect(),
        aliases: joined.wanted.aliases,
        ..v1::ContainerNetwork::default()
    };
    if network.subnet.is_none() {
        tell(&mut shown, told);
    }
    shown
}

/// What the manager knows of the place is what plugins have said.
fn tell(shown: &mut v1::ContainerNetwork, told: Option<&Told>) {
    shown.address.clear();
    shown.mac.clear();
    let Some(told) = told else {
        return;
    };
    let address = |ip: &cni::Ip| format!("{}/{}", ip.address, ip.prefix);
    let route = |route: &cni::Route| {
        let via = route.gateway.map(|gateway| format!(" via {gateway}"));
        format!(
            "{}/{}{}",
            route.destination,
            route.prefix,
            via.unwrap_or_default()
        )
    };
    shown.addresses = told.addresses.iter().map(address).collect();
    shown.routes = told.routes.iter().map(route).collect();
    shown.dns_servers = told.dns.servers.iter().map(ToString::to_string).collect();
    shown.dns_search.clone_from(&told.dns.search);
    shown.mac = told.mac.map(mac_text).unwrap_or_default();
    let first = told
        .addresses
        .iter()
        .find(|ip| ip.address.is_ipv4())
        .or(told.addresses.first());
    if let Some(first) = first {
        shown.address = address(first);
        shown.gateway = first
            .gateway
            .map(|gateway| gateway.to_string())
            .unwrap_or_default();
    }
}

/// Links of ipvlan have their parent's.
fn shown_mac(driver: &str, mac: [u8; 6]) -> String {
    if driver == "ipvlan" || mac == [0; 6] {
        String::new()
    } else {
        mac_text(mac)
    }
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let bytes = text.split([':', '-']).map(|byte| u8::from_str_radix(byte, 16));
    bytes.collect::<Result<Vec<_>, _>>().ok()?.try_into().ok()
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_links_are_read_in_both_spellings() {
        let address = [2, 0x42, 0xac, 0x11, 0, 2];
        assert_eq!(mac("02:42:ac:11:00:02"), Some(address));
        assert_eq!(mac("02-42-AC-11-00-02"), Some(address));
        for text in [
            "",
            "02:42",
            "02:42:ac:11:00:02:03",
            "xx:42:ac:11:00:02",
            "102:42:ac:11:00:02",
        ] {
            assert_eq!(mac(text), None, "{text}");
        }
        assert_eq!(mac_text(address), "02:42:ac:11:00:02");
    }
}
