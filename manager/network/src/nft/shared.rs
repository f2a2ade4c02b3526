//! What all bridges share: the published ports of the host. Its rules never change; a port is an element of a map,
//! so that a packet is looked up at once however many are published, and a change is a few bytes.

use netlink_packet_netfilter::nftables::{Expressions, InetHookNumber, MetaKey, Operator};
use std::net::Ipv4Addr;

use super::expression::{
    destination_in, destination_is_local, is_ipv4, link_name, rewrite_destination, verdict,
};
use super::map::MapKind;
use super::{Chain, NF_DROP, PRIORITY_DESTINATION_NAT, PRIORITY_RAW, Rule, Ruleset, v6};
use crate::subnet::Subnet;

/// The host's loopback addresses.
pub(super) const LOOPBACK: Subnet = Subnet::literal(Ipv4Addr::new(127, 0, 0, 0), 8);
const RAW: &str = "ports-raw";
/// For what comes from outside or from containers, and for what the host's own programs send.
const REWRITING: [(&str, InetHookNumber); 2] = [
    ("ports-prerouting", InetHookNumber::PreRouting),
    ("ports-output", InetHookNumber::LocalOut),
];

pub(super) fn is_shared(chain: &str) -> bool {
    chain == RAW || REWRITING.iter().any(|(name, _)| *name == chain) || v6::is_shared(chain)
}

impl Ruleset {
    /// The maps of published ports and the rules that look into them.
    pub(crate) fn shared() -> Self {
        let mut chains = vec![Chain {
            name: RAW.to_owned(),
            kind: "filter",
            hook: InetHookNumber::PreRouting,
            priority: PRIORITY_RAW,
        }];
        // A neighbour may send to 127.0.0.1 by our MAC address. The kernel drops that only after its destination was
        // rewritten, which would open what is published on loopback to the link; and the bridges have route_localnet,
        // with which the kernel would not drop it at all.
        let mut rules = vec![Rule {
            chain: RAW.to_owned(),
            comment: format!("{LOOPBACK} is reached from this machine alone"),
            expressions: [
                link_name(MetaKey::Iifname, Operator::NotEqual, "lo"),
                destination_in(LOOPBACK),
                vec![verdict(NF_DROP)],
            ]
            .concat(),
        }];
        for (name, hook) in REWRITING {
            chains.push(Chain {
                name: name.to_owned(),
                kind: "nat",
                hook,
                priority: PRIORITY_DESTINATION_NAT,
            });
            let rule = |comment: &str, expressions: [Vec<Expressions>; 3]| Rule {
                chain: name.to_owned(),
                comment: comment.to_owned(),
                expressions: expressions.concat(),
            };
            rules.push(rule(
                "ports published on one address",
                [
                    is_ipv4(),
                    Vec::new(),
                    rewrite_destination(MapKind::OneAddress.name(), true),
                ],
            ));
            rules.push(rule(
                "ports published on all addresses of this machine",
                [
                    is_ipv4(),
                    destination_is_local(),
                    rewrite_destination(MapKind::AllAddresses.name(), false),
                ],
            ));
        }
        Self {
            maps: vec![MapKind::OneAddress, MapKind::AllAddresses],
            chains,
            rules,
        }
    }
}
