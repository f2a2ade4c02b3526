//! The requests about links that sit on another one: macvlan, ipvlan, and what may be below them.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoIpVlan, InfoKind, InfoMacVlan, InfoVlan, IpVlanFlags, IpVlanMode, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage, MacVlanMode,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use super::link_named;
use crate::netlink::Request;
use crate::sublink::{IpvlanFlag, IpvlanMode, MacvlanMode, SublinkKind};

/// A link `name`, down, on the link with index `parent` of this namespace, in the namespace `netns` from the beginning.
pub(crate) fn create_sublink(
    name: &str,
    kind: SublinkKind,
    parent: u32,
    mac: [u8; 6],
    mtu: Option<u32>,
    netns: BorrowedFd<'_>,
) -> Request<RouteNetlinkMessage> {
    let mut message = link_named(name);
    message.attributes.push(LinkAttribute::Link(parent));
    message.attributes.push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    if let SublinkKind::Macvlan(_) = kind {
        message.attributes.push(LinkAttribute::Address(mac.to_vec()));
    }
    message.attributes.push(LinkAttribute::LinkInfo(info(kind)));
    create(
        format!("create {kind} link {name} in the container's network namespace"),
        message,
    )
}

/// Asks for a link of this kind that cannot be, as it is on none: of the answers tells one that the kind is unknown.
pub(crate) fn probe_sublink(kind: SublinkKind) -> Request<RouteNetlinkMessage> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::LinkInfo(info(kind)));
    create(format!("ask for links of kind {kind}"), message)
}

/// The VLAN `id` of the link with index `parent`, up.
pub(crate) fn create_vlan(name: &str, parent: u32, id: u16) -> Request<RouteNetlinkMessage> {
    let mut message = link_named(name);
    message.attributes.push(LinkAttribute::Link(parent));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Vlan),
        LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(id)])),
    ]));
    create(format!("create VLAN link {name}"), up(message))
}

/// A link that leads nowhere, up.
pub(crate) fn create_dummy(name: &str) -> Request<RouteNetlinkMessage> {
    let mut message = link_named(name);
    let info = vec![LinkInfo::Kind(InfoKind::Dummy)];
    message.attributes.push(LinkAttribute::LinkInfo(info));
    create(format!("create dummy link {name}"), up(message))
}

/// Gives the link with index `index` another name. It has to be down.
pub(crate) fn rename(index: u32, name: &str) -> Request<RouteNetlinkMessage> {
    let mut message = link_named(name);
    message.header.index = index;
    Request {
        action: format!("name the link in the container's network namespace {name}"),
        message: RouteNetlinkMessage::SetLink(message),
        flags: 0,
    }
}

/// Sends out by the link with index `index` whatever has no better route: each destination counts as a neighbour.
pub(crate) fn add_default_route_by(index: u32) -> Request<RouteNetlinkMessage> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Link;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![RouteAttribute::Oif(index)];
    Request {
        action: "add the default route".to_owned(),
        message: RouteNetlinkMessage::NewRoute(message),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    }
}

fn info(kind: SublinkKind) -> Vec<LinkInfo> {
    match kind {
        SublinkKind::Macvlan(mode) => {
            let mode = match mode {
                MacvlanMode::Bridge => MacVlanMode::Bridge,
                MacvlanMode::Private => MacVlanMode::Private,
                MacvlanMode::Vepa => MacVlanMode::Vepa,
                MacvlanMode::Passthru => MacVlanMode::Passthrough,
            };
            vec![
                LinkInfo::Kind(InfoKind::MacVlan),
                LinkInfo::Data(InfoData::MacVlan(vec![InfoMacVlan::Mode(mode)])),
            ]
        }
        SublinkKind::Ipvlan(mode, flag) => {
            let mode = match mode {
                IpvlanMode::L2 => IpVlanMode::L2,
                IpvlanMode::L3 => IpVlanMode::L3,
                IpvlanMode::L3s => IpVlanMode::L3S,
            };
            let flags = match flag {
                IpvlanFlag::Bridge => IpVlanFlags::empty(),
                IpvlanFlag::Private => IpVlanFlags::Private,
                IpvlanFlag::Vepa => IpVlanFlags::Vepa,
            };
            vec![
                LinkInfo::Kind(InfoKind::IpVlan),
                LinkInfo::Data(InfoData::IpVlan(vec![
                    InfoIpVlan::Mode(mode),
                    InfoIpVlan::Flags(flags),
                ])),
            ]
        }
    }
}

fn up(mut message: LinkMessage) -> LinkMessage {
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
}

fn create(action: String, message: LinkMessage) -> Request<RouteNetlinkMessage> {
    Request {
        action,
        message: RouteNetlinkMessage::NewLink(message),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    }
}
