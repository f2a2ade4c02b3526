//! Networks that users make: each a bridge of its own with a subnet, kept apart from all others, or what another driver
//! makes of it.
//!
//! A network is there when its row is. The row comes first, its bridge and rules afterwards; at a removal the row goes
//! first. So the database tells which bridges are to be there, and `reconcile` makes it so. What containers are on which
//! networks is a row of each, with the address; the same is held in memory, so that nothing is asked of the database when
//! a container starts, and a container without such networks costs a look at a map.

mod attach;
pub(crate) mod cni;
pub(crate) mod default_bridge;
mod driver;
pub(crate) mod place;
mod plan;
mod prune;
pub(crate) mod reconcile;
mod resolve;
mod sublink;
mod v6;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use network::Bridge;
use serde::{Deserialize, Serialize};

use crate::container::{Container, now_unix_nanos};
use crate::engine::{Engine, Inner, blocking, to_its_end};
use crate::events::Event;
use crate::request::Link;
use crate::{Error, names};

pub(crate) use attach::{attach_all, connect, detach_all, disconnect};
pub use cni::{CniConfig, Told};
pub use plan::{NetworkRequest, Range};
pub use prune::NetworkFilters;
pub use v6::{Range6, UserNetwork6};

/// The option of the driver that names its link.
const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
/// The option of the driver that bounds its packets.
const MTU: &str = "com.docker.network.driver.mtu";
/// Of the default bridge, as the way out.
const BRIDGE_PRIORITY: i64 = 0;
/// Networks that are there without anybody having made them.
const BUILT_IN: [(&str, &str); 3] = [
    (default_bridge::NAME, "bridge"),
    ("host", "host"),
    ("none", "null"),
];

/// A network as it is on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNetwork {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Unique among networks.
    pub name: String,
    /// `bridge`, `macvlan`, `ipvlan` or `cni`, or `host` and `null` of those that are built in.
    pub driver: String,
    /// All of its addresses; none of a network without addresses.
    pub subnet: Option<Range>,
    /// The host's address on a bridge; of another driver, whom containers ask for a way out.
    pub gateway: Option<Ipv4Addr>,
    /// Where containers get addresses from; None: the subnet.
    pub ip_range: Option<Range>,
    /// Addresses that containers do not get, by name.
    pub aux_addresses: BTreeMap<String, Ipv4Addr>,
    /// Without a way out.
    pub internal: bool,
    /// For people and tools.
    pub labels: BTreeMap<String, String>,
    /// Of the driver.
    pub options: BTreeMap<String, String>,
    /// In nanoseconds since 1970.
    pub created_unix_nanos: i64,
    /// None: without IPv6, as those of older managers.
    #[serde(default)]
    pub v6: Option<UserNetwork6>,
}

/// What is asked for of a container's place on a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Joining {
    /// Name, id, or prefix of an id.
    pub network: String,
    /// More names by which others on the network find it.
    pub aliases: Vec<String>,
    /// Names that it alone has for others there.
    pub links: Vec<Link>,
    /// None: one that is free.
    pub address: Option<Ipv4Addr>,
    /// None: one that goes with its address.
    pub mac: Option<[u8; 6]>,
    /// None: one that is free, if the network has IPv6.
    pub address6: Option<Ipv6Addr>,
    /// Of the container's networks that have a way out, the one with the highest number is it; of equal ones the first. The
    /// default bridge has 0.
    pub gw_priority: i64,
    /// More addresses, which are valid on its link alone.
    pub link_local: Vec<IpAddr>,
    /// Of the driver, for this place.
    pub driver_options: BTreeMap<String, String>,
}

/// A container's place on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The network's id.
    pub network: String,
    /// From the moment it is connected to the moment it is not. On a network of the driver cni it is known while the container
    /// runs, see [`Joined::known_address`].
    pub address: Ipv4Addr,
    /// On a network with IPv6.
    pub address6: Option<Ipv6Addr>,
    /// The number of its link inside, by which a container's places are in order: 0 is `eth0`, if it has no other name.
    pub slot: u32,
    /// As it was asked for.
    pub wanted: Joining,
}

