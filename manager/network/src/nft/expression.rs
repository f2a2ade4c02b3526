//! The expressions that rules are made of, as `linux/netfilter/nf_tables.h` numbers them. Each comparison loads
//! register 1 and ends the rule unless it holds.

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, ChecksumType, Cmp, DataAttribute, Expressions, Immediate, Lookup, Meta, MetaKey, Operator,
    Payload, Register, Verdict, VerdictAttribute,
};

use crate::subnet::Subnet;

const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFTA_CT_DREG: u16 = 1;
const NFTA_CT_KEY: u16 = 2;
const NFT_CT_STATE: u32 = 0;
const NFT_CT_STATUS: u32 = 2;
const CT_ESTABLISHED_OR_RELATED: u32 = 1 << 1 | 1 << 2;
/// `IPS_DST_NAT` of `linux/netfilter/nf_conntrack_common.h`.
const CT_DESTINATION_NAT: u32 = 1 << 5;
const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
pub(super) const SOURCE_PORT_OFFSET: u32 = 0;
pub(super) const DESTINATION_PORT_OFFSET: u32 = 2;
const NFTA_FIB_DREG: u16 = 1;
const NFTA_FIB_RESULT: u16 = 2;
const NFTA_FIB_FLAGS: u16 = 3;
const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
const NFTA_FIB_F_DADDR: u32 = 1 << 1;
const RTN_LOCAL: u32 = 2;
const NFTA_NAT_TYPE: u16 = 1;
const NFTA_NAT_FAMILY: u16 = 2;
const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
const NFTA_NAT_REG_PROTO_MIN: u16 = 5;
const NFT_NAT_DNAT: u32 = 1;

/// A family of addresses in a table for both.
#[derive(Clone, Copy)]
pub(super) struct Family {
    /// `NFPROTO_IPV4` and the like.
    number: u8,
    /// Of the source's address in the header.
    pub(super) source_offset: u32,
    /// Of the destination's.
    pub(super) destination_offset: u32,
    address_bytes: u32,
    /// The two registers behind an address in the first ones.
    behind: [Register; 2],
}

pub(super) const IPV4: Family = Family {
    number: 2,
    source_offset: 12,
    destination_offset: 16,
    address_bytes: 4,
    behind: [Register::Reg32_01, Register::Reg32_02],
};
pub(super) const IPV6: Family = Family {
    number: 10,
    source_offset: 8,
    destination_offset: 24,
    address_bytes: 16,
    behind: [Register::Reg32_04, Register::Reg32_05],
};

impl Family {
    /// `meta nfproto`
    pub(super) fn is(self) -> Vec<Expressions> {
        vec![
            load_meta(MetaKey::Nfproto),
            compare(Operator::Equal, vec![self.number]),
        ]
    }

    /// `ip saddr` or `ip daddr`, by its offset, within a subnet.
    pub(super) fn address_in(self, offset: u32, mask: &[u8], network: &[u8]) -> Vec<Expressions> {
        let mut expressions = self.is();
        expressions.extend([
            self.load_address(offset, Register::Reg1),
            masked(mask),
            compare(Operator::Equal, network.to_vec()),
        ]);
        expressions
    }

    /// `ip saddr` or `ip daddr`, by its offset, of a packet that is known to be of the family.
    pub(super) fn address_is(self, operator: Operator, offset: u32, address: &[u8]) -> Vec<Expressions> {
        vec![
            self.load_address(offset, Register::Reg1),
            compare(operator, address.to_vec()),
        ]
    }

    /// `dnat ip to [ip daddr .] meta l4proto . th dport map @name`. What the map does not know goes on as it is.
    pub(super) fn rewrite_destination(self, map: &str, by_address: bool) -> Vec<Expressions> {
        let first = Register::Reg32_00;
        let [protocol, port] = if by_address {
            self.behind
        } else {
            [Register::Reg32_00, Register::Reg32_01]
        };
        let mut expressions = Vec::new();
        if by_address {
            expressions.push(self.load_address(self.destination_offset, first));
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
                    number(NFTA_NAT_FAMILY, u32::from(self.number)),
                    number(NFTA_NAT_REG_ADDR_MIN, u32::from(first)),
                    number(NFTA_NAT_REG_PROTO_MIN, u32::from(self.behind[0])),
                ],
            ),
        ]);
        expressions
    }

    fn load_address(self, offset: u32, register: Register) -> Expressions {
        load_payload(NFT_PAYLOAD_NETWORK_HEADER, offset, self.address_bytes, register)
    }
}

