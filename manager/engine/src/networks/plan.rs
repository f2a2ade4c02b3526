//! What a network is to be: read and checked as plain values, and completed with what nobody asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use network::Bridge;
use serde::{Deserialize, Serialize};

use super::driver::{BRIDGE, DRIVERS};
use super::{BRIDGE_NAME, MTU, UserNetwork, cni, sublink, v6};
use crate::defaults::Defaults;
use crate::engine::Inner;
use crate::request::check_labels;
use crate::{Error, names};

/// Subnets have from 16 million addresses to one container's.
const PREFIXES: std::ops::RangeInclusive<u8> = 8..=30;
/// What the kernel takes for the MTU of IPv4 links.
const MTUS: std::ops::RangeInclusive<u32> = 68..=65_535;

/// A range of addresses: one of them, and the length of the prefix that all of them share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The lowest one.
    pub first: Ipv4Addr,
    /// In bits.
    pub prefix: u8,
}

/// What is asked for of a network.
#[derive(Debug, Clone, Default)]
pub struct NetworkRequest {
    /// Unique among networks.
    pub name: String,
    /// Empty: `bridge`.
    pub driver: String,
    /// `10.1.0.0/16`; none: one that is free.
    pub subnets: Vec<String>,
    /// Empty: the first address of the subnet, or of the range.
    pub gateway: String,
    /// A part of the subnet; empty: all of it.
    pub ip_range: String,
    /// Addresses that containers do not get, by name.
    pub aux_addresses: BTreeMap<String, String>,
    /// Without a way out.
    pub internal: bool,
    /// For people and tools.
    pub labels: BTreeMap<String, String>,
    /// Of the driver.
    pub options: BTreeMap<String, String>,
    /// It has IPv6 besides; then there may be a subnet of it, and auxiliary addresses.
    pub ipv6: bool,
    /// As `gateway`, of IPv6.
    pub gateway6: String,
    /// As `ip_range`, of IPv6.
    pub ip_range6: String,
}

impl Range {
    /// The range that `address` lies in.
    pub(crate) fn of(address: Ipv4Addr, prefix: u8) -> Range {
        Range {
            first: Ipv4Addr::from_bits(address.to_bits() & mask(prefix)),
            prefix,
        }
    }

    /// Whether it has this address.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        Range::of(address, self.prefix) == self
    }

    /// The highest one.
    pub(crate) fn last(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.to_bits() | !mask(self.prefix))
    }

    fn overlaps(self, other: Range) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Range, String> {
        let example = "10.1.0.0/16";
        let of_six = text
            .split_once('/')
            .map(|(address, _)| address.parse::<Ipv6Addr>());
        if let Some(Ok(_)) = of_six {
            return Err(format!("{text}: must be of IPv4 here, like {example}"));
        }
        let (address, prefix) = cidr(text, 32, example)?;
        let range = Range::of(address, prefix);
        lowest(text, range, range.first == address)
    }
}

/// An address and the length of a prefix, of `prefix_max` bits at most.
pub(super) fn cidr<A: FromStr>(text: &str, prefix_max: u8, example: &str) -> Result<(A, u8), String> {
    let split = || {
        let (address, prefix) = text.split_once('/')?;
        Some((address.parse().ok()?, prefix.parse().ok()?))
    };
    split()
        .filter(|(_, prefix)| *prefix <= prefix_max)
        .ok_or_else(|| format!("invalid CIDR block {text:?}: must be like {example}"))
}

/// A range that is told by its first address.
pub(super) fn lowest<R: fmt::Display>(text: &str, range: R, is_first: bool) -> Result<R, String> {
    if is_first {
        Ok(range)
    } else {
        Err(format!("invalid CIDR block {text:?}: it should be {range}"))
    }
}

