//! Networks without a bridge: links of containers that sit on a link of the host, by macvlan or ipvlan, and are
//! neighbours of the host's neighbours.
//!
//! ```text
//!   container's netns        host
//!   ┌──────────────┐         ┌──────┐
//!   │ eth0 ────────┼─────────┼ eth0 ┼──── the host's own network
//!   └──────────────┘         └──────┘
//! ```
//!
//! Such a link is made in the container's namespace and is never one of the host's, so that a kill leaves nothing on the
//! host, and whoever looks for it has to look inside. No rule of the host sees its packets. It is marked by its alias when
//! it is complete; one without a mark is completed by the next [`Sublink::attach`].

mod parent;

use std::fmt;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::thread;
use std::time::{Duration, Instant};

use netlink_packet_route::RouteNetlinkMessage;

use crate::bridge::delete_if_there;
use crate::endpoint::link_name;
use crate::netlink::{Request, Route};
use crate::route::{self, Link};
use crate::subnet::{Subnet, mac_of};
use crate::{Endpoint, Error, ipv6, namespace, owner, sysctl};

/// A namespace is taken apart by a thread of the kernel some time after its last process has ended, and until then the link
/// of a container's earlier run has its addresses, and a parent in mode passthru.
const FORMER_TIMEOUT: Duration = Duration::from_secs(5);
const FORMER_POLL: Duration = Duration::from_millis(5);

/// How a link sits on its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SublinkKind {
    /// With a MAC address of its own.
    Macvlan(MacvlanMode),
    /// With its parent's MAC address.
    Ipvlan(IpvlanMode, IpvlanFlag),
}

/// Who reaches whom on one parent, as `IFLA_MACVLAN_MODE` has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MacvlanMode {
    /// All each other.
    #[default]
    Bridge,
    /// None the other.
    Private,
    /// By a switch outside that sends back.
    Vepa,
    /// There is one, which has the parent for itself.
    Passthru,
}

/// What the parent looks at, as `IFLA_IPVLAN_MODE` has it. It is one for all links on a parent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IpvlanMode {
    /// Frames.
    #[default]
    L2,
    /// Packets, which it routes.
    L3,
    /// The same, and the host's netfilter sees them.
    L3s,
}

/// Who reaches whom on one parent, as `IFLA_IPVLAN_FLAGS` has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IpvlanFlag {
    /// All each other.
    #[default]
    Bridge,
    /// None the other.
    Private,
    /// By a switch outside that sends back.
    Vepa,
}

impl fmt::Display for SublinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Macvlan(_) => "macvlan",
            Self::Ipvlan(..) => "ipvlan",
        })
    }
}

/// A network of links on one parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sublink {
    /// Of its links.
    pub kind: SublinkKind,
    /// The link of the host below them. `eth0.10` that is not there is made: VLAN 10 of `eth0`.
    pub parent: String,
    /// The parent leads nowhere, and is made.
    pub is_dummy: bool,
    /// An address of the subnet.
    pub network: Ipv4Addr,
    /// Of the subnet, in bits.
    pub prefix: u8,
    /// Whom links ask that lead out; None: what has no better route is a neighbour.
    pub gateway: Option<Ipv4Addr>,
    /// Whose the links are; written into their aliases.
    pub owner: String,
    /// The largest packet, in bytes; None: the parent's.
    pub mtu: Option<u32>,
}

impl Sublink {
    /// The parent, made if it is one that is made; and whether this kernel has such links at all.
    ///
    /// # Errors
    /// A parent that is not there and cannot be made, a kind of links that the kernel lacks, or what it refuses.
    pub fn ensure(&self) -> Result<(), Error> {
        let mut host = Route::open()?;
        self.check_kernel(&mut host)?;
        self.parent_index(&mut host).map(drop)
    }

    /// Takes the parent away if a manager made it. Links on it go with it.
    pub fn remove(&self) -> Result<(), Error> {
        parent::remove(&mut Route::open()?, &self.parent, &self.owner)
    }

    /// Names of the links of the host that were made for `owner` to be parents.
    pub fn parents_of(owner: &str) -> Result<Vec<String>, Error> {
        parent::all_of(&mut Route::open()?, owner)
    }

    /// Takes away what [`Sublink::parents_of`] has found.
    pub fn remove_parent(name: &str, owner: &str) -> Result<(), Error> {
        parent::remove(&mut Route::open()?, name, owner)
    }

