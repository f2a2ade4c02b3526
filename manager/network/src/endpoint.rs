//! A container's end of the network: a veth pair from its network namespace to the bridge.
//!
//! The pair's end on the host is named from the container's id, so its owner can be found, and is all that has
//! to be deleted: the other end goes with it. When a container's namespace ends, the kernel takes both away.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;
use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

use crate::bridge::{Bridge, delete_if_there};
use crate::netlink::Route;
use crate::route::{self, Link};
use crate::subnet::{Subnet, mac_of};
use crate::sysctl::{self, LinkSysctl};
use crate::{Error, ipv6, namespace, owner, v6};

const PREFIX: &str = "bth";
const NAME_DIGITS: usize = 12;
/// How often a link that is being deleted is looked for.
const DETACH_POLL: Duration = Duration::from_micros(100);
/// The link's name inside the container.
const INSIDE: &str = "eth0";

/// What is to be attached, and with which address.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint<'a> {
    /// The container's id.
    pub container_id: &'a str,
    /// What its link on the host is named from: the container's id on the first network, see [`link_id`] for others.
    pub link_id: &'a str,
    /// Its address: free, and of the bridge's subnet.
    pub address: Ipv4Addr,
    /// Its network namespace, as `/proc/<pid>/ns/net` opened.
    pub netns: BorrowedFd<'a>,
    /// The link's name inside.
    pub inside: &'a str,
    /// None: the one that goes with its address.
    pub mac: Option<[u8; 6]>,
    /// What has no better route leaves by it, and no longer by another link.
    pub default_route: bool,
    /// Its address of IPv6: free, and of the bridge's subnet; none on a bridge without IPv6.
    pub address6: Option<Ipv6Addr>,
    /// The same by IPv6.
    pub default_route6: bool,
    /// More addresses, which are valid on its link alone; of IPv6 only where it has `address6`.
    pub link_local: &'a [IpAddr],
    /// To be set on its link inside, before that is up.
    pub sysctls: &'a [LinkSysctl],
}

impl<'a> Endpoint<'a> {
    /// A container's first and only network: `eth0`, with the default route.
    pub fn only(container_id: &'a str, address: Ipv4Addr, netns: BorrowedFd<'a>) -> Self {
        Self {
            container_id,
            link_id: container_id,
            address,
            netns,
            inside: INSIDE,
            mac: None,
            default_route: true,
            address6: None,
            default_route6: false,
            link_local: &[],
            sysctls: &[],
        }
    }
}

/// What the link of a container on one more network is named from.
pub fn link_id(container_id: &str, network_id: &str) -> String {
    let both = [container_id.as_bytes(), network_id.as_bytes()].concat();
    format!("{:012x}", fnv1a(&both) >> 16)
}

impl Bridge {
    /// Attaches a container: inside, `eth0` with the address and a default route by the gateway, and `lo`,
    /// both up; on the host a port of the bridge. If the bridge is gone or has lost its mark, it is made again
    /// first.
    ///
    /// # Errors
    /// An address outside the subnet or the gateway's own; a container attached already; a namespace that has
    /// an `eth0`; whatever the kernel refuses. Nothing is left then on the host or in the namespace, except
    /// that `lo` may be up.
    pub fn attach(&self, endpoint: &Endpoint<'_>) -> Result<(), Error> {
        let subnet = self.checked_subnet()?;
        self.check_address(endpoint, subnet)?;
        self.check_address6(endpoint)?;
        let name = link_name(endpoint.link_id);

        let mut host = Route::open()?;
        let bridge = self.bridge_link(&mut host)?.index;
        // Entered before anything is made, so that a descriptor which is no namespace leaves no trace.
        namespace::within(endpoint.netns, || {
            let mut inside = Route::open()?;
            self.make_pair(&mut host, bridge, endpoint, &name)?;
            let configured = self.configure(&mut inside, endpoint, subnet);
            if configured.is_err() {
                // The first error is the one to tell; a link that stays has its owner in its name.
                let _ = delete_if_there(&mut host, &name);
            }
            configured
        })
    }