/// `iifname` or `oifname`, compared with a whole name.
pub(super) fn link_name(key: MetaKey, operator: Operator, name: &str) -> Vec<Expressions> {
    let mut padded = [0; libc::IFNAMSIZ];
    padded[..name.len()].copy_from_slice(name.as_bytes());
    vec![load_meta(key), compare(operator, padded.to_vec())]
}

/// `ip saddr`, in a table for both families.
pub(super) fn source_in(subnet: Subnet) -> Vec<Expressions> {
    IPV4.address_in(
        IPV4.source_offset,
        &subnet.mask().octets(),
        &subnet.network().octets(),
    )
}

/// `ip daddr`
pub(super) fn destination_in(subnet: Subnet) -> Vec<Expressions> {
    IPV4.address_in(
        IPV4.destination_offset,
        &subnet.mask().octets(),
        &subnet.network().octets(),
    )
}

/// `meta l4proto`
pub(super) fn protocol_is(protocol: u8) -> Vec<Expressions> {
    vec![
        load_meta(MetaKey::L4Proto),
        compare(Operator::Equal, vec![protocol]),
    ]
}

/// `th sport` or `th dport`, by its offset.
pub(super) fn port_is(offset: u32, port: u16) -> Vec<Expressions> {
    vec![
        load_payload(NFT_PAYLOAD_TRANSPORT_HEADER, offset, 2, Register::Reg1),
        compare(Operator::Equal, port.to_be_bytes().to_vec()),
    ]
}

/// `udp dport set` and the like: another port in the packet, whose header has its checksum at `checksum`.
pub(super) fn set_port(offset: u32, port: u16, checksum: u32) -> Vec<Expressions> {
    vec![
        Expressions::Immediate(vec![
            Immediate::DestinationRegister(Register::Reg1),
            Immediate::Data(DataAttribute::Value(port.to_be_bytes().to_vec())),
        ]),
        Expressions::Payload(vec![
            Payload::SourceRegister(Register::Reg1),
            Payload::Base(NFT_PAYLOAD_TRANSPORT_HEADER),
            Payload::Offset(offset),
            Payload::Len(2),
            Payload::CsumType(ChecksumType::Inet),
            Payload::CsumOffset(checksum),
        ]),
    ]
}

/// `ct state established,related`, or its contrary.
pub(super) fn answer(is: bool) -> Vec<Expressions> {
    conntrack_has(NFT_CT_STATE, CT_ESTABLISHED_OR_RELATED, is)
}

/// `ct status dnat`, or its contrary: it came to another address than it goes to.
pub(super) fn destination_rewritten(is: bool) -> Vec<Expressions> {
    conntrack_has(NFT_CT_STATUS, CT_DESTINATION_NAT, is)
}

fn conntrack_has(key: u32, any_of: u32, is: bool) -> Vec<Expressions> {
    let load = other(
        "ct",
        vec![
            number(NFTA_CT_DREG, u32::from(Register::Reg1)),
            number(NFTA_CT_KEY, key),
        ],
    );
    let operator = if is { Operator::NotEqual } else { Operator::Equal };
    vec![load, masked(&any_of.to_ne_bytes()), compare(operator, vec![0; 4])]
}

/// `fib daddr type local`: it goes to an address of this machine.
pub(super) fn destination_is_local() -> Vec<Expressions> {
    let load = other(
        "fib",
        vec![
            number(NFTA_FIB_DREG, u32::from(Register::Reg1)),
            number(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE),
            number(NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR),
        ],
    );
    vec![load, compare(Operator::Equal, RTN_LOCAL.to_ne_bytes().to_vec())]
}

fn load_payload(base: u32, offset: u32, length: u32, register: Register) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(register),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(length),
    ])
}

fn number(attribute: u16, value: u32) -> DefaultNla {
    DefaultNla::new(attribute, value.to_be_bytes().to_vec())
}

fn load_meta(key: MetaKey) -> Expressions {
    Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(Register::Reg1)])
}

pub(super) fn compare(operator: Operator, value: Vec<u8>) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(value)),
    ])
}

fn masked(mask: &[u8]) -> Expressions {
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(Register::Reg1),
        Bitwise::DestinationRegister(Register::Reg1),
        Bitwise::Length(mask.len() as u32),
        Bitwise::Mask(DataAttribute::Value(mask.to_vec())),
        Bitwise::Xor(DataAttribute::Value(vec![0; mask.len()])),
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

pub(super) fn other(name: &str, attributes: Vec<DefaultNla>) -> Expressions {
    Expressions::Other {
        expression_type: name.to_owned(),
        attributes,
    }
}