impl NetworkRequest {
    pub(super) fn check(&self) -> Result<(), Error> {
        names::check(&self.name)?;
        let driver = self.driver();
        if !DRIVERS.contains(&driver) {
            let rule = format!(
                "{driver:?} is not done in this version, which has {}",
                DRIVERS.join(", ")
            );
            return Err(Error::invalid("driver", rule));
        }
        check_labels("labels", &self.labels)?;
        for (option, value) in &self.options {
            let of_sublink = sublink::check_option(driver, option, value);
            if let Some(checked) = of_sublink.or_else(|| cni::check_option(driver, option, value)) {
                checked?;
                continue;
            }
            match option.as_str() {
                BRIDGE_NAME if driver == BRIDGE => {}
                MTU if driver != cni::CNI && value.parse().is_ok_and(|mtu| MTUS.contains(&mtu)) => {}
                MTU if driver != cni::CNI => {
                    let rule = format!("{MTU}={value}: must be from {} to {}", MTUS.start(), MTUS.end());
                    return Err(Error::invalid("options", rule));
                }
                _ => {
                    let of_bridge = || format!("{BRIDGE_NAME} and {MTU}");
                    let known = sublink::options(driver).or(cni::options(driver));
                    let known = known.map_or_else(of_bridge, str::to_owned);
                    let rule =
                        format!("{option:?} is not done in this version, where driver {driver} has {known}");
                    return Err(Error::invalid("options", rule));
                }
            }
        }
        if driver == cni::CNI {
            return cni::check_request(self);
        }
        if self.ipv6 && sublink::options(self.driver()).is_some() {
            let rule = format!(
                "IPv6 on networks of driver {} is not done in this version",
                self.driver()
            );
            return Err(Error::invalid("ipv6", rule));
        }
        let subnets = self.subnets.iter().filter(|subnet| !v6::is_meant(subnet)).count();
        if subnets > 1 {
            let rule = "a network has one IPv4 subnet";
            return Err(Error::invalid("subnet", rule));
        }
        let has_aux = self.aux_addresses.values().any(|address| !v6::is_meant(address));
        if subnets == 0 && (has_aux || !(self.gateway.is_empty() && self.ip_range.is_empty())) {
            let rule = "a gateway, a range or an auxiliary address needs a subnet: give one";
            return Err(Error::invalid("subnet", rule));
        }
        self.check6()
    }

    fn driver(&self) -> &str {
        if self.driver.is_empty() {
            BRIDGE
        } else {
            &self.driver
        }
    }

    /// The network, with a subnet that nobody else on this host has.
    pub(super) fn plan(
        self,
        id: String,
        created_unix_nanos: i64,
        engine: &Inner,
    ) -> Result<UserNetwork, Error> {
        if self.driver() == cni::CNI {
            return Ok(cni::plan(self, id, created_unix_nanos));
        }
        let taken: Vec<(String, Range)> = taken(engine);
        let subnet = match self.subnets.iter().find(|subnet| !v6::is_meant(subnet)) {
            Some(subnet) => subnet
                .parse()
                .map_err(|rule: String| Error::invalid("subnet", rule))?,
            None => free(&taken, &engine.defaults.get())?,
        };
        if !PREFIXES.contains(&subnet.prefix) {
            let rule = format!(
                "{subnet}: its prefix must be from {} to {}",
                PREFIXES.start(),
                PREFIXES.end()
            );
            return Err(Error::invalid("subnet", rule));
        }
        if let Some((name, other)) = taken.iter().find(|(_, other)| other.overlaps(subnet)) {
            let rule = format!(
                "Pool overlaps with other one on this address space: {subnet} with {other} of network {name}"
            );
            return Err(Error::invalid("subnet", rule));
        }
        let within = |field: &'static str, text: &str| -> Result<Ipv4Addr, Error> {
            let malformed = |_| Error::invalid(field, format!("{text:?} is no IPv4 address"));
            let address: Ipv4Addr = text.parse().map_err(malformed)?;
            if !subnet.contains(address) || address == subnet.first || address == subnet.last() {
                let rule = format!(
                    "no configured subnet or ip-range contains {field} {address}: it must be a host's in {subnet}"
                );
                return Err(Error::invalid(field, rule));
            }
            Ok(address)
        };
        let ip_range = match self.ip_range.as_str() {
            "" => None,
            text => Some(
                text.parse::<Range>()
                    .map_err(|rule| Error::invalid("ip_range", rule))?,
            ),
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
        for (name, address) in self.aux_addresses.iter().filter(|(_, text)| !v6::is_meant(text)) {
            aux_addresses.insert(name.clone(), within("aux_address", address)?);
        }
        let gateway = match self.gateway.as_str() {
            "" if sublink::routes(self.driver(), &self.options) => None,
            "" => {
                let candidates = subnet.first.to_bits() + 1..subnet.last().to_bits();
                let mut candidates = candidates.map(Ipv4Addr::from_bits);
                candidates.find(|address| !aux_addresses.values().any(|taken| taken == address))
            }
            text => Some(within("gateway", text)?),
        };
        let v6 = self.plan6(engine)?;
        // A bridge that was there would go with the network at its removal.
        if let Some(name) = self.options.get(BRIDGE_NAME)
            && Bridge::is_taken(name)?
        {
            let rule = format!("{BRIDGE_NAME}={name}: a link of this name exists already");
            return Err(Error::invalid("options", rule));
        }
        let has_no_parent = sublink::has_no_parent(self.driver(), &self.options);
        let network = UserNetwork {
            id,
            driver: self.driver().to_owned(),
            name: self.name,
            subnet: Some(subnet),
            gateway,
            ip_range,
            aux_addresses,
            // As with docker.
            internal: self.internal || has_no_parent,
            labels: self.labels,
            options: self.options,
            created_unix_nanos,
            v6,
        };
        if sublink::options(&network.driver).is_some() {
            sublink::check_shared(&network, &engine.networks.all())?;
        }
        Ok(network)
    }
}

