//! The bridge itself: made once, checked at each start of the manager, taken away only on demand.

use std::fs;
use std::io;
use std::net::Ipv4Addr;

use crate::netlink::{Netfilter, Route};
use crate::nft::{self, Ruleset};
use crate::owner;
use crate::route::{self, Link};
use crate::subnet::{Subnet, mac_of};
use crate::subnet6::Subnet6;
use crate::v6::Bridge6;
use crate::{Error, ipv6};

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
/// The longest name of a link, without the NUL (`IFNAMSIZ`).
const LINK_NAME_BYTES_MAX: usize = libc::IFNAMSIZ - 1;

/// A containers' network: a bridge on the host whose address is the containers' gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// The bridge link's name, at most 15 bytes.
    pub name: String,
    /// The bridge's address: a host's address in the subnet.
    pub gateway: Ipv4Addr,
    /// Length of the subnet's prefix in bits, from 8 to 30.
    pub prefix: u8,
    /// Whose the bridge and its links are, without a colon; written into their aliases. Empty: nobody asks.
    pub owner: String,
    /// Nothing gets out of it or into it but what the host itself sends.
    pub internal: bool,
    /// The largest packet, in bytes; None: the kernel's choice.
    pub mtu: Option<u32>,
    /// None: without IPv6.
    pub v6: Option<Bridge6>,
}

/// A container's link, as it is found on the host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attached {
    /// See [`crate::link_name`].
    pub name: String,
    /// Its other end is up, which an attachment makes last, together with all else inside. One that is not may have
    /// been begun by a manager that was killed, or set down by the container.
    pub is_complete: bool,
}

impl Default for Bridge {
    /// `berth0` with 172.30.0.1/16.
    fn default() -> Self {
        Self {
            name: "berth0".to_owned(),
            gateway: Ipv4Addr::new(172, 30, 0, 1),
            prefix: 16,
            owner: String::new(),
            internal: false,
            mtu: None,
            v6: None,
        }
    }
}

impl Bridge {
    /// Makes all of the network that is missing: the bridge, up, with the gateway's address; forwarding of
    /// IPv4 by the host; the rules in nftables' `table inet berth`. When all is there, nothing is written.
    ///
    /// # Errors
    /// A name, gateway or prefix that cannot be; a subnet that overlaps a route or address of the host; a
    /// link of that name which is not this bridge; a bridge that another owner's containers use; whatever the kernel refuses. A bridge made by this call is
    /// taken away again.
    pub fn ensure(&self) -> Result<(), Error> {
        let subnet = self.checked_subnet()?;
        let mut route = Route::open()?;
        let created = self.ensure_link(&mut route, subnet)?;
        let result = self.ensure_v6(&mut route).and_then(|()| {
            enable(IP_FORWARD)?;
            let mut netfilter = Netfilter::open()?;
            Ruleset::shared().ensure(&mut netfilter)?;
            if self.v6.is_some() {
                Ruleset::shared6().ensure(&mut netfilter)?;
            }
            self.ruleset(subnet).ensure(&mut netfilter)?;
            // After the rule that keeps others from loopback: by this its ports are reached from there.
            enable(&format!("/proc/sys/net/ipv4/conf/{}/route_localnet", self.name))
        });
        if result.is_err() && created {
            // The first error is the one to tell.
            let _ = route.change(vec![route::delete_link(&self.name)]);
        }
        result
    }

    /// Takes the bridge and its rules away; fine if there are none. Containers attached to it lose their
    /// network. Forwarding by the host stays on: others may rely on it.
    pub fn remove(&self) -> Result<(), Error> {
        let subnet = self.checked_subnet()?;
        let mut route = Route::open()?;
        let rules = Netfilter::open().and_then(|mut netfilter| self.ruleset(subnet).remove(&mut netfilter));
        let link = match route.link(&self.name)? {
            None => Ok(()),
            Some(link) => self
                .check_kind(&link)
                .and_then(|()| delete_if_there(&mut route, &self.name)),
        };
        rules.and(link)
    }

    /// The links on the host that belong to containers of this network: its veth ports with our prefix, and if the
    /// bridge has an owner, with its mark.
    pub fn attached(&self) -> Result<Vec<Attached>, Error> {
        let mut route = Route::open()?;
        let Some(bridge) = route.link(&self.name)? else {
            return Ok(Vec::new());
        };
        let ports = route.veth_ports(bridge.index)?;
        Ok(ports
            .into_iter()
            .filter(|link| crate::endpoint::is_ours(&link.name) && self.owns(link))
            .map(|link| Attached {
                name: link.name,
                is_complete: link.has_carrier,
            })
            .collect())
    }

