//! Links, addresses and routes as the kernel tells them: of each, what a bridge network asks for.

use std::net::{Ipv4Addr, Ipv6Addr};

use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::LinkFlags;
use netlink_packet_route::route::{RouteHeader, RouteType};

use crate::netlink::{each_attribute, text};
use crate::subnet::Subnet;
use crate::subnet6::Subnet6;

// From linux/if_link.h, linux/if_addr.h and linux/rtnetlink.h, for reading answers.
const LINK_HEADER_BYTES: usize = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_INFO_KIND: u16 = 1;
const ADDRESS_HEADER_BYTES: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const ROUTE_HEADER_BYTES: usize = 12;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_TABLE: u16 = 15;

/// What is read of a link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// `bridge`, `veth`, …; empty for hardware.
    pub(crate) kind: String,
    /// The index of the bridge it is a port of.
    pub(crate) master: Option<u32>,
    pub(crate) is_up: bool,
    /// It and what it leads to are up: of a veth, its other end.
    pub(crate) has_carrier: bool,
    /// Words for people and programs, which the kernel keeps and does not read; mostly empty.
    pub(crate) alias: String,
}

impl Link {
    pub(super) fn read(payload: &[u8]) -> Result<Self, String> {
        let (header, attributes) = split_header(payload, LINK_HEADER_BYTES)?;
        let flags = u32_at(header, 8);
        let mut link = Self {
            index: u32_at(header, 4),
            is_up: flags & LinkFlags::Up.bits() != 0,
            has_carrier: flags & LinkFlags::LowerUp.bits() != 0,
            ..Self::default()
        };
        each_attribute(attributes, |kind, value| match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_MASTER => link.master = as_u32(value),
            IFLA_IFALIAS => link.alias = text(value),
            IFLA_LINKINFO => {
                // A kind that cannot be read is one that is not ours.
                let _ = each_attribute(value, |kind, value| {
                    if kind == IFLA_INFO_KIND {
                        link.kind = text(value);
                    }
                });
            }
            _ => {}
        })?;
        Ok(link)
    }
}

/// An IPv4 address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkAddress {
    pub(crate) index: u32,
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix: u8,
}

/// An IPv6 address of a link, and of more than the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkAddress6 {
    pub(crate) index: u32,
    pub(crate) address: Ipv6Addr,
    pub(crate) prefix: u8,
}

/// An IPv6 route of the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RouteTo6 {
    pub(crate) destination: Subnet6,
    /// Index of the link it leaves by; routes with several next hops have none.
    pub(crate) index: Option<u32>,
}

/// An IPv4 route of the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RouteTo {
    pub(crate) destination: Subnet,
    /// Index of the link it leaves by; routes with several next hops have none.
    pub(crate) index: Option<u32>,
}

/// An address message's address, if it is one of IPv4.
pub(super) fn read_address(payload: &[u8]) -> Result<Option<LinkAddress>, String> {
    let (header, attributes) = split_header(payload, ADDRESS_HEADER_BYTES)?;
    let (family, prefix, index) = (header[0], header[1], u32_at(header, 4));
    let mut local = None;
    each_attribute(attributes, |kind, value| {
        if kind == IFA_LOCAL {
            local = as_ipv4(value);
        }
    })?;
    let is_ipv4 = family == u8::from(AddressFamily::Inet);
    Ok(local.filter(|_| is_ipv4).map(|address| LinkAddress {
        index,
        address,
        prefix,
    }))
}

/// A route message's route, if it can overlap a subnet.
pub(super) fn read_route(payload: &[u8]) -> Result<Option<RouteTo>, String> {
    let (header, attributes) = split_header(payload, ROUTE_HEADER_BYTES)?;
    let (family, prefix, route_type) = (header[0], header[1], header[7]);
    let mut table = u32::from(header[4]);
    let (mut destination, mut index) = (None, None);
    each_attribute(attributes, |kind, value| match kind {
        RTA_DST => destination = as_ipv4(value),
        RTA_OIF => index = as_u32(value),
        RTA_TABLE => table = as_u32(value).unwrap_or(table),
        _ => {}
    })?;
    let is_candidate = family == u8::from(AddressFamily::Inet)
        && table == u32::from(RouteHeader::RT_TABLE_MAIN)
        && route_type == u8::from(RouteType::Unicast)
        // Two halves of everything are how VPNs write a default route.
        && prefix > 1;
    Ok(destination.filter(|_| is_candidate).map(|destination| RouteTo {
        destination: Subnet::of(destination, prefix),
        index,
    }))
}

