//! Containers on networks: their links while they run, and connecting and disconnecting them.

use std::os::fd::AsFd;
use std::sync::Arc;

use network::{Endpoint, PublishedPort};

use super::driver::Driver;
use super::{BRIDGE_PRIORITY, Joined, Joining, UserNetwork, cni, default_bridge, sublink, tell};
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
    let on_bridge = container.on_bridge();
    cni::forget_former(engine, &id).await?;
    blocking(move || {
        joined.iter().try_for_each(|joined| {
            let ways = Ways::by(&of, &id, on_bridge, joined);
            attach(&of, &id, joined, pid, ways)
        })
    })
    .await?;
    cni::attach_missing(engine, container, pid).await?;
    // Of plugins it is known only now whether they lead out.
    if cni::has_any(engine, &container.id) {
        let (of, owned) = (Arc::clone(engine), container.clone());
        blocking(move || lead_out(&of, &owned, pid)).await?;
    }
    Ok(())
}

/// What leaves by a link that has no better route.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ways {
    pub(super) v4: bool,
    pub(super) v6: bool,
}

impl Ways {
    /// Those of a container that go by this place on a network. `on_bridge`: the number of its link to the default one, too.
    pub(super) fn by(engine: &Inner, id: &str, on_bridge: Option<u32>, joined: &Joined) -> Self {
        let reached6 = engine.networks.reached6(id);
        Self {
            v4: engine.networks.reached(id, on_bridge).as_ref() == Some(joined),
            v6: reached6.is_some_and(|(reached, _)| reached == *joined),
        }
    }

    /// Those that would go by a place on a network that a container does not have yet.
    fn would_be_by(engine: &Inner, container: &Container, network: &UserNetwork, wanted: &Joining) -> Self {
        let on_bridge = container.on_bridge();
        let now = engine.networks.reached(&container.id, on_bridge);
        let now = now.map(|joined| joined.wanted.gw_priority);
        let now6 = engine.networks.reached6(&container.id);
        let now6 = now6.map(|(joined, _)| joined.wanted.gw_priority);
        let wins = |now: Option<i64>| now.is_none_or(|now| wanted.gw_priority > now);
        Self {
            v4: network.leads_out() && wins(now.or(on_bridge.map(|_| BRIDGE_PRIORITY))),
            v6: network.v6.is_some() && !network.internal && wins(now6),
        }
    }

    /// Do published ports of a running container lead to it by these ways?
    pub(super) fn lead_ports(self, container: &Container) -> bool {
        let leads = |port: &PublishedPort| {
            if port.host_address.is_ipv6() {
                self.v6
            } else {
                self.v4
            }
        };
        container.is_running() && container.ports.iter().any(leads)
    }
}

/// One link.
pub(super) fn attach(engine: &Inner, id: &str, joined: &Joined, pid: u32, ways: Ways) -> Result<(), Error> {
    let network = engine
        .networks
        .get(&joined.network)
        .ok_or_else(|| Error::NoSuchNetwork(joined.network.clone()))?;
    let netns = network_namespace(id, pid)?;
    let sysctls = joined.wanted.sysctls()?;
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
        link_local: &joined.wanted.link_local,
        sysctls: &sysctls,
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
    if Ways::would_be_by(engine, container, &network, &wanted).lead_ports(container) {
        let why = format!(
            "with this priority it would go out by network {}, and its published ports lead to it by another; stop it first, \
             or give a lower one",
            network.name
        );
        return Err(Error::wrong_state("connect to a network", container, why));
    }
    let joined = engine.store.join_network(&container.id, &network, wanted).await?;
    failpoint::reach("connect.recorded");
    engine.networks.join(&container.id, joined.clone());
    if container.is_running() {
        let (of, id, pid) = (Arc::clone(engine), container.id.clone(), container.pid);
        let ways = Ways::by(engine, &id, container.on_bridge(), &joined);
        let joining = joined.clone();
        let mut attached = blocking(move || attach(&of, &id, &joining, pid, ways)).await;
        if attached.is_ok() {
            attached = cni::attach_missing(engine, container, pid).await;
        }
        if let Err(error) = attached {
            engine.networks.leave(&container.id, &network.id);
            lead_out_again(engine, container, ways).await;
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
    let ways = Ways::by(engine, id, container.on_bridge(), &leaving);
    if ways.lead_ports(container) {
        let why = format!(
            "its published ports lead to it by network {}; stop it first",
            network.name
        );
        return Err(Error::wrong_state("disconnect", container, why));
    }
    // The row goes last: until then its address is nobody else's. After a kill in between it is connected again.
    unlink(engine, container, &leaving).await?;
    failpoint::reach("disconnect.unlinked");
    engine.networks.leave(id, &network.id);
    // Before the row goes: after a kill in between nobody would know that a way is missing.
    if container.is_running() {
        lead_out_again(engine, container, ways).await;
    }
    if let Err(error) = engine.store.leave_network(id, &network.id).await {
        engine.networks.join(id, leaving.clone());
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
    if container.is_running()
        && let Err(error) = name_servers::follow(engine, container).await
    {
        tracing::warn!(id = container.id, %error, "its files may not tell that it has left a network");
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

/// The ways by which it went out are gone: what is left to it takes the place of each.
pub(super) async fn lead_out_again(engine: &Arc<Inner>, container: &Container, gone: Ways) {
    let (of, owned) = (Arc::clone(engine), container.clone());
    let led = blocking(move || {
        if gone.v4 {
            lead_out(&of, &owned, owned.pid)?;
        }
        if gone.v6 {
            lead_out6(&of, &owned.id, owned.pid)
        } else {
            Ok(())
        }
    });
    if let Err(error) = led.await {
        tracing::error!(id = container.id, %error, "it has no default route");
    }
}

/// If it has no default route: by which of its networks it goes out now, if by any.
pub(super) fn lead_out(engine: &Inner, container: &Container, pid: u32) -> Result<(), Error> {
    let id = &container.id;
    let Some(joined) = engine.networks.reached(id, container.on_bridge()) else {
        return default_bridge::lead_out(engine, container, pid);
    };
    let netns = || network_namespace(id, pid);
    match engine.networks.get(&joined.network) {
        Some(network) if network.driver == cni::CNI => lead_out_told(engine, id, pid, &joined),
        Some(network) => {
            let carried = network.carried(&engine.config.bridge.owner);
            carried.route_by(netns()?.as_fd(), &joined.inside())
        }
        None => Ok(()),
    }
}

/// The same, by IPv6.
pub(super) fn lead_out6(engine: &Inner, id: &str, pid: u32) -> Result<(), Error> {
    let Some((joined, _)) = engine.networks.reached6(id) else {
        return Ok(());
    };
    match engine.networks.get(&joined.network) {
        Some(network) if network.driver == cni::CNI => lead_out_told(engine, id, pid, &joined),
        Some(network) => {
            let netns = network_namespace(id, pid)?;
            let bridge = network.bridge(&engine.config.bridge.owner);
            Ok(bridge.route6_by(netns.as_fd(), &joined.inside())?)
        }
        None => Ok(()),
    }
}

/// Plugins make their routes themselves, but another network may have taken their place.
fn lead_out_told(engine: &Inner, id: &str, pid: u32, joined: &Joined) -> Result<(), Error> {
    match engine.networks.cni.told(id, &joined.network) {
        Some(told) => told.lead_out(network_namespace(id, pid)?.as_fd(), &joined.inside()),
        None => Ok(()),
    }
}
