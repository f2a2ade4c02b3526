//! Ports of the host that running containers have. They are claimed when a start begins, published when the container
//! has its network, put on record with the start, and given back when the run is over; so a manager that dies in
//! between leaves at most entries of the kernel's map without an owner, which the next one removes.

mod v6;

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use network::{Protocol, PublishedPort, Publisher, Target, Target6};

use crate::config::Config;
use crate::container::Container;
use crate::engine::{Inner, blocking};
use crate::error::short;
use crate::request::{Network, Wanted};
use crate::{Error, networks, outside, spec};

/// Where the kernel's own range of ports is read, out of which a port is taken when none is named.
const LOCAL_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// If it cannot be read: the range that IANA keeps free for this.
const DYNAMIC: RangeInclusive<u16> = 49152..=65535;

/// Who has which port.
#[derive(Default)]
pub(crate) struct Claims(Mutex<Inside>);

#[derive(Default)]
struct Inside {
    /// This manager's network is not the host's.
    is_behind: bool,
    by_container: BTreeMap<String, Claim>,
    /// Of runs that are over, whose ports the kernel would not take away yet.
    stale: Vec<(String, Claim)>,
    /// On which addresses a port is taken, and by whom.
    holders: BTreeMap<(Protocol, u16), Vec<(IpAddr, String)>>,
    /// Which of [`outside::INSIDE`] are taken, if the host's are somewhere else.
    guests: BTreeSet<(Protocol, u16)>,
    /// The port that was last taken without being named.
    last: u16,
}

struct Claim {
    place: Place,
    ports: Vec<PublishedPort>,
    /// The same, as the rules have them.
    at_rules: Vec<PublishedPort>,
}

/// Where a container is reached.
#[derive(Debug, Clone)]
struct Place {
    address: Ipv4Addr,
    /// What its link is named from.
    link_id: String,
    /// The same by IPv6, maybe on another network.
    v6: Option<(Ipv6Addr, String)>,
    /// CNI plugins publish its ports.
    by_plugin: bool,
}

impl Place {
    /// None: it is on no network from which it is reached.
    fn of(engine: &Inner, container: &Container) -> Option<Place> {
        let id = &container.id;
        let reached6 = engine.networks.reached6(id);
        let v6 = reached6.map(|(joined, address)| (address, network::link_id(id, &joined.network)));
        let Some(joined) = engine.networks.reached(id, container.on_bridge()) else {
            return container.address.map(|address| Place {
                address,
                link_id: id.clone(),
                v6,
                by_plugin: false,
            });
        };
        // As with docker, other drivers have no ports of the host: who can reach the container needs none.
        let network = engine.networks.get(&joined.network)?;
        // A run that has ports there got them by plugins, whatever the configuration says by now.
        let by_plugin = !network.is_bridge()
            && (!container.ports.is_empty() || networks::cni::publishes(engine, &network));
        (by_plugin || network.is_bridge()).then(|| Place {
            address: joined.address,
            link_id: network::link_id(id, &joined.network),
            // Plugins are asked for those of IPv4 alone.
            v6: v6.filter(|_| !by_plugin),
            by_plugin,
        })
    }
}

/// Claim the ports that a container is to have, for the run that begins.
pub(crate) async fn claim(engine: &Arc<Inner>, container: &Container) -> Result<Vec<PublishedPort>, Error> {
    let ports = &container.request.ports;
    let is_reached = matches!(container.request.network, Network::Bridge | Network::User);
    if !is_reached || (ports.publish.is_empty() && !ports.publish_all) {
        return Ok(Vec::new());
    }
    let (engine, container) = (Arc::clone(engine), container.clone());
    blocking(move || {
        let Some(place) = Place::of(&engine, &container) else {
            return Ok(Vec::new());
        };
        if place.by_plugin && engine.config.outside.is_some() {
            let rule = "CNI plugins can't publish ports on a host whose network they are not in: without root's rights \
                        this is done for bridges alone";
            return Err(Error::invalid("ports", rule));
        }
        let image = engine.images.get(&container.image_id)?;
        let exposed = spec::process::exposed(&image.config);
        let wanted = container.request.ports.wanted(exposed)?;
        engine.ports.claim(&container.id, &place, &wanted, |target| {
            publisher(&engine.config).withdraw(target)
        })
    })
    .await
}

