//! Arithmetic on subnets of IPv6. Pure; no system call.

use std::fmt;
use std::net::Ipv6Addr;

use crate::Error;

/// Shortest and longest prefix of a containers' network.
const PREFIXES: std::ops::RangeInclusive<u8> = 16..=126;

/// A subnet: its lowest address and the length of its prefix in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet6 {
    network: Ipv6Addr,
    prefix: u8,
}

impl Subnet6 {
    /// The subnet that `address` lies in; a prefix above 128 counts as 128.
    pub(crate) fn of(address: Ipv6Addr, prefix: u8) -> Self {
        let prefix = prefix.min(128);
        Self {
            network: Ipv6Addr::from_bits(address.to_bits() & mask(prefix)),
            prefix,
        }
    }

    /// The containers' subnet with this gateway, if one can be made of it.
    pub(crate) fn of_gateway(gateway: Ipv6Addr, prefix: u8) -> Result<Self, Error> {
        if !PREFIXES.contains(&prefix) {
            let rule = format!("must be from {} to {}", PREFIXES.start(), PREFIXES.end());
            return Err(Error::invalid("prefix length of IPv6", &prefix, rule));
        }
        let subnet = Self::of(gateway, prefix);
        let is_special = gateway.is_loopback()
            || gateway.is_multicast()
            || gateway.is_unspecified()
            || gateway.is_unicast_link_local()
            || gateway.to_ipv4_mapped().is_some();
        if is_special {
            return Err(Error::invalid(
                "gateway",
                &gateway,
                "must be a unicast address that is valid beyond its link",
            ));
        }
        if !subnet.is_host(gateway) {
            let rule = format!("must be a host's address in {subnet}, not its first, which is its routers'");
            return Err(Error::invalid("gateway", &gateway, rule));
        }
        Ok(subnet)
    }

    pub(crate) fn network(self) -> Ipv6Addr {
        self.network
    }

    pub(crate) fn prefix(self) -> u8 {
        self.prefix
    }

    pub(crate) fn mask(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(mask(self.prefix))
    }

    pub(crate) fn contains(self, address: Ipv6Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.network.to_bits()
    }

    /// Whether `address` may be given to a host of this subnet: all but the first, which means any router (RFC 4291, 2.6.1).
    pub(crate) fn is_host(self, address: Ipv6Addr) -> bool {
        self.contains(address) && address != self.network
    }

    /// Whether the two have an address in common: then one of them lies in the other.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }
}

impl fmt::Display for Subnet6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

fn mask(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet6 {
        let (address, prefix) = text.split_once('/').unwrap();
        Subnet6::of(address.parse().unwrap(), prefix.parse().unwrap())
    }

    #[test]
    fn subnets_overlap_when_one_holds_the_other() {
        assert!(subnet("fd00::/8").overlaps(subnet("fd00:1:2:3::/64")));
        assert!(subnet("fd00:1:2:3::/64").overlaps(subnet("fd00:1:2::/48")));
        assert!(!subnet("fd00:1:2:3::/64").overlaps(subnet("fd00:1:2:4::/64")));
        assert!(subnet("fd00::/64").overlaps(subnet("::/0")));
    }

    #[test]
    fn the_first_address_belongs_to_no_host() {
        let subnet = subnet("fd00::7/126");
        assert_eq!(subnet.to_string(), "fd00::4/126");
        assert!(!subnet.is_host("fd00::4".parse().unwrap()));
        assert!(subnet.is_host("fd00::7".parse().unwrap()));
        assert!(!subnet.is_host("fd00::8".parse().unwrap()));
        assert_eq!(subnet.mask().octets()[15], 0xfc);
    }

    #[test]
    fn gateways_that_cannot_be_are_refused_by_name() {
        let refusal = |gateway: &str, prefix| {
            Subnet6::of_gateway(gateway.parse().unwrap(), prefix)
                .unwrap_err()
                .to_string()
        };
        assert!(refusal("fd00::1", 127).contains("from 16 to 126"));
        for special in ["::1", "fe80::1", "ff02::1", "::ffff:10.0.0.1"] {
            assert!(refusal(special, 64).contains("unicast"), "{special}");
        }
        assert!(refusal("fd00::", 64).contains("not its first"));
        assert!(Subnet6::of_gateway("fd00::1".parse().unwrap(), 64).is_ok());
    }
}
