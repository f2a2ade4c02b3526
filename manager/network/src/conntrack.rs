//! Flows that the kernel remembers. A protocol without connections has no new ones by which it would look into the
//! maps of ports again: who goes on sending from the same port would go on reaching what was there before.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{DefaultNla, NLA_F_NESTED};
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};

use crate::Error;
use crate::netlink::{Netfilter, Request, each_attribute};
use crate::ports::PublishedPort;

// From linux/netfilter/nfnetlink.h and nfnetlink_conntrack.h.
const NFGENMSG_BYTES: usize = 4;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
/// As many flows are forgotten by one message.
const FLOWS_IN_A_MESSAGE: usize = 1000;

/// Whom packets were sent to, or answers come from.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Tuple {
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    protocol: u8,
    port: u16,
}

struct Flow {
    /// As the kernel wrote it, by which it knows the flow again.
    key: Vec<u8>,
    sent: Tuple,
    answered: Tuple,
}

/// Forget the flows to `ports` that went to the container with the address `target`, or to the host itself, which has the
/// addresses `local`; all of one family.
pub(crate) fn forget(
    netfilter: &mut Netfilter,
    target: IpAddr,
    ports: &[&PublishedPort],
    local: &[IpAddr],
) -> Result<(), Error> {
    let family = match target {
        IpAddr::V4(_) => NetfilterProtoFamily::IPv4,
        IpAddr::V6(_) => NetfilterProtoFamily::IPv6,
    };
    let is_stale = |flow: &Flow| {
        let (Some(destination), Some(answering)) = (flow.sent.destination, flow.answered.source) else {
            return false;
        };
        let was_rewritten = answering == target;
        let was_local =
            answering == destination && (destination.is_loopback() || local.contains(&destination));
        (was_rewritten || was_local)
            && ports.iter().any(|port| {
                (port.protocol.number(), port.host_port) == (flow.sent.protocol, flow.sent.port)
                    && (port.host_address.is_unspecified() || port.host_address == destination)
            })
    };
    let list = || request("list flows", family, ConntrackMessage::Get(Vec::new()));
    let flows = netfilter.dump(list, |payload| Ok(Some(read(payload)?).filter(is_stale)))?;
    for flows in flows.chunks(FLOWS_IN_A_MESSAGE) {
        let forget = flows.iter().map(|flow| {
            let key = DefaultNla::new(CTA_TUPLE_ORIG | NLA_F_NESTED, flow.key.clone());
            request(
                "forget a flow",
                family,
                ConntrackMessage::Delete(vec![ConntrackAttribute::Other(key)]),
            )
        });
        match netfilter.change(forget.collect()) {
            // It ended by itself.
            Err(error) if error.errno() == Some(libc::ENOENT) => {}
            forgotten => forgotten?,
        }
    }
    Ok(())
}

fn request(
    action: &str,
    family: NetfilterProtoFamily,
    message: ConntrackMessage,
) -> Request<NetfilterMessage> {
    Request {
        action: action.to_owned(),
        message: NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message),
        flags: 0,
    }
}

fn read(payload: &[u8]) -> Result<Flow, String> {
    let attributes = payload
        .get(NFGENMSG_BYTES..)
        .ok_or_else(|| format!("a flow of {} bytes", payload.len()))?;
    let (mut key, mut answered) = (Vec::new(), Vec::new());
    each_attribute(attributes, |kind, value| match kind {
        CTA_TUPLE_ORIG => key = value.to_vec(),
        CTA_TUPLE_REPLY => answered = value.to_vec(),
        _ => {}
    })?;
    Ok(Flow {
        sent: read_tuple(&key)?,
        answered: read_tuple(&answered)?,
        key,
    })
}

fn read_tuple(attributes: &[u8]) -> Result<Tuple, String> {
    let mut tuple = Tuple::default();
    let (mut addresses, mut protocol) = (Vec::new(), Vec::new());
    each_attribute(attributes, |kind, value| match kind {
        CTA_TUPLE_IP => addresses = value.to_vec(),
        CTA_TUPLE_PROTO => protocol = value.to_vec(),
        _ => {}
    })?;
    let address = |value: &[u8]| {
        let v4 = <[u8; 4]>::try_from(value).map(|octets| Ipv4Addr::from(octets).into());
        v4.or_else(|_| <[u8; 16]>::try_from(value).map(|octets| Ipv6Addr::from(octets).into()))
            .ok()
    };
    each_attribute(&addresses, |kind, value| match kind {
        CTA_IP_V4_SRC | CTA_IP_V6_SRC => tuple.source = address(value),
        CTA_IP_V4_DST | CTA_IP_V6_DST => tuple.destination = address(value),
        _ => {}
    })?;
    each_attribute(&protocol, |kind, value| match (kind, value) {
        (CTA_PROTO_NUM, [number]) => tuple.protocol = *number,
        (CTA_PROTO_DST_PORT, [high, low]) => tuple.port = u16::from_be_bytes([*high, *low]),
        _ => {}
    })?;
    Ok(tuple)
}