/// Publish what a container, which has its network now, has claimed.
pub(crate) async fn publish(engine: &Arc<Inner>, id: &str) -> Result<(), Error> {
    let (engine, id) = (Arc::clone(engine), id.to_owned());
    blocking(move || engine.ports.publish(&engine.config, &id)).await
}

impl Claims {
    pub(crate) fn new(config: &Config) -> Self {
        Self(Mutex::new(Inside {
            is_behind: config.outside.is_some(),
            ..Inside::default()
        }))
    }

    fn claim(
        &self,
        id: &str,
        place: &Place,
        wanted: &[Wanted],
        withdraw: impl Fn(&Target<'_>) -> Result<(), network::Error>,
    ) -> Result<Vec<PublishedPort>, Error> {
        let mut inside = self.locked();
        inside.retry(&withdraw);
        inside.release(id);
        for wanted in wanted {
            let chosen = inside.choose(wanted, place.v6.is_some());
            let taken = chosen.and_then(|ports| {
                let mut ports = ports.into_iter();
                ports.try_for_each(|port| inside.take(id, place, port))
            });
            if let Err(error) = taken {
                inside.release(id);
                return Err(error);
            }
        }
        let claim = inside.by_container.get(id);
        Ok(claim.map(|claim| claim.ports.clone()).unwrap_or_default())
    }

    /// A container that runs has its ports from an earlier manager.
    pub(crate) fn resume(&self, engine: &Inner, container: &Container) {
        let Some(place) = Place::of(engine, container) else {
            return;
        };
        let mut inside = self.locked();
        for port in &container.ports {
            if let Err(error) = inside.take(&container.id, &place, *port) {
                tracing::warn!(id = container.id, %error, "it loses a published port");
            }
        }
    }

    /// Those that a container has claimed.
    pub(crate) fn of(&self, id: &str) -> Vec<PublishedPort> {
        let inside = self.locked();
        let claim = inside.by_container.get(id);
        claim.map(|claim| claim.ports.clone()).unwrap_or_default()
    }

    fn publish(&self, config: &Config, id: &str) -> Result<(), Error> {
        let inside = self.locked();
        let Some(claim) = inside.by_container.get(id).filter(|claim| !claim.place.by_plugin) else {
            return Ok(());
        };
        match publisher(config).publish(&claim.target(id)) {
            // Somebody has flushed the host's rules, and with them those of all containers.
            Err(error) if error.rules_are_gone() => {
                tracing::warn!("the host's rules were flushed; putting ours back");
                config.bridge.ensure()?;
                publisher(config).restore(&inside.targets())?;
            }
            published => published?,
        }
        match &config.outside {
            Some(socket) => {
                outside::publish(socket, &claim.outside()).map_err(|(port, why)| refused(port, why))
            }
            None => Ok(()),
        }
    }

    /// Take a container's ports from the kernel's map, and let others have them.
    pub(crate) fn withdraw(&self, config: &Config, id: &str) -> Result<(), Error> {
        let mut inside = self.locked();
        if let (Some(socket), Some(claim)) = (&config.outside, inside.by_container.get(id))
            && !claim.place.by_plugin
            && let Err(error) = outside::withdraw(socket, &claim.outside())
        {
            // What comes there finds nobody inside, and the next manager takes it away.
            tracing::warn!(id, %error, "ports of the host stay taken");
        }
        inside.withdraw(id, &|target| publisher(config).withdraw(target))
    }

    /// Put back what somebody took of the host's rules.
    pub(crate) fn mend(&self, config: &Config) -> Result<(), Error> {
        let inside = self.locked();
        config.bridge.ensure()?;
        Ok(publisher(config).restore(&inside.targets())?)
    }

    /// Make the kernel's map what the containers that run have claimed.
    pub(crate) fn restore(&self, config: &Config) {
        let inside = self.locked();
        if let Err(error) = publisher(config).restore(&inside.targets()) {
            tracing::error!(%error, "published ports may not be reached");
        }
        let Some(socket) = &config.outside else {
            return;
        };
        let claims = inside
            .by_container
            .values()
            .filter(|claim| !claim.place.by_plugin);
        let ports: Vec<_> = claims.flat_map(Claim::outside).collect();
        if let Err(error) = outside::restore(socket, &ports) {
            tracing::error!(%error, "published ports may not be reached from the host");
        }
    }

    fn locked(&self) -> MutexGuard<'_, Inside> {
        // A panic between two changes would leave a port taken, and nothing worse.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn publisher(config: &Config) -> Publisher<'_> {
    Publisher {
        owner: &config.bridge.owner,
    }
}

impl Claim {
    fn outside(&self) -> Vec<outside::Wanted> {
        let pairs = self.ports.iter().zip(&self.at_rules);
        pairs
            .map(|(port, at_rules)| outside::Wanted {
                port: *port,
                inside: at_rules.host_port,
            })
            .collect()
    }

