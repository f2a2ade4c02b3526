//! What the rules have for IPv6: the maps of published ports, which are there from the first network with IPv6 on, and
//! the rules of a bridge by which its subnet leaves as the host. What else a bridge's rules say, they say of both families.

use netlink_packet_netfilter::nftables::{Expressions, InetHookNumber, MetaKey, Operator};
use std::net::Ipv6Addr;

use super::expression::{IPV6, destination_rewritten, link_name, masquerade};
use super::map::MapKind;
use super::shared::Rewriting;
use super::{Rule, Ruleset};
use crate::subnet6::Subnet6;

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
        Rewriting {
            family: IPV6,
            chains: REWRITING,
            maps: [MapKind::OneAddress6, MapKind::AllAddresses6],
            comments: [
                "ports published on one address of IPv6",
                "ports published on all addresses of IPv6 of this machine but ::1",
            ],
            // Whoever asks ::1 first, for "localhost", is to hear at once that nobody is there.
            of_all: IPV6.address_is(
                Operator::NotEqual,
                IPV6.destination_offset,
                &Ipv6Addr::LOCALHOST.octets(),
            ),
        }
        .ruleset()
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

/// `ip6 saddr`, in a table for both families.
fn source_in(subnet: Subnet6) -> Vec<Expressions> {
    IPV6.address_in(
        IPV6.source_offset,
        &subnet.mask().octets(),
        &subnet.network().octets(),
    )
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
