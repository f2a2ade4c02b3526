//! The bridge's nftables rules: `nft list table inet berth` shows them, each with a comment.
//!
//! Each bridge has two base chains of its own in the one table, so bridges come and go without touching each
//! other's rules; what all of them share is in `shared`. A change is one batch, which the kernel carries out whole
//! or not at all.

mod chains;
mod comment;
mod expression;
mod map;
mod redirect;
mod shared;
mod v6;

use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Expressions, Hook, InetHookNumber, MetaKey, NfTablesMessage, Operator,
    RuleAttribute, RuleMessage, TableAttribute, TableMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily, NetfilterSubsystem};

use crate::Error;
use crate::netlink::{Netfilter, Request, each_attribute, text};
use crate::subnet::Subnet;
pub(crate) use chains::dropping_forward_chains;
use comment::{comment_of, userdata};
use expression::{answer, destination_rewritten, link_name, masquerade, source_in, verdict};
pub(crate) use map::{Element, MapKind};
pub(crate) use redirect::redirect_names;

pub(crate) const TABLE: &str = "berth";

// From linux/netfilter.h and linux/netfilter/nf_tables.h.
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_SOURCE_NAT: i32 = 100;
const PRIORITY_DESTINATION_NAT: i32 = -100;
const PRIORITY_RAW: i32 = -300;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_USERDATA: u16 = 7;
pub(crate) const NFGENMSG_BYTES: usize = 4;

/// A base chain of a bridge.
struct Chain {
    name: String,
    kind: &'static str,
    hook: InetHookNumber,
    priority: i32,
}

/// A rule. Its comment tells all that its expressions depend on: rules are compared by it.
struct Rule {
    chain: String,
    comment: String,
    expressions: Vec<Expressions>,
}

/// What the kernel should hold, for one bridge or for all of them.
pub(crate) struct Ruleset {
    maps: Vec<MapKind>,
    chains: Vec<Chain>,
    rules: Vec<Rule>,
}

impl Ruleset {
    pub(crate) fn new(bridge: &str, subnet: Subnet) -> Self {
        let chains = vec![
            Chain {
                name: format!("{bridge}-forward"),
                kind: "filter",
                hook: InetHookNumber::Forward,
                priority: PRIORITY_FILTER,
            },
            Chain {
                name: format!("{bridge}-postrouting"),
                kind: "nat",
                hook: InetHookNumber::PostRouting,
                priority: PRIORITY_SOURCE_NAT,
            },
        ];
        // From elsewhere a container gets answers, and what its published ports let in. Its address is routable for
        // every neighbour of the host once forwarding is on; nobody who runs a server in a container expects it to
        // be open to them.
        let invited_only = Rule {
            chain: chains[0].name.clone(),
            comment: format!("from other links {bridge} gets only answers and what is published"),
            expressions: [
                link_name(MetaKey::Oifname, Operator::Equal, bridge),
                link_name(MetaKey::Iifname, Operator::NotEqual, bridge),
                answer(false),
                destination_rewritten(false),
                vec![verdict(NF_DROP)],
            ]
            .concat(),
        };
        let leaves = |subnet: Subnet, comment: String, beyond: Vec<Expressions>| Rule {
            chain: chains[1].name.clone(),
            comment,
            expressions: [source_in(subnet), beyond, vec![masquerade()]].concat(),
        };
        // Answers have to come back through the host, which knows what they are answers to: a neighbour on the bridge
        // would send them straight to the caller, and to the host's loopback nobody else can send them.
        let to_published = [
            link_name(MetaKey::Oifname, Operator::Equal, bridge),
            destination_rewritten(true),
        ]
        .concat();
        let rules = vec![
            invited_only,
            leaves(
                subnet,
                format!("{subnet} leaves as the host"),
                link_name(MetaKey::Oifname, Operator::NotEqual, bridge),
            ),
            leaves(
                subnet,
                format!("{subnet} reaches its own published ports as the host"),
                to_published.clone(),
            ),
            leaves(
                shared::LOOPBACK,
                format!("the host's loopback reaches ports published by {bridge} as the host"),
                to_published,
            ),
        ];
        Self {
            maps: Vec::new(),
            chains,
            rules,
        }
    }

