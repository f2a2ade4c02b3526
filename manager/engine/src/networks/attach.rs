//! Containers on networks: their links while they run, and connecting and disconnecting them.

use std::os::fd::AsFd;
use std::sync::Arc;

use network::{Endpoint, PublishedPort};

use super::driver::Driver;
use super::{Joined, Joining, cni, default_bridge, sublink, tell};
use crate::container::Container;
use crate::engine::{Engine, Inner, blocking};
use crate::request::Network;
use crate::run::network_namespace;
use crate::{Error, etc_files, name_servers, spec};

impl Engine {
    /// Put a container on one more network, running or not.
    pub async fn connect_network(&self, container: &str, wanted: Joining) -> Result<(), Error> {
        super::check_changeable(&wanted.network, "connect a container to")?;
        wanted.check()?;
        self.0.containers.find(container)?.connect(wanted).await
    }

    /// Take a container off a network. With `force`, a container that is not there is no error.
    pub async fn disconnect_network(&self, container: &str, network: &str, force: bool) -> Result<(), Error> {
        super::check_changeable(network, "disconnect a container from")?;
        let id = if default_bridge::is_meant(network) {
            default_bridge::NAME.to_owned()
        } else {
            self.0.networks.find(network)?.id.clone()
        };
        match self.0.containers.find(container) {
            Err(Error::NoSuchContainer(_)) if force => Ok(()),
            handle => handle?.disconnect(id).await,
        }
    }
}

/// Give a container that is about to run its links on all its networks.
pub(crate) async fn attach_all(engine: &Arc<Inner>, container: &Container, pid: u32) -> Result<(), Error> {
    let joined = engine.networks.of(&container.id);
    if joined.is_empty() {
        return Ok(());
    }
    let (of, id) = (Arc::clone(engine), container.id.clone());
    let by_bridge = default_bridge::leads_out(engine, container);
    cni::forget_former(engine, &id).await?;
    blocking(move || {
        joined.iter().try_for_each(|joined| {
            let ways = Ways::by(&of, &id, by_bridge, joined);
            attach(&of, &id, joined, pid, ways)
        })
    })
    .await?;
    cni::attach_missing(engine, container, pid).await?;
    // Of plugins it is known only now whether they lead out.
    if !default_bridge::leads_out(engine, container) && cni::has_any(engine, &container.id) {
        let (of, owned) = (Arc::clone(engine), container.clone());
        blocking(move || lead_out(&of, &owned, pid)).await?;
    }
    Ok(())
}

/// What leaves by a link that has no better route.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ways {
    v4: bool,
    v6: bool,
}

impl Ways {
    /// Those of a container that go by this place on a network. `by_bridge`: it goes out by the default one.
    fn by(engine: &Inner, id: &str, by_bridge: bool, joined: &Joined) -> Self {
        let reached6 = engine.networks.reached6(id);
        Self {
            v4: !by_bridge && engine.networks.reached(id).as_ref() == Some(joined),
            v6: reached6.is_some_and(|(reached, _)| reached == *joined),
        }
    }
}

/// One link.
pub(super) fn attach(engine: &Inner, id: &str, joined: &Joined, pid: u32, ways: Ways) -> Result<(), Error> {
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
        default_route: ways.v4,
        address6: joined.address6,
        default_route6: ways.v6,
    };
    network.carried(&engine.config.bridge.owner).attach(&endpoint)
}

/// Take the links of a run away.
pub(crate) fn detach_all(engine: &Inner, id: &str) -> Result<(), Error> {
    let all = engine.networks.of(id);
    // What cannot go keeps nothing else.
    all.iter()
        .map(|joined| detach(engine, id, joined, None))
        .fold(Ok(()), Result::and)
}

