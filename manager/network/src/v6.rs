//! The IPv6 part of a bridge and of its containers' links, which networks have that are asked to.
//!
//! The host and the containers get the addresses that are given to them and no others: router advertisements are not
//! listened to, else any container could give the host, or its neighbours, an address and a route (CVE-2020-13401).

use std::fs;
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::bridge::Bridge;
use crate::endpoint::{Endpoint, missing};
use crate::netlink::{Request, Route};
use crate::route::{self, Link};
use crate::subnet6::Subnet6;
use crate::{Error, namespace};
use netlink_packet_route::RouteNetlinkMessage;

const CONF: &str = "/proc/sys/net/ipv6/conf";
/// Of the host's end. Its only addresses are those that are given to it.
const OF_BRIDGE: [(&str, &str); 5] = [
    ("accept_ra", "0"),
    ("accept_redirects", "0"),
    ("autoconf", "0"),
    ("addr_gen_mode", "1"),
    ("accept_dad", "0"),
];
/// The bridge's other address. For a packet that it forwards, the kernel asks for a neighbour's hardware address from an
/// address of the link alone, or not at all (`ndisc_solicit`). Those of containers are made of their own.
pub const OF_LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// Of a container's end, which has an address of its link besides. Neighbours are told when it comes, so that they do not
/// look for whoever had the address before.
const OF_CONTAINER: [(&str, &str); 5] = [
    ("accept_ra", "0"),
    ("accept_redirects", "0"),
    ("autoconf", "0"),
    ("accept_dad", "0"),
    ("ndisc_notify", "1"),
];

/// What a bridge has of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bridge6 {
    /// The bridge's address: a host's address in the subnet.
    pub gateway: Ipv6Addr,
    /// Length of the subnet's prefix in bits, from 16 to 126.
    pub prefix: u8,
}

impl Bridge {
    /// The first of `candidates`, each an address and the length of a prefix, that overlaps no address and no route of
    /// this host and none of `taken`.
    pub fn free_subnet6(
        candidates: impl IntoIterator<Item = (Ipv6Addr, u8)>,
        taken: &[(Ipv6Addr, u8)],
    ) -> Result<Option<(Ipv6Addr, u8)>, Error> {
        let mut route = Route::open()?;
        let addresses = route.addresses6()?.into_iter();
        let mut used: Vec<Subnet6> = addresses
            .map(|found| Subnet6::of(found.address, found.prefix))
            .collect();
        used.extend(route.routes6()?.into_iter().map(|found| found.destination));
        used.extend(
            taken
                .iter()
                .map(|(address, prefix)| Subnet6::of(*address, *prefix)),
        );
        Ok(candidates.into_iter().find(|(address, prefix)| {
            let subnet = Subnet6::of(*address, *prefix);
            !used.iter().any(|used| used.overlaps(subnet))
        }))
    }

    /// Lets what has no better route leave the namespace `netns` by its link `inside` on this bridge, by IPv6, unless it has a
    /// way already.
    pub fn route6_by(&self, netns: BorrowedFd<'_>, inside: &str) -> Result<(), Error> {
        let Some(v6) = self.v6 else { return Ok(()) };
        let mut route = namespace::open_route(netns)?;
        let index = route.link(inside)?.ok_or_else(|| missing(inside))?.index;
        match route.change(vec![route::add_default_route6(index, v6.gateway)]) {
            Err(error) if error.errno() == Some(libc::EEXIST) => Ok(()),
            added => added,
        }
    }

    /// The subnet of IPv6, if there is to be one and it can be.
    pub(crate) fn checked_subnet6(&self) -> Result<Option<Subnet6>, Error> {
        let checked = self.v6.map(|v6| Subnet6::of_gateway(v6.gateway, v6.prefix));
        checked.transpose()
    }

    /// The bridge's address of IPv6, and that the host forwards for it.
    pub(crate) fn ensure_v6(&self, route: &mut Route) -> Result<(), Error> {
        let (Some(v6), Some(subnet)) = (self.v6, self.checked_subnet6()?) else {
            return Ok(());
        };
        let link = route.link(&self.name)?.ok_or_else(|| missing(&self.name))?;
        if !self.has_address6(route, &link, v6)? {
            self.check_overlap6(route, subnet, &link)?;
            // The gateway's last: by it all of this is known to be done.
            for (address, subnet) in [(OF_LINK, Subnet6::of(OF_LINK, 64)), (v6.gateway, subnet)] {
                let added = route::add_address6(link.index, &self.name, address, subnet);
                match route.change(vec![added]) {
                    // Another call was quicker.
                    Err(error) if error.errno() == Some(libc::EEXIST) => {}
                    added => added?,
                }
            }
        }
        if self.internal { Ok(()) } else { forward() }
    }

    /// Lets the bridge have addresses of IPv6.
    pub(crate) fn turn_ipv6_on(&self) -> Result<(), Error> {
        if !Path::new(CONF).exists() {
            let rule = "has IPv6, which this machine's kernel has not (is it turned off by ipv6.disable=1?)";
            return Err(Error::invalid("bridge", &self.name, rule));
        }
        turn_on(&self.name, &OF_BRIDGE)
    }

