//! Addresses and routes of IPv6.

use std::net::{IpAddr, Ipv6Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::object::{LinkAddress6, RouteTo6, read_address6, read_route6};
use crate::Error;
use crate::netlink::{Request, Route};
use crate::subnet6::Subnet6;

impl Route {
    /// All IPv6 addresses of all links, but those that are valid on one link alone.
    pub(crate) fn addresses6(&mut self) -> Result<Vec<LinkAddress6>, Error> {
        let request = || {
            let mut message = AddressMessage::default();
            message.header.family = AddressFamily::Inet6;
            let message = RouteNetlinkMessage::GetAddress(message);
            Request {
                action: "list addresses of IPv6".to_owned(),
                message,
                flags: 0,
            }
        };
        self.dump(request, read_address6)
    }

    /// The IPv6 routes of the main table that are more than a default route.
    pub(crate) fn routes6(&mut self) -> Result<Vec<RouteTo6>, Error> {
        let request = || {
            let mut message = RouteMessage::default();
            message.header.address_family = AddressFamily::Inet6;
            let message = RouteNetlinkMessage::GetRoute(message);
            Request {
                action: "list routes of IPv6".to_owned(),
                message,
                flags: 0,
            }
        };
        self.dump(request, read_route6)
    }
}

/// Gives the link with index `index`, called `name` in errors, an address of `subnet`, to be used at once: nobody else has
/// it, so it is not first asked for.
pub(crate) fn add_address6(
    index: u32,
    name: &str,
    address: Ipv6Addr,
    subnet: Subnet6,
) -> Request<RouteNetlinkMessage> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet6;
    message.header.prefix_len = subnet.prefix();
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Address(IpAddr::V6(address)),
        AddressAttribute::Flags(AddressFlags::Nodad),
    ];
    Request {
        action: format!("add address {address}/{} to {name}", subnet.prefix()),
        message: RouteNetlinkMessage::NewAddress(message),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    }
}

/// Routes by `gateway` whatever has no better route.
pub(crate) fn add_default_route6(index: u32, gateway: Ipv6Addr) -> Request<RouteNetlinkMessage> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet6;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        RouteAttribute::Gateway(RouteAddress::Inet6(gateway)),
        RouteAttribute::Oif(index),
    ];
    Request {
        action: format!("add the default route via {gateway}"),
        message: RouteNetlinkMessage::NewRoute(message),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    }
}