    fn target<'a>(&'a self, container_id: &'a str) -> Target<'a> {
        Target {
            container_id,
            link_id: &self.place.link_id,
            address: self.place.address,
            v6: self.place.v6.as_ref().map(|(address, link_id)| Target6 {
                link_id,
                address: *address,
            }),
            ports: &self.at_rules,
        }
    }
}

impl Inside {
    /// A port of the host for `wanted` that neither a container nor a program of the host has: the same on all addresses on
    /// which it is to be published.
    fn choose(&mut self, wanted: &Wanted, has_v6: bool) -> Result<Vec<PublishedPort>, Error> {
        let addresses = v6::host_addresses(wanted, has_v6, self.is_behind)?;
        let published = |host_port| -> Vec<PublishedPort> {
            let on = |address: &IpAddr| PublishedPort {
                host_address: *address,
                host_port,
                protocol: wanted.protocol,
                container_port: wanted.container_port,
            };
            addresses.iter().map(on).collect()
        };
        let check = |ports: &[PublishedPort]| {
            ports.iter().try_for_each(|port| {
                self.check_holders(*port)?;
                self.check_programs(*port)
            })
        };
        let (range, is_named) = match &wanted.host {
            Some(range) => (range.clone(), true),
            None => (local_range(), false),
        };
        if is_named && range.start() == range.end() {
            let ports = published(*range.start());
            check(&ports)?;
            return Ok(ports);
        }
        // From the last one on, so that a port just given back is not somebody else's at once.
        let begin = match self.last.checked_add(1) {
            Some(next) if !is_named && range.contains(&next) => next,
            _ => *range.start(),
        };
        let found = (begin..=*range.end())
            .chain(*range.start()..begin)
            .map(published)
            .find(|ports| check(ports).is_ok());
        let ports = found.ok_or_else(|| Error::Port {
            container_port: wanted.container_port,
            protocol: wanted.protocol,
            host_address: wanted.host_address.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
            host_port: format!("{}-{}", range.start(), range.end()),
            why: "all ports are allocated".to_owned(),
        })?;
        if !is_named {
            self.last = ports.first().map_or(0, |port| port.host_port);
        }
        Ok(ports)
    }

    fn check_programs(&self, port: PublishedPort) -> Result<(), Error> {
        // If the host's ports are somewhere else, who listens there finds out.
        if self.is_behind {
            Ok(())
        } else {
            check_programs(port)
        }
    }

    fn check_holders(&self, port: PublishedPort) -> Result<(), Error> {
        let holders = self.holders.get(&(port.protocol, port.host_port));
        let overlaps = |address: &IpAddr| {
            address.is_ipv4() == port.host_address.is_ipv4()
                && (*address == port.host_address
                    || address.is_unspecified()
                    || port.host_address.is_unspecified())
        };
        match holders
            .into_iter()
            .flatten()
            .find(|(address, _)| overlaps(address))
        {
            Some((_, holder)) => Err(refused(
                port,
                format!("port is already allocated, to container {}", short(holder)),
            )),
            None => Ok(()),
        }
    }

