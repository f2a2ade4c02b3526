//! Who is called what on networks: what a name server for containers answers from. In memory, at any moment.
//!
//! On networks that users made, containers find each other by name, by alias, and by the short form of the id; on the
//! default bridge by nothing of these, as with docker. A link is one container's own name for another one.

use std::net::IpAddr;

use super::Joined;
use crate::Error;
use crate::engine::Engine;
use crate::error::short;
use crate::request::Link;

impl Engine {
    /// The addresses of the running containers that a container knows by `name`, which is compared without regard to
    /// case and may end in the name of a network, as `web.backend`. Those on the container's first network come first.
    ///
    /// # Errors
    /// There is no such container.
    pub fn resolve(&self, container: &str, name: &str) -> Result<Vec<IpAddr>, Error> {
        let id = self.0.containers.find(container)?.id.clone();
        let mut found = Vec::new();
        for own in self.0.networks.of(&id) {
            let Some(network) = self.0.networks.get(&own.network) else {
                continue;
            };
            let bare = strip_network(name, &network.name).unwrap_or(name);
            let means = |link: &&Link| {
                let alias = &link.alias;
                alias.eq_ignore_ascii_case(name) || alias.eq_ignore_ascii_case(bare)
            };
            // A link goes over whoever else has that name.
            let link = own.wanted.links.iter().find(means);
            let (name, bare) = link.map_or((name, bare), |link| (&link.name, &link.name));
            let peers = self.peers(&own.network).into_iter();
            let called = |(names, _): &(Vec<String>, Vec<IpAddr>)| {
                names
                    .iter()
                    .any(|known| known.eq_ignore_ascii_case(name) || known.eq_ignore_ascii_case(bare))
            };
            found.extend(peers.filter(called).flat_map(|(_, addresses)| addresses));
        }
        Ok(found)
    }

    /// The reverse: what the running container that has `address` on a network of `container` is called there, as
    /// `web.backend`.
    ///
    /// # Errors
    /// There is no such container.
    pub fn resolve_address(&self, container: &str, address: IpAddr) -> Result<Vec<String>, Error> {
        let id = self.0.containers.find(container)?.id.clone();
        let mut found = Vec::new();
        for own in self.0.networks.of(&id) {
            let Some(network) = self.0.networks.get(&own.network) else {
                continue;
            };
            let peers = self.peers(&own.network).into_iter();
            let there = peers.filter(|(_, of)| of.contains(&address));
            found.extend(there.filter_map(|(names, _)| Some(format!("{}.{}", names.first()?, network.name))));
        }
        Ok(found)
    }

    /// The running containers of a network: what they are called, name first, and their addresses.
    fn peers(&self, network: &str) -> Vec<(Vec<String>, Vec<IpAddr>)> {
        let joined: Vec<(String, Joined)> = {
            let inside = self.0.networks.locked();
            let places = inside
                .joined
                .iter()
                .flat_map(|(id, all)| all.iter().map(move |joined| (id, joined)));
            let of_it = places.filter(|(_, joined)| joined.network == network);
            of_it.map(|(id, joined)| (id.clone(), joined.clone())).collect()
        };
        let called = |(id, joined): (String, Joined)| {
            let container = self.0.containers.find(&id).ok()?.snapshot().container;
            let mut names = vec![container.name.clone(), short(&id).to_owned()];
            let addresses = joined.addresses();
            names.extend(joined.wanted.aliases);
            container.is_running().then_some((names, addresses))
        };
        joined.into_iter().filter_map(called).collect()
    }
}

fn strip_network<'a>(name: &'a str, network: &str) -> Option<&'a str> {
    let (bare, end) = name.split_at_checked(name.len().checked_sub(network.len())?)?;
    end.eq_ignore_ascii_case(network)
        .then(|| bare.strip_suffix('.'))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_end_in_its_network() {
        assert_eq!(strip_network("web.Backend", "backend"), Some("web"));
        assert_eq!(strip_network("webbackend", "backend"), None);
        assert_eq!(strip_network("backend", "a-longer-name"), None);
    }
}