/// A network, and who is on it.
#[derive(Debug, Clone)]
pub struct NetworkInspection {
    /// The network.
    pub network: UserNetwork,
    /// Containers by id: name, address, MAC address. Running or not.
    pub members: BTreeMap<String, Member>,
}

/// One container on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The container's name.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// On a network with IPv6.
    pub address6: Option<Ipv6Addr>,
    /// Of its link.
    pub mac: [u8; 6],
}

/// What is known in memory of networks.
#[derive(Debug, Default)]
pub(crate) struct Networks {
    inside: Mutex<Inside>,
    /// What CNI plugins have made.
    cni: cni::Held,
    /// Networks are made and removed one at a time.
    changes: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Inside {
    networks: BTreeMap<String, Arc<UserNetwork>>,
    /// By container.
    joined: BTreeMap<String, Vec<Joined>>,
}

impl UserNetwork {
    /// The bridge as the kernel is to have it.
    pub(crate) fn bridge(&self, owner: &str) -> Bridge {
        let named = self.options.get(BRIDGE_NAME).cloned();
        Bridge {
            name: named.unwrap_or_else(|| format!("br-{}", crate::error::short(&self.id))),
            gateway: self.gateway.unwrap_or(Ipv4Addr::UNSPECIFIED),
            prefix: self.subnet.map_or(0, |subnet| subnet.prefix),
            owner: owner.to_owned(),
            internal: self.internal,
            mtu: self.options.get(MTU).and_then(|mtu| mtu.parse().ok()),
            v6: self.v6.as_ref().map(UserNetwork6::bridge),
        }
    }

    /// The address that is wanted, or the lowest that is free of the range; `taken` are those of other containers.
    pub(crate) fn choose(&self, wanted: Option<Ipv4Addr>, taken: &BTreeSet<u32>) -> Result<Ipv4Addr, Error> {
        if self.driver == cni::CNI {
            return Ok(cni::placeholder(taken));
        }
        let Some(subnet) = self.subnet else {
            return Err(Error::NoAddress(self.name.clone()));
        };
        let is_host = |address: Ipv4Addr| {
            subnet.contains(address)
                && address != subnet.first
                && address != subnet.last()
                && Some(address) != self.gateway
        };
        let is_kept = |address: Ipv4Addr| self.aux_addresses.values().any(|kept| *kept == address);
        if let Some(address) = wanted {
            if !is_host(address) {
                let rule = format!(
                    "{address}: no configured subnet of network {} contains it for a container ({subnet})",
                    self.name
                );
                return Err(Error::invalid("ip", rule));
            }
            if taken.contains(&address.to_bits()) || is_kept(address) {
                return Err(Error::invalid(
                    "ip",
                    format!("{address}: address already in use on network {}", self.name),
                ));
            }
            return Ok(address);
        }
        let range = self.ip_range.unwrap_or(subnet);
        (range.first.to_bits()..=range.last().to_bits())
            .filter(|address| !taken.contains(address))
            .map(Ipv4Addr::from_bits)
            .find(|address| is_host(*address) && !is_kept(*address))
            .ok_or_else(|| Error::NoAddress(format!("{range} of network {}", self.name)))
    }
}

impl Joined {
    /// All of its addresses that are known.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let v6 = self.address6.map(IpAddr::from);
        let v4 = self.known_address().map(IpAddr::from);
        v4.into_iter().chain(v6).collect()
    }

    /// Its address, but for one that its plugins have not given yet.
    pub fn known_address(&self) -> Option<Ipv4Addr> {
        (self.address.octets()[0] != 0).then_some(self.address)
    }

    /// Of the places that have a way out the one with the lowest is it: that with the highest priority, and of equal ones the
    /// first.
    fn rank(&self) -> (Reverse<i64>, u32) {
        (Reverse(self.wanted.gw_priority), self.slot)
    }

    /// Of its link.
    pub fn mac(&self) -> [u8; 6] {
        self.wanted.mac.unwrap_or_else(|| network::mac_of(self.address))
    }
}