    /// Chains of others that drop forwarded packets by policy, each as `table ip filter chain FORWARD`.
    ///
    /// Their tables are not ours to change, and no rule of ours overrules them: with one of them, containers
    /// reach the outside only if it has a rule that accepts the bridge. dockerd leaves such a chain behind.
    pub fn dropping_forward_chains() -> Result<Vec<String>, Error> {
        nft::dropping_forward_chains(&mut Netfilter::open()?)
    }

    /// Whether a link of this name is there, of whatever kind.
    pub fn is_taken(name: &str) -> Result<bool, Error> {
        Ok(Route::open()?.link(name)?.is_some())
    }

    /// Names of the bridges that have the mark of `owner`.
    pub fn all_of(owner: &str) -> Result<Vec<String>, Error> {
        let links = Route::open()?.links()?;
        let own = |link: &Link| link.kind == "bridge" && owner::read(&link.alias) == Some(owner);
        Ok(links.into_iter().filter(own).map(|link| link.name).collect())
    }

    /// The first of `candidates`, each an address and the length of a prefix, that overlaps no address and no route of
    /// this host and none of `taken`.
    pub fn free_subnet(
        candidates: impl IntoIterator<Item = (Ipv4Addr, u8)>,
        taken: &[(Ipv4Addr, u8)],
    ) -> Result<Option<(Ipv4Addr, u8)>, Error> {
        let mut route = Route::open()?;
        let addresses = route.addresses()?.into_iter();
        let mut used: Vec<Subnet> = addresses
            .map(|found| Subnet::of(found.address, found.prefix))
            .collect();
        used.extend(route.routes()?.into_iter().map(|found| found.destination));
        used.extend(
            taken
                .iter()
                .map(|(address, prefix)| Subnet::of(*address, *prefix)),
        );
        Ok(candidates.into_iter().find(|(address, prefix)| {
            let subnet = Subnet::of(*address, *prefix);
            !used.iter().any(|used| used.overlaps(subnet))
        }))
    }

    fn ruleset(&self, subnet: Subnet) -> Ruleset {
        if self.internal {
            return Ruleset::internal(&self.name);
        }
        let ruleset = Ruleset::new(&self.name, subnet);
        match self.v6 {
            Some(v6) => ruleset.with_v6(&self.name, Subnet6::of(v6.gateway, v6.prefix)),
            None => ruleset,
        }
    }

    /// The subnet, once name, gateway and prefix are known to be right.
    pub(crate) fn checked_subnet(&self) -> Result<Subnet, Error> {
        let fits = (1..=LINK_NAME_BYTES_MAX).contains(&self.name.len());
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if !fits || !self.name.as_bytes()[0].is_ascii_alphabetic() || !self.name.bytes().all(allowed) {
            let rule = format!(
                "must be 1 to {LINK_NAME_BYTES_MAX} letters, digits, '-', '_' or '.', beginning with a letter"
            );
            return Err(Error::invalid("bridge name", &format!("{:?}", self.name), rule));
        }
        self.checked_subnet6()?;
        Subnet::of_gateway(self.gateway, self.prefix)
    }

    /// The bridge link, up, with its address. Returns whether this call made it.
    fn ensure_link(&self, route: &mut Route, subnet: Subnet) -> Result<bool, Error> {
        let existing = route.link(&self.name)?;
        if let Some(link) = &existing {
            self.check_kind(link)?;
            self.check_owner(route, link)?;
            if self.has_address(route, link)? {
                self.mark(route, link)?;
                self.settle_ipv6()?;
                if !link.is_up {
                    route.change(vec![route::set_up(&self.name)])?;
                }
                return Ok(false);
            }
        }
        self.check_overlap(route, subnet, existing.as_ref())?;
        let (link, created) = match existing {
            Some(link) => (link, false),
            None => self.create(route)?,
        };
        self.mark(route, &link)?;
        self.settle_ipv6()?;
        let address = route::add_address(link.index, &self.name, self.gateway, subnet);
        let changes = if link.is_up {
            vec![address]
        } else {
            vec![route::set_up(&self.name), address]
        };
        match route.change(changes) {
            // Another call was quicker.
            Err(error) if error.errno() == Some(libc::EEXIST) => Ok(created),
            Err(error) => {
                if created {
                    let _ = route.change(vec![route::delete_link(&self.name)]);
                }
                Err(error)
            }
            Ok(()) => Ok(created),
        }
    }

    fn create(&self, route: &mut Route) -> Result<(Link, bool), Error> {
        let created = match route.change(vec![route::create_bridge(
            &self.name,
            mac_of(self.gateway),
            self.mtu,
        )]) {
            Err(error) if error.errno() == Some(libc::EEXIST) => false,
            result => result.map(|()| true)?,
        };
        let link = route.link(&self.name)?.ok_or_else(|| self.vanished())?;
        self.check_kind(&link)?;
        Ok((link, created))
    }

