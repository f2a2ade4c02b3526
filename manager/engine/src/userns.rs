//! User namespaces of containers: which of the host's ids a container's own stand for. It is decided when the container
//! is made, and stays with it: its files on the host have these ids as long as it is there.
//!
//! Without a word for it a container has the host's ids, or those of the manager's `userns-remap`; `auto` gives it ids
//! that no other container has; `container:` those of another one, whose namespace it enters.

mod free;
pub(crate) mod mounts;
mod remap;
mod subordinate;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use image::{IdMap, IdRange, Owners};

use crate::Error;
use crate::engine::Inner;
use crate::request::{CreateRequest, Network, Userns, container_of};
use crate::spec::user::User;
use subordinate::{GROUPS, USERS};

pub use remap::Remap;

/// Whose subordinate ids `auto` gives away, as with podman.
const POOL: &str = "containers";
/// What images expect: the ids of a distribution, and nobody.
const AUTO_SIZE: u32 = 65_536;

/// Ids that a container has which is not on record yet.
#[derive(Default)]
pub(crate) struct Claims(Mutex<Vec<Owners>>);

impl Claims {
    fn locked(&self) -> MutexGuard<'_, Vec<Owners>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nobody else gets these ids as long as this is there.
pub(crate) struct Claim {
    engine: Arc<Inner>,
    owners: Owners,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claims = self.engine.userns_claims.locked();
        if let Some(place) = claims.iter().position(|claimed| *claimed == self.owners) {
            claims.swap_remove(place);
        }
    }
}

/// Put on record whose ids `request` gets, in which other containers are named by their ids. A claim has to be kept until
/// the container is known to others.
pub(crate) fn assign(engine: &Arc<Inner>, request: &mut CreateRequest) -> Result<Option<Claim>, Error> {
    request.isolation.owners = None;
    let mode = Userns::parse(&request.isolation.userns)?;
    let owners = match mode {
        Userns::Host => None,
        Userns::Default => engine
            .config
            .userns_remap
            .as_ref()
            .map(|remap| remap.owners.clone()),
        Userns::Of(container) => {
            check_rights(&request.isolation.userns)?;
            let of = engine.containers.find(container)?.snapshot().container;
            of.request.isolation.owners.clone()
        }
        Userns::Auto { size } => {
            check_rights(&request.isolation.userns)?;
            check(request)?;
            let claim = claim(engine, size.unwrap_or(AUTO_SIZE))?;
            request.isolation.owners = Some(claim.owners.clone());
            check_joined(engine, request)?;
            return Ok(Some(claim));
        }
    };
    if owners.is_some() {
        check(request)?;
    }
    request.isolation.owners = owners;
    check_joined(engine, request)?;
    Ok(None)
}

/// A user's manager has the ids of its own namespace only, and cannot map owners of files to others.
fn check_rights(mode: &str) -> Result<(), Error> {
    if image::is_in_user_namespace() {
        let rule = format!(
            "{mode:?} needs a manager with root's rights: this one works in a user namespace itself, which its containers \
             are kept apart by already; leave it out, or say host"
        );
        return Err(Error::invalid("userns", rule));
    }
    Ok(())
}

/// What cannot be had without the host's user namespace: the rules, and most of the words, are docker's.
fn check(request: &CreateRequest) -> Result<(), Error> {
    let refuse = |field, rule: &str| {
        let next = "say --userns host for it, which gives its root the host's rights";
        Err(Error::invalid(field, format!("{rule}: {next}")))
    };
    if request.privileged {
        return refuse(
            "privileged",
            "privileged mode is incompatible with user namespaces",
        );
    }
    if request.network == Network::Host {
        return refuse(
            "network",
            "cannot share the host's network namespace when user namespaces are enabled",
        );
    }
    if request.isolation.pid == "host" {
        return refuse(
            "pid",
            "cannot share the host PID namespace when user namespaces are enabled",
        );
    }
    Ok(())
}