    fn take(&mut self, id: &str, place: &Place, port: PublishedPort) -> Result<(), Error> {
        self.check_holders(port)?;
        // Where its packets come in: on the host's address, or at the end of the host's network in here.
        let at_rules = if self.is_behind {
            PublishedPort {
                host_address: outside::INSIDE.into(),
                host_port: self.inside_port(port),
                ..port
            }
        } else {
            port
        };
        let holders = self.holders.entry((port.protocol, port.host_port)).or_default();
        holders.push((port.host_address, id.to_owned()));
        let claim = self.by_container.entry(id.to_owned()).or_insert_with(|| Claim {
            place: place.clone(),
            ports: Vec::new(),
            at_rules: Vec::new(),
        });
        claim.ports.push(port);
        claim.at_rules.push(at_rules);
        if self.is_behind {
            self.guests.insert((at_rules.protocol, at_rules.host_port));
        }
        Ok(())
    }

    /// A port of the one address inside, for one of any of the host's addresses: the same number, if it is free.
    fn inside_port(&self, port: PublishedPort) -> u16 {
        let is_free = |number: &u16| !self.guests.contains(&(port.protocol, *number));
        let others = (1..=u16::MAX).rev();
        // As many as there are numbers can't be published: the host's end would be short of descriptors before.
        [port.host_port]
            .into_iter()
            .chain(others)
            .find(is_free)
            .unwrap_or(port.host_port)
    }

    fn targets(&self) -> Vec<Target<'_>> {
        let claims = self
            .by_container
            .iter()
            .filter(|(_, claim)| !claim.place.by_plugin);
        claims.map(|(id, claim)| claim.target(id)).collect()
    }

    /// What the kernel does not take away stays taken, and is tried again before the next claim.
    fn withdraw(
        &mut self,
        id: &str,
        withdraw: &impl Fn(&Target<'_>) -> Result<(), network::Error>,
    ) -> Result<(), Error> {
        let Some(claim) = self.by_container.get(id) else {
            return Ok(());
        };
        // What plugins have published is theirs to take away, and is by now.
        let withdrawn = if claim.place.by_plugin {
            Ok(())
        } else {
            withdraw(&claim.target(id))
        };
        match withdrawn {
            Ok(()) => {
                self.release(id);
                Ok(())
            }
            Err(error) => {
                let claim = self.by_container.remove(id);
                self.stale.extend(claim.map(|claim| (id.to_owned(), claim)));
                Err(error.into())
            }
        }
    }

    fn retry(&mut self, withdraw: &impl Fn(&Target<'_>) -> Result<(), network::Error>) {
        for (id, claim) in std::mem::take(&mut self.stale) {
            match withdraw(&claim.target(&id)) {
                Ok(()) => self.free(&id, &claim),
                Err(error) => {
                    tracing::warn!(id, %error, "its published ports stay taken");
                    self.stale.push((id, claim));
                }
            }
        }
    }

    fn release(&mut self, id: &str) {
        if let Some(claim) = self.by_container.remove(id) {
            self.free(id, &claim);
        }
    }

    fn free(&mut self, id: &str, claim: &Claim) {
        for port in &claim.at_rules {
            self.guests.remove(&(port.protocol, port.host_port));
        }
        for port in &claim.ports {
            if let btree_map::Entry::Occupied(mut holders) =
                self.holders.entry((port.protocol, port.host_port))
            {
                holders.get_mut().retain(|(_, holder)| holder != id);
                if holders.get().is_empty() {
                    holders.remove();
                }
            }
        }
    }
}

/// A program of the host that has a port would lose what comes to it, silently. Whether there is one is found out by
/// being it for a moment.
fn check_programs(port: PublishedPort) -> Result<(), Error> {
    let at = (port.host_address, port.host_port);
    let bound = match (port.protocol, port.host_address) {
        (_, IpAddr::V6(address)) => v6::try_bind(port, address),
        (Protocol::Tcp, _) => TcpListener::bind(at).map(drop),
        (Protocol::Udp, _) => UdpSocket::bind(at).map(drop),
        // Where the host has no SCTP, no program of it can have such a port.
        (Protocol::Sctp, _) => Ok(()),
    };
    bound.map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "address already in use: a program of the host has this port".to_owned()
            }
            io::ErrorKind::AddrNotAvailable => {
                "cannot assign requested address: the host does not have it".to_owned()
            }
            _ => error.to_string(),
        };
        refused(port, why)
    })
}

