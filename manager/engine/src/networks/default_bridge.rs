//! Containers on the default bridge: from their making, or by a connect. A place there has an address and the link's
//! number inside, and none of what networks that users made have besides: names, an address or a MAC address of choice.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::Arc;

use network::{Bridge, Endpoint};

use super::attach::{Ways, check_joins, lead_out_again};
use super::{Joining, built_in_network, place, tell};
use crate::container::Container;
use crate::engine::{Inner, blocking};
use crate::run::network_namespace;
use crate::{Error, etc_files, name_servers, spec};

/// The name of the network.
pub(crate) const NAME: &str = "bridge";

pub(crate) fn is_meant(network: &str) -> bool {
    network == NAME || network == "default"
}

/// Does a container go out by it?
pub(crate) fn leads_out(engine: &Inner, container: &Container) -> bool {
    let other = |on_bridge| engine.networks.reached(&container.id, on_bridge);
    container.address.is_some() && other(container.on_bridge()).is_none()
}

/// There is no IPv6 on it.
fn ways(engine: &Inner, container: &Container) -> Ways {
    Ways {
        v4: leads_out(engine, container),
        v6: false,
    }
}

/// Give a running container, or one that is about to run, its link.
pub(crate) async fn attach(engine: &Arc<Inner>, container: &Container, pid: u32) -> Result<(), Error> {
    if container.address.is_none() {
        return Ok(());
    }
    let (engine, container) = (Arc::clone(engine), container.clone());
    blocking(move || link(&engine, &container, pid)).await
}

fn link(engine: &Inner, container: &Container, pid: u32) -> Result<(), Error> {
    let Some(address) = container.address else {
        return Ok(());
    };
    let netns = network_namespace(&container.id, pid)?;
    let endpoint = Endpoint {
        inside: &inside(container),
        default_route: leads_out(engine, container),
        ..Endpoint::only(&container.id, address, netns.as_fd())
    };
    Ok(engine.config.bridge.attach(&endpoint)?)
}

/// Let a running container go out by it.
pub(super) fn lead_out(engine: &Inner, container: &Container, pid: u32) -> Result<(), Error> {
    if container.address.is_none() {
        return Ok(());
    }
    let netns = network_namespace(&container.id, pid)?;
    Ok(engine.config.bridge.route_by(netns.as_fd(), &inside(container))?)
}

fn inside(container: &Container) -> String {
    place::numbered(container.bridge_slot)
}

/// What a connect had begun, or a disconnect, of a container that runs. `is_complete`: whether its link is; None: it has
/// none.
pub(crate) fn attach_missing(engine: &Inner, container: &Container, is_complete: Option<bool>) {
    let Some(address) = container.address else {
        return;
    };
    let made = match is_complete {
        Some(true) => Ok(()),
        None => link(engine, container, container.pid),
        Some(false) => complete(engine, container, address),
    };
    if let Err(error) = made {
        tracing::error!(id = container.id, %error, "it is not on the default bridge, where it should be");
    }
}

/// Make its link again, which was made and not set up. One that the container set down itself has its address.
fn complete(engine: &Inner, container: &Container, address: Ipv4Addr) -> Result<(), Error> {
    let netns = network_namespace(&container.id, container.pid)?;
    if Bridge::is_set_up(netns.as_fd(), &inside(container), address)? {
        return Ok(());
    }
    engine.config.bridge.detach(&container.id)?;
    link(engine, container, container.pid)
}

/// Put a container on it: its row, then its link if it runs. Gives its place, of which the caller's copy has to tell
/// before [`follow`].
pub(crate) async fn connect(
    engine: &Arc<Inner>,
    container: &Container,
    wanted: &Joining,
) -> Result<Arc<Container>, Error> {
    check_joins(container)?;
    let bare = Joining {
        network: wanted.network.clone(),
        ..Joining::default()
    };
    if *wanted != bare {
        let rule = "bridge: as with docker, names and addresses of choice, and links of a place, are for networks made with `network create`";
        return Err(Error::invalid("network", rule));
    }
    if container.address.is_some() {
        return Err(Error::invalid(
            "network",
            "the container is on network bridge already",
        ));
    }
    // With a number that nobody has, as it is known only then: it counts by its priority, and after its equals.
    let joining = Container {
        address: Some(Ipv4Addr::UNSPECIFIED),
        bridge_slot: u32::MAX,
        ..container.clone()
    };
    if ways(engine, &joining).lead_ports(container) {
        let why =
            "it would go out by network bridge, and its published ports lead to it by another; stop it first";
        return Err(Error::wrong_state("connect to a network", container, why));
    }
    let (address, slot) = engine
        .store
        .join_bridge(&container.id, engine.config.subnet())
        .await?;
    failpoint::reach("connect.recorded");
    let joined = Container {
        address: Some(address),
        bridge_slot: slot,
        ..container.clone()
    };
    if container.is_running()
        && let Err(error) = attach(engine, &joined, container.pid).await
    {
        let (of, id) = (Arc::clone(engine), container.id.clone());
        let detached = blocking(move || Ok(of.config.bridge.detach(&id)?)).await;
        lead_out_again(engine, container, ways(engine, &joined)).await;
        // The first error is the one to tell.
        if let Err(error) = detached.and(engine.store.leave_bridge(&container.id).await) {
            tracing::error!(id = container.id, %error, "it is half on a network, until the next start of the manager");
        }
        return Err(error);
    }
    Ok(Arc::new(joined))
}

/// Take a container off it: its link, then its row. Gives the container without, see [`connect`].
pub(crate) async fn disconnect(engine: &Arc<Inner>, container: &Container) -> Result<Arc<Container>, Error> {
    let Some(address) = container.address else {
        let why = "it is not connected to network bridge";
        return Err(Error::wrong_state("disconnect", container, why));
    };
    let ways = ways(engine, container);
    if ways.lead_ports(container) {
        let why = "its published ports lead to it by network bridge; stop it first";
        return Err(Error::wrong_state("disconnect", container, why));
    }
    let left = Container {
        address: None,
        ..container.clone()
    };
    if container.is_running() {
        unlink(engine, container, address).await?;
    }
    failpoint::reach("disconnect.unlinked");
    // Before the row goes: after a kill in between nobody would know that a way is missing.
    if container.is_running() {
        lead_out_again(engine, &left, ways).await;
    }
    if let Err(error) = engine.store.leave_bridge(&container.id).await {
        // The first error is the one to tell.
        if container.is_running()
            && let Err(error) = attach(engine, container, container.pid).await
        {
            tracing::error!(id = container.id, %error, "it is off a network that it should be on, until its next start");
        }
        return Err(error);
    }
    failpoint::reach("disconnect.recorded");
    Ok(Arc::new(left))
}

async fn unlink(engine: &Arc<Inner>, container: &Container, address: Ipv4Addr) -> Result<(), Error> {
    let (engine, container) = (Arc::clone(engine), container.clone());
    blocking(move || {
        let folder = engine.config.container(&container.id);
        etc_files::follow_hosts(&folder, &spec::hostname(&container), &[], &[address.into()])?;
        Ok(engine.config.bridge.detach(&container.id)?)
    })
    .await
}

/// What follows from a connect or a disconnect, once everybody sees the container as it is now.
pub(crate) async fn follow(engine: &Arc<Inner>, container: &Container, action: &'static str) {
    if container.is_running()
        && let Err(error) = name_servers::follow(engine, container).await
    {
        tracing::warn!(id = container.id, %error, "its files may not tell of all its networks");
    }
    let network = built_in_network(engine, NAME, NAME);
    tell(engine, action, &network, Some(&container.id));
}
