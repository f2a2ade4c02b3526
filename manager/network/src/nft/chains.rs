//! Listing chains: those of others that drop what a bridge forwards, as an accept of ours cannot overrule them and
//! the user is told; and what is left in our own table.

use netlink_packet_netfilter::nftables::{ChainMessage, InetHookNumber, NfTablesMessage};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};

use super::{NF_DROP, NFGENMSG_BYTES};
use crate::Error;
use crate::netlink::{Netfilter, Request, each_attribute, text};

// From linux/netfilter/nf_tables.h.
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_HOOK_HOOKNUM: u16 = 1;

/// The base chains that drop forwarded packets of IPv4 by policy, each as `table ip filter chain FORWARD`.
pub(crate) fn dropping_forward_chains(netfilter: &mut Netfilter) -> Result<Vec<String>, Error> {
    let drops = |chain: Chain| {
        let drops = chain.hook == Some(u32::from(InetHookNumber::Forward)) && chain.policy == Some(NF_DROP);
        drops.then(|| format!("table {} {} chain {}", chain.family, chain.table, chain.name))
    };
    Ok(all(netfilter)?.into_iter().filter_map(drops).collect())
}

/// The names of the chains in a table of both families.
pub(super) fn chains_of(netfilter: &mut Netfilter, table: &str) -> Result<Vec<String>, Error> {
    let chains = all(netfilter)?.into_iter();
    Ok(chains
        .filter(|chain| chain.family == "inet" && chain.table == table)
        .map(|chain| chain.name)
        .collect())
}

/// What is read of a chain.
struct Chain {
    family: &'static str,
    table: String,
    name: String,
    hook: Option<u32>,
    policy: Option<u32>,
}

fn all(netfilter: &mut Netfilter) -> Result<Vec<Chain>, Error> {
    let request = || {
        let message = NfTablesMessage::GetChain(ChainMessage {
            attributes: Vec::new(),
        });
        let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0);
        Request {
            action: "list nftables chains".to_owned(),
            message: NetfilterMessage::new(header, message),
            flags: 0,
        }
    };
    netfilter.dump(request, read)
}

fn read(payload: &[u8]) -> Result<Option<Chain>, String> {
    let (header, attributes) = payload
        .split_at_checked(NFGENMSG_BYTES)
        .ok_or_else(|| format!("a chain of {} bytes", payload.len()))?;
    let family = match NetfilterProtoFamily::from(header[0]) {
        NetfilterProtoFamily::IPv4 => "ip",
        NetfilterProtoFamily::Inet => "inet",
        _ => return Ok(None),
    };
    let (mut table, mut name, mut hook, mut policy) = (String::new(), String::new(), None, None);
    each_attribute(attributes, |kind, value| match kind {
        NFTA_CHAIN_TABLE => table = text(value),
        NFTA_CHAIN_NAME => name = text(value),
        NFTA_CHAIN_POLICY => policy = as_u32(value),
        NFTA_CHAIN_HOOK => {
            // A hook that cannot be read is none that is known to drop.
            let _ = each_attribute(value, |kind, value| {
                if kind == NFTA_HOOK_HOOKNUM {
                    hook = as_u32(value);
                }
            });
        }
        _ => {}
    })?;
    Ok(Some(Chain {
        family,
        table,
        name,
        hook,
        policy,
    }))
}

fn as_u32(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}
