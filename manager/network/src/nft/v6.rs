//! What the rules have for IPv6: the maps of published ports, which are there from the first network with IPv6 on, and
//! the rules of a bridge by which its subnet leaves as the host. What else a bridge's rules say, they say of both families.

use netlink_packet_netfilter::nftables::{
    Bitwise, DataAttribute, Expressions, InetHookNumber, Lookup, Meta, MetaKey, Operator, Register,
};
use std::net::Ipv6Addr;

use super::expression::{
    DESTINATION_PORT_OFFSET, NFT_NAT_DNAT, NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER,
    NFTA_NAT_FAMILY, NFTA_NAT_REG_ADDR_MIN, NFTA_NAT_REG_PROTO_MIN, NFTA_NAT_TYPE, compare,
    destination_is_local, destination_rewritten, link_name, load_meta, load_payload, masquerade, number,
    other,
};
use super::map::MapKind;
use super::{Chain, PRIORITY_DESTINATION_NAT, Rule, Ruleset};
use crate::subnet6::Subnet6;

const NFPROTO_IPV6: u8 = 10;
const SOURCE_OFFSET: u32 = 8;
const DESTINATION_OFFSET: u32 = 24;
const ADDRESS_BYTES: u32 = 16;
/// For what comes from outside or from containers, and for what the host's own programs send.
const REWRITING: [(&str, InetHookNumber); 2] = [
    ("ports6-prerouting", InetHookNumber::PreRouting),
    ("ports6-output", InetHookNumber::LocalOut),
];

pub(super) fn is_shared(chain: &str) -> bool {
    REWRITING.iter().any(|(name, _)| *name == chain)
}

impl Ruleset {
    /// The maps of ports published on IPv6, and the rules that look into them.
    ///
    /// There is no rule against packets for `::1` from elsewhere: the kernel drops them before any rule sees them, and no
    /// setting lets them in (`ip6_rcv_core`; there is no `route_localnet`). For the same reason nothing is published on
    /// `::1`: the answers of a container would be such packets.
    pub(crate) fn shared6() -> Self {
        let (mut chains, mut rules) = (Vec::new(), Vec::new());
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
                "ports published on one address of IPv6",
                [
                    is_ipv6(),
                    Vec::new(),
                    rewrite_destination(MapKind::OneAddress6.name(), true),
                ],
            ));
            rules.push(rule(
                "ports published on all addresses of IPv6 of this machine but ::1",
                [
                    // Whoever asks ::1 first, for "localhost", is to hear at once that nobody is there.
                    [is_ipv6(), destination_is_not(Ipv6Addr::LOCALHOST)].concat(),
                    destination_is_local(),
                    rewrite_destination(MapKind::AllAddresses6.name(), false),
                ],
            ));
        }
        Self {
            maps: vec![MapKind::OneAddress6, MapKind::AllAddresses6],
            chains,
            rules,
        }
    }

    /// The rules of a bridge with a way out that has this subnet of IPv6, too.
    pub(crate) fn with_v6(mut self, bridge: &str, subnet: Subnet6) -> Self {
        let chain = self.chains[1].name.clone();
        let leaves = |comment: String, beyond: Vec<Expressions>| Rule {
            chain: chain.clone(),
            comment,
            expressions: [source_in(subnet), beyond, vec![masquerade()]].concat(),
        };
        self.rules.push(leaves(
            format!("{subnet} leaves as the host"),
            link_name(MetaKey::Oifname, Operator::NotEqual, bridge),
        ));
        self.rules.push(leaves(
            format!("{subnet} reaches its own published ports as the host"),
            [
                link_name(MetaKey::Oifname, Operator::Equal, bridge),
                destination_rewritten(true),
            ]
            .concat(),
        ));
        self
    }
}

fn is_ipv6() -> Vec<Expressions> {
    vec![
        load_meta(MetaKey::Nfproto),
        compare(Operator::Equal, vec![NFPROTO_IPV6]),
    ]
}

