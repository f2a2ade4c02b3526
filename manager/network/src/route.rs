//! The requests about links, addresses and routes that a bridge network needs, as rtnetlink(7) has them.

mod object;
mod sublink;
mod v6;

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, BridgeStpState, In6AddrGenMode, InfoBridge, InfoBridgePort, InfoData,
    InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::Error;
use crate::netlink::{Request, Route};
use crate::subnet::Subnet;
use crate::subnet6::Subnet6;
pub(crate) use object::{Link, LinkAddress, RouteTo};
use object::{read_address, read_route};
pub(crate) use sublink::{
    add_default_route_by, create_dummy, create_sublink, create_vlan, probe_sublink, rename,
};
pub(crate) use v6::{add_address6, add_default_route6};

/// The loopback link's index in every network namespace (`LOOPBACK_IFINDEX` of the kernel).
const LOOPBACK: u32 = 1;

impl Route {
    /// The link named `name`, if there is one.
    pub(crate) fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let message = RouteNetlinkMessage::GetLink(link_named(name));
        let action = format!("look up link {name}");
        self.get(
            Request {
                action,
                message,
                flags: 0,
            },
            Link::read,
        )
    }

    /// The veth links that are ports of the bridge with index `bridge`.
    pub(crate) fn veth_ports(&mut self, bridge: u32) -> Result<Vec<Link>, Error> {
        let request = || {
            // The kernel chooses by these two; one that does not know them lists all.
            let mut message = LinkMessage::default();
            message.attributes.push(LinkAttribute::Controller(bridge));
            message
                .attributes
                .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]));
            let message = RouteNetlinkMessage::GetLink(message);
            Request {
                action: "list the bridge's ports".to_owned(),
                message,
                flags: 0,
            }
        };
        self.dump(request, |payload| {
            let link = Link::read(payload)?;
            Ok((link.master == Some(bridge) && link.kind == "veth").then_some(link))
        })
    }

    /// All links' names with their indices.
    pub(crate) fn link_names(&mut self) -> Result<Vec<(u32, String)>, Error> {
        let links = self.links()?.into_iter();
        Ok(links.map(|link| (link.index, link.name)).collect())
    }

    /// All links.
    pub(crate) fn links(&mut self) -> Result<Vec<Link>, Error> {
        let request = || {
            let message = RouteNetlinkMessage::GetLink(LinkMessage::default());
            Request {
                action: "list links".to_owned(),
                message,
                flags: 0,
            }
        };
        self.dump(request, |payload| Link::read(payload).map(Some))
    }

    /// All IPv4 addresses of all links.
    pub(crate) fn addresses(&mut self) -> Result<Vec<LinkAddress>, Error> {
        let request = || {
            let mut message = AddressMessage::default();
            message.header.family = AddressFamily::Inet;
            let message = RouteNetlinkMessage::GetAddress(message);
            Request {
                action: "list addresses".to_owned(),
                message,
                flags: 0,
            }
        };
        self.dump(request, read_address)
    }

    /// The IPv4 routes of the main table that are more than a default route.
    pub(crate) fn routes(&mut self) -> Result<Vec<RouteTo>, Error> {
        let request = || {
            let mut message = RouteMessage::default();
            message.header.address_family = AddressFamily::Inet;
            let message = RouteNetlinkMessage::GetRoute(message);
            Request {
                action: "list routes".to_owned(),
                message,
                flags: 0,
            }
        };
        self.dump(request, read_route)
    }
}

/// Makes the bridge, up and without the spanning tree protocol: its ports carry traffic at once, and there can
/// be no loop, as each leads to one container.
pub(crate) fn create_bridge(name: &str, mac: [u8; 6], mtu: Option<u32>) -> Request<RouteNetlinkMessage> {
    let mut message = link_named(name);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    // With an address of its own it does not take its lowest port's, which would change as containers come
    // and go and make their ARP entries for the gateway stale.
    message.attributes.push(LinkAttribute::Address(mac.to_vec()));
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Bridge),
        LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::StpState(
            BridgeStpState::Disabled,
        )])),
    ]));
    Request {
        action: format!("create bridge {name}"),
        message: RouteNetlinkMessage::NewLink(message),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    }
}

/// A veth pair: `name`, up, a port of the bridge, here; its peer `peer_name` in the namespace `netns`, down
/// (the kernel cannot start the first of a pair before the second is there).
pub(crate) fn create_veth(
    name: &str,
    bridge: u32,
    peer_name: &str,
    peer_mac: [u8; 6],
    mtu: Option<u32>,
    netns: BorrowedFd<'_>,
) -> Request<RouteNetlinkMessage> {
    let mut peer = link_named(peer_name);
    peer.attributes.push(LinkAttribute::Address(peer_mac.to_vec()));
    peer.attributes.extend(mtu.map(LinkAttribute::Mtu));
    peer.attributes.push(LinkAttribute::NetNsFd(netns.as_raw_fd()));

    let mut message = link_named(name);
    message.attributes.push(LinkAttribute::Controller(bridge));
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    Request {
        action: format!("create veth pair {name} with {peer_name} in the container's network namespace"),
        message: RouteNetlinkMessage::NewLink(message),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    }
}

/// Sets the link named `name` up.
pub(crate) fn set_up(name: &str) -> Request<RouteNetlinkMessage> {
    up(format!("set {name} up"), link_named(name))
}

