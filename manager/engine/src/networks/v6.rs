//! The IPv6 part of networks that are asked to have it: read, checked and completed, and who gets which address.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use network::{Bridge, Bridge6};
use serde::{Deserialize, Serialize};

use super::plan::{cidr, lowest};
use super::{Joined, NetworkRequest, Networks, UserNetwork};
use crate::Error;
use crate::engine::Inner;

const PREFIXES: std::ops::RangeInclusive<u8> = 16..=126;
/// Of the networks that name no subnet, as large as IPv6 wants a link to be (RFC 4291, 2.5.1).
const DEFAULT_PREFIX: u8 = 64;

/// A range of addresses of IPv6: one of them, and the length of the prefix that all of them share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range6 {
    /// The lowest one.
    pub first: Ipv6Addr,
    /// In bits.
    pub prefix: u8,
}

/// What a network has of IPv6.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNetwork6 {
    /// All of its addresses.
    pub subnet: Range6,
    /// The host's address on it.
    pub gateway: Ipv6Addr,
    /// Where containers get addresses from; None: the subnet.
    pub ip_range: Option<Range6>,
    /// Addresses that containers do not get, by name.
    pub aux_addresses: BTreeMap<String, Ipv6Addr>,
}

impl Range6 {
    /// The range that `address` lies in.
    pub(crate) fn of(address: Ipv6Addr, prefix: u8) -> Range6 {
        Range6 {
            first: Ipv6Addr::from_bits(address.to_bits() & mask(prefix)),
            prefix,
        }
    }

    /// Whether it has this address.
    pub fn contains(self, address: Ipv6Addr) -> bool {
        Range6::of(address, self.prefix) == self
    }

    fn last(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.first.to_bits() | !mask(self.prefix))
    }

    fn overlaps(self, other: Range6) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }
}

fn mask(prefix: u8) -> u128 {
    u128::MAX
        .checked_shl(128 - u32::from(prefix.min(128)))
        .unwrap_or(0)
}

impl fmt::Display for Range6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl FromStr for Range6 {
    type Err = String;

    fn from_str(text: &str) -> Result<Range6, String> {
        let (address, prefix) = cidr(text, 128, "fd00:1:2:3::/64")?;
        let range = Range6::of(address, prefix);
        lowest(text, range, range.first == address)
    }
}

/// Whether an address or a range is meant to be of IPv6.
pub(super) fn is_meant(text: &str) -> bool {
    text.contains(':')
}

impl UserNetwork6 {
    pub(super) fn bridge(&self) -> Bridge6 {
        Bridge6 {
            gateway: self.gateway,
            prefix: self.subnet.prefix,
        }
    }

    fn is_host(&self, address: Ipv6Addr) -> bool {
        self.subnet.contains(address) && address != self.subnet.first && address != self.gateway
    }

    fn is_kept(&self, address: Ipv6Addr) -> bool {
        self.aux_addresses.values().any(|kept| *kept == address)
    }

    /// The one in the range that is as far from its beginning as `beside`; else the lowest that is free. So an address of
    /// IPv6 goes with the same address of IPv4, and with it with the same link, and neighbours that remember the last
    /// container that had it are not misled.
    fn free(&self, beside: u32, taken: &BTreeSet<u128>) -> Option<Ipv6Addr> {
        let range = self.ip_range.unwrap_or(self.subnet);
        let is_free = |address: &Ipv6Addr| {
            range.contains(*address)
                && self.is_host(*address)
                && !self.is_kept(*address)
                && !taken.contains(&address.to_bits())
        };
        let first = range.first.to_bits();
        let preferred = Ipv6Addr::from_bits(first.saturating_add(beside.into()));
        if is_free(&preferred) {
            return Some(preferred);
        }
        // Each step but the last meets an address that somebody has.
        let steps = taken.len() + self.aux_addresses.len() + 3;
        (first..=range.last().to_bits())
            .take(steps)
            .map(Ipv6Addr::from_bits)
            .find(is_free)
    }
}

impl UserNetwork {
    /// The address of IPv6 that is wanted, or one that is free; `taken` are those of other containers. None on a network
    /// without IPv6. The container's other address is `beside`.
    pub(crate) fn choose6(
        &self,
        wanted: Option<Ipv6Addr>,
        beside: Ipv4Addr,
        taken: &BTreeSet<u128>,
    ) -> Result<Option<Ipv6Addr>, Error> {
        let refuse = |rule: String| Err(Error::invalid("ip6", rule));
        let name = &self.name;
        let (v6, wanted) = match (&self.v6, wanted) {
            (None, None) => return Ok(None),
            (None, Some(address)) => {
                return refuse(format!(
                    "{address}: network {name} has no IPv6, with which it is made by --ipv6"
                ));
            }
            (Some(v6), wanted) => (v6, wanted),
        };
        let Some(address) = wanted else {
            let subnet = self.subnet.map_or(0, |subnet| subnet.first.to_bits());
            let found = v6.free(beside.to_bits().wrapping_sub(subnet), taken);
            let range = v6.ip_range.unwrap_or(v6.subnet);
            return found
                .map(Some)
                .ok_or_else(|| Error::NoAddress(format!("{range} of network {name}")));
        };
        if !v6.is_host(address) {
            return refuse(format!(
                "{address}: no configured subnet of network {name} contains it for a container ({})",
                v6.subnet
            ));
        }
        if taken.contains(&address.to_bits()) || v6.is_kept(address) {
            return refuse(format!("{address}: address already in use on network {name}"));
        }
        Ok(Some(address))
    }
}