/// `ip6 saddr`, in a table for both families.
fn source_in(subnet: Subnet6) -> Vec<Expressions> {
    let mut expressions = is_ipv6();
    expressions.extend([
        load_payload(
            NFT_PAYLOAD_NETWORK_HEADER,
            SOURCE_OFFSET,
            ADDRESS_BYTES,
            Register::Reg1,
        ),
        Expressions::Bitwise(vec![
            Bitwise::SourceRegister(Register::Reg1),
            Bitwise::DestinationRegister(Register::Reg1),
            Bitwise::Length(ADDRESS_BYTES),
            Bitwise::Mask(DataAttribute::Value(subnet.mask().octets().to_vec())),
            Bitwise::Xor(DataAttribute::Value(vec![0; ADDRESS_BYTES as usize])),
        ]),
        compare(Operator::Equal, subnet.network().octets().to_vec()),
    ]);
    expressions
}

/// `ip6 daddr !=`, of a packet that is known to be of IPv6.
fn destination_is_not(address: Ipv6Addr) -> Vec<Expressions> {
    vec![
        load_payload(
            NFT_PAYLOAD_NETWORK_HEADER,
            DESTINATION_OFFSET,
            ADDRESS_BYTES,
            Register::Reg1,
        ),
        compare(Operator::NotEqual, address.octets().to_vec()),
    ]
}

/// `dnat ip6 to [ip6 daddr .] meta l4proto . th dport map @name`. What the map does not know goes on as it is.
fn rewrite_destination(map: &str, by_address: bool) -> Vec<Expressions> {
    // An address fills four registers, before the others of a key and before the port of a value.
    let first = Register::Reg32_00;
    let (protocol, port) = if by_address {
        (Register::Reg32_04, Register::Reg32_05)
    } else {
        (Register::Reg32_00, Register::Reg32_01)
    };
    let mut expressions = Vec::new();
    if by_address {
        expressions.push(load_payload(
            NFT_PAYLOAD_NETWORK_HEADER,
            DESTINATION_OFFSET,
            ADDRESS_BYTES,
            first,
        ));
    }
    expressions.extend([
        Expressions::Meta(vec![
            Meta::Key(MetaKey::L4Proto),
            Meta::DestinationRegister(protocol),
        ]),
        load_payload(NFT_PAYLOAD_TRANSPORT_HEADER, DESTINATION_PORT_OFFSET, 2, port),
        Expressions::Lookup(vec![
            Lookup::Set(map.to_owned()),
            Lookup::SourceRegister(first),
            Lookup::DestinationRegister(first),
        ]),
        other(
            "nat",
            vec![
                number(NFTA_NAT_TYPE, NFT_NAT_DNAT),
                number(NFTA_NAT_FAMILY, u32::from(NFPROTO_IPV6)),
                number(NFTA_NAT_REG_ADDR_MIN, u32::from(first)),
                number(NFTA_NAT_REG_PROTO_MIN, u32::from(Register::Reg32_04)),
            ],
        ),
    ]);
    expressions
}

#[cfg(test)]
mod tests {
    use super::super::comment;
    use super::*;
    use crate::subnet::Subnet;

    #[test]
    fn the_longest_names_make_comments_that_nft_can_show() {
        let subnet = Subnet6::of("fdff:ffff:ffff:ffff:ffff:ffff:ffff:fffc".parse().unwrap(), 126);
        let of_four = Subnet::of([10, 0, 0, 0].into(), 8);
        let name = "a-name-15-bytes";
        for rule in Ruleset::new(name, of_four).with_v6(name, subnet).rules {
            assert!(rule.comment.len() < comment::BYTES_MAX, "{}", rule.comment);
        }
        for rule in Ruleset::shared6().rules {
            assert!(rule.comment.len() < comment::BYTES_MAX, "{}", rule.comment);
        }
    }
}