/// Sets the loopback link up.
pub(crate) fn set_loopback_up() -> Request<RouteNetlinkMessage> {
    let mut message = LinkMessage::default();
    message.header.index = LOOPBACK;
    up("set lo up".to_owned(), message)
}

/// Writes whose the link named `name` is into its alias.
pub(crate) fn set_alias(name: &str, alias: String) -> Request<RouteNetlinkMessage> {
    let mut message = link_named(name);
    message.attributes.push(LinkAttribute::IfAlias(alias));
    Request {
        action: format!("set the alias of {name}"),
        message: RouteNetlinkMessage::SetLink(message),
        flags: 0,
    }
}

/// Writes whose the bridge's port named `name` is into its alias, if that is somebody's, and leaves it without the
/// address of IPv6 that the kernel would give it when it comes up.
pub(crate) fn prepare_port(
    name: &str,
    alias: Option<String>,
    has_ipv6: bool,
) -> Request<RouteNetlinkMessage> {
    let mut message = link_named(name);
    message.attributes.extend(alias.map(LinkAttribute::IfAlias));
    // A kernel without IPv6 refuses to hear of it.
    message.attributes.extend(has_ipv6.then(|| {
        let none = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![none])])
    }));
    Request {
        action: format!("set the alias of {name}, and that it has no address of IPv6"),
        message: RouteNetlinkMessage::SetLink(message),
        flags: 0,
    }
}

/// Lets the bridge send back by the port named `name` what came in by it.
pub(crate) fn set_hairpin(name: &str) -> Request<RouteNetlinkMessage> {
    let mut message = link_named(name);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)])),
    ]));
    Request {
        action: format!("let the bridge port {name} send back"),
        message: RouteNetlinkMessage::NewLink(message),
        flags: 0,
    }
}

fn up(action: String, mut message: LinkMessage) -> Request<RouteNetlinkMessage> {
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    Request {
        action,
        message: RouteNetlinkMessage::SetLink(message),
        flags: 0,
    }
}

/// Deletes the link named `name`; of a veth pair, both ends.
pub(crate) fn delete_link(name: &str) -> Request<RouteNetlinkMessage> {
    Request {
        action: format!("delete link {name}"),
        message: RouteNetlinkMessage::DelLink(link_named(name)),
        flags: 0,
    }
}

/// Deletes the link with index `index`.
pub(crate) fn delete_link_at(index: u32) -> Request<RouteNetlinkMessage> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    Request {
        action: format!("delete the link with index {index}"),
        message: RouteNetlinkMessage::DelLink(message),
        flags: 0,
    }
}

/// Gives the link with index `index`, called `name` in errors, an address of `subnet`.
pub(crate) fn add_address(
    index: u32,
    name: &str,
    address: Ipv4Addr,
    subnet: Subnet,
) -> Request<RouteNetlinkMessage> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = subnet.prefix();
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Address(IpAddr::V4(address)),
        AddressAttribute::Local(IpAddr::V4(address)),
        AddressAttribute::Broadcast(subnet.broadcast()),
    ];
    Request {
        action: format!("add address {address}/{} to {name}", subnet.prefix()),
        message: RouteNetlinkMessage::NewAddress(message),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    }
}

/// Gives the link with index `index`, called `name` in errors, an address that is valid on it alone, in a subnet as wide as
/// docker has it: of IPv4 all that are such (RFC 3927).
pub(crate) fn add_link_local(index: u32, name: &str, address: IpAddr) -> Request<RouteNetlinkMessage> {
    let mut request = match address {
        IpAddr::V4(address) => add_address(index, name, address, Subnet::of(address, 16)),
        IpAddr::V6(address) => add_address6(index, name, address, Subnet6::of(address, 64)),
    };
    if let RouteNetlinkMessage::NewAddress(message) = &mut request.message {
        // Else it might be taken for the sender's in packets to elsewhere.
        message.header.scope = AddressScope::Link;
    }
    request
}

/// Routes by `gateway` whatever has no better route.
pub(crate) fn add_default_route(index: u32, gateway: Ipv4Addr) -> Request<RouteNetlinkMessage> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        RouteAttribute::Gateway(RouteAddress::Inet(gateway)),
        RouteAttribute::Oif(index),
    ];
    Request {
        action: format!("add the default route via {gateway}"),
        message: RouteNetlinkMessage::NewRoute(message),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    }
}

/// Takes a default route of this family away that leaves by the link with index `index`, whoever made it.
pub(crate) fn delete_default_route(index: u32, is_ipv4: bool) -> Request<RouteNetlinkMessage> {
    let mut message = RouteMessage::default();
    let (family, name) = if is_ipv4 {
        (AddressFamily::Inet, "IPv4")
    } else {
        (AddressFamily::Inet6, "IPv6")
    };
    message.header.address_family = family;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    // Of whatever scope.
    message.header.scope = RouteScope::NoWhere;
    message.attributes = vec![RouteAttribute::Oif(index)];
    Request {
        action: format!("delete the default route of {name} by the link with index {index}"),
        message: RouteNetlinkMessage::DelRoute(message),
        flags: 0,
    }
}

/// The same route, in the place of the one that there may be to the same destination. In one step: at no instant is there
/// none.
pub(crate) fn replacing(mut route: Request<RouteNetlinkMessage>) -> Request<RouteNetlinkMessage> {
    route.flags = NLM_F_CREATE | NLM_F_REPLACE;
    route
}

fn link_named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}
