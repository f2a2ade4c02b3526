//! Putting networks right at the manager's start, and whenever somebody has changed the host's rules: the rows tell
//! which bridges there are, and who is on them.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;

use network::{Attached, Bridge};

use super::attach::{Ways, attach, detach, lead_out, lead_out6};
use super::{Joined, sublink};
use crate::Error;
use crate::container::Container;
use crate::engine::Inner;
use crate::run::network_namespace;

/// Make all bridges with their rules. What cannot be made is told, and tried again by whoever needs it. Waits while a
/// network is made or removed, else one that was just removed might be made again.
pub(crate) fn ensure_all(engine: &Inner) {
    let _changes = engine.networks.changes.blocking_lock();
    for network in engine.networks.all() {
        if let Err(error) = network.carried(&engine.config.bridge.owner).ensure() {
            tracing::error!(network = network.name, %error, "the network is not complete");
        }
    }
}

/// Links that a running container is to have on networks.
pub(crate) fn links_of(engine: &Inner, container: &str) -> impl Iterator<Item = String> {
    let id = container.to_owned();
    let joined = engine.networks.of(container).into_iter();
    joined.map(move |joined| network::link_name(&network::link_id(&id, &joined.network)))
}

/// What a connect had begun, or a disconnect.
pub(crate) fn attach_missing(engine: &Inner, container: &Container, there: &BTreeMap<String, bool>) {
    let id = &container.id;
    let all = engine.networks.of(id);
    // On the default bridge from its making it was never led out by another one.
    let may_be_led_out = !all.is_empty() || container.bridge_slot > 0;
    for joined in all {
        let link = network::link_name(&network::link_id(id, &joined.network));
        let made = match there.get(&link) {
            Some(true) => Ok(()),
            None => attach_again(engine, container, &joined),
            Some(false) => complete(engine, container, &joined),
        };
        if let Err(error) = made {
            tracing::error!(id, link, %error, "it is not on a network that it should be on");
        }
    }
    if let Err(error) = sublink::remove_strays(engine, container) {
        tracing::warn!(id, %error, "it may be on a network that it should not be on");
    }
    // A disconnect of an older manager may have ended between the row and the route, and a route that is there stays.
    if may_be_led_out && let Err(error) = lead_out(engine, container, container.pid) {
        tracing::error!(id, %error, "it has no default route");
    }
    if let Err(error) = lead_out6(engine, id, container.pid) {
        tracing::error!(id, %error, "it has no default route of IPv6");
    }
}

/// Make a link again that was made and not set up. One that the container set down itself has its address.
fn complete(engine: &Inner, container: &Container, joined: &Joined) -> Result<(), Error> {
    let id = &container.id;
    let netns = network_namespace(id, container.pid)?;
    if Bridge::is_set_up(netns.as_fd(), &joined.inside(), joined.address)? {
        return Ok(());
    }
    detach(engine, id, joined, Some(container.pid))?;
    attach_again(engine, container, joined)
}

/// With the way out, if it goes by this place: a connect that takes it from another network may have begun.
fn attach_again(engine: &Inner, container: &Container, joined: &Joined) -> Result<(), Error> {
    let ways = Ways::by(engine, &container.id, container.on_bridge(), joined);
    attach(engine, &container.id, joined, container.pid, ways)
}

/// The links of containers on all bridges of this root.
pub(crate) fn links(engine: &Inner) -> Vec<Attached> {
    let mut links = Vec::new();
    let networks = engine.networks.all().into_iter();
    for network in networks.filter(|network| network.is_bridge()) {
        match network.bridge(&engine.config.bridge.owner).attached() {
            Ok(found) => links.extend(found),
            Err(error) => tracing::warn!(network = network.name, %error, "cannot look for orphaned links"),
        }
    }
    links
}

/// Remove the bridges, and the parents of links, that have our mark and no row.
pub(crate) fn remove_orphans(engine: &Inner) {
    sublink::remove_orphaned_parents(engine);
    let own = &engine.config.bridge;
    let mut known: BTreeSet<String> = [own.name.clone()].into();
    known.extend(
        engine
            .networks
            .all()
            .iter()
            .filter(|network| network.is_bridge())
            .map(|network| network.bridge(&own.owner).name),
    );
    let found = match Bridge::all_of(&own.owner) {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "cannot look for orphaned bridges");
            return;
        }
    };
    for name in found.into_iter().filter(|name| !known.contains(name)) {
        tracing::info!(name, "removing an orphaned bridge");
        let bridge = Bridge {
            name,
            owner: own.owner.clone(),
            ..Bridge::default()
        };
        if let Err(error) = bridge.remove() {
            tracing::warn!(name = bridge.name, %error, "cannot remove an orphaned bridge");
        }
    }
}
