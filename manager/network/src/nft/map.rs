//! The maps of published ports: from protocol and port, or address, protocol and port, to a container's address and
//! port. Each element's comment says whose it is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_netfilter::NetfilterMessage;
use netlink_packet_netfilter::nftables::{
    DataAttribute, ListAttribute, NfTablesMessage, SetAttribute, SetElementAttribute, SetElementList,
    SetElementMessage, SetFlags, SetMessage,
};

use super::comment::{comment_of, userdata};
use super::{NFGENMSG_BYTES, TABLE, batch, request};
use crate::Error;
use crate::netlink::{Netfilter, Request, each_attribute};

/// How `nft` numbers the types of what it shows (`enum nft_datatypes`), six bits each in a concatenation.
const TYPE_ADDRESS: Part = (7, 4);
const TYPE_ADDRESS6: Part = (8, 16);
const TYPE_PROTOCOL: Part = (12, 4);
const TYPE_PORT: Part = (13, 4);
/// An attribute is shorter than 64 KiB, and holds a list of elements that take some 190 bytes.
const ELEMENTS_IN_A_REQUEST: usize = 300;

// From linux/netfilter/nf_tables.h, for reading answers.
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_USERDATA: u16 = 6;
const NFTA_DATA_VALUE: u16 = 1;

/// A part of a key or value: its type, and the whole registers that it fills, in bytes.
type Part = (u32, usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MapKind {
    OneAddress,
    AllAddresses,
    OneAddress6,
    AllAddresses6,
}

/// One published port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Element {
    /// None: all addresses of the host.
    pub(crate) address: Option<IpAddr>,
    pub(crate) protocol: u8,
    pub(crate) port: u16,
    /// Of the family of `address`, or the family whose addresses all are meant.
    pub(crate) to: (IpAddr, u16),
    pub(crate) comment: String,
}