impl Networks {
    pub(crate) fn new(networks: Vec<UserNetwork>, joined: BTreeMap<String, Vec<Joined>>) -> Self {
        let by_id = |network: UserNetwork| (network.id.clone(), Arc::new(network));
        let inside = Inside {
            networks: networks.into_iter().map(by_id).collect(),
            joined,
        };
        Self {
            inside: Mutex::new(inside),
            cni: cni::Held::default(),
            changes: tokio::sync::Mutex::default(),
        }
    }

    fn locked(&self) -> MutexGuard<'_, Inside> {
        // Each change is one call, so a panic elsewhere leaves no half of one.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn all(&self) -> Vec<Arc<UserNetwork>> {
        self.locked().networks.values().cloned().collect()
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<UserNetwork>> {
        self.locked().networks.get(id).cloned()
    }

    /// By name, id, or a prefix of an id that is unique.
    pub(crate) fn find(&self, wanted: &str) -> Result<Arc<UserNetwork>, Error> {
        let inside = self.locked();
        let mut all = inside.networks.values();
        if let Some(found) = all.find(|network| network.name == wanted || network.id == wanted) {
            return Ok(Arc::clone(found));
        }
        let begins = |network: &&Arc<UserNetwork>| !wanted.is_empty() && network.id.starts_with(wanted);
        let found: Vec<_> = inside.networks.values().filter(begins).collect();
        match found.as_slice() {
            [one] => Ok(Arc::clone(one)),
            [] => Err(Error::NoSuchNetwork(wanted.to_owned())),
            several => Err(Error::Ambiguous {
                prefix: wanted.to_owned(),
                count: several.len(),
            }),
        }
    }

    /// The places of a container, by slot.
    pub(crate) fn of(&self, container: &str) -> Vec<Joined> {
        self.locked().joined.get(container).cloned().unwrap_or_default()
    }

    /// By which of its networks that users made a container goes out. None: by none of them, or by the default bridge, where
    /// its link has the number `on_bridge` if it is there.
    pub(crate) fn reached(&self, container: &str, on_bridge: Option<u32>) -> Option<Joined> {
        let inside = self.locked();
        let joined = inside.joined.get(container)?.iter();
        let joined = joined
            .filter(|joined| on_bridge.is_none_or(|slot| joined.rank() < (Reverse(BRIDGE_PRIORITY), slot)));
        let is_open = |joined: &&Joined| {
            let network = inside.networks.get(&joined.network);
            // Of plugins it is known when they have made their links.
            let is_told_not_to = || {
                let told = self.cni.told(container, &joined.network);
                told.is_some_and(|told| !told.leads_out())
            };
            network.is_some_and(|network| network.leads_out() && !is_told_not_to())
        };
        joined.filter(is_open).min_by_key(|joined| joined.rank()).cloned()
    }

    pub(crate) fn join(&self, container: &str, joined: Joined) {
        let mut inside = self.locked();
        let all = inside.joined.entry(container.to_owned()).or_default();
        all.push(joined);
        all.sort_by_key(|joined| joined.slot);
    }

    /// What its plugins gave it; None: nothing yet, or nothing any more.
    fn set_addresses(&self, container: &str, network: &str, told: Option<&Told>) {
        let mut inside = self.locked();
        let all = inside.joined.get_mut(container).into_iter().flatten();
        for joined in all.filter(|joined| joined.network == network) {
            joined.address = told.and_then(Told::ipv4).unwrap_or(Ipv4Addr::UNSPECIFIED);
            joined.address6 = told.and_then(Told::ipv6);
        }
    }

    pub(crate) fn leave(&self, container: &str, network: &str) {
        let mut inside = self.locked();
        if let Some(all) = inside.joined.get_mut(container) {
            all.retain(|joined| joined.network != network);
        }
    }

    pub(crate) fn forget(&self, container: &str) {
        self.locked().joined.remove(container);
    }
}

impl Engine {
    /// Make a network.
    pub async fn create_network(&self, request: NetworkRequest) -> Result<Arc<UserNetwork>, Error> {
        request.check()?;
        let engine = self.clone();
        to_its_end(async move { engine.make_network(request).await }).await
    }

