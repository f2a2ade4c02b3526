//! The drivers macvlan and ipvlan: their options, which are docker's, and their links, which are looked for inside of
//! containers.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use network::{IpvlanFlag, IpvlanMode, MacvlanMode, Sublink, SublinkKind};

use super::{Joined, MTU, UserNetwork};
use crate::Error;
use crate::container::Container;
use crate::engine::Inner;
use crate::error::short;
use crate::joined::network_owner;
use crate::request::Network;
use crate::run::network_namespace;

pub(super) const MACVLAN: &str = "macvlan";
pub(super) const IPVLAN: &str = "ipvlan";
const PARENT: &str = "parent";
const MACVLAN_MODE: &str = "macvlan_mode";
const IPVLAN_MODE: &str = "ipvlan_mode";
const IPVLAN_FLAG: &str = "ipvlan_flag";
/// The longest name of a link, without the NUL (`IFNAMSIZ`).
const LINK_NAME_BYTES_MAX: usize = libc::IFNAMSIZ - 1;

type Options = BTreeMap<String, String>;

/// Whether the driver has this option with this value; `None` if it is none of its options.
pub(super) fn check_option(driver: &str, option: &str, value: &str) -> Option<Result<(), Error>> {
    let one_of = |known: &[&str]| {
        let rule = || format!("{option}={value}: must be one of {}", known.join(", "));
        known
            .contains(&value)
            .then_some(())
            .ok_or_else(|| Error::invalid("options", rule()))
    };
    match (driver, option) {
        (MACVLAN | IPVLAN, PARENT) => Some(check_parent(value)),
        (MACVLAN, MACVLAN_MODE) => Some(one_of(&["bridge", "private", "vepa", "passthru"])),
        (IPVLAN, IPVLAN_MODE) => Some(one_of(&["l2", "l3", "l3s"])),
        (IPVLAN, IPVLAN_FLAG) => Some(one_of(&["bridge", "private", "vepa"])),
        _ => None,
    }
}

/// The options of the driver, for who names one that it does not have.
pub(super) fn options(driver: &str) -> Option<&'static str> {
    match driver {
        MACVLAN => Some("parent, macvlan_mode and com.docker.network.driver.mtu"),
        IPVLAN => Some("parent, ipvlan_mode, ipvlan_flag and com.docker.network.driver.mtu"),
        _ => None,
    }
}

fn check_parent(name: &str) -> Result<(), Error> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    let rule = if name == "lo" {
        "the loopback interface is not a valid parent link".to_owned()
    } else if name.len() > LINK_NAME_BYTES_MAX || !name.bytes().all(is_plain) {
        format!("{name:?} is no name of a link")
    } else {
        return Ok(());
    };
    Err(Error::invalid("parent", rule))
}

/// Is it one of these, with a parent that leads nowhere as nobody has named one?
pub(super) fn has_no_parent(driver: &str, options: &Options) -> bool {
    self::options(driver).is_some() && options.get(PARENT).is_none_or(String::is_empty)
}

/// Does it route packets itself, without a gateway?
pub(super) fn is_routed(network: &UserNetwork) -> bool {
    routes(&network.driver, &network.options)
}

pub(super) fn routes(driver: &str, options: &Options) -> bool {
    driver == IPVLAN && options.get(IPVLAN_MODE).is_some_and(|mode| mode != "l2")
}

/// Who else has its parent? In docker's words. A parent has one link in mode passthru, and links of one kind; the mode of
/// ipvlan is one for all links on it.
pub(super) fn check_shared(
    network: &UserNetwork,
    others: &[std::sync::Arc<UserNetwork>],
) -> Result<(), Error> {
    let parent = parent(network);
    let passes = |network: &UserNetwork| {
        network
            .options
            .get(MACVLAN_MODE)
            .is_some_and(|mode| mode == "passthru")
    };
    let is_there = |other: &&std::sync::Arc<UserNetwork>| {
        options(&other.driver).is_some() && self::parent(other) == parent
    };
    for other in others.iter().filter(is_there) {
        let shares = network.driver == MACVLAN && other.driver == MACVLAN;
        let mut why = format!(
            "{} network {} is already using parent interface {parent}",
            other.driver, other.name
        );
        if shares && !passes(network) && !passes(other) {
            continue;
        }
        if shares && passes(network) {
            why = format!("cannot use mode passthru, {why}");
        } else if shares {
            why += " in mode passthru";
        }
        return Err(Error::invalid("parent", why));
    }
    Ok(())
}

fn parent(network: &UserNetwork) -> String {
    match network.options.get(PARENT) {
        Some(parent) if !parent.is_empty() => parent.clone(),
        // As docker calls it.
        _ => format!("dm-{}", short(&network.id)),
    }
}

