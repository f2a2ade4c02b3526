//! Noticing that somebody took rules of ours away. Whoever flushes the host's rules to load others does not know of
//! ours, and until they are back, ports lead nowhere and what is published on loopback is open to neighbours.

use netlink_packet_netfilter::NetfilterProtoFamily;

use crate::Error;
use crate::netlink::{Netfilter, each_attribute, text};
use crate::nft::{NFGENMSG_BYTES, TABLE};

// From linux/netfilter/nf_tables.h and linux/netfilter/nfnetlink.h.
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_DELCHAIN: u16 = 5;
const NFT_MSG_DELRULE: u16 = 8;
const NFT_MSG_DELSET: u16 = 11;
/// The table's name in all four of them.
const NFTA_TABLE: u16 = 1;

/// Hears of what is deleted in our table. Elements of maps come and go with containers and don't count.
pub struct RulesWatch(Netfilter);

impl RulesWatch {
    /// Listen, in the network namespace of the calling thread, from now on.
    pub fn open() -> Result<Self, Error> {
        let mut netfilter = Netfilter::open()?;
        netfilter.subscribe()?;
        Ok(Self(netfilter))
    }

    /// Wait until something of our table was deleted, by whomever, or may have been.
    pub fn wait(&mut self) -> Result<(), Error> {
        loop {
            let mut deleted = false;
            let whole = self
                .0
                .hear(|kind, payload| deleted |= deletes_ours(kind, payload))?;
            if deleted || !whole {
                return Ok(());
            }
        }
    }
}

fn deletes_ours(kind: u16, payload: &[u8]) -> bool {
    let deletes = [
        NFT_MSG_DELTABLE,
        NFT_MSG_DELCHAIN,
        NFT_MSG_DELRULE,
        NFT_MSG_DELSET,
    ]
    .iter()
    .any(|message| kind == NFNL_SUBSYS_NFTABLES << 8 | message);
    let Some((header, attributes)) = payload.split_at_checked(NFGENMSG_BYTES).filter(|_| deletes) else {
        return false;
    };
    let mut ours = false;
    // What cannot be read is not known to be ours.
    let _ = each_attribute(attributes, |kind, value| {
        ours |= kind == NFTA_TABLE && text(value) == TABLE;
    });
    ours && header[0] == u8::from(NetfilterProtoFamily::Inet)
}
