//! Arithmetic on IPv4 subnets, and what else follows from an address. Pure; no system call.

use std::fmt;
use std::net::Ipv4Addr;

use crate::Error;

/// Shortest and longest prefix of a containers' network: from 16 million addresses to one container.
const PREFIXES: std::ops::RangeInclusive<u8> = 8..=30;

/// A subnet: its lowest address and the length of its prefix in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet {
    network: Ipv4Addr,
    prefix: u8,
}

impl Subnet {
    /// The subnet that `address` lies in; a prefix above 32 counts as 32.
    pub(crate) fn of(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.min(32);
        Self {
            network: Ipv4Addr::from_bits(address.to_bits() & mask(prefix)),
            prefix,
        }
    }

    /// A subnet whose lowest address is known.
    pub(crate) const fn literal(network: Ipv4Addr, prefix: u8) -> Self {
        Self { network, prefix }
    }

    /// The containers' subnet with this gateway, if one can be made of it.
    pub(crate) fn of_gateway(gateway: Ipv4Addr, prefix: u8) -> Result<Self, Error> {
        if !PREFIXES.contains(&prefix) {
            let rule = format!("must be from {} to {}", PREFIXES.start(), PREFIXES.end());
            return Err(Error::invalid("prefix length", &prefix, rule));
        }
        let subnet = Self::of(gateway, prefix);
        if gateway.is_loopback()
            || gateway.is_multicast()
            || gateway.is_unspecified()
            || gateway.octets()[0] >= 240
        {
            return Err(Error::invalid("gateway", &gateway, "must be a unicast address"));
        }
        if !subnet.is_host(gateway) {
            let rule = format!("must be a host's address in {subnet}, not its first or last");
            return Err(Error::invalid("gateway", &gateway, rule));
        }
        Ok(subnet)
    }

    pub(crate) fn network(self) -> Ipv4Addr {
        self.network
    }

    pub(crate) fn prefix(self) -> u8 {
        self.prefix
    }

    pub(crate) fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(mask(self.prefix))
    }

    pub(crate) fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() | !mask(self.prefix))
    }

    pub(crate) fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.network.to_bits()
    }

    /// Whether `address` may be given to a host of this subnet.
    pub(crate) fn is_host(self, address: Ipv4Addr) -> bool {
        self.contains(address) && address != self.network && address != self.broadcast()
    }

    /// Whether the two have an address in common: then one of them lies in the other.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

/// The MAC address that goes with an IPv4 address here: a locally administered prefix and the address itself.
/// An address given to the next container so keeps its MAC, and no neighbour holds a stale ARP entry for it.
pub fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0xbe, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        let (address, prefix) = text.split_once('/').unwrap();
        Subnet::of(address.parse().unwrap(), prefix.parse().unwrap())
    }

    #[test]
    fn subnets_overlap_when_one_holds_the_other() {
        assert!(subnet("172.30.0.0/16").overlaps(subnet("172.16.0.0/12")));
        assert!(subnet("172.16.0.0/12").overlaps(subnet("172.30.0.0/16")));
        assert!(subnet("172.30.0.0/16").overlaps(subnet("172.30.255.255/32")));
        assert!(!subnet("172.30.0.0/16").overlaps(subnet("172.31.0.0/16")));
        assert!(subnet("172.30.0.0/16").overlaps(subnet("0.0.0.0/0")));
    }

    #[test]
    fn first_and_last_address_belong_to_no_host() {
        let subnet = subnet("10.1.2.3/24");
        assert_eq!(subnet.to_string(), "10.1.2.0/24");
        assert!(!subnet.is_host("10.1.2.0".parse().unwrap()));
        assert!(subnet.is_host("10.1.2.1".parse().unwrap()));
        assert!(!subnet.is_host("10.1.2.255".parse().unwrap()));
        assert!(!subnet.is_host("10.1.3.1".parse().unwrap()));
        assert_eq!(subnet.mask(), Ipv4Addr::new(255, 255, 255, 0));
    }

    #[test]
    fn gateways_that_cannot_be_are_refused_by_name() {
        let refusal = |gateway: &str, prefix| {
            Subnet::of_gateway(gateway.parse().unwrap(), prefix)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(refusal("10.0.0.1", 31), "prefix length 31: must be from 8 to 30");
        assert_eq!(
            refusal("127.0.0.1", 8),
            "gateway 127.0.0.1: must be a unicast address"
        );
        assert_eq!(
            refusal("10.0.0.0", 24),
            "gateway 10.0.0.0: must be a host's address in 10.0.0.0/24, not its first or last"
        );
        assert!(Subnet::of_gateway(Ipv4Addr::new(172, 30, 0, 1), 16).is_ok());
    }

    #[test]
    fn a_mac_is_unicast_and_locally_administered() {
        let mac = mac_of(Ipv4Addr::new(172, 30, 1, 2));
        assert_eq!(mac, [0x02, 0xbe, 172, 30, 1, 2]);
        assert_eq!(mac[0] & 0b11, 0b10);
    }
}
