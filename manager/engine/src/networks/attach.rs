//! Containers on networks: their links while they run, and connecting and disconnecting them.

use std::os::fd::AsFd;
use std::sync::Arc;

use network::Endpoint;

use super::driver::Driver;
use super::{Joined, Joining, cni, sublink, tell};
use crate::container::Container;
use crate::engine::{Engine, Inner, blocking};
use crate::request::Network;
use crate::run::network_namespace;
use crate::{Error, name_servers};

impl Engine {
    /// Put a container on one more network, running or not.
    pub async fn connect_network(&self, container: &str, wanted: Joining) -> Result<(), Error> {
        wanted.check()?;
        self.0.containers.find(container)?.connect(wanted).await
    }

    /// Take a container off a network. With `force`, a container that is not there is no error.
    pub async fn disconnect_network(&self, container: &str, network: &str, force: bool) -> Result<(), Error> {
        if let "bridge" | "default" | "host" | "none" = network {
            let rule = format!(
                "disconnecting a container from {network} is not done in this version: make it with --network"
            );
            return Err(Error::invalid("network", rule));
        }
        let network = self.0.networks.find(network)?;
        match self.0.containers.find(container) {
            Err(Error::NoSuchContainer(_)) if force => Ok(()),
            handle => handle?.disconnect(network.id.clone()).await,
        }
    }
}

/// Give a container that is about to run its links on all its networks.
pub(crate) async fn attach_all(engine: &Arc<Inner>, container: &Container, pid: u32) -> Result<(), Error> {
    let joined = engine.networks.of(&container.id);
    if joined.is_empty() {
        return Ok(());
    }
    let (of, id, on_bridge) = (
        Arc::clone(engine),
        container.id.clone(),
        container.address.is_some(),
    );
    blocking(move || {
        let first = of.networks.reached(&id).filter(|_| !on_bridge);
        joined.iter().try_for_each(|joined| {
            let leads_out = first.as_ref() == Some(joined);
            attach(&of, &id, joined, pid, leads_out)
        })
    })
    .await?;
    cni::attach_missing(engine, container, pid).await
}

/// One link.
pub(super) fn attach(
    engine: &Inner,
    id: &str,
    joined: &Joined,
    pid: u32,
    default_route: bool,
) -> Result<(), Error> {
    let network = engine
        .networks
        .get(&joined.network)
        .ok_or_else(|| Error::NoSuchNetwork(joined.network.clone()))?;
    let netns = network_namespace(id, pid)?;
    let endpoint = Endpoint {
        container_id: id,
        link_id: &network::link_id(id, &joined.network),
        address: joined.address,
        netns: netns.as_fd(),
        inside: &joined.inside(),
        mac: joined.wanted.mac,
        default_route,
    };
    network.carried(&engine.config.bridge.owner).attach(&endpoint)
}

/// Take the links of a run away.
pub(crate) fn detach_all(engine: &Inner, id: &str) -> Result<(), Error> {
    engine
        .networks
        .of(id)
        .iter()
        .try_for_each(|joined| detach(engine, id, joined, None))
}

/// `pid` is that of a container that goes on without.
fn detach(engine: &Inner, id: &str, joined: &Joined, pid: Option<u32>) -> Result<(), Error> {
    let network = engine.networks.get(&joined.network);
    let carried = network.map(|network| network.carried(&engine.config.bridge.owner));
    if let Some(Driver::Plugins) = carried {
        return Ok(());
    }
    if let Some(Driver::Sublink(on_parent)) = carried {
        return match pid {
            Some(pid) => sublink::detach(&on_parent, id, joined, pid),
            None => sublink::detach_ended(engine, &on_parent, id, joined),
        };
    }
    Ok(engine
        .config
        .bridge
        .detach(&network::link_id(id, &joined.network))?)
}

/// Put a container on a network: its row, then its link if it runs.
pub(crate) async fn connect(
    engine: &Arc<Inner>,
    container: &Container,
    wanted: Joining,
) -> Result<(), Error> {
    if let network @ (Network::Host | Network::None | Network::Container) = container.request.network {
        let why = format!(
            "it is on the network {}, with which there is no other",
            network.name()
        );
        return Err(Error::wrong_state("connect to a network", container, why));
    }
    let network = engine.networks.find(&wanted.network)?;
    network.check_place(&wanted)?;
    let joined = engine
        .store
        .join_network(
            &container.id,
            &network,
            wanted,
            u32::from(container.address.is_some()),
        )
        .await?;
    failpoint::reach("connect.recorded");
    engine.networks.join(&container.id, joined.clone());
    if container.is_running() {
        let (of, id, pid) = (Arc::clone(engine), container.id.clone(), container.pid);
        let leads_out = container.address.is_none() && engine.networks.reached(&id).as_ref() == Some(&joined);
        let joining = joined.clone();
        let mut attached = blocking(move || attach(&of, &id, &joining, pid, leads_out)).await;
        if attached.is_ok() {
            attached = cni::attach_missing(engine, container, pid).await;
        }
        if let Err(error) = attached {
            engine.networks.leave(&container.id, &network.id);
            engine.store.leave_network(&container.id, &network.id).await?;
            return Err(error);
        }
        if let Err(error) = name_servers::follow(engine, container).await {
            tracing::warn!(id = container.id, %error, "it finds no names until its next start");
        }
    }
    tell(engine, "connect", &network, Some(&container.id));
    Ok(())
}

/// Take a container off a network: its row, then its link.
pub(crate) async fn disconnect(
    engine: &Arc<Inner>,
    container: &Container,
    network: &str,
) -> Result<(), Error> {
    let network = engine
        .networks
        .get(network)
        .ok_or_else(|| Error::NoSuchNetwork(network.to_owned()))?;
    let id = &container.id;
    let Some(leaving) = engine
        .networks
        .of(id)
        .into_iter()
        .find(|joined| joined.network == network.id)
    else {
        let why = format!("it is not connected to network {}", network.name);
        return Err(Error::wrong_state("disconnect", container, why));
    };
    let led_out = container.address.is_none() && engine.networks.reached(id).as_ref() == Some(&leaving);
    if led_out && container.is_running() && !container.ports.is_empty() {
        let why = format!(
            "its published ports lead to it by network {}; stop it first",
            network.name
        );
        return Err(Error::wrong_state("disconnect", container, why));
    }
    engine.store.leave_network(id, &network.id).await?;
    failpoint::reach("disconnect.recorded");
    engine.networks.leave(id, &network.id);
    if container.is_running() {
        cni::leave(engine, id, &network.id).await;
        let (of, id, pid) = (Arc::clone(engine), id.clone(), container.pid);
        blocking(move || {
            detach(&of, &id, &leaving, Some(pid))?;
            if led_out { lead_out(&of, &id, pid) } else { Ok(()) }
        })
        .await?;
    }
    tell(engine, "disconnect", &network, Some(&container.id));
    Ok(())
}

/// The network by which it went out is gone: another one takes its place, if there is one.
pub(super) fn lead_out(engine: &Inner, id: &str, pid: u32) -> Result<(), Error> {
    let Some(joined) = engine.networks.reached(id) else {
        return Ok(());
    };
    let Some(network) = engine.networks.get(&joined.network) else {
        return Ok(());
    };
    let netns = network_namespace(id, pid)?;
    let carried = network.carried(&engine.config.bridge.owner);
    carried.route_by(netns.as_fd(), &joined.inside())
}