/// An address message's address, if it is one of IPv6 and reaches beyond its link.
pub(super) fn read_address6(payload: &[u8]) -> Result<Option<LinkAddress6>, String> {
    let (header, attributes) = split_header(payload, ADDRESS_HEADER_BYTES)?;
    let (family, prefix, index) = (header[0], header[1], u32_at(header, 4));
    let (mut local, mut address) = (None, None);
    each_attribute(attributes, |kind, value| match kind {
        // There only where the other end has an address, too, which then is the other one.
        IFA_LOCAL => local = as_ipv6(value),
        IFA_ADDRESS => address = as_ipv6(value),
        _ => {}
    })?;
    let found = local
        .or(address)
        .filter(|address| family == u8::from(AddressFamily::Inet6) && !address.is_unicast_link_local());
    Ok(found.map(|address| LinkAddress6 {
        index,
        address,
        prefix,
    }))
}

/// A route message's route, if it can overlap a subnet of containers.
pub(super) fn read_route6(payload: &[u8]) -> Result<Option<RouteTo6>, String> {
    let (header, attributes) = split_header(payload, ROUTE_HEADER_BYTES)?;
    let (family, prefix, route_type) = (header[0], header[1], header[7]);
    let mut table = u32::from(header[4]);
    let (mut destination, mut index) = (None, None);
    each_attribute(attributes, |kind, value| match kind {
        RTA_DST => destination = as_ipv6(value),
        RTA_OIF => index = as_u32(value),
        RTA_TABLE => table = as_u32(value).unwrap_or(table),
        _ => {}
    })?;
    let is_candidate = family == u8::from(AddressFamily::Inet6)
        && table == u32::from(RouteHeader::RT_TABLE_MAIN)
        && route_type == u8::from(RouteType::Unicast)
        // Halves of everything and all that is global unicast are ways to write a default route.
        && prefix > 3;
    let is_wide =
        |destination: &Ipv6Addr| !destination.is_unicast_link_local() && !destination.is_multicast();
    Ok(destination
        .filter(|destination| is_candidate && is_wide(destination))
        .map(|destination| RouteTo6 {
            destination: Subnet6::of(destination, prefix),
            index,
        }))
}

fn split_header(payload: &[u8], header_bytes: usize) -> Result<(&[u8], &[u8]), String> {
    payload
        .split_at_checked(header_bytes)
        .ok_or_else(|| format!("an object of {} bytes", payload.len()))
}

fn u32_at(header: &[u8], offset: usize) -> u32 {
    header
        .get(offset..)
        .and_then(|bytes| bytes.first_chunk())
        .map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

fn as_u32(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

fn as_ipv4(value: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from)
}

fn as_ipv6(value: &[u8]) -> Option<Ipv6Addr> {
    <[u8; 16]>::try_from(value).ok().map(Ipv6Addr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A route message as the kernel answers it: header of 12 bytes, then destination and link.
    fn route(prefix: u8, table: u8, route_type: u8) -> Vec<u8> {
        let mut payload = vec![2, prefix, 0, 0, table, 3, 0, route_type, 0, 0, 0, 0];
        payload.extend([8, 0, 1, 0, 172, 16, 0, 0]);
        payload.extend([8, 0, 4, 0]);
        payload.extend(5_u32.to_ne_bytes());
        payload
    }

    #[test]
    fn routes_of_the_main_table_are_read() {
        let expected = RouteTo {
            destination: Subnet::of(Ipv4Addr::new(172, 16, 0, 0), 12),
            index: Some(5),
        };
        assert_eq!(read_route(&route(12, 254, 1)).unwrap(), Some(expected));
    }

    #[test]
    fn local_and_default_routes_are_passed_over() {
        assert_eq!(read_route(&route(32, 255, 2)).unwrap(), None);
        assert_eq!(read_route(&route(1, 254, 1)).unwrap(), None);
    }

    #[test]
    fn short_objects_are_errors() {
        assert!(read_route(&[2, 0, 0]).is_err());
        assert!(read_address(&[2]).is_err());
        assert!(Link::read(&[0; 15]).is_err());
    }
}