    async fn make_network(&self, request: NetworkRequest) -> Result<Arc<UserNetwork>, Error> {
        let engine = Arc::clone(&self.0);
        let changes = self.0.networks.changes.lock().await;
        if is_built_in(&request.name)
            || engine
                .networks
                .find(&request.name)
                .is_ok_and(|found| found.name == request.name)
        {
            return Err(Error::NetworkExists(request.name));
        }
        let id = names::random_id()?;
        let network = blocking(move || request.plan(id, now_unix_nanos(), &engine)).await?;
        self.0.store.insert_network(network.clone()).await?;
        failpoint::reach("network.recorded");
        let (owner, planned) = (self.0.config.bridge.owner.clone(), network.clone());
        let of = Arc::clone(&self.0);
        let made = blocking(move || match planned.driver.as_str() {
            cni::CNI => cni::check(&of.config, &planned),
            _ => planned.carried(&owner).ensure(),
        })
        .await;
        if let Err(error) = made {
            self.0.store.delete_network(&network.id).await?;
            return Err(error);
        }
        failpoint::reach("network.made");
        let network = Arc::new(network);
        self.0
            .networks
            .locked()
            .networks
            .insert(network.id.clone(), Arc::clone(&network));
        drop(changes);
        tell(&self.0, "create", &network, None);
        Ok(network)
    }

    /// Remove a network that no container is on.
    pub async fn remove_network(&self, name: &str) -> Result<Arc<UserNetwork>, Error> {
        let (engine, name) = (self.clone(), name.to_owned());
        to_its_end(async move { engine.unmake_network(&name).await }).await
    }

    async fn unmake_network(&self, name: &str) -> Result<Arc<UserNetwork>, Error> {
        let changes = self.0.networks.changes.lock().await;
        if is_built_in(name) {
            let why = format!("{name} is a pre-defined network and cannot be removed");
            return Err(Error::invalid("network", why));
        }
        let network = self.0.networks.find(name)?;
        self.0.store.delete_network(&network.id).await?;
        failpoint::reach("network.forgotten");
        self.0.networks.locked().networks.remove(&network.id);
        let (owner, gone) = (self.0.config.bridge.owner.clone(), Arc::clone(&network));
        let is_shared = sublink::shares_parent(&self.0, &network);
        let removed = blocking(move || {
            if is_shared {
                Ok(())
            } else {
                gone.carried(&owner).remove()
            }
        })
        .await;
        drop(changes);
        if let Err(error) = removed {
            tracing::warn!(network = network.name, %error, "left behind, until the next start of the manager");
        }
        tell(&self.0, "destroy", &network, None);
        Ok(network)
    }

    /// All networks that pass, by name, with those that are built in.
    pub fn networks(&self, filters: &NetworkFilters) -> Vec<NetworkInspection> {
        let built_in = BUILT_IN.iter().map(|(name, driver)| self.built_in(name, driver));
        let made = self
            .0
            .networks
            .all()
            .into_iter()
            .map(|network| self.inspection(&network));
        let mut all: Vec<_> = built_in.chain(made).filter(|found| filters.pass(found)).collect();
        all.sort_by(|one, other| one.network.name.cmp(&other.network.name));
        all
    }

    /// One network.
    pub fn network(&self, name: &str) -> Result<NetworkInspection, Error> {
        if let Some((name, driver)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            return Ok(self.built_in(name, driver));
        }
        let found = self.0.networks.find(name)?;
        Ok(self.inspection(&found))
    }

    /// The networks that users made on which a container is, with its place there.
    pub fn networks_of(&self, container: &str) -> Vec<(Arc<UserNetwork>, Joined)> {
        let joined = self.0.networks.of(container).into_iter();
        let with_network = |joined: Joined| Some((self.0.networks.get(&joined.network)?, joined));
        joined.filter_map(with_network).collect()
    }

    /// Whether a container is on a network of this name or id.
    pub(crate) fn is_on(&self, container: &Container, wanted: &str) -> bool {
        let is_meant = |network: &UserNetwork| network.name == wanted || network.id.starts_with(wanted);
        let is_there = if wanted == default_bridge::NAME {
            container.address.is_some()
        } else {
            container.request.network.name() == wanted
        };
        is_there
            || self
                .networks_of(&container.id)
                .iter()
                .any(|(network, _)| is_meant(network))
    }