/// `pid` is that of a container that goes on without.
pub(super) fn detach(engine: &Inner, id: &str, joined: &Joined, pid: Option<u32>) -> Result<(), Error> {
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

/// Can a container be on networks besides what it was made with?
pub(super) fn check_joins(container: &Container) -> Result<(), Error> {
    if let network @ (Network::Host | Network::None | Network::Container) = container.request.network {
        let why = format!(
            "it is on the network {}, with which there is no other",
            network.name()
        );
        return Err(Error::wrong_state("connect to a network", container, why));
    }
    Ok(())
}

/// Put a container on a network: its row, then its link if it runs.
pub(crate) async fn connect(
    engine: &Arc<Inner>,
    container: &Container,
    wanted: Joining,
) -> Result<(), Error> {
    check_joins(container)?;
    let network = engine.networks.find(&wanted.network)?;
    network.check_place(&wanted)?;
    let joined = engine.store.join_network(&container.id, &network, wanted).await?;
    failpoint::reach("connect.recorded");
    engine.networks.join(&container.id, joined.clone());
    if container.is_running() {
        let (of, id, pid) = (Arc::clone(engine), container.id.clone(), container.pid);
        let ways = Ways::by(engine, &id, default_bridge::leads_out(engine, container), &joined);
        let joining = joined.clone();
        let mut attached = blocking(move || attach(&of, &id, &joining, pid, ways)).await;
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

/// Take a container off a network: its link, then its row.
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
    let ways = Ways::by(engine, id, default_bridge::leads_out(engine, container), &leaving);
    let leads_to_port = |port: &PublishedPort| {
        if port.host_address.is_ipv6() {
            ways.v6
        } else {
            ways.v4
        }
    };
    if container.is_running() && container.ports.iter().any(leads_to_port) {
        let why = format!(
            "its published ports lead to it by network {}; stop it first",
            network.name
        );
        return Err(Error::wrong_state("disconnect", container, why));
    }
    // The row goes last: until then its address is nobody else's. After a kill in between it is connected again.
    unlink(engine, container, &leaving).await?;
    failpoint::reach("disconnect.unlinked");
    if let Err(error) = engine.store.leave_network(id, &network.id).await {
        let (of, owned) = (Arc::clone(engine), container.clone());
        let mut linked = blocking(move || link_again(&of, &owned, &leaving, ways)).await;
        if linked.is_ok() && container.is_running() {
            linked = cni::attach_missing(engine, container, container.pid).await;
        }
        // The first error is the one to tell.
        if let Err(error) = linked {
            tracing::error!(id, %error, "it is off a network that it should be on, until its next start");
        }
        return Err(error);
    }
    failpoint::reach("disconnect.recorded");
    engine.networks.leave(id, &network.id);
    if container.is_running() {
        let (of, owned) = (Arc::clone(engine), container.clone());
        if let Err(error) = blocking(move || lead_out_instead(&of, &owned, ways)).await {
            tracing::error!(id = container.id, %error, "it has no default route");
        }
        if let Err(error) = name_servers::follow(engine, container).await {
            tracing::warn!(id = container.id, %error, "its files may not tell that it has left a network");
        }
    }
    tell(engine, "disconnect", &network, Some(&container.id));
    Ok(())
}

/// Take the link of a running container to a network away, and its name there from its own hosts.
async fn unlink(engine: &Arc<Inner>, container: &Container, leaving: &Joined) -> Result<(), Error> {
    cni::leave(engine, &container.id, &leaving.network).await?;
    if !container.is_running() {
        return Ok(());
    }
    let (engine, container, leaving) = (Arc::clone(engine), container.clone(), leaving.clone());
    blocking(move || {
        let folder = engine.config.container(&container.id);
        etc_files::follow_hosts(&folder, &spec::hostname(&container), &[], &leaving.addresses())?;
        detach(&engine, &container.id, &leaving, Some(container.pid))
    })
    .await
}

/// It stays on a network after all.
fn link_again(engine: &Inner, container: &Container, joined: &Joined, ways: Ways) -> Result<(), Error> {
    if !container.is_running() {
        return Ok(());
    }
    attach(engine, &container.id, joined, container.pid, ways)?;
    let folder = engine.config.container(&container.id);
    etc_files::follow_hosts(&folder, &spec::hostname(container), &joined.addresses(), &[])
}

/// The ways by which it went out are gone: another network takes the place of each.
fn lead_out_instead(engine: &Inner, container: &Container, gone: Ways) -> Result<(), Error> {
    if gone.v4 {
        lead_out(engine, container, container.pid)?;
    }
    if gone.v6 {
        lead_out6(engine, &container.id, container.pid)
    } else {
        Ok(())
    }
}

/// The network by which it went out is gone: another one takes its place, if there is one.
pub(super) fn lead_out(engine: &Inner, container: &Container, pid: u32) -> Result<(), Error> {
    let id = &container.id;
    if default_bridge::leads_out(engine, container) {
        return default_bridge::lead_out(engine, container, pid);
    }
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

/// The same, by IPv6.
pub(super) fn lead_out6(engine: &Inner, id: &str, pid: u32) -> Result<(), Error> {
    let Some((joined, _)) = engine.networks.reached6(id) else {
        return Ok(());
    };
    let Some(network) = engine.networks.get(&joined.network) else {
        return Ok(());
    };
    let netns = network_namespace(id, pid)?;
    let bridge = network.bridge(&engine.config.bridge.owner);
    Ok(bridge.route6_by(netns.as_fd(), &joined.inside())?)
}