    /// Of a bridge that nothing leaves and nothing enters.
    pub(crate) fn internal(bridge: &str) -> Self {
        // A subnet does not matter: nothing is left of the rules that tell of it.
        let mut ruleset = Self::new(bridge, shared::LOOPBACK);
        let chain = ruleset.chains[0].name.clone();
        let drop = |own: MetaKey, other: MetaKey, comment: String| Rule {
            chain: chain.clone(),
            comment,
            expressions: [
                link_name(own, Operator::Equal, bridge),
                link_name(other, Operator::NotEqual, bridge),
                vec![verdict(NF_DROP)],
            ]
            .concat(),
        };
        ruleset.rules = vec![
            drop(
                MetaKey::Oifname,
                MetaKey::Iifname,
                format!("nothing enters {bridge}, which is internal"),
            ),
            drop(
                MetaKey::Iifname,
                MetaKey::Oifname,
                format!("nothing leaves {bridge}, which is internal"),
            ),
        ];
        ruleset
    }

    /// Puts the rules into the kernel unless they are there.
    pub(crate) fn ensure(&self, netfilter: &mut Netfilter) -> Result<(), Error> {
        if self.is_present(netfilter)? {
            return Ok(());
        }
        let mut changes = vec![create_table()];
        changes.extend(self.maps.iter().map(|map| map.create()));
        for chain in &self.chains {
            changes.push(chain.create());
            changes.push(chain.flush());
        }
        changes.extend(self.rules.iter().map(Rule::append));
        netfilter.change(batch(changes))
    }

    /// Takes the bridge's chains away, and the table when no other bridge has any in it. Fine if there are none.
    pub(crate) fn remove(&self, netfilter: &mut Netfilter) -> Result<(), Error> {
        // To delete what may be missing would fail, so what is missing is made first, in the same batch.
        let mut changes = vec![create_table()];
        for chain in &self.chains {
            changes.push(chain.create());
            changes.push(chain.flush());
            changes.push(chain.delete());
        }
        netfilter.change(batch(changes))?;

        let left = chains::chains_of(netfilter, TABLE)?;
        if !left.iter().all(|name| shared::is_shared(name)) {
            return Ok(());
        }
        let table = TableMessage {
            attributes: vec![TableAttribute::Name(TABLE.to_owned())],
        };
        let action = format!("delete nftables table inet {TABLE}");
        match netfilter.change(batch(vec![request(
            action,
            NfTablesMessage::DeleteTable(table),
            0,
        )])) {
            // Somebody was quicker.
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(()),
            result => result,
        }
    }