    fn inspection(&self, network: &UserNetwork) -> NetworkInspection {
        let inside = self.0.networks.locked();
        let places = inside
            .joined
            .iter()
            .flat_map(|(id, all)| all.iter().map(move |joined| (id, joined)));
        let of_it = places.filter(|(_, joined)| joined.network == network.id);
        let member = |(id, joined): (&String, &Joined)| {
            let container = self.0.containers.find(id).ok()?.snapshot().container;
            let member = Member {
                name: container.name.clone(),
                address: joined.address,
                address6: joined.address6,
                mac: self
                    .0
                    .networks
                    .cni
                    .told(id, &network.id)
                    .and_then(|told| told.mac)
                    .unwrap_or_else(|| {
                        if network.driver == cni::CNI {
                            [0; 6]
                        } else {
                            joined.mac()
                        }
                    }),
            };
            Some((id.clone(), member))
        };
        NetworkInspection {
            network: network.clone(),
            members: of_it.filter_map(member).collect(),
        }
    }

    fn built_in(&self, name: &str, driver: &str) -> NetworkInspection {
        let is_bridge = name == default_bridge::NAME;
        let containers = self.list(true).into_iter().filter(|_| is_bridge);
        let member = |container: Arc<Container>| {
            let address = container.address?;
            let member = Member {
                name: container.name.clone(),
                address,
                address6: None,
                mac: network::mac_of(address),
            };
            Some((container.id.clone(), member))
        };
        NetworkInspection {
            network: built_in_network(&self.0, name, driver),
            members: containers.filter_map(member).collect(),
        }
    }
}

/// One that nobody made: its id is made of the root's, so that it lasts.
fn built_in_network(engine: &Inner, name: &str, driver: &str) -> UserNetwork {
    let bridge = &engine.config.bridge;
    // Ids are shown by their beginning, so that is the name's.
    let of_name = name
        .bytes()
        .fold(String::new(), |id, byte| id + &format!("{byte:02x}"));
    let id = of_name + &engine.store.root_id().repeat(3);
    let is_bridge = name == default_bridge::NAME;
    UserNetwork {
        id: format!("{id:0<64.64}"),
        name: name.to_owned(),
        driver: driver.to_owned(),
        subnet: is_bridge.then(|| Range::of(bridge.gateway, bridge.prefix)),
        gateway: is_bridge.then_some(bridge.gateway),
        ip_range: None,
        aux_addresses: BTreeMap::new(),
        internal: false,
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        created_unix_nanos: 0,
        v6: None,
    }
}

/// Having the host's network or none is a container's from its making to its removal.
fn check_changeable(network: &str, what: &str) -> Result<(), Error> {
    if !is_built_in(network) || default_bridge::is_meant(network) {
        return Ok(());
    }
    let rule =
        format!("{what} {network}: as with docker, that is for the container's making (--network {network})");
    Err(Error::invalid("network", rule))
}

/// All addresses of a container that are known, with its places on networks that users made.
pub(crate) fn addresses(container: &Container, joined: &[Joined]) -> Vec<IpAddr> {
    let on_bridge = container.address.map(IpAddr::from);
    let on_networks = joined.iter().flat_map(Joined::addresses);
    on_bridge.into_iter().chain(on_networks).collect()
}

/// The drivers of all networks.
pub(crate) fn drivers() -> Vec<String> {
    let built_in = BUILT_IN.iter().map(|(_, driver)| *driver);
    let all: BTreeSet<&str> = built_in.chain(driver::DRIVERS).collect();
    all.into_iter().map(str::to_owned).collect()
}

fn is_built_in(name: &str) -> bool {
    name == "default" || BUILT_IN.iter().any(|(built_in, _)| *built_in == name)
}

fn tell(engine: &Inner, action: &'static str, network: &UserNetwork, container: Option<&str>) {
    let mut attributes = vec![
        ("name".to_owned(), network.name.clone()),
        ("type".to_owned(), network.driver.clone()),
    ];
    attributes.extend(container.map(|id| ("container".to_owned(), id.to_owned())));
    engine
        .events
        .send(Event::of_network(action, &network.id, attributes));
}
