//! What a container on the default bridge is told of those that it is linked to: lines of /etc/hosts, and docker's
//! variables. On networks that users made, a link is an answer of the name server instead (`networks/resolve.rs`).
//!
//! An address on the default bridge is a container's until it leaves the bridge or is removed, so what a start has written
//! stays right when the other one is restarted. As with docker, it is not changed when the other one goes: the next start
//! is refused, or knows it no more.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use network::Protocol;
use oci_spec::image::ImageConfiguration;

use crate::container::Container;
use crate::engine::Inner;
use crate::request::{CreateRequest, Link, Network};
use crate::{Error, spec};

/// As many containers have the network one from the other at most.
const CHAIN_MAX: usize = 16;
/// What builds set, and says nothing of the container; docker leaves them out too.
const NOT_TOLD: [&str; 2] = ["HOME", "PATH"];

/// Another container, as the one that is linked to it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Linked {
    alias: String,
    name: String,
    hostname: String,
    address: Ipv4Addr,
    env: Vec<String>,
    /// By number, TCP first.
    ports: BTreeSet<(u16, Protocol)>,
}

/// Put ids beside the names of a request, which may be other containers' at the next start.
///
/// # Errors
/// One of them is not there, or on the host's network. Not as one that is not found: that would be the image.
pub(crate) fn resolve(engine: &Inner, request: &mut CreateRequest) -> Result<(), Error> {
    for link in &mut request.links {
        let found = engine.containers.find(&link.name);
        let mut other = found
            .map_err(|error| {
                Error::invalid(
                    "link",
                    format!("could not get container for {}: {error}", link.name),
                )
            })?
            .snapshot()
            .container;
        for _ in 0..CHAIN_MAX {
            if other.request.network != Network::Container {
                break;
            }
            other = engine
                .containers
                .find(&other.request.network_of)?
                .snapshot()
                .container;
        }
        if other.request.network == Network::Host {
            let rule = format!(
                "{}: conflicting options: host type networking can't be used with links. This would result in undefined behavior",
                link.name
            );
            return Err(Error::invalid("link", rule));
        }
        link.id.clone_from(&other.id);
    }
    Ok(())
}

/// Those that a container which is about to start is linked to. One that has been removed is linked no more, as with
/// docker.
pub(crate) fn of(engine: &Inner, container: &Container) -> Result<Vec<Linked>, Error> {
    let mut all = Vec::new();
    if container.address.is_none() {
        // It has left the bridge.
        return Ok(all);
    }
    for link in &container.request.links {
        let Ok(handle) = engine.containers.find(&link.id) else {
            continue;
        };
        let other = handle.snapshot().container;
        let refuse = |why: String| Err(Error::wrong_state("start", container, why));
        if !other.is_running() {
            return refuse(format!(
                "cannot link to a non running container: {} AS {}; start it first",
                other.name, link.alias
            ));
        }
        let Some(address) = other.address else {
            return refuse(format!(
                "container {} not attached to default bridge network; on networks made with `network create` containers find each other by name",
                other.name
            ));
        };
        let image = engine.images.get(&other.image_id)?;
        all.push(linked(link, &other, &image.config, address)?);
    }
    Ok(all)
}

fn linked(
    link: &Link,
    other: &Container,
    image: &ImageConfiguration,
    address: Ipv4Addr,
) -> Result<Linked, Error> {
    let of_image = image.config().as_ref();
    let of_image = of_image
        .and_then(|config| config.env().clone())
        .unwrap_or_default();
    let exposed = other.request.ports.exposed(spec::process::exposed(image))?;
    Ok(Linked {
        alias: link.alias.clone(),
        name: other.name.clone(),
        hostname: spec::hostname(other).into_owned(),
        address,
        env: spec::process::merged(&[&of_image, &other.request.env]),
        ports: exposed,
    })
}

impl Linked {
    /// Its line of /etc/hosts: the address, and all that it is called.
    pub(crate) fn line(&self) -> String {
        let mut line = format!("{}\t{} {}", self.address, self.alias, self.hostname);
        if self.alias != self.name {
            line.push(' ');
            line.push_str(&self.name);
        }
        line
    }