    /// Attaches a container, or completes what an attach had begun: inside, the link with its address, and `lo`, both up.
    ///
    /// # Errors
    /// As of [`Sublink::ensure`]; an address outside the subnet; a name that another link inside has; whatever the kernel
    /// refuses. Nothing is left then in the namespace, except that `lo` may be up.
    pub fn attach(&self, endpoint: &Endpoint<'_>) -> Result<(), Error> {
        let subnet = Subnet::of(self.network, self.prefix);
        if !subnet.is_host(endpoint.address) {
            let rule = format!("must be a host's address in {subnet}, not its first or last");
            return Err(Error::address(endpoint.address, rule));
        }
        let mut inside = namespace::open_route(endpoint.netns)?;
        if self.marked(&mut inside, endpoint.link_id)?.is_some() {
            return Ok(());
        }
        let index = match unmarked(&mut inside, endpoint)? {
            Some(link) => link.index,
            None => self.create(&mut inside, endpoint)?,
        };
        let completed = self.complete(&mut inside, index, endpoint, subnet);
        if completed.is_err() {
            // The first error is the one to tell; the link is not marked.
            let _ = inside.change(vec![route::delete_link_at(index)]);
        }
        completed
    }

    /// Takes a container's link away; fine if it has none. Not one that the container has sent into a namespace of its own.
    pub fn detach(&self, netns: BorrowedFd<'_>, link_id: &str, inside: &str) -> Result<(), Error> {
        let mut route = namespace::open_route(netns)?;
        let begun = [inside.to_owned(), link_name(link_id)];
        let mark = owner::of_container(&self.owner, link_id);
        let is_meant = |link: &Link| {
            is_sublink(link) && (link.alias == mark || (link.alias.is_empty() && begun.contains(&link.name)))
        };
        let mut links = route.links()?.into_iter().filter(is_meant);
        links.try_for_each(|link| delete_if_there(&mut route, &link.name))
    }

    /// Takes away the links inside that have the mark of `owner` and none of these ids: what a disconnect had begun. Their
    /// names.
    pub fn keep_only(netns: BorrowedFd<'_>, owner: &str, link_ids: &[String]) -> Result<Vec<String>, Error> {
        let mut route = namespace::open_route(netns)?;
        let known: Vec<_> = link_ids.iter().map(|id| owner::of_container(owner, id)).collect();
        let is_orphan = |link: &Link| {
            is_sublink(link) && owner::read(&link.alias) == Some(owner) && !known.contains(&link.alias)
        };
        let orphans: Vec<_> = route.links()?.into_iter().filter(is_orphan).collect();
        for link in &orphans {
            delete_if_there(&mut route, &link.name)?;
        }
        Ok(orphans.into_iter().map(|link| link.name).collect())
    }

    /// Lets what has no better route leave the namespace `netns` by its link `inside`, unless it has a way already.
    pub fn route_by(&self, netns: BorrowedFd<'_>, inside: &str) -> Result<(), Error> {
        let mut route = namespace::open_route(netns)?;
        let index = route.link(inside)?.ok_or_else(|| vanished(inside))?.index;
        if_missing(route.change(vec![self.default_route(index)]))
    }

    /// The link, once it is complete.
    fn marked(&self, inside: &mut Route, link_id: &str) -> Result<Option<Link>, Error> {
        let mark = owner::of_container(&self.owner, link_id);
        let mut links = inside.links()?.into_iter();
        Ok(links.find(|link| is_sublink(link) && link.alias == mark))
    }

    /// Its index inside. It begins with a name that no link of the host has, as the kernel looks there for one of the same.
    fn create(&self, inside: &mut Route, endpoint: &Endpoint<'_>) -> Result<u32, Error> {
        let mut host = Route::open()?;
        let parent = self.parent_index(&mut host)?;
        let name = link_name(endpoint.link_id);
        let mac = endpoint.mac.unwrap_or_else(|| mac_of(endpoint.address));
        let passes = self.kind == SublinkKind::Macvlan(MacvlanMode::Passthru);
        let is_taken = |errno| passes && errno == libc::EINVAL;
        outlasting_former(is_taken, || {
            let request = route::create_sublink(&name, self.kind, parent, mac, self.mtu, endpoint.netns);
            host.change(vec![request])
        })
        .map_err(|error| self.explained(error))?;
        failpoint::reach("sublink.made");
        Ok(inside.link(&name)?.ok_or_else(|| vanished(&name))?.index)
    }