/// Namespaces belong to the user namespace in which they were made, and only its root may do there what the root of a
/// container does. The host's root may everywhere.
fn check_joined(engine: &Inner, request: &CreateRequest) -> Result<(), Error> {
    let Some(owners) = &request.isolation.owners else {
        return Ok(());
    };
    let of_network = (request.network == Network::Container).then_some(request.network_of.as_str());
    let of_others = [
        ("network", of_network),
        ("pid", container_of(&request.isolation.pid)),
        ("ipc", container_of(&request.isolation.ipc)),
    ];
    for (field, other) in of_others {
        let Some(other) = other else { continue };
        let other = engine.containers.find(other)?.snapshot().container;
        let theirs = &other.request.isolation.owners;
        if theirs.as_ref() != Some(owners) {
            let name = &other.name;
            let next = match theirs {
                Some(_) => format!("container:{name}"),
                None => "host".to_owned(),
            };
            let rule = format!("{name} has another user namespace: say --userns {next} to have the same");
            return Err(Error::invalid(field, rule));
        }
    }
    Ok(())
}

/// Take ids that no other container has.
fn claim(engine: &Arc<Inner>, size: u32) -> Result<Claim, Error> {
    // Who asks at the same time sees what is taken here.
    let mut claims = engine.userns_claims.locked();
    let known = engine.containers.all();
    let known = known
        .iter()
        .filter_map(|handle| handle.snapshot().container.request.isolation.owners.clone());
    let remapped = engine
        .config
        .userns_remap
        .iter()
        .map(|remap| remap.owners.clone());
    let taken: Vec<Owners> = known.chain(remapped).chain(claims.iter().cloned()).collect();
    let find = |file, of: fn(&Owners) -> &IdMap| {
        let pool = subordinate::of(file, &[POOL.to_owned()])?;
        if pool.is_empty() {
            let rule = format!(
                "auto needs ids that only containers have, and {file} gives none to {POOL:?}; as root: `echo \
                 {POOL}:2147483648:1073741824 >> {file}`, with a range that nobody else has"
            );
            return Err(Error::invalid("userns", rule));
        }
        if pool.iter().any(|range| range.first == 0) {
            let rule = format!(
                "auto: {file} gives the host's root to {POOL:?}: a container would be root of the host; give it a range \
                 that nobody else has"
            );
            return Err(Error::invalid("userns", rule));
        }
        let taken = taken.iter().flat_map(|owners| of(owners).ranges());
        let taken = taken.map(|range| (range.host, range.size)).collect();
        let first = free::lowest(&pool, taken, size).ok_or_else(|| {
            let rule = format!(
                "auto: {file} has no {size} ids in a row left for {POOL:?}: remove containers, ask for fewer (auto:size=…), \
                 or give it another range"
            );
            Error::invalid("userns", rule)
        })?;
        let range = IdRange {
            container: 0,
            host: first,
            size,
        };
        Ok(IdMap::new(vec![range])?)
    };
    let owners = Owners {
        uids: find(USERS, |owners| &owners.uids)?,
        gids: find(GROUPS, |owners| &owners.gids)?,
    };
    claims.push(owners.clone());
    Ok(Claim {
        engine: Arc::clone(engine),
        owners,
    })
}

/// Refuse a user that the namespace lacks.
pub(crate) fn check_user(owners: Option<&Owners>, wanted: &str, user: &User) -> Result<(), Error> {
    let Some(owners) = owners else { return Ok(()) };
    let mut groups = std::iter::once(user.gid).chain(user.additional_gids.iter().copied());
    let lacking = match owners.uids.to_host(user.uid) {
        None => Some(("user", user.uid, &owners.uids)),
        Some(_) => groups
            .find(|gid| owners.gids.to_host(*gid).is_none())
            .map(|gid| ("group", gid, &owners.gids)),
    };
    let Some((what, id, map)) = lacking else {
        return Ok(());
    };
    Err(Error::User {
        user: wanted.to_owned(),
        why: format!(
            "the container's user namespace lacks the {what} {id} (it has {map}, as CONTAINER:HOST:SIZE)"
        ),
    })
}