    /// Docker's variables about it; `owner` is who is told.
    pub(crate) fn variables(&self, owner: &str) -> Vec<String> {
        let prefix = self.alias.to_uppercase().replace('-', "_");
        let mut all = Vec::new();
        let url = |(port, protocol): (u16, Protocol)| format!("{protocol}://{}:{port}", self.address);
        if let Some(first) = self.ports.first() {
            all.push(format!("{prefix}_PORT={}", url(*first)));
        }
        let name = |(port, protocol): (u16, Protocol)| {
            format!("{prefix}_PORT_{port}_{}", protocol.to_string().to_uppercase())
        };
        let ports: Vec<_> = self.ports.iter().copied().collect();
        let mut rest = ports.as_slice();
        while let Some(&first) = rest.first() {
            let length = contiguous(rest);
            let last = rest[length - 1];
            if length > 1 {
                all.push(format!("{}_START={}", name(first), url(first)));
                all.push(format!("{}_PORT_START={}", name(first), first.0));
                // Docker has it by the name of the first.
                all.push(format!("{}_END={}", name(first), url(last)));
                all.push(format!("{}_PORT_END={}", name(first), last.0));
            }
            rest = &rest[length..];
        }
        for port in ports {
            all.push(format!("{}={}", name(port), url(port)));
            all.push(format!("{}_ADDR={}", name(port), self.address));
            all.push(format!("{}_PORT={}", name(port), port.0));
            all.push(format!("{}_PROTO={}", name(port), port.1));
        }
        all.push(format!("{prefix}_NAME=/{owner}/{}", self.alias));
        for entry in &self.env {
            if let Some((name, value)) = entry.split_once('=')
                && !NOT_TOLD.contains(&name)
            {
                all.push(format!("{prefix}_ENV_{name}={value}"));
            }
        }
        all
    }
}

/// How many of the first ports follow one another.
fn contiguous(ports: &[(u16, Protocol)]) -> usize {
    let follows = |pair: &&[(u16, Protocol)]| pair[0].0.checked_add(1) == Some(pair[1].0);
    1 + ports.windows(2).take_while(follows).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn db(ports: &[(u16, Protocol)]) -> Linked {
        Linked {
            alias: "my-db".to_owned(),
            name: "db".to_owned(),
            hostname: "0123".to_owned(),
            address: Ipv4Addr::new(172, 30, 0, 2),
            env: vec!["HOME=/x".to_owned(), "PATH=/bin".to_owned(), "A=b=c".to_owned()],
            ports: ports.iter().copied().collect(),
        }
    }

    #[test]
    fn a_linked_container_is_told_of_as_docker_does() {
        let told = db(&[(53, Protocol::Udp), (53, Protocol::Tcp)]).variables("web");
        assert_eq!(told[0], "MY_DB_PORT=tcp://172.30.0.2:53");
        for expected in [
            "MY_DB_PORT_53_UDP=udp://172.30.0.2:53",
            "MY_DB_PORT_53_TCP_ADDR=172.30.0.2",
            "MY_DB_NAME=/web/my-db",
            "MY_DB_ENV_A=b=c",
        ] {
            assert!(
                told.iter().any(|entry| entry == expected),
                "{expected} in {told:#?}"
            );
        }
        assert!(
            !told
                .iter()
                .any(|entry| entry.contains("HOME") || entry.contains("_START"))
        );
        assert_eq!(db(&[]).variables("web").len(), 2);
        assert_eq!(db(&[]).line(), "172.30.0.2\tmy-db 0123 db");
    }

    #[test]
    fn ports_in_a_row_are_a_range() {
        let ports = [80, 81, 82, 90].map(|port| (port, Protocol::Tcp));
        let told = db(&ports).variables("web");
        assert!(told.contains(&"MY_DB_PORT_80_TCP_START=tcp://172.30.0.2:80".to_owned()));
        assert!(told.contains(&"MY_DB_PORT_80_TCP_PORT_END=82".to_owned()));
        assert!(!told.iter().any(|entry| entry.contains("90_TCP_END")));
    }
}