fn taken(engine: &Inner) -> Vec<(String, Range)> {
    let bridge = &engine.config.bridge;
    let mut taken = vec![("bridge".to_owned(), Range::of(bridge.gateway, bridge.prefix))];
    for network in engine.networks.all() {
        taken.extend(network.subnet.map(|subnet| (network.name.clone(), subnet)));
    }
    taken
}

/// The first of the subnets that networks may have by default that nobody else has.
fn free(taken: &[(String, Range)], defaults: &Defaults) -> Result<Range, Error> {
    let taken: Vec<_> = taken
        .iter()
        .map(|(_, range)| (range.first, range.prefix))
        .collect();
    match Bridge::free_subnet(defaults.subnets(), &taken)? {
        Some((first, prefix)) => Ok(Range { first, prefix }),
        None => Err(Error::NoSubnet),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_are_none_are_refused_with_what_they_should_be() {
        let refusal = |text: &str| text.parse::<Range>().unwrap_err();
        assert!(refusal("10.1.2.3/16").contains("10.1.0.0/16"));
        assert!(refusal("fd00::/64").contains("of IPv4"));
        for text in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "a/8"] {
            assert!(refusal(text).contains("CIDR"), "{text}");
        }
        let range: Range = "10.1.0.0/16".parse().unwrap();
        assert_eq!(
            (range.to_string(), range.last()),
            ("10.1.0.0/16".into(), Ipv4Addr::new(10, 1, 255, 255))
        );
        assert!(range.contains(Ipv4Addr::new(10, 1, 2, 3)) && !range.contains(Ipv4Addr::new(10, 2, 0, 0)));
    }

    #[test]
    fn requests_that_cannot_be_are_refused_by_name() {
        let refusal = |change: &dyn Fn(&mut NetworkRequest)| {
            let mut request = NetworkRequest {
                name: "web".to_owned(),
                ..NetworkRequest::default()
            };
            change(&mut request);
            request.check().unwrap_err().to_string()
        };
        assert!(refusal(&|request| request.driver = "overlay".into()).contains("macvlan"));
        let of_macvlan = |option: &'static str, value: &'static str| {
            refusal(&move |request| {
                request.driver = "macvlan".into();
                request.options.insert(option.into(), value.into());
            })
        };
        assert!(of_macvlan("parent", "lo").contains("loopback"));
        assert!(of_macvlan("parent", "a/b").contains("no name of a link"));
        assert!(of_macvlan("macvlan_mode", "l2").contains("passthru"));
        assert!(of_macvlan("ipvlan_mode", "l2").contains("parent, macvlan_mode"));
        assert!(of_macvlan(BRIDGE_NAME, "x").contains("parent, macvlan_mode"));
        assert!(
            refusal(&|request| _ = request.options.insert("parent".into(), "eth0".into()))
                .contains(BRIDGE_NAME)
        );
        assert!(refusal(&|request| request.gateway = "10.0.0.1".into()).contains("needs a subnet"));
        assert!(
            refusal(&|request| request.subnets = vec!["10.0.0.0/8".into(), "11.0.0.0/8".into()])
                .contains("one IPv4")
        );
        assert!(refusal(&|request| _ = request.options.insert(MTU.into(), "1".into())).contains("mtu=1"));
        assert!(refusal(&|request| _ = request.options.insert("x".into(), "1".into())).contains("\"x\""));
    }
}