    fn is_present(&self, netfilter: &mut Netfilter) -> Result<bool, Error> {
        for chain in &self.chains {
            let request = || {
                let attributes = vec![
                    RuleAttribute::Table(TABLE.to_owned()),
                    RuleAttribute::Chain(chain.name.clone()),
                ];
                let action = format!("list nftables chain inet {TABLE} {}", chain.name);
                request(action, NfTablesMessage::GetRule(RuleMessage { attributes }), 0)
            };
            // Older kernels list more than the chain asked for.
            let found = netfilter.dump(request, |payload| {
                Ok(read_rule(payload)?
                    .filter(|(name, _)| *name == chain.name)
                    .map(|(_, comment)| comment))
            });
            let found = match found {
                Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(false),
                found => found?,
            };
            let wanted = self
                .rules
                .iter()
                .filter(|rule| rule.chain == chain.name)
                .map(|rule| &rule.comment);
            if !found.iter().eq(wanted) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Chain {
    fn create(&self) -> Request<NetfilterMessage> {
        let attributes = vec![
            ChainAttribute::Table(TABLE.to_owned()),
            ChainAttribute::Name(self.name.clone()),
            ChainAttribute::Hook(vec![
                Hook::Number(self.hook.into()),
                Hook::Priority(self.priority.cast_unsigned()),
            ]),
            ChainAttribute::Policy(NF_ACCEPT),
            ChainAttribute::Type(self.kind.to_owned()),
        ];
        self.request(
            "create",
            NfTablesMessage::NewChain(ChainMessage { attributes }),
            NLM_F_CREATE,
        )
    }

    /// Deletes the rules of the chain: a deletion that names a chain and no rule.
    fn flush(&self) -> Request<NetfilterMessage> {
        let attributes = vec![
            RuleAttribute::Table(TABLE.to_owned()),
            RuleAttribute::Chain(self.name.clone()),
        ];
        self.request(
            "flush",
            NfTablesMessage::DeleteRule(RuleMessage { attributes }),
            0,
        )
    }

    fn delete(&self) -> Request<NetfilterMessage> {
        let attributes = vec![
            ChainAttribute::Table(TABLE.to_owned()),
            ChainAttribute::Name(self.name.clone()),
        ];
        self.request(
            "delete",
            NfTablesMessage::DeleteChain(ChainMessage { attributes }),
            0,
        )
    }

    fn request(&self, verb: &str, message: NfTablesMessage, flags: u16) -> Request<NetfilterMessage> {
        request(
            format!("{verb} nftables chain inet {TABLE} {}", self.name),
            message,
            flags,
        )
    }
}

impl Rule {
    fn append(&self) -> Request<NetfilterMessage> {
        let attributes = vec![
            RuleAttribute::Table(TABLE.to_owned()),
            RuleAttribute::Chain(self.chain.clone()),
            RuleAttribute::Expressions(self.expressions.iter().cloned().map(Into::into).collect()),
            RuleAttribute::UserData(userdata(&self.comment)),
        ];
        let action = format!(
            "add to nftables chain inet {TABLE} {} the rule \"{}\"",
            self.chain, self.comment
        );
        request(
            action,
            NfTablesMessage::NewRule(RuleMessage { attributes }),
            NLM_F_CREATE | NLM_F_APPEND,
        )
    }
}

/// Chain and comment of a listed rule; a rule without a comment has an empty one.
fn read_rule(payload: &[u8]) -> Result<Option<(String, String)>, String> {
    let attributes = payload
        .get(NFGENMSG_BYTES..)
        .ok_or_else(|| format!("a rule of {} bytes", payload.len()))?;
    let (mut chain, mut comment) = (None, String::new());
    each_attribute(attributes, |kind, value| match kind {
        NFTA_RULE_CHAIN => chain = Some(text(value)),
        NFTA_RULE_USERDATA => comment = comment_of(value),
        _ => {}
    })?;
    Ok(chain.map(|chain| (chain, comment)))
}

fn create_table() -> Request<NetfilterMessage> {
    let message = TableMessage {
        attributes: vec![TableAttribute::Name(TABLE.to_owned())],
    };
    request(
        format!("create nftables table inet {TABLE}"),
        NfTablesMessage::NewTable(message),
        NLM_F_CREATE,
    )
}

/// The requests of one transaction between its begin and its end.
fn batch(mut changes: Vec<Request<NetfilterMessage>>) -> Vec<Request<NetfilterMessage>> {
    if let Some(last) = changes.last_mut() {
        last.flags |= NLM_F_ACK;
    }
    // The header's last field is the subsystem here, and of no meaning in the messages between.
    let control = |action: &str, message: ControlMessage| Request {
        action: action.to_owned(),
        message: NetfilterMessage::new(
            NetfilterHeader::new(
                NetfilterProtoFamily::Unspec,
                0,
                u16::from(u8::from(NetfilterSubsystem::NfTables)),
            ),
            message,
        ),
        flags: 0,
    };
    let mut batch = vec![control(
        "commit the nftables transaction",
        ControlMessage::BatchBegin,
    )];
    batch.append(&mut changes);
    batch.push(control("end the nftables transaction", ControlMessage::BatchEnd));
    batch
}

fn request(action: String, message: NfTablesMessage, flags: u16) -> Request<NetfilterMessage> {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0);
    Request {
        action,
        message: NetfilterMessage::new(header, message),
        flags,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_longest_names_make_comments_that_nft_can_show() {
        let subnet = Subnet::of(Ipv4Addr::new(222, 222, 222, 220), 30);
        for rule in Ruleset::new("a-name-15-bytes", subnet).rules {
            assert!(rule.comment.len() < comment::BYTES_MAX, "{}", rule.comment);
        }
    }

    #[test]
    fn a_batch_asks_for_one_acknowledgement_before_its_end() {
        let ruleset = Ruleset::new("berth0", Subnet::of(Ipv4Addr::new(172, 30, 0, 0), 16));
        let batch = batch(vec![create_table(), ruleset.chains[0].create()]);
        let acknowledged: Vec<bool> = batch
            .iter()
            .map(|request| request.flags & NLM_F_ACK != 0)
            .collect();
        assert_eq!(acknowledged, [false, false, true, false]);
    }
}