fn refused(port: PublishedPort, why: String) -> Error {
    Error::Port {
        container_port: port.container_port,
        protocol: port.protocol,
        host_address: port.host_address,
        host_port: port.host_port.to_string(),
        why,
    }
}

fn local_range() -> RangeInclusive<u16> {
    let text = std::fs::read_to_string(LOCAL_RANGE).unwrap_or_default();
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) if first <= last => first..=last,
        _ => DYNAMIC,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            address: Ipv4Addr::new(172, 30, 0, 2),
            link_id: "a".to_owned(),
            v6: None,
            by_plugin: false,
        }
    }

    fn port(host_address: [u8; 4], host_port: u16, protocol: Protocol) -> PublishedPort {
        PublishedPort {
            host_address: IpAddr::from(host_address),
            host_port,
            protocol,
            container_port: 80,
        }
    }

    #[test]
    fn a_port_on_all_addresses_is_taken_on_each() {
        let mut inside = Inside::default();
        let place = &place();
        let (all, one, other) = ([0; 4], [127, 0, 0, 1], [192, 0, 2, 1]);
        inside.take("a", place, port(one, 80, Protocol::Tcp)).unwrap();
        inside.take("b", place, port(other, 80, Protocol::Tcp)).unwrap();
        inside.take("b", place, port(all, 80, Protocol::Udp)).unwrap();
        for (taken, protocol) in [(one, Protocol::Tcp), (all, Protocol::Tcp), (one, Protocol::Udp)] {
            let error = inside.take("c", place, port(taken, 80, protocol)).unwrap_err();
            assert!(error.to_string().contains("port is already allocated"), "{error}");
        }
        inside.release("b");
        inside.take("c", place, port(all, 80, Protocol::Tcp)).unwrap_err();
        inside.release("a");
        inside.take("c", place, port(all, 80, Protocol::Tcp)).unwrap();
        inside.release("c");
        assert!(inside.holders.is_empty() && inside.by_container.is_empty());
    }

    #[test]
    fn ports_of_several_addresses_have_numbers_of_their_own_inside() {
        let mut inside = Inside {
            is_behind: true,
            ..Inside::default()
        };
        let place = &place();
        let (one, other) = ([127, 0, 0, 1], [127, 0, 0, 2]);
        for (id, address) in [("a", one), ("b", other)] {
            inside.take(id, place, port(address, 80, Protocol::Tcp)).unwrap();
        }
        inside.take("b", place, port(other, 80, Protocol::Udp)).unwrap();
        inside
            .take("c", place, port(one, u16::MAX, Protocol::Tcp))
            .unwrap();
        let numbers = |id: &str| {
            let ports = inside.by_container[id].outside();
            ports.iter().map(|wanted| wanted.inside).collect::<Vec<_>>()
        };
        assert_eq!((numbers("a"), numbers("b")), (vec![80], vec![u16::MAX, 80]));
        assert_eq!(numbers("c"), [u16::MAX - 1]);
        for id in ["a", "b", "c"] {
            inside.release(id);
        }
        assert!(inside.guests.is_empty());
    }

    #[test]
    fn what_the_kernel_keeps_stays_taken_until_it_gives_it_back() {
        let claims = Claims::default();
        let place = &place();
        let wanted = Wanted {
            host_address: Some(Ipv4Addr::LOCALHOST.into()),
            host: Some(39871..=39871),
            protocol: Protocol::Tcp,
            container_port: 80,
        };
        let wanted = std::slice::from_ref(&wanted);
        let refuse = |_: &Target<'_>| {
            Err(network::Error::System {
                action: "withdraw".to_owned(),
                source: io::Error::from_raw_os_error(libc::EBUSY),
            })
        };
        claims.claim("a", place, wanted, |_| Ok(())).unwrap();
        claims.locked().withdraw("a", &refuse).unwrap_err();
        let error = claims.claim("b", place, wanted, refuse).unwrap_err();
        assert!(
            error.to_string().contains("already allocated, to container a"),
            "{error}"
        );
        claims.claim("b", place, wanted, |_| Ok(())).unwrap();
    }
}