    /// Whether the bridge has the gateway's address. One with another address is not ours to change.
    fn has_address6(&self, route: &mut Route, link: &Link, v6: Bridge6) -> Result<bool, Error> {
        let mut own = route.addresses6()?;
        own.retain(|address| address.index == link.index);
        let is_there = own
            .iter()
            .any(|own| (own.address, own.prefix) == (v6.gateway, v6.prefix));
        match own.first() {
            Some(first) if !is_there => Err(Error::ForeignLink {
                name: self.name.clone(),
                difference: format!(
                    "has the address {}/{} and not {}/{}",
                    first.address, first.prefix, v6.gateway, v6.prefix
                ),
            }),
            _ => Ok(is_there),
        }
    }

    fn check_overlap6(&self, route: &mut Route, subnet: Subnet6, own: &Link) -> Result<(), Error> {
        let address = route
            .addresses6()?
            .into_iter()
            .find(|found| {
                found.index != own.index && Subnet6::of(found.address, found.prefix).overlaps(subnet)
            })
            .map(|found| format!("the address {}/{}", found.address, found.prefix));
        let found = match address {
            Some(found) => Some(found),
            None => route
                .routes6()?
                .into_iter()
                .find(|found| found.index != Some(own.index) && found.destination.overlaps(subnet))
                .map(|found| format!("the route to {}", found.destination)),
        };
        found.map_or(Ok(()), |found| {
            Err(Error::Overlap {
                subnet: subnet.to_string(),
                bridge: self.name.clone(),
                found,
            })
        })
    }

    /// The subnet of IPv6 that an endpoint's address lies in; none, if it has no such address.
    pub(crate) fn check_address6(&self, endpoint: &Endpoint<'_>) -> Result<Option<Subnet6>, Error> {
        let Some(address) = endpoint.address6 else {
            return Ok(None);
        };
        let refuse = |rule: String| Err(Error::invalid("address", &address, rule));
        let (Some(v6), Some(subnet)) = (self.v6, self.checked_subnet6()?) else {
            return refuse(format!("bridge {} has no IPv6", self.name));
        };
        if !subnet.is_host(address) {
            return refuse(format!("must be a host's address in {subnet}, not its first"));
        }
        if address == v6.gateway {
            return refuse(format!("is the gateway's, of bridge {}", self.name));
        }
        Ok(Some(subnet))
    }

    /// The changes that give the link with index `index` inside a container its address of IPv6.
    pub(crate) fn configuring6(
        &self,
        endpoint: &Endpoint<'_>,
        index: u32,
    ) -> Result<Vec<Request<RouteNetlinkMessage>>, Error> {
        let (Some(address), Some(subnet), Some(v6)) =
            (endpoint.address6, self.check_address6(endpoint)?, self.v6)
        else {
            return Ok(Vec::new());
        };
        let mut changes = vec![route::add_address6(index, endpoint.inside, address, subnet)];
        if endpoint.default_route6 && !self.internal {
            changes.push(route::replacing(route::add_default_route6(index, v6.gateway)));
        }
        Ok(changes)
    }
}

/// Lets a container's link have an address of IPv6, before it is up. The calling thread is in its namespace, of which
/// these files then are.
pub(crate) fn prepare_inside(link: &str) -> Result<(), Error> {
    put("lo", "disable_ipv6", "0")?;
    turn_on(link, &OF_CONTAINER)
}

/// Where all is as it should be, nothing is written.
fn turn_on(link: &str, settings: &[(&str, &str)]) -> Result<(), Error> {
    let mut differing = Vec::new();
    for (setting, value) in settings {
        if get(link, setting)? != *value {
            differing.push((setting, value));
        }
    }
    if !differing.is_empty() {
        // What it has got by other settings goes.
        put(link, "disable_ipv6", "1")?;
    }
    for (setting, value) in differing {
        put(link, setting, value)?;
    }
    put(link, "disable_ipv6", "0")
}

/// Lets the host forward IPv6. To the kernel a host that forwards is a router, which by default listens to no other
/// router: links that have their addresses or routes by advertisements are told to go on listening.
fn forward() -> Result<(), Error> {
    if get("all", "forwarding")? != "0" {
        return Ok(());
    }
    let links = fs::read_dir(CONF).map_err(failing("list", CONF))?;
    for link in links.flatten() {
        let name = link.file_name();
        let Some(name) = name.to_str() else { continue };
        if matches!(name, "all" | "default" | "lo") || crate::endpoint::is_ours(name) {
            continue;
        }
        // A link that goes in the meantime needs nothing.
        let listens = |setting, value| get(name, setting).is_ok_and(|found| found == value);
        if listens("accept_ra", "1") && listens("forwarding", "0") {
            match put(name, "accept_ra", "2") {
                Err(error) if error.errno() == Some(libc::ENOENT) => {}
                written => written?,
            }
        }
    }
    // Those that come later.
    if get("default", "accept_ra")? == "1" {
        put("default", "accept_ra", "2")?;
    }
    put("all", "forwarding", "1")
}

fn get(link: &str, setting: &str) -> Result<String, Error> {
    let path = format!("{CONF}/{link}/{setting}");
    let text = fs::read_to_string(&path).map_err(failing("read", &path))?;
    Ok(text.trim().to_owned())
}

fn put(link: &str, setting: &str, value: &str) -> Result<(), Error> {
    if get(link, setting)? == value {
        return Ok(());
    }
    let path = format!("{CONF}/{link}/{setting}");
    fs::write(&path, format!("{value}\n")).map_err(failing(&format!("write {value} to"), &path))
}

fn failing(verb: &str, path: &str) -> impl FnOnce(io::Error) -> Error + use<> {
    let action = format!("{verb} {path}");
    move |source| Error::System { action, source }
}
