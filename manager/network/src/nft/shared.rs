//! What all bridges share: the published ports of the host. Its rules never change; a port is an element of a map,
//! so that a packet is looked up at once however many are published, and a change is a few bytes.

use netlink_packet_netfilter::nftables::{Expressions, InetHookNumber, MetaKey, Operator};
use std::net::Ipv4Addr;

use super::expression::{Family, IPV4, destination_in, destination_is_local, link_name, verdict};
use super::map::MapKind;
use super::{Chain, NF_DROP, PRIORITY_DESTINATION_NAT, PRIORITY_RAW, Rule, Ruleset, v6};
use crate::subnet::Subnet;

/// The host's loopback addresses.
pub(super) const LOOPBACK: Subnet = Subnet::literal(Ipv4Addr::new(127, 0, 0, 0), 8);
const RAW: &str = "ports-raw";
const REWRITING: [(&str, InetHookNumber); 2] = [
    ("ports-prerouting", InetHookNumber::PreRouting),
    ("ports-output", InetHookNumber::LocalOut),
];

pub(super) fn is_shared(chain: &str) -> bool {
    chain == RAW || REWRITING.iter().any(|(name, _)| *name == chain) || v6::is_shared(chain)
}

/// The maps of one family's published ports, and the chains with the rules that look into them.
pub(super) struct Rewriting<'a> {
    pub(super) family: Family,
    /// For what comes from outside or from containers, and for what the host's own programs send.
    pub(super) chains: [(&'a str, InetHookNumber); 2],
    /// Of one address, and of all.
    pub(super) maps: [MapKind; 2],
    /// Of the rules for these.
    pub(super) comments: [&'a str; 2],
    /// Which packets the map of all addresses is for, besides.
    pub(super) of_all: Vec<Expressions>,
}

impl Rewriting<'_> {
    pub(super) fn ruleset(self) -> Ruleset {
        let (mut chains, mut rules) = (Vec::new(), Vec::new());
        let [one, all] = self.maps.map(MapKind::name);
        let conditions = [Vec::new(), [self.of_all, destination_is_local()].concat()];
        let looks = [(one, true), (all, false)]
            .map(|(map, by_address)| self.family.rewrite_destination(map, by_address));
        for (name, hook) in self.chains {
            chains.push(Chain {
                name: name.to_owned(),
                kind: "nat",
                hook,
                priority: PRIORITY_DESTINATION_NAT,
            });
            for (comment, (condition, look)) in self.comments.iter().zip(conditions.iter().zip(&looks)) {
                rules.push(Rule {
                    chain: name.to_owned(),
                    comment: (*comment).to_owned(),
                    expressions: [&self.family.is(), condition, look].map(Vec::as_slice).concat(),
                });
            }
        }
        Ruleset {
            maps: self.maps.to_vec(),
            chains,
            rules,
        }
    }
}

impl Ruleset {
    /// The maps of published ports and the rules that look into them.
    pub(crate) fn shared() -> Self {
        let mut ruleset = Rewriting {
            family: IPV4,
            chains: REWRITING,
            maps: [MapKind::OneAddress, MapKind::AllAddresses],
            comments: [
                "ports published on one address",
                "ports published on all addresses of this machine",
            ],
            of_all: Vec::new(),
        }
        .ruleset();
        ruleset.chains.push(Chain {
            name: RAW.to_owned(),
            kind: "filter",
            hook: InetHookNumber::PreRouting,
            priority: PRIORITY_RAW,
        });
        // A neighbour may send to 127.0.0.1 by our MAC address. The kernel drops that only after its destination was
        // rewritten, which would open what is published on loopback to the link; and the bridges have route_localnet,
        // with which the kernel would not drop it at all.
        ruleset.rules.push(Rule {
            chain: RAW.to_owned(),
            comment: format!("{LOOPBACK} is reached from this machine alone"),
            expressions: [
                link_name(MetaKey::Iifname, Operator::NotEqual, "lo"),
                destination_in(LOOPBACK),
                vec![verdict(NF_DROP)],
            ]
            .concat(),
        });
        ruleset
    }
}