impl Networks {
    /// Where a container is reached by IPv6 from outside, and goes out: of its networks with IPv6 that have a way out the one
    /// with the highest priority. It may be another than that by IPv4.
    pub(crate) fn reached6(&self, container: &str) -> Option<(Joined, Ipv6Addr)> {
        let inside = self.locked();
        let open = inside.joined.get(container)?.iter().filter_map(|joined| {
            let network = inside.networks.get(&joined.network)?;
            let address = joined.address6.filter(|_| !network.internal)?;
            Some((joined, address))
        });
        open.min_by_key(|(joined, _)| joined.rank())
            .map(|(joined, address)| (joined.clone(), address))
    }
}

impl NetworkRequest {
    pub(super) fn check6(&self) -> Result<(), Error> {
        let subnets = self.subnets.iter().filter(|subnet| is_meant(subnet)).count();
        let has_aux = self.aux_addresses.values().any(|address| is_meant(address));
        let has_more = has_aux || !(self.gateway6.is_empty() && self.ip_range6.is_empty());
        if !self.ipv6 && (subnets > 0 || has_more) {
            let rule = "a subnet or address of IPv6 is given, but not that the network has IPv6: give --ipv6";
            return Err(Error::invalid("ipv6", rule));
        }
        if subnets > 1 {
            return Err(Error::invalid(
                "subnet",
                "the driver bridge has one IPv6 subnet a network",
            ));
        }
        if subnets == 0 && has_more {
            let rule = "a gateway, a range or an auxiliary address of IPv6 needs a subnet of IPv6: give one";
            return Err(Error::invalid("subnet", rule));
        }
        Ok(())
    }

    /// What the network is to have of IPv6, with a subnet that nobody else on this host has.
    pub(super) fn plan6(&self, engine: &Inner) -> Result<Option<UserNetwork6>, Error> {
        if !self.ipv6 {
            return Ok(None);
        }
        let networks = engine.networks.all().into_iter();
        let taken: Vec<(String, Range6)> = networks
            .filter_map(|network| Some((network.name.clone(), network.v6.as_ref()?.subnet)))
            .collect();
        let subnet = match self.subnets.iter().find(|subnet| is_meant(subnet)) {
            Some(subnet) => subnet.parse().map_err(|rule| Error::invalid("subnet", rule))?,
            None => default_subnet(engine.store.root_id(), &taken)?,
        };
        self.plan6_in(subnet, &taken).map(Some)
    }

    fn plan6_in(&self, subnet: Range6, taken: &[(String, Range6)]) -> Result<UserNetwork6, Error> {
        check_subnet(subnet, taken)?;
        let within = |field: &'static str, text: &str| -> Result<Ipv6Addr, Error> {
            let malformed = |_| Error::invalid(field, format!("{text:?} is no IPv6 address"));
            let address: Ipv6Addr = text.parse().map_err(malformed)?;
            if !subnet.contains(address) || address == subnet.first {
                let rule = format!(
                    "no configured subnet or ip-range contains {field} {address}: it must be a host's in {subnet}"
                );
                return Err(Error::invalid(field, rule));
            }
            Ok(address)
        };
        let ip_range: Option<Range6> = match self.ip_range6.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|rule| Error::invalid("ip_range", rule))?),
        };
        if let Some(range) =
            ip_range.filter(|range| !subnet.contains(range.first) || range.prefix < subnet.prefix)
        {
            return Err(Error::invalid(
                "ip_range",
                format!("{range} is not within {subnet}"),
            ));
        }
        let mut aux_addresses = BTreeMap::new();
        for (name, address) in self.aux_addresses.iter().filter(|(_, text)| is_meant(text)) {
            aux_addresses.insert(name.clone(), within("aux_address", address)?);
        }
        let gateway = match self.gateway6.as_str() {
            "" => {
                let candidates = subnet.first.to_bits() + 1..=subnet.last().to_bits();
                let mut candidates = candidates.map(Ipv6Addr::from_bits);
                candidates
                    .find(|address| !aux_addresses.values().any(|taken| taken == address))
                    .ok_or_else(|| Error::NoAddress(subnet.to_string()))?
            }
            text => within("gateway", text)?,
        };
        Ok(UserNetwork6 {
            subnet,
            gateway,
            ip_range,
            aux_addresses,
        })
    }
}

