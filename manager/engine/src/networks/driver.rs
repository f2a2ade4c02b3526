//! What carries a network: the driver that its row names, with what the kernel is to have of it. What all have in common
//! is here, and each has a file of its own.

use std::os::fd::BorrowedFd;

use network::{Bridge, Endpoint, Sublink};

use super::{Joining, UserNetwork, cni, sublink};
use crate::Error;

/// Docker's names of the drivers, and ours.
pub(super) const DRIVERS: [&str; 4] = [BRIDGE, sublink::MACVLAN, sublink::IPVLAN, cni::CNI];
pub(super) const BRIDGE: &str = "bridge";

/// A network as its driver sees it.
pub(super) enum Driver {
    Bridge(Bridge),
    Sublink(Sublink),
    /// Nothing of it is the manager's to make: see `cni`.
    Plugins,
}

impl UserNetwork {
    pub(super) fn carried(&self, owner: &str) -> Driver {
        match self.driver.as_str() {
            sublink::MACVLAN | sublink::IPVLAN => Driver::Sublink(sublink::of(self, owner)),
            cni::CNI => Driver::Plugins,
            _ => Driver::Bridge(self.bridge(owner)),
        }
    }

    /// Is it a bridge of this host, with an address of the host on it?
    pub(crate) fn is_bridge(&self) -> bool {
        self.driver == BRIDGE
    }

    /// Can a container have this place on it?
    pub(crate) fn check_place(&self, wanted: &Joining) -> Result<(), Error> {
        if self.driver == sublink::IPVLAN && wanted.mac.is_some() {
            // In docker's words.
            let rule = "ipvlan interfaces do not support custom mac address assignment";
            return Err(Error::invalid("mac-address", rule));
        }
        self.check_link_local(wanted)?;
        if self.driver == cni::CNI && !wanted.sysctls()?.is_empty() {
            let rule = format!(
                "of network {}, whose driver is cni, its plugins set the links up: sysctls are for the plugin tuning",
                self.name
            );
            return Err(Error::invalid("driver-opt", rule));
        }
        if self.driver == cni::CNI && wanted.gw_priority != 0 {
            let rule = format!(
                "of network {}, whose driver is cni, the configuration of its plugins says which routes there are",
                self.name
            );
            return Err(Error::invalid("gw-priority", rule));
        }
        Ok(())
    }

    fn check_link_local(&self, wanted: &Joining) -> Result<(), Error> {
        let Some(first) = wanted.link_local.first() else {
            return Ok(());
        };
        let name = &self.name;
        let rule = if self.driver == cni::CNI {
            format!("{first}: on network {name}, whose driver is cni, its plugins give the addresses")
        } else if let (None, Some(six)) = (
            &self.v6,
            wanted.link_local.iter().find(|address| address.is_ipv6()),
        ) {
            format!("{six}: network {name} has no IPv6, with which it is made by --ipv6")
        } else if wanted.link_local.contains(&network::BRIDGE_LINK_LOCAL.into()) {
            format!("{}: is the host's on network {name}", network::BRIDGE_LINK_LOCAL)
        } else {
            return Ok(());
        };
        Err(Error::invalid("link-local-ip", rule))
    }

    /// Does it have a way out, by which what has no better route may go?
    pub(super) fn leads_out(&self) -> bool {
        !self.internal && (self.gateway.is_some() || sublink::is_routed(self) || self.driver == cni::CNI)
    }
}

impl Driver {
    /// Make what of it is the host's.
    pub(super) fn ensure(&self) -> Result<(), Error> {
        match self {
            Driver::Bridge(bridge) => bridge.ensure()?,
            Driver::Sublink(sublink) => sublink.ensure()?,
            Driver::Plugins => {}
        }
        Ok(())
    }

    /// Take away what of it is the host's.
    pub(super) fn remove(&self) -> Result<(), Error> {
        match self {
            Driver::Bridge(bridge) => bridge.remove()?,
            Driver::Sublink(sublink) => sublink.remove()?,
            Driver::Plugins => {}
        }
        Ok(())
    }

    pub(super) fn attach(&self, endpoint: &Endpoint<'_>) -> Result<(), Error> {
        match self {
            Driver::Bridge(bridge) => bridge.attach(endpoint)?,
            Driver::Sublink(sublink) => sublink.attach(endpoint)?,
            Driver::Plugins => {}
        }
        Ok(())
    }

    /// Let what has no better route leave by it.
    pub(super) fn route_by(&self, netns: BorrowedFd<'_>, inside: &str) -> Result<(), Error> {
        match self {
            Driver::Bridge(bridge) => bridge.route_by(netns, inside)?,
            Driver::Sublink(sublink) => sublink.route_by(netns, inside)?,
            Driver::Plugins => {}
        }
        Ok(())
    }
}