    /// The pair, its end on the host a port of the bridge with index `bridge`, and up.
    fn make_pair(
        &self,
        host: &mut Route,
        bridge: u32,
        endpoint: &Endpoint<'_>,
        name: &str,
    ) -> Result<(), Error> {
        let mac = endpoint.mac.unwrap_or_else(|| mac_of(endpoint.address));
        let alias = (!self.owner.is_empty()).then(|| owner::of_container(&self.owner, endpoint.container_id));
        // In one message, for nothing may come in between; a new link can be given neither an alias nor what is said
        // of IPv6 yet.
        let changes = vec![
            route::create_veth(name, bridge, endpoint.inside, mac, self.mtu, endpoint.netns),
            route::prepare_port(name, alias, ipv6::is_there()),
            route::set_up(name),
        ];
        host.change(changes).or_else(|error| {
            let attached = error.errno() == Some(libc::EEXIST) && host.link(name)?.is_some();
            if attached {
                return Err(Error::AlreadyAttached {
                    container_id: endpoint.container_id.to_owned(),
                    link: name.to_owned(),
                });
            }
            // The pair may have been made, and not what follows it.
            if error.errno() != Some(libc::EEXIST) {
                let _ = delete_if_there(host, name);
            }
            Err(error)
        })
    }

    /// Detaches a container; fine if it is not attached, or was never.
    ///
    /// The kernel takes a link off the bridge and out of sight within a millisecond, but answers only when
    /// no CPU can hold a reference any more, 20 to 50 ms later. So a thread waits for that, and this returns
    /// when the link is out of sight: its name and the address may be used again.
    pub fn detach(&self, link_id: &str) -> Result<(), Error> {
        let name = link_name(link_id);
        let mut host = Route::open()?;
        if host.link(&name)?.is_none() {
            return Ok(());
        }
        let mut deleting = Route::open()?;
        let link = name.clone();
        let deleter = thread::Builder::new()
            .name("detach".to_owned())
            .spawn(move || delete_if_there(&mut deleting, &link))
            .map_err(|source| Error::System {
                action: format!("start a thread to delete {name}"),
                source,
            })?;
        while !deleter.is_finished() {
            if host.link(&name)?.is_none() {
                return Ok(());
            }
            thread::sleep(DETACH_POLL);
        }
        deleter.join().unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// The end inside. The calling thread is in its namespace.
    fn configure(&self, inside: &mut Route, endpoint: &Endpoint<'_>, subnet: Subnet) -> Result<(), Error> {
        let link = endpoint.inside;
        if endpoint.address6.is_some() {
            v6::prepare_inside(link)?;
        } else {
            ipv6::turn_off(link)?;
        }
        sysctl::set_all(link, endpoint.sysctls)?;
        let index = inside.link(link)?.ok_or_else(|| missing(link))?.index;
        // In one message: a process that is killed inside the call has made all of it, or none. So a link that is up
        // has its address.
        let mut changes = vec![
            route::set_loopback_up(),
            route::add_address(index, link, endpoint.address, subnet),
            route::set_up(link),
        ];
        if endpoint.default_route && !self.internal {
            changes.push(route::replacing(route::add_default_route(index, self.gateway)));
        }
        changes.extend(self.configuring6(endpoint, index)?);
        let link_local = endpoint.link_local.iter();
        changes.extend(link_local.map(|address| route::add_link_local(index, link, *address)));
        inside.change(changes)
    }

    /// Whether the link `inside` of the namespace `netns` has this address: one that has not was left half made, or
    /// changed by the container.
    pub fn is_set_up(netns: BorrowedFd<'_>, inside: &str, address: Ipv4Addr) -> Result<bool, Error> {
        let mut route = namespace::open_route(netns)?;
        let Some(link) = route.link(inside)? else {
            return Ok(false);
        };
        let mut found = route.addresses()?.into_iter();
        Ok(found.any(|found| found.index == link.index && found.address == address))
    }

    /// Lets what has no better route leave the namespace `netns` by its link `inside` on this bridge, unless it has a way
    /// already.
    pub fn route_by(&self, netns: BorrowedFd<'_>, inside: &str) -> Result<(), Error> {
        let mut route = namespace::open_route(netns)?;
        let index = route.link(inside)?.ok_or_else(|| missing(inside))?.index;
        match route.change(vec![route::add_default_route(index, self.gateway)]) {
            Err(error) if error.errno() == Some(libc::EEXIST) => Ok(()),
            added => added,
        }
    }

    /// Lets nothing leave the namespace `netns` by its link `inside` for want of a better route, by IPv4 or by IPv6: what
    /// others have routed there.
    pub fn route_no_more(netns: BorrowedFd<'_>, inside: &str, is_ipv4: bool) -> Result<(), Error> {
        let mut route = namespace::open_route(netns)?;
        let index = route.link(inside)?.ok_or_else(|| missing(inside))?.index;
        match route.change(vec![route::delete_default_route(index, is_ipv4)]) {
            Err(error) if error.errno() == Some(libc::ESRCH) => Ok(()),
            deleted => deleted,
        }
    }

    fn bridge_link(&self, host: &mut Route) -> Result<Link, Error> {
        if let Some(link) = host.link(&self.name)?
            && self.owns(&link)
        {
            return Ok(link);
        }
        self.ensure()?;
        host.link(&self.name)?.ok_or_else(|| missing(&self.name))
    }

    fn check_address(&self, endpoint: &Endpoint<'_>, subnet: Subnet) -> Result<(), Error> {
        if endpoint.container_id.is_empty() {
            return Err(Error::invalid("container id", &"\"\"", "must not be empty"));
        }
        if !subnet.is_host(endpoint.address) {
            let rule = format!("must be a host's address in {subnet}, not its first or last");
            return Err(Error::address(endpoint.address, rule));
        }
        if endpoint.address == self.gateway {
            return Err(Error::address(
                endpoint.address,
                format!("is the gateway's, of bridge {}", self.name),
            ));
        }
        Ok(())
    }
}

/// The name of a container's link on the host: `bth` and the first 12 hex digits of its id. An id that does
/// not begin so is hashed.
pub fn link_name(container_id: &str) -> String {
    match container_id.get(..NAME_DIGITS) {
        Some(digits) if is_hex(digits) => format!("{PREFIX}{digits}"),
        _ => format!("{PREFIX}{:012x}", fnv1a(container_id.as_bytes()) >> 16),
    }
}

/// Whether a link of this name may be a container's.
pub(crate) fn is_ours(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .is_some_and(|digits| digits.len() == NAME_DIGITS && is_hex(digits))
}

fn is_hex(digits: &str) -> bool {
    digits
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// 64-bit FNV-1a: the same in every version, as names outlive the program, which the standard library's hash
/// does not promise.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

pub(crate) fn missing(name: &str) -> Error {
    Error::System {
        action: format!("look up link {name} just made"),
        source: io::Error::from_raw_os_error(libc::ENODEV),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_links_name_tells_its_container() {
        let id = "4f66ad9a0b2e51c6f7bd2bb5a2c1a6d4d0a4c9d8e5f60718293a4b5c6d7e8f90";
        assert_eq!(link_name(id), "bth4f66ad9a0b2e");
        assert!(is_ours(&link_name(id)));
    }

    #[test]
    fn any_id_has_a_name_that_fits_and_lasts() {
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        for id in ["web", "", "4F66AD9A0B2E51", "äöüäöüäöü", "4f66ad9a0b2"] {
            let name = link_name(id);
            assert!(name.len() < libc::IFNAMSIZ && is_ours(&name), "{name}");
        }
        assert_ne!(link_name("web"), link_name("web2"));
    }

    #[test]
    fn other_links_are_not_ours() {
        for name in [
            "berth0",
            "bth",
            "bthxyz",
            "veth4f66ad9a0b2",
            "bth4f66ad9a0b2",
            "bth4F66AD9A0B2E",
        ] {
            assert!(!is_ours(name), "{name}");
        }
    }
}
