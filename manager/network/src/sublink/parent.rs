//! The link of the host below those of containers, where a manager makes it: a VLAN, or one that leads nowhere. It is
//! marked as a bridge is, and goes with its network.

use std::io;

use crate::Error;
use crate::bridge::delete_if_there;
use crate::netlink::{Request, Route};
use crate::owner;
use crate::route::{self, Link};
use netlink_packet_route::RouteNetlinkMessage;

/// What 802.1Q leaves to use; 0 and 4095 are reserved.
const VLANS: std::ops::RangeInclusive<u16> = 1..=4094;

/// Make the VLAN link that a name like `eth0.10` means. Its index.
pub(super) fn make_vlan(host: &mut Route, name: &str, owner: &str) -> Result<u32, Error> {
    let missing = || {
        let rule = "there is no such link on the host: `ip link` shows which there are, and one like eth0.10 is made, VLAN 10 of eth0";
        Error::invalid("parent", &name, rule)
    };
    let (below, id) = split(name).ok_or_else(missing)?;
    let below = host.link(below)?.ok_or_else(missing)?;
    make(
        host,
        name,
        owner,
        "vlan",
        route::create_vlan(name, below.index, id),
    )
}

/// Make a link that leads nowhere. Its index.
pub(super) fn make_dummy(host: &mut Route, name: &str, owner: &str) -> Result<u32, Error> {
    make(host, name, owner, "dummy", route::create_dummy(name))
}

fn make(
    host: &mut Route,
    name: &str,
    owner: &str,
    kind: &str,
    request: Request<RouteNetlinkMessage>,
) -> Result<u32, Error> {
    // One message, for nothing may come in between.
    let mark = route::set_alias(name, owner::of_bridge(owner));
    match host.change(vec![request, mark]) {
        Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => {
            return Err(super::no_module(kind.to_owned()));
        }
        // Another call was quicker.
        Err(error) if error.errno() == Some(libc::EEXIST) => {}
        made => made?,
    }
    let link = host.link(name)?.ok_or_else(|| Error::System {
        action: format!("look up link {name} just made"),
        source: io::Error::from_raw_os_error(libc::ENODEV),
    })?;
    Ok(link.index)
}

/// Names of those that were made for `owner`.
pub(super) fn all_of(host: &mut Route, owner: &str) -> Result<Vec<String>, Error> {
    let links = host.links()?.into_iter().filter(|link| is_made_by(link, owner));
    Ok(links.map(|link| link.name).collect())
}

/// Take it away if it was made for `owner`.
pub(super) fn remove(host: &mut Route, name: &str, owner: &str) -> Result<(), Error> {
    match host.link(name)? {
        Some(link) if is_made_by(&link, owner) => delete_if_there(host, name),
        _ => Ok(()),
    }
}

fn is_made_by(link: &Link, owner: &str) -> bool {
    matches!(link.kind.as_str(), "vlan" | "dummy") && link.alias == owner::of_bridge(owner)
}

/// `eth0` and 10 of `eth0.10`.
fn split(name: &str) -> Option<(&str, u16)> {
    let (below, id) = name.rsplit_once('.')?;
    let is_plain = !below.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
    let id = id.parse().ok().filter(|id| is_plain && VLANS.contains(id))?;
    Some((below, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vlan_is_named_by_its_parent_and_number() {
        assert_eq!(split("eth0.10"), Some(("eth0", 10)));
        assert_eq!(split("bond0.20.4094"), Some(("bond0.20", 4094)));
        for name in [
            "eth0",
            "eth0.",
            ".10",
            "eth0.0",
            "eth0.4095",
            "eth0.+1",
            "eth0.x",
            "eth0.65546",
        ] {
            assert_eq!(split(name), None, "{name}");
        }
    }
}
