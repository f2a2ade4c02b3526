//! Flows that the kernel remembers. A protocol without connections has no new ones by which it would look into the
//! maps of ports again: who goes on sending from the same port would go on reaching what was there before.

use std::net::Ipv4Addr;

use netlink_packet_core::{DefaultNla, NLA_F_NESTED};
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};

use crate::Error;
use crate::netlink::{Netfilter, Request, each_attribute};
use crate::ports::{Protocol, Target};

// From linux/netfilter/nfnetlink.h and nfnetlink_conntrack.h.
const NFGENMSG_BYTES: usize = 4;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
/// As many flows are forgotten by one message.
const FLOWS_IN_A_MESSAGE: usize = 1000;

/// Whom packets were sent to, or answers come from.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Tuple {
    source: Option<Ipv4Addr>,
    destination: Option<Ipv4Addr>,
    protocol: u8,
    port: u16,
}

struct Flow {
    /// As the kernel wrote it, by which it knows the flow again.
    key: Vec<u8>,
    sent: Tuple,
    answered: Tuple,
}

/// Forget the flows to ports of `target` that went to it, or to the host itself, which has the addresses `local`.
pub(crate) fn forget(
    netfilter: &mut Netfilter,
    target: &Target<'_>,
    local: &[Ipv4Addr],
) -> Result<(), Error> {
    let ports = target.ports.iter().filter(|port| port.protocol != Protocol::Tcp);
    let is_stale = |flow: &Flow| {
        let (Some(destination), Some(answering)) = (flow.sent.destination, flow.answered.source) else {
            return false;
        };
        let was_rewritten = answering == target.address;
        let was_local =
            answering == destination && (destination.is_loopback() || local.contains(&destination));
        (was_rewritten || was_local)
            && ports.clone().any(|port| {
                (port.protocol.number(), port.host_port) == (flow.sent.protocol, flow.sent.port)
                    && (port.host_address.is_unspecified() || port.host_address == destination)
            })
    };
    let list = || request("list flows", ConntrackMessage::Get(Vec::new()));
    let flows = netfilter.dump(list, |payload| Ok(Some(read(payload)?).filter(is_stale)))?;
    for flows in flows.chunks(FLOWS_IN_A_MESSAGE) {
        let forget = flows.iter().map(|flow| {
            let key = DefaultNla::new(CTA_TUPLE_ORIG | NLA_F_NESTED, flow.key.clone());
            request(
                "forget a flow",
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

fn request(action: &str, message: ConntrackMessage) -> Request<NetfilterMessage> {
    Request {
        action: action.to_owned(),
        message: NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0), message),
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
    let address = |value: &[u8]| <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from);
    each_attribute(&addresses, |kind, value| match kind {
        CTA_IP_V4_SRC => tuple.source = address(value),
        CTA_IP_V4_DST => tuple.destination = address(value),
        _ => {}
    })?;
    each_attribute(&protocol, |kind, value| match (kind, value) {
        (CTA_PROTO_NUM, [number]) => tuple.protocol = *number,
        (CTA_PROTO_DST_PORT, [high, low]) => tuple.port = u16::from_be_bytes([*high, *low]),
        _ => {}
    })?;
    Ok(tuple)
}