    fn complete(
        &self,
        inside: &mut Route,
        index: u32,
        endpoint: &Endpoint<'_>,
        subnet: Subnet,
    ) -> Result<(), Error> {
        let name = endpoint.inside;
        let is_named = inside.link(name)?.is_some_and(|link| link.index == index);
        let mut changes = vec![route::set_loopback_up()];
        changes.extend((!is_named).then(|| route::rename(index, name)));
        inside.change(changes)?;
        failpoint::reach("sublink.named");
        // Else routers of the parent's network give it addresses and a route of which nobody knows (CVE-2024-32473).
        namespace::within(endpoint.netns, || {
            ipv6::turn_off(name)?;
            sysctl::set_all(name, endpoint.sysctls)
        })?;
        let is_taken = |errno| errno == libc::EADDRINUSE;
        outlasting_former(is_taken, || {
            let address = route::add_address(index, name, endpoint.address, subnet);
            if_missing(inside.change(vec![address]))?;
            for address in endpoint.link_local {
                if_missing(inside.change(vec![route::add_link_local(index, name, *address)]))?;
            }
            inside.change(vec![route::set_up(name)])
        })
        .map_err(|error| self.explained(error))?;
        if endpoint.default_route {
            inside.change(vec![route::replacing(self.default_route(index))])?;
        }
        let mark = owner::of_container(&self.owner, endpoint.link_id);
        inside.change(vec![route::set_alias(name, mark)])
    }

    fn default_route(&self, index: u32) -> Request<RouteNetlinkMessage> {
        match self.gateway {
            Some(gateway) => route::add_default_route(index, gateway),
            None => route::add_default_route_by(index),
        }
    }

    fn parent_index(&self, host: &mut Route) -> Result<u32, Error> {
        match host.link(&self.parent)? {
            Some(link) => Ok(link.index),
            None if self.is_dummy => parent::make_dummy(host, &self.parent, &self.owner),
            None => parent::make_vlan(host, &self.parent, &self.owner),
        }
    }

    fn check_kernel(&self, host: &mut Route) -> Result<(), Error> {
        match host.change(vec![route::probe_sublink(self.kind)]) {
            Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => Err(no_module(self.kind.to_string())),
            // It is known, and such a link cannot be.
            Err(error) if error.errno() == Some(libc::EINVAL) => Ok(()),
            other => other,
        }
    }

    /// What the kernel's numbers mean here.
    fn explained(&self, error: Error) -> Error {
        let parent = &self.parent;
        let why = match error.errno() {
            Some(libc::EOPNOTSUPP) => return no_module(self.kind.to_string()),
            Some(libc::ENETDOWN) => format!("it is down: `ip link set {parent} up`"),
            Some(libc::EBUSY) => "another program has it, by a bridge, a bond, or links of another kind".to_owned(),
            Some(libc::EADDRINUSE) => "another link on it has this MAC address or this address".to_owned(),
            Some(libc::EINVAL) if parent.as_str() != "lo" => {
                "it cannot have such a link: in mode passthru there is one alone, and not every kind can be a parent"
                    .to_owned()
            }
            _ => return error,
        };
        Error::Parent {
            parent: parent.clone(),
            why,
            source: Box::new(error),
        }
    }
}

/// The link, while it is not complete.
fn unmarked(inside: &mut Route, endpoint: &Endpoint<'_>) -> Result<Option<Link>, Error> {
    let begun = [endpoint.inside.to_owned(), link_name(endpoint.link_id)];
    let mut links = inside.links()?.into_iter();
    Ok(links.find(|link| is_sublink(link) && link.alias.is_empty() && begun.contains(&link.name)))
}

fn is_sublink(link: &Link) -> bool {
    matches!(link.kind.as_str(), "macvlan" | "ipvlan")
}

fn no_module(kind: String) -> Error {
    let option = if kind == "vlan" {
        "VLAN_8021Q".to_owned()
    } else {
        kind.to_uppercase()
    };
    let module = if kind == "vlan" {
        "8021q".to_owned()
    } else {
        kind.clone()
    };
    Error::NoModule { kind, module, option }
}

/// Try it until what the link of an earlier run has is free.
fn outlasting_former(
    is_taken: impl Fn(i32) -> bool,
    mut change: impl FnMut() -> Result<(), Error>,
) -> Result<(), Error> {
    let until = Instant::now() + FORMER_TIMEOUT;
    loop {
        match change() {
            Err(error) if error.errno().is_some_and(&is_taken) && Instant::now() < until => {
                thread::sleep(FORMER_POLL);
            }
            changed => return changed,
        }
    }
}

/// Fine if it is there already.
fn if_missing(added: Result<(), Error>) -> Result<(), Error> {
    match added {
        Err(error) if error.errno() == Some(libc::EEXIST) => Ok(()),
        added => added,
    }
}

fn vanished(name: &str) -> Error {
    Error::System {
        action: format!("look up link {name} in the container's network namespace"),
        source: std::io::Error::from_raw_os_error(libc::ENODEV),
    }
}
