//! Namespaces of another container that a run is to have: found when it starts, and only of a container that runs.
//!
//! They are named by the other's process id, which may be somebody else's by the time that the runtime comes to open
//! them. So the other's process is held from before, and looked at once more when the new container is made and none of
//! it runs: if it is still alive then, the number was its own all the time.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::container::{Container, State};
use crate::engine::Inner;
use crate::lifecycle::Snapshot;
use crate::member::is_of_container;
use crate::request::{CreateRequest, Network, container_of};
use crate::{Error, bundle, spec, sys};

/// As many containers have the network one from the other at most.
const CHAIN_MAX: usize = 16;
/// The kind of namespaces in config.json, and its file in /proc.
const USER: &str = "user";

/// What a run has of other containers.
#[derive(Default)]
pub(crate) struct Joined {
    /// Kinds, as config.json names them, and where the namespaces are.
    pub(crate) namespaces: Vec<(&'static str, PathBuf)>,
    /// The file system that belongs to its IPC namespace, where that is not new.
    pub(crate) shm: Option<PathBuf>,
    /// Who has its network, for the files that tell of it.
    pub(crate) network: Option<Container>,
    /// Their processes, with what each gives.
    held: Vec<(&'static str, String, OwnedFd)>,
}

/// Put ids in the place of names, which may be other containers' at the next start.
pub(crate) fn resolve(engine: &Inner, request: &mut CreateRequest) -> Result<(), Error> {
    // Not as what was asked for itself is not found: a client would look for its image.
    let id = |field, name: &str| {
        let found = engine.containers.find(name);
        found
            .map(|handle| handle.id.clone())
            .map_err(|error| Error::invalid(field, error.to_string()))
    };
    if request.network == Network::Container {
        request.network_of = id("network", &request.network_of)?;
    }
    let isolation = &mut request.isolation;
    for (field, mode) in [
        ("pid", &mut isolation.pid),
        ("ipc", &mut isolation.ipc),
        ("userns", &mut isolation.userns),
    ] {
        if let Some(name) = container_of(mode) {
            *mode = format!("container:{}", id(field, name)?);
        }
    }
    Ok(())
}

impl Joined {
    /// Look for all that `container` wants of others.
    pub(crate) fn of(engine: &Inner, container: &Container) -> Result<Joined, Error> {
        let mut joined = Joined::default();
        let request = &container.request;
        if request.network == Network::Container {
            joined.hold(engine, container, ("network", "net"), &request.network_of)?;
            joined.network = Some(network_owner(engine, container)?);
        }
        if let Some(other) = container_of(&request.isolation.pid) {
            joined.hold(engine, container, ("pid", "pid"), other)?;
        }
        if let Some(other) = container_of(&request.isolation.ipc) {
            let snapshot = joined.hold(engine, container, ("ipc", "ipc"), other)?;
            joined.shm = Some(shm_of(engine, container, &snapshot)?);
        }
        if let Some(other) = container_of(&request.isolation.userns) {
            joined.hold(engine, container, (USER, USER), other)?;
        }
        if request.isolation.owners.is_some() {
            joined.enter_user_namespace(container)?;
        }
        Ok(joined)
    }

    fn hold(
        &mut self,
        engine: &Inner,
        container: &Container,
        (kind, file): (&'static str, &str),
        other: &str,
    ) -> Result<Snapshot, Error> {
        let snapshot = engine.containers.find(other)?.snapshot();
        let (name, pid) = (&snapshot.container.name, snapshot.container.pid);
        let refuse = |why: &str| Err(cannot(container, kind, name, why));
        match snapshot.container.state {
            State::Running | State::Paused => {}
            State::Restarting => return refuse("it is restarting; wait until it runs"),
            _ => return refuse("it is not running; start it first"),
        }
        let Ok(process) = sys::pidfd_open(pid.cast_signed()) else {
            return refuse("it has just ended");
        };
        if !is_of_container(pid, &snapshot.container.id) {
            return refuse("it has just ended");
        }
        self.namespaces
            .push((kind, format!("/proc/{pid}/ns/{file}").into()));
        self.held.push((kind, name.clone(), process));
        Ok(snapshot)
    }

    /// With namespaces of others comes the user namespace to which they belong.
    fn enter_user_namespace(&mut self, container: &Container) -> Result<(), Error> {
        let mut entered: Option<(PathBuf, (u64, u64), &str)> = None;
        for ((_, path), (kind, name, _)) in self.namespaces.iter().zip(&self.held) {
            let path = path.with_file_name(USER);
            let Ok(found) = std::fs::metadata(&path) else {
                return Err(cannot(container, kind, name, "it has just ended"));
            };
            let identity = (found.dev(), found.ino());
            match &entered {
                None => entered = Some((path, identity, name)),
                Some((_, first, _)) if *first == identity => {}
                Some((.., other)) => {
                    let why =
                        format!("it is in another user namespace than {other}, and a container is in one");
                    return Err(cannot(container, kind, name, &why));
                }
            }
        }
        if let Some((path, ..)) = entered.filter(|_| self.path(USER).is_none()) {
            self.namespaces.push((USER, path));
        }
        Ok(())
    }

    /// The container is made, and nothing of it runs: are its namespaces those that were meant?
    pub(crate) fn check(&self, container: &Container) -> Result<(), Error> {
        for (kind, name, process) in &self.held {
            match sys::pidfd_wait(process.as_fd(), Duration::ZERO) {
                Err(error) if error.raw_os_error() == Some(libc::ETIMEDOUT) => {}
                _ => return Err(cannot(container, kind, name, "it has just ended")),
            }
        }
        Ok(())
    }

    /// The path of a namespace that is another's.
    pub(crate) fn path(&self, kind: &str) -> Option<&PathBuf> {
        let mut found = self.namespaces.iter().filter(|(known, _)| *known == kind);
        found.next().map(|(_, path)| path)
    }

    /// The names of the machine that `container` believes to be: host name and domain.
    pub(crate) fn names(&self, container: &Container) -> (String, String) {
        let named = self.network.as_ref().unwrap_or(container);
        (
            spec::hostname(named).into_owned(),
            named.request.domainname.clone(),
        )
    }
}

fn cannot(container: &Container, kind: &str, other: &str, why: &str) -> Error {
    Error::wrong_state(
        "start",
        container,
        format!("cannot join the {kind} namespace of {other}: {why}"),
    )
}

/// The container that does not have its network from yet another one.
pub(crate) fn network_owner(engine: &Inner, container: &Container) -> Result<Container, Error> {
    let mut owner = container.clone();
    for _ in 0..CHAIN_MAX {
        if owner.request.network != Network::Container {
            return Ok(owner);
        }
        let next = engine.containers.find(&owner.request.network_of)?;
        owner = Container::clone(&next.snapshot().container);
    }
    Err(cannot(
        container,
        "network",
        &owner.name,
        "the chain of containers is too long",
    ))
}

fn shm_of(engine: &Inner, container: &Container, of: &Snapshot) -> Result<PathBuf, Error> {
    let (id, name) = (&of.container.id, &of.container.name);
    match of.container.request.isolation.ipc.as_str() {
        "host" => Ok("/dev/shm".into()),
        "shareable" => Ok(bundle::shm(&engine.config.bundle(id))),
        other if container_of(other).is_some() => {
            let why = "it has that of another container itself: join that one";
            Err(cannot(container, "ipc", name, why))
        }
        // In docker's words.
        _ => {
            let why = "non-shareable IPC (hint: use --ipc shareable for that container)";
            Err(cannot(container, "ipc", name, why))
        }
    }
}
