//! The rules inside a container's network namespace that bring its questions for names to the manager's sockets:
//! `nft list table ip berth-dns`, run there, shows them.
//!
//! Packets get another port, without NAT. What asks is rewritten before connection tracking sees it and what answers
//! after, so that a container's own rules meet both as one flow.

use std::net::Ipv4Addr;

use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Expressions, Hook, InetHookNumber, NfTablesMessage, Operator,
    RuleAttribute, RuleMessage, TableAttribute, TableMessage,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};

use super::comment::userdata;
use super::expression::{DESTINATION_PORT_OFFSET, IPV4, SOURCE_PORT_OFFSET, port_is, protocol_is, set_port};
use super::{NF_ACCEPT, PRIORITY_RAW, batch};
use crate::Error;
use crate::netlink::{Netfilter, Request};
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};

const TABLE: &str = "berth-dns";
const PORT_OF_NAMES: u16 = 53;
/// After connection tracking and NAT have had the packet (`NF_IP_PRI_NAT_SRC` is 100).
const PRIORITY_AFTER_NAT: i32 = 300;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Where a checksum is in the header of each.
const CHECKSUMS: [(u8, u32); 2] = [(UDP, 6), (TCP, 16)];

/// Bring packets for port 53 of `address` to `port` there, and let the answers be from port 53. In one transaction: rules
/// for a former port go with it.
pub(crate) fn redirect_names(netfilter: &mut Netfilter, address: Ipv4Addr, port: u16) -> Result<(), Error> {
    let mut changes = vec![
        table("create", NLM_F_CREATE),
        table("delete", 0),
        table("create", NLM_F_CREATE),
    ];
    changes.push(chain("questions", InetHookNumber::LocalOut, PRIORITY_RAW));
    changes.push(chain("answers", InetHookNumber::PostRouting, PRIORITY_AFTER_NAT));
    for (protocol, checksum) in CHECKSUMS {
        let rewriting = |address_at, port_at, from, to| {
            [
                IPV4.address_is(Operator::Equal, address_at, &address.octets()),
                protocol_is(protocol),
                port_is(port_at, from),
                set_port(port_at, to, checksum),
            ]
            .concat()
        };
        changes.push(rule(
            "questions",
            "what asks for names reaches the manager's sockets",
            rewriting(
                IPV4.destination_offset,
                DESTINATION_PORT_OFFSET,
                PORT_OF_NAMES,
                port,
            ),
        ));
        changes.push(rule(
            "answers",
            "what the manager answers comes from where it was asked",
            rewriting(IPV4.source_offset, SOURCE_PORT_OFFSET, port, PORT_OF_NAMES),
        ));
    }
    netfilter.change(batch(changes))
}

fn table(verb: &str, flags: u16) -> Request<NetfilterMessage> {
    let message = TableMessage {
        attributes: vec![TableAttribute::Name(TABLE.to_owned())],
    };
    let message = if verb == "delete" {
        NfTablesMessage::DeleteTable(message)
    } else {
        NfTablesMessage::NewTable(message)
    };
    request(format!("{verb} nftables table ip {TABLE}"), message, flags)
}

fn chain(name: &str, hook: InetHookNumber, priority: i32) -> Request<NetfilterMessage> {
    let attributes = vec![
        ChainAttribute::Table(TABLE.to_owned()),
        ChainAttribute::Name(name.to_owned()),
        ChainAttribute::Hook(vec![
            Hook::Number(hook.into()),
            Hook::Priority(priority.cast_unsigned()),
        ]),
        ChainAttribute::Policy(NF_ACCEPT),
        ChainAttribute::Type("filter".to_owned()),
    ];
    let message = NfTablesMessage::NewChain(ChainMessage { attributes });
    request(
        format!("create nftables chain ip {TABLE} {name}"),
        message,
        NLM_F_CREATE,
    )
}

fn rule(chain: &str, comment: &str, expressions: Vec<Expressions>) -> Request<NetfilterMessage> {
    let attributes = vec![
        RuleAttribute::Table(TABLE.to_owned()),
        RuleAttribute::Chain(chain.to_owned()),
        RuleAttribute::Expressions(expressions.into_iter().map(Into::into).collect()),
        RuleAttribute::UserData(userdata(comment)),
    ];
    request(
        format!("add a rule to nftables chain ip {TABLE} {chain}"),
        NfTablesMessage::NewRule(RuleMessage { attributes }),
        NLM_F_CREATE | NLM_F_APPEND,
    )
}

fn request(action: String, message: NfTablesMessage, flags: u16) -> Request<NetfilterMessage> {
    Request {
        action,
        message: NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0), message),
        flags,
    }
}