fn check_subnet(subnet: Range6, taken: &[(String, Range6)]) -> Result<(), Error> {
    let refuse = |rule: String| Err(Error::invalid("subnet", rule));
    if !PREFIXES.contains(&subnet.prefix) {
        return refuse(format!(
            "{subnet}: its prefix must be from {} to {}",
            PREFIXES.start(),
            PREFIXES.end()
        ));
    }
    let first = subnet.first;
    let reserved = [
        (Ipv6Addr::UNSPECIFIED, 8),
        (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
        (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
    ];
    if reserved
        .iter()
        .any(|(address, prefix)| Range6::of(*address, *prefix).contains(first))
    {
        return refuse(format!(
            "{subnet}: must be of addresses that are valid beyond their link, as those below fd00::/8"
        ));
    }
    if let Some((name, other)) = taken.iter().find(|(_, other)| other.overlaps(subnet)) {
        return refuse(format!(
            "Pool overlaps with other one on this address space: {subnet} with {other} of network {name}"
        ));
    }
    Ok(())
}

/// The first of this root's subnets that nobody else has. They are below a prefix of its own (RFC 4193), made of the
/// number that it drew when its database was made: 40 random bits keep networks apart that are joined some day.
fn default_subnet(root_id: &str, taken: &[(String, Range6)]) -> Result<Range6, Error> {
    let random = root_id
        .get(..10)
        .and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let Some(random) = random else {
        return Err(Error::NoSubnet);
    };
    let own = (0xfd_u128 << 40 | u128::from(random)) << 80;
    let candidates =
        (0..=u128::from(u16::MAX)).map(|nth| (Ipv6Addr::from_bits(own | nth << 64), DEFAULT_PREFIX));
    let taken: Vec<_> = taken
        .iter()
        .map(|(_, range)| (range.first, range.prefix))
        .collect();
    match Bridge::free_subnet6(candidates, &taken)? {
        Some((first, prefix)) => Ok(Range6 { first, prefix }),
        None => Err(Error::NoSubnet),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn six(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    fn request() -> NetworkRequest {
        NetworkRequest {
            name: "web".to_owned(),
            ipv6: true,
            ..NetworkRequest::default()
        }
    }

    #[test]
    fn ranges_that_are_none_are_refused_with_what_they_should_be() {
        let refusal = |text: &str| text.parse::<Range6>().unwrap_err();
        assert!(refusal("fd00::1/64").contains("fd00::/64"));
        for text in ["", "fd00::", "fd00::/129", "fd00::/a", "10.0.0.0/8"] {
            assert!(refusal(text).contains("CIDR"), "{text}");
        }
        let range: Range6 = "fd00::/64".parse().unwrap();
        assert_eq!(range.last(), six("fd00::ffff:ffff:ffff:ffff"));
        assert!(range.contains(six("fd00::1")) && !range.contains(six("fd00:0:0:1::1")));
    }

    #[test]
    fn requests_that_cannot_be_are_refused_by_name() {
        let refusal = |change: &dyn Fn(&mut NetworkRequest)| {
            let mut request = request();
            change(&mut request);
            request.check6().unwrap_err().to_string()
        };
        assert!(
            refusal(&|request| {
                request.ipv6 = false;
                request.subnets = vec!["fd00::/64".into()];
            })
            .contains("--ipv6")
        );
        assert!(refusal(&|request| request.gateway6 = "fd00::1".into()).contains("needs a subnet"));
        assert!(
            refusal(&|request| request.subnets = vec!["fd00::/64".into(), "fd01::/64".into()])
                .contains("one IPv6")
        );
        let planned = |text: &str| {
            let refused = request().plan6_in(
                text.parse().unwrap(),
                &[("other".into(), "fd00::/56".parse().unwrap())],
            );
            refused.unwrap_err().to_string()
        };
        assert!(planned("fd00:0:0:1::/64").contains("of network other"));
        assert!(planned("fd00::/127").contains("from 16 to 126"));
        for text in ["fe80::/64", "ff02::/64", "::/64"] {
            assert!(planned(text).contains("beyond their link"), "{text}");
        }
    }

    #[test]
    fn an_address_goes_with_the_other_or_is_the_lowest_that_is_free() {
        let mut request = request();
        request.aux_addresses.insert("printer".into(), "fd00::2".into());
        request.aux_addresses.insert("four".into(), "10.0.0.3".into());
        let v6 = request.plan6_in("fd00::/64".parse().unwrap(), &[]).unwrap();
        assert_eq!(v6.gateway, six("fd00::1"));
        let mut taken = BTreeSet::new();
        assert_eq!(v6.free(7, &taken), Some(six("fd00::7")));
        taken.insert(six("fd00::7").to_bits());
        assert_eq!(v6.free(7, &taken), Some(six("fd00::3")));
        taken.insert(six("fd00::3").to_bits());
        assert_eq!(v6.free(1, &taken), Some(six("fd00::4")));

        request.ip_range6 = "fd00::8/127".into();
        let v6 = request.plan6_in("fd00::/64".parse().unwrap(), &[]).unwrap();
        let mut taken = BTreeSet::new();
        assert_eq!(v6.free(7, &taken), Some(six("fd00::8")));
        taken.insert(six("fd00::8").to_bits());
        assert_eq!(v6.free(0, &taken), Some(six("fd00::9")));
        taken.insert(six("fd00::9").to_bits());
        assert_eq!(v6.free(0, &taken), None);
    }
}