    /// Without IPv6 no container has such an address by us. On the bridge the host would take one, and routes, from any
    /// container that claims to be a router (CVE-2020-13401), and serve its neighbours at the link's own address.
    fn settle_ipv6(&self) -> Result<(), Error> {
        if self.v6.is_some() {
            return self.turn_ipv6_on();
        }
        ipv6::turn_off(&self.name)
    }

    /// Whether a link has the mark of this bridge's owner.
    pub(crate) fn owns(&self, link: &Link) -> bool {
        self.owner.is_empty() || owner::read(&link.alias) == Some(&self.owner)
    }

    /// A bridge without ports serves nobody, whoever made it.
    fn check_owner(&self, route: &mut Route, link: &Link) -> Result<(), Error> {
        match owner::read(&link.alias) {
            Some(other) if !self.owns(link) => {
                let ports = route.veth_ports(link.index)?.len();
                if ports == 0 {
                    return Ok(());
                }
                Err(Error::OthersBridge {
                    name: self.name.clone(),
                    owner: other.to_owned(),
                    ports,
                })
            }
            _ => Ok(()),
        }
    }

    fn mark(&self, route: &mut Route, link: &Link) -> Result<(), Error> {
        if self.owns(link) {
            return Ok(());
        }
        route.change(vec![route::set_alias(&self.name, owner::of_bridge(&self.owner))])
    }

    fn vanished(&self) -> Error {
        Error::System {
            action: format!("look up bridge {} just made", self.name),
            source: io::Error::from_raw_os_error(libc::ENODEV),
        }
    }

    fn check_kind(&self, link: &Link) -> Result<(), Error> {
        if link.kind == "bridge" {
            return Ok(());
        }
        let kind = if link.kind.is_empty() {
            "a physical or loopback"
        } else {
            &link.kind
        };
        Err(Error::ForeignLink {
            name: self.name.clone(),
            difference: format!("is a link of kind {kind}, not a bridge"),
        })
    }

    /// Whether the bridge has the gateway's address. One with another address is not ours to change.
    fn has_address(&self, route: &mut Route, link: &Link) -> Result<bool, Error> {
        let addresses = route.addresses()?;
        let mut own = addresses
            .iter()
            .filter(|address| address.index == link.index)
            .peekable();
        let Some(first) = own.peek().copied() else {
            return Ok(false);
        };
        if own.any(|own| (own.address, own.prefix) == (self.gateway, self.prefix)) {
            return Ok(true);
        }
        Err(Error::ForeignLink {
            name: self.name.clone(),
            difference: format!(
                "has the address {}/{} and not {}/{}",
                first.address, first.prefix, self.gateway, self.prefix
            ),
        })
    }

    fn check_overlap(&self, route: &mut Route, subnet: Subnet, own: Option<&Link>) -> Result<(), Error> {
        let is_own = |index| own.is_some_and(|link| link.index == index);
        let address = route
            .addresses()?
            .into_iter()
            .find(|found| !is_own(found.index) && Subnet::of(found.address, found.prefix).overlaps(subnet));
        let found = match address {
            Some(found) => Some((
                format!("the address {}/{}", found.address, found.prefix),
                Some(found.index),
            )),
            None => route
                .routes()?
                .into_iter()
                .find(|found| !found.index.is_some_and(is_own) && found.destination.overlaps(subnet))
                .map(|found| (format!("the route to {}", found.destination), found.index)),
        };
        let Some((mut found, index)) = found else {
            return Ok(());
        };
        if let Some((_, name)) = route
            .link_names()?
            .into_iter()
            .find(|(link, _)| Some(*link) == index)
        {
            found = format!("{found} of link {name}");
        }
        Err(Error::Overlap {
            subnet: subnet.to_string(),
            bridge: self.name.clone(),
            found,
        })
    }
}

/// Deletes a link; fine if there is none.
pub(crate) fn delete_if_there(route: &mut Route, name: &str) -> Result<(), Error> {
    match route.change(vec![route::delete_link(name)]) {
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
        result => result,
    }
}

fn enable(setting: &str) -> Result<(), Error> {
    let error = |verb| {
        move |source| Error::System {
            action: format!("{verb} {setting}"),
            source,
        }
    };
    if fs::read_to_string(setting).map_err(error("read"))?.trim() == "0" {
        fs::write(setting, "1\n").map_err(error("write 1 to"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_or_a_shell_would_misread_are_refused() {
        for name in [
            "",
            "a-name-of-16-byt",
            "a/b",
            "..",
            "a b",
            "-a",
            "br\u{e9}",
            "a\0",
        ] {
            let bridge = Bridge {
                name: name.to_owned(),
                ..Bridge::default()
            };
            let error = bridge.checked_subnet().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("bridge name {name:?}: must be")),
                "{error}"
            );
        }
        assert_eq!(
            Bridge::default().checked_subnet().unwrap().to_string(),
            "172.30.0.0/16"
        );
    }
}
