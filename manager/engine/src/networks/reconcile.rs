//! Putting networks right at the manager's start, and whenever somebody has changed the host's rules: the rows tell
//! which bridges there are, and who is on them.

use std::collections::BTreeSet;

use network::Bridge;

use super::attach::attach;
use crate::container::Container;
use crate::engine::Inner;

/// Make all bridges with their rules. What cannot be made is told, and tried again by whoever needs it.
pub(crate) fn ensure_all(engine: &Inner) {
    for network in engine.networks.all() {
        if let Err(error) = network.bridge(&engine.config.bridge.owner).ensure() {
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

/// What a connect had begun.
pub(crate) fn attach_missing(engine: &Inner, container: &Container, there: &BTreeSet<String>) {
    let id = &container.id;
    let first = engine
        .networks
        .reached(id)
        .filter(|_| container.address.is_none());
    for joined in engine.networks.of(id) {
        let link = network::link_name(&network::link_id(id, &joined.network));
        if there.contains(&link) {
            continue;
        }
        let leads_out = first.as_ref() == Some(&joined);
        if let Err(error) = attach(engine, id, &joined, container.pid, leads_out) {
            tracing::error!(id, link, %error, "it is not on a network that it should be on");
        }
    }
}

/// The links of containers on all bridges of this root.
pub(crate) fn links(engine: &Inner) -> Vec<String> {
    let mut links = Vec::new();
    for network in engine.networks.all() {
        match network.bridge(&engine.config.bridge.owner).attached() {
            Ok(found) => links.extend(found),
            Err(error) => tracing::warn!(network = network.name, %error, "cannot look for orphaned links"),
        }
    }
    links
}

/// Remove the bridges that have our mark and no row.
pub(crate) fn remove_orphans(engine: &Inner) {
    let own = &engine.config.bridge;
    let mut known: BTreeSet<String> = [own.name.clone()].into();
    known.extend(
        engine
            .networks
            .all()
            .iter()
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