impl MapKind {
    const ALL: [Self; 4] = [
        Self::OneAddress,
        Self::AllAddresses,
        Self::OneAddress6,
        Self::AllAddresses6,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::OneAddress => "ports-of-address",
            Self::AllAddresses => "ports",
            Self::OneAddress6 => "ports6-of-address",
            Self::AllAddresses6 => "ports6",
        }
    }

    /// What leads to a port: an address and a protocol with its port, or these two.
    fn key(self) -> &'static [Part] {
        match self {
            Self::OneAddress => &[TYPE_ADDRESS, TYPE_PROTOCOL, TYPE_PORT],
            Self::OneAddress6 => &[TYPE_ADDRESS6, TYPE_PROTOCOL, TYPE_PORT],
            Self::AllAddresses | Self::AllAddresses6 => &[TYPE_PROTOCOL, TYPE_PORT],
        }
    }

    /// Where it leads.
    fn value(self) -> &'static [Part] {
        match self {
            Self::OneAddress | Self::AllAddresses => &[TYPE_ADDRESS, TYPE_PORT],
            Self::OneAddress6 | Self::AllAddresses6 => &[TYPE_ADDRESS6, TYPE_PORT],
        }
    }

    pub(super) fn create(self) -> Request<NetfilterMessage> {
        let concatenated = |parts: &[Part]| parts.iter().fold(0, |types, (part, _)| types << 6 | part);
        let length = |parts: &[Part]| parts.iter().map(|(_, bytes)| *bytes as u32).sum();
        let attributes = vec![
            SetAttribute::Table(TABLE.to_owned()),
            SetAttribute::Name(self.name().to_owned()),
            SetAttribute::Flags(SetFlags::Map),
            SetAttribute::KeyType(concatenated(self.key())),
            SetAttribute::KeyLen(length(self.key())),
            SetAttribute::DataType(concatenated(self.value())),
            SetAttribute::DataLen(length(self.value())),
            // By which a request in the same batch could name it; none does.
            SetAttribute::Id(self as u32 + 1),
        ];
        request(
            format!("create nftables map inet {TABLE} {}", self.name()),
            NfTablesMessage::NewSet(SetMessage { attributes }),
            NLM_F_CREATE,
        )
    }

    fn list(self, netfilter: &mut Netfilter) -> Result<Vec<Element>, Error> {
        let message = || {
            let attributes = vec![
                SetElementList::Table(TABLE.to_owned()),
                SetElementList::Set(self.name().to_owned()),
            ];
            request(
                format!("list nftables map inet {TABLE} {}", self.name()),
                NfTablesMessage::GetSetElement(SetElementMessage { attributes }),
                0,
            )
        };
        let found = netfilter.dump(message, |payload| self.read(payload).map(Some));
        match found {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(Vec::new()),
            found => Ok(found?.concat()),
        }
    }

    fn read(self, payload: &[u8]) -> Result<Vec<Element>, String> {
        let attributes = payload
            .get(NFGENMSG_BYTES..)
            .ok_or_else(|| format!("elements of {} bytes", payload.len()))?;
        let mut found = Vec::new();
        let mut malformed = None;
        each_attribute(attributes, |kind, list| {
            if kind != NFTA_SET_ELEM_LIST_ELEMENTS {
                return;
            }
            let read = each_attribute(list, |kind, element| {
                if kind == NFTA_LIST_ELEM {
                    match self.read_element(element) {
                        Ok(element) => found.push(element),
                        Err(reason) => malformed = Some(reason),
                    }
                }
            });
            if let Err(reason) = read {
                malformed = Some(reason);
            }
        })?;
        malformed.map_or(Ok(found), Err)
    }

    fn read_element(self, attributes: &[u8]) -> Result<Element, String> {
        let (mut key, mut value, mut comment) = (Vec::new(), Vec::new(), String::new());
        each_attribute(attributes, |kind, nested| match kind {
            NFTA_SET_ELEM_KEY => key = data(nested),
            NFTA_SET_ELEM_DATA => value = data(nested),
            NFTA_SET_ELEM_USERDATA => comment = comment_of(nested),
            _ => {}
        })?;
        let malformed = || {
            format!(
                "a port with a key of {} bytes and a value of {}",
                key.len(),
                value.len()
            )
        };
        let (address, rest) = match self {
            Self::AllAddresses | Self::AllAddresses6 => (None, key.as_slice()),
            Self::OneAddress => {
                let (address, rest) = split_ipv4(&key).ok_or_else(malformed)?;
                (Some(address), rest)
            }
            Self::OneAddress6 => {
                let (address, rest) = split_ipv6(&key).ok_or_else(malformed)?;
                (Some(address), rest)
            }
        };
        let (to, to_port) = match self {
            Self::OneAddress | Self::AllAddresses => split_ipv4(&value),
            Self::OneAddress6 | Self::AllAddresses6 => split_ipv6(&value),
        }
        .ok_or_else(malformed)?;
        let (&[protocol, _, _, _, port_high, port_low, _, _], &[to_high, to_low, _, _]) = (rest, to_port)
        else {
            return Err(malformed());
        };
        Ok(Element {
            address,
            protocol,
            port: u16::from_be_bytes([port_high, port_low]),
            to: (to, u16::from_be_bytes([to_high, to_low])),
            comment,
        })
    }
}

fn split_ipv4(bytes: &[u8]) -> Option<(IpAddr, &[u8])> {
    let (address, rest) = bytes.split_first_chunk::<4>()?;
    Some((Ipv4Addr::from(*address).into(), rest))
}

