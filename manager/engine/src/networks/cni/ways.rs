//! Default routes that plugins make, which know nothing of a container's other networks: where one of these is its way out
//! they are taken away, and given back when it is not any more.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use network::{Bridge, Bridge6};

use super::{Joined, Told};
use crate::Error;
use crate::container::Container;
use crate::engine::{Inner, blocking};
use crate::run::network_namespace;

impl Told {
    /// Whom it asks that leads out, by IPv4 or by IPv6; None: it does not lead out, or by itself.
    fn gateway(&self, is_ipv4: bool) -> Option<IpAddr> {
        let route = self.default_route(is_ipv4)?;
        let mut gateways = self.addresses.iter().filter_map(|ip| ip.gateway);
        route
            .gateway
            .or_else(|| gateways.find(|gateway| gateway.is_ipv4() == is_ipv4))
    }

    /// Give a container the default routes back that its plugins made on its link `inside`, where it has none.
    pub(in crate::networks) fn lead_out(&self, netns: BorrowedFd<'_>, inside: &str) -> Result<(), Error> {
        if let Some(IpAddr::V4(gateway)) = self.gateway(true) {
            let bridge = Bridge {
                gateway,
                ..Bridge::default()
            };
            bridge.route_by(netns, inside)?;
        }
        if let Some(IpAddr::V6(gateway)) = self.gateway(false) {
            let v6 = Bridge6 { gateway, prefix: 0 };
            let bridge = Bridge {
                v6: Some(v6),
                ..Bridge::default()
            };
            bridge.route6_by(netns, inside)?;
        }
        Ok(())
    }
}

/// Plugins make default routes whatever other networks the container is on. Where one of these is its way out, theirs go.
pub(super) async fn yield_way_out(
    engine: &Arc<Inner>,
    container: &Container,
    joined: &Joined,
    pid: u32,
    told: Told,
) -> Result<(), Error> {
    let (of, id, joined) = (Arc::clone(engine), container.id.clone(), joined.clone());
    let on_bridge = container.on_bridge();
    blocking(move || {
        for is_ipv4 in yielded(&of, &id, on_bridge, &joined, &told) {
            let netns = network_namespace(&id, pid)?;
            Bridge::route_no_more(netns.as_fd(), &joined.inside(), is_ipv4)?;
        }
        Ok(())
    })
    .await
}

/// Of which families plugins have made a default route (true: IPv4) where the way out is by another network.
pub(super) fn yielded(
    engine: &Inner,
    id: &str,
    on_bridge: Option<u32>,
    joined: &Joined,
    told: &Told,
) -> Vec<bool> {
    let is_yielded = |is_ipv4: &bool| {
        told.default_route(*is_ipv4).is_some() && is_led_elsewhere(engine, id, on_bridge, joined, *is_ipv4)
    };
    [true, false].into_iter().filter(is_yielded).collect()
}

/// Is the way out by another network than this one, which has one?
fn is_led_elsewhere(
    engine: &Inner,
    id: &str,
    on_bridge: Option<u32>,
    joined: &Joined,
    is_ipv4: bool,
) -> bool {
    let first = if is_ipv4 {
        engine.networks.reached(id, on_bridge)
    } else {
        engine.networks.reached6(id).map(|(first, _)| first)
    };
    match first {
        // Its own address of IPv6 is not known yet.
        Some(first) => first.rank() < joined.rank(),
        None => is_ipv4 && on_bridge.is_some(),
    }
}
