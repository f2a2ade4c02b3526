//! The expressions that rules are made of, as `linux/netfilter/nf_tables.h` numbers them. Each comparison loads
//! register 1 and ends the rule unless it holds.

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, Expressions, Immediate, Meta, MetaKey, Operator, Payload, Register, Verdict,
    VerdictAttribute,
};

use crate::subnet::Subnet;

const NFPROTO_IPV4: u8 = 2;
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const IPV4_SOURCE_OFFSET: u32 = 12;
const NFTA_CT_DREG: u16 = 1;
const NFTA_CT_KEY: u16 = 2;
const NFT_CT_STATE: u32 = 0;
const CT_ESTABLISHED_OR_RELATED: u32 = 1 << 1 | 1 << 2;

/// `iifname` or `oifname`, compared with a whole name.
pub(super) fn link_name(key: MetaKey, operator: Operator, name: &str) -> Vec<Expressions> {
    let mut padded = [0; libc::IFNAMSIZ];
    padded[..name.len()].copy_from_slice(name.as_bytes());
    vec![load_meta(key), compare(operator, padded.to_vec())]
}

/// `ip saddr`, which in a table for both families begins with a look at the family.
pub(super) fn source_in(subnet: Subnet) -> Vec<Expressions> {
    vec![
        load_meta(MetaKey::Nfproto),
        compare(Operator::Equal, vec![NFPROTO_IPV4]),
        Expressions::Payload(vec![
            Payload::DestinationRegister(Register::Reg1),
            Payload::Base(NFT_PAYLOAD_NETWORK_HEADER),
            Payload::Offset(IPV4_SOURCE_OFFSET),
            Payload::Len(4),
        ]),
        mask(subnet.mask().octets()),
        compare(Operator::Equal, subnet.network().octets().to_vec()),
    ]
}

/// `ct state !established,related`
pub(super) fn not_answer() -> Vec<Expressions> {
    let load = other(
        "ct",
        vec![
            DefaultNla::new(NFTA_CT_DREG, u32::from(Register::Reg1).to_be_bytes().to_vec()),
            DefaultNla::new(NFTA_CT_KEY, NFT_CT_STATE.to_be_bytes().to_vec()),
        ],
    );
    vec![
        load,
        mask(CT_ESTABLISHED_OR_RELATED.to_ne_bytes()),
        compare(Operator::Equal, vec![0; 4]),
    ]
}

fn load_meta(key: MetaKey) -> Expressions {
    Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(Register::Reg1)])
}

fn compare(operator: Operator, value: Vec<u8>) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(value)),
    ])
}

fn mask(mask: [u8; 4]) -> Expressions {
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(Register::Reg1),
        Bitwise::DestinationRegister(Register::Reg1),
        Bitwise::Length(4),
        Bitwise::Mask(DataAttribute::Value(mask.to_vec())),
        Bitwise::Xor(DataAttribute::Value(vec![0; 4])),
    ])
}

/// `masquerade`
pub(super) fn masquerade() -> Expressions {
    other("masq", Vec::new())
}

/// `drop`
pub(super) fn verdict(code: u32) -> Expressions {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(vec![VerdictAttribute::Code(
            Verdict::Other(code),
        )])),
    ])
}

fn other(name: &str, attributes: Vec<DefaultNla>) -> Expressions {
    Expressions::Other {
        expression_type: name.to_owned(),
        attributes,
    }
}