fn split_ipv6(bytes: &[u8]) -> Option<(IpAddr, &[u8])> {
    let (address, rest) = bytes.split_first_chunk::<16>()?;
    Some((Ipv6Addr::from(*address).into(), rest))
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn data(nested: &[u8]) -> Vec<u8> {
    let mut value = Vec::new();
    // What cannot be read has no length that fits, which is told.
    let _ = each_attribute(nested, |kind, bytes| {
        if kind == NFTA_DATA_VALUE {
            value = bytes.to_vec();
        }
    });
    value
}

impl Element {
    fn map(&self) -> MapKind {
        match (self.address, self.to.0) {
            (Some(_), IpAddr::V4(_)) => MapKind::OneAddress,
            (None, IpAddr::V4(_)) => MapKind::AllAddresses,
            (Some(_), IpAddr::V6(_)) => MapKind::OneAddress6,
            (None, IpAddr::V6(_)) => MapKind::AllAddresses6,
        }
    }

    fn key(&self) -> Vec<u8> {
        let [high, low] = self.port.to_be_bytes();
        let mut key = self.address.map_or_else(Vec::new, octets);
        key.extend([self.protocol, 0, 0, 0, high, low, 0, 0]);
        key
    }

    fn value(&self) -> Vec<u8> {
        let [high, low] = self.to.1.to_be_bytes();
        let mut value = octets(self.to.0);
        value.extend([high, low, 0, 0]);
        value
    }

    fn new_item(&self) -> ListAttribute<SetElementAttribute> {
        ListAttribute::Element(vec![
            SetElementAttribute::Key(DataAttribute::Value(self.key())),
            SetElementAttribute::Data(DataAttribute::Value(self.value())),
            SetElementAttribute::UserData(userdata(&self.comment)),
        ])
    }

    fn old_item(&self) -> ListAttribute<SetElementAttribute> {
        ListAttribute::Element(vec![SetElementAttribute::Key(DataAttribute::Value(self.key()))])
    }

    /// Whether both are reached by the same port.
    pub(crate) fn is_same_port(&self, other: &Self) -> bool {
        self.key() == other.key() && self.map() == other.map()
    }

    /// All published ports, whoever published them.
    pub(crate) fn list(netfilter: &mut Netfilter) -> Result<Vec<Element>, Error> {
        let mut found = Vec::new();
        for map in MapKind::ALL {
            found.extend(map.list(netfilter)?);
        }
        Ok(found)
    }

    /// All published ports of the maps that `elements` are of, or would be.
    pub(crate) fn beside(netfilter: &mut Netfilter, elements: &[Self]) -> Result<Vec<Element>, Error> {
        let mut found = Vec::new();
        for map in MapKind::ALL {
            if elements.iter().any(|element| element.map() == map) {
                found.extend(map.list(netfilter)?);
            }
        }
        Ok(found)
    }

    /// Take `old` ports away and add `new` ones, in one transaction. All of `old` have to be there.
    pub(crate) fn exchange(netfilter: &mut Netfilter, old: &[Self], new: &[Self]) -> Result<(), Error> {
        if old.is_empty() && new.is_empty() {
            return Ok(());
        }
        let mut changes = Vec::new();
        for map in MapKind::ALL {
            let of_map = |elements: &[Self], item: fn(&Self) -> ListAttribute<SetElementAttribute>| {
                let items = elements.iter().filter(|element| element.map() == map);
                items.map(item).collect::<Vec<_>>()
            };
            let message = |items: &[ListAttribute<SetElementAttribute>]| SetElementMessage {
                attributes: vec![
                    SetElementList::Table(TABLE.to_owned()),
                    SetElementList::Set(map.name().to_owned()),
                    SetElementList::Elements(items.to_vec()),
                ],
            };
            for items in of_map(old, Self::old_item).chunks(ELEMENTS_IN_A_REQUEST) {
                changes.push(request(
                    format!("withdraw ports from nftables map inet {TABLE} {}", map.name()),
                    NfTablesMessage::DeleteSetElement(message(items)),
                    0,
                ));
            }
            for items in of_map(new, Self::new_item).chunks(ELEMENTS_IN_A_REQUEST) {
                changes.push(request(
                    format!("add ports to nftables map inet {TABLE} {}", map.name()),
                    NfTablesMessage::NewSetElement(message(items)),
                    NLM_F_CREATE,
                ));
            }
        }
        netfilter.change(batch(changes))
    }
}
