//! Chains of others that drop what a bridge forwards: an accept of ours cannot overrule them, so the user is
//! told.

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

fn read(payload: &[u8]) -> Result<Option<String>, String> {
    let (header, attributes) = payload
        .split_at_checked(NFGENMSG_BYTES)
        .ok_or_else(|| format!("a chain of {} bytes", payload.len()))?;
    let family = match NetfilterProtoFamily::from(header[0]) {
        NetfilterProtoFamily::IPv4 => "ip",
        NetfilterProtoFamily::Inet => "inet",
        _ => return Ok(None),
    };
    let (mut table, mut chain, mut hook, mut policy) = (String::new(), String::new(), None, None);
    each_attribute(attributes, |kind, value| match kind {
        NFTA_CHAIN_TABLE => table = text(value),
        NFTA_CHAIN_NAME => chain = text(value),
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
    let drops = hook == Some(u32::from(InetHookNumber::Forward)) && policy == Some(NF_DROP);
    Ok(drops.then(|| format!("table {family} {table} chain {chain}")))
}

fn as_u32(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}