/// As the kernel is to have it. Values were checked when it was made.
pub(super) fn of(network: &UserNetwork, owner: &str) -> Sublink {
    let option = |name: &str| network.options.get(name).map(String::as_str);
    let kind = if network.driver == MACVLAN {
        SublinkKind::Macvlan(match option(MACVLAN_MODE) {
            Some("private") => MacvlanMode::Private,
            Some("vepa") => MacvlanMode::Vepa,
            Some("passthru") => MacvlanMode::Passthru,
            _ => MacvlanMode::Bridge,
        })
    } else {
        let mode = match option(IPVLAN_MODE) {
            Some("l3") => IpvlanMode::L3,
            Some("l3s") => IpvlanMode::L3s,
            _ => IpvlanMode::L2,
        };
        let flag = match option(IPVLAN_FLAG) {
            Some("private") => IpvlanFlag::Private,
            Some("vepa") => IpvlanFlag::Vepa,
            _ => IpvlanFlag::Bridge,
        };
        SublinkKind::Ipvlan(mode, flag)
    };
    Sublink {
        kind,
        parent: parent(network),
        is_dummy: has_no_parent(&network.driver, &network.options),
        network: network
            .subnet
            .map_or(Ipv4Addr::UNSPECIFIED, |subnet| subnet.first),
        prefix: network.subnet.map_or(0, |subnet| subnet.prefix),
        gateway: network.gateway.filter(|_| !is_routed(network)),
        owner: owner.to_owned(),
        mtu: network.options.get(MTU).and_then(|mtu| mtu.parse().ok()),
    }
}

/// Take the link of a run that runs away.
pub(super) fn detach(sublink: &Sublink, id: &str, joined: &Joined, pid: u32) -> Result<(), Error> {
    let netns = network_namespace(id, pid)?;
    let link_id = network::link_id(id, &joined.network);
    Ok(sublink.detach(netns.as_fd(), &link_id, &joined.inside())?)
}

/// Take the link of a run away that is over. It went with its namespace, unless another container has that still.
pub(super) fn detach_ended(
    engine: &Inner,
    sublink: &Sublink,
    id: &str,
    joined: &Joined,
) -> Result<(), Error> {
    let link_id = network::link_id(id, &joined.network);
    for handle in engine.containers.all() {
        let other = handle.snapshot().container;
        let has_it = other.is_running()
            && other.request.network == Network::Container
            && network_owner(engine, &other).is_ok_and(|owner| owner.id == id);
        // It may have ended since, with what it had.
        if has_it && let Ok(netns) = network_namespace(&other.id, other.pid) {
            return Ok(sublink.detach(netns.as_fd(), &link_id, &joined.inside())?);
        }
    }
    Ok(())
}

/// At the manager's start: take away the link of a running container that is not on its network any more, of which only
/// the container's namespace knows.
pub(super) fn remove_strays(engine: &Inner, container: &Container) -> Result<(), Error> {
    let has_own = matches!(container.request.network, Network::Bridge | Network::User);
    let is_used = engine
        .networks
        .all()
        .iter()
        .any(|network| options(&network.driver).is_some());
    if !has_own || !is_used {
        return Ok(());
    }
    let id = &container.id;
    let joined = engine.networks.of(id).into_iter();
    let known: Vec<_> = joined
        .map(|joined| network::link_id(id, &joined.network))
        .collect();
    let netns = network_namespace(id, container.pid)?;
    for link in Sublink::keep_only(netns.as_fd(), &engine.config.bridge.owner, &known)? {
        tracing::info!(
            id,
            link,
            "removed the link of a network that it is not on any more"
        );
    }
    Ok(())
}

/// Remove the parents that were made for networks which are gone.
pub(super) fn remove_orphaned_parents(engine: &Inner) {
    let owner = &engine.config.bridge.owner;
    let networks = engine.networks.all();
    let of_these = networks
        .iter()
        .filter(|network| options(&network.driver).is_some());
    let known: Vec<_> = of_these.map(|network| parent(network)).collect();
    let orphans = Sublink::parents_of(owner).map(|found| {
        let orphans = found.into_iter().filter(|name| !known.contains(name));
        orphans.collect::<Vec<_>>()
    });
    let removed = orphans.and_then(|orphans| {
        orphans.iter().try_for_each(|name| {
            tracing::info!(name, "removing an orphaned parent of links");
            Sublink::remove_parent(name, owner)
        })
    });
    if let Err(error) = removed {
        tracing::warn!(%error, "orphaned parents of links may be left");
    }
}

/// Does another network have the parent of `network`?
pub(super) fn shares_parent(engine: &Inner, network: &UserNetwork) -> bool {
    let is_other = |other: &std::sync::Arc<UserNetwork>| {
        other.id != network.id && options(&other.driver).is_some() && parent(other) == parent(network)
    };
    options(&network.driver).is_some() && engine.networks.all().iter().any(is_other)
}
