//! Published ports: what comes to a port of the host is sent on to a port of a container, by the kernel alone.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::endpoint::link_name;
use crate::netlink::{Netfilter, Route};
use crate::nft::{Element, Ruleset};
use crate::{Error, conntrack, owner, route};

/// A transport protocol that has ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// One published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublishedPort {
    /// The host's address on which it is published; `0.0.0.0` or `::`: on all of that family.
    pub host_address: IpAddr,
    /// The host's port.
    pub host_port: u16,
    /// Of both ports.
    pub protocol: Protocol,
    /// The container's port.
    pub container_port: u16,
}

/// The published ports of one owner's containers.
#[derive(Debug, Clone, Copy)]
pub struct Publisher<'a> {
    /// Whose the ports are; see [`crate::Bridge::owner`].
    pub owner: &'a str,
}

/// A container, as far as its ports go.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The container's id.
    pub container_id: &'a str,
    /// What its link on the host is named from; see [`crate::Endpoint::link_id`].
    pub link_id: &'a str,
    /// Where it is reached.
    pub address: Ipv4Addr,
    /// Where it is reached by IPv6.
    pub v6: Option<Target6<'a>>,
    /// Its ports. Those on addresses of IPv6 need an address of that family.
    pub ports: &'a [PublishedPort],
}

/// A container as it is reached by IPv6.
#[derive(Debug, Clone, Copy)]
pub struct Target6<'a> {
    /// What its link on the host is named from, on the network where it has the address.
    pub link_id: &'a str,
    /// Its address.
    pub address: Ipv6Addr,
}

impl Publisher<'_> {
    /// Publish the ports of an attached container: all of them, or none.
    ///
    /// # Errors
    /// A port that is published already, by whomever; rules that somebody took away ([`Error::rules_are_gone`]);
    /// whatever the kernel refuses.
    pub fn publish(&self, target: &Target<'_>) -> Result<(), Error> {
        // Where bridges hand packets to the firewall (bridge-nf-call-iptables), one that a container sends to its own
        // published port turns round in the bridge.
        let mut links = vec![target.link_id];
        links.extend(target.v6.map(|v6| v6.link_id).filter(|id| *id != target.link_id));
        let hairpins = links.iter().map(|id| route::set_hairpin(&link_name(id)));
        Route::open()?.change(hairpins.collect())?;
        let mut netfilter = Netfilter::open()?;
        let elements = self.elements(target);
        match Element::exchange(&mut netfilter, &[], &elements) {
            Err(error) if matches!(error.errno(), Some(libc::EEXIST | libc::EBUSY)) => {
                let there = Element::beside(&mut netfilter, &elements)?;
                return Err(taken(&elements, &there).unwrap_or(error));
            }
            published => published?,
        }
        forget_flows(&mut netfilter, target)
    }

    /// Take a container's ports away; fine if they are not published. What others have at the same ports stays.
    pub fn withdraw(&self, target: &Target<'_>) -> Result<(), Error> {
        let mut netfilter = Netfilter::open()?;
        let elements = self.elements(target);
        // The kernel deletes by port alone, whoever has it.
        let mut there = Element::beside(&mut netfilter, &elements)?;
        there.retain(|element| elements.contains(element));
        Element::exchange(&mut netfilter, &there, &[])?;
        forget_flows(&mut netfilter, target)
    }

    /// Make the published ports of this owner those of `targets`: what is missing is added, what is too much goes.
    pub fn restore(&self, targets: &[Target<'_>]) -> Result<(), Error> {
        let mut netfilter = Netfilter::open()?;
        let wanted: Vec<Element> = targets.iter().flat_map(|target| self.elements(target)).collect();
        if wanted.iter().any(|wanted| wanted.to.0.is_ipv6()) {
            Ruleset::shared6().ensure(&mut netfilter)?;
        }
        let there: Vec<Element> = Element::list(&mut netfilter)?
            .into_iter()
            .filter(|element| owner::read(&element.comment) == Some(self.owner))
            .collect();
        let without = |these: &[Element], those: &[Element]| -> Vec<Element> {
            let those: HashSet<&Element> = those.iter().collect();
            let missing = these.iter().filter(|this| !those.contains(this));
            missing.cloned().collect()
        };
        Element::exchange(
            &mut netfilter,
            &without(&there, &wanted),
            &without(&wanted, &there),
        )
    }

    fn elements(&self, target: &Target<'_>) -> Vec<Element> {
        let comment = owner::of_container(self.owner, target.container_id);
        let element = |port: &PublishedPort| {
            let to = match port.host_address {
                IpAddr::V4(_) => target.address.into(),
                IpAddr::V6(_) => target.v6?.address.into(),
            };
            Some(Element {
                address: Some(port.host_address).filter(|address| !address.is_unspecified()),
                protocol: port.protocol.number(),
                port: port.host_port,
                to: (to, port.container_port),
                comment: comment.clone(),
            })
        };
        target.ports.iter().filter_map(element).collect()
    }
}

/// Who has one of the ports that were `wanted`.
fn taken(wanted: &[Element], there: &[Element]) -> Option<Error> {
    let holder = there.iter().find(|holder| {
        wanted
            .iter()
            .any(|wanted| wanted.is_same_port(holder) && wanted != *holder)
    })?;
    let address = holder.address.unwrap_or(match holder.to.0 {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    });
    let protocol = Protocol::of_number(holder.protocol).map_or("unknown", Protocol::name);
    Some(Error::PortTaken {
        port: format!("{}/{protocol}", SocketAddr::new(address, holder.port)),
        holder: SocketAddr::from(holder.to).to_string(),
        comment: holder.comment.clone(),
    })
}

/// After each change: a packet that came in before may have made a flow that does not know of it.
fn forget_flows(netfilter: &mut Netfilter, target: &Target<'_>) -> Result<(), Error> {
    let connectionless = |port: &&PublishedPort| port.protocol != Protocol::Tcp;
    let (v6, v4): (Vec<_>, Vec<_>) = target
        .ports
        .iter()
        .filter(connectionless)
        .partition(|port| port.host_address.is_ipv6());
    if !v4.is_empty() {
        let local = Route::open()?.addresses()?.into_iter();
        let local: Vec<_> = local.map(|local| local.address.into()).collect();
        conntrack::forget(netfilter, target.address.into(), &v4, &local)?;
    }
    if let (Some(target), false) = (target.v6, v6.is_empty()) {
        let local = Route::open()?.addresses6()?.into_iter();
        let local: Vec<_> = local.map(|local| local.address.into()).collect();
        conntrack::forget(netfilter, target.address.into(), &v6, &local)?;
    }
    Ok(())
}

impl Protocol {
    /// As IANA numbers it.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    fn of_number(number: u8) -> Option<Self> {
        let mut all = [Self::Tcp, Self::Udp, Self::Sctp].into_iter();
        all.find(|protocol| protocol.number() == number)
    }

    /// Its name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        [Self::Tcp, Self::Udp, Self::Sctp]
            .into_iter()
            .find(|protocol| protocol.name() == text)
            .ok_or_else(|| Error::invalid("protocol", &format!("{text:?}"), "must be tcp, udp or sctp"))
    }
}
