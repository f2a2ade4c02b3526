//! The name servers of containers on user-defined networks: opened with a run, closed with it, and opened anew for what
//! runs when the manager starts. What they answer is looked up at each question, so nothing here follows changes of names
//! or networks. Containers on the default bridge alone have none, as with docker, and cost nothing here.

use std::collections::HashMap;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use dns::{HostServers, Server, Service, View};
use futures_util::{StreamExt, stream};
use network::ResolverSockets;

use crate::container::Container;
use crate::engine::{Engine, Inner, blocking};
use crate::etc_files::HOST_RESOLV;
use crate::request::Network;
use crate::{Error, etc_files, networks, run, spec};

/// As many are opened at once.
const AT_ONCE: usize = 32;

/// All that are open.
pub(crate) struct NameServers {
    host: Arc<HostServers>,
    by_id: Mutex<HashMap<String, Service>>,
}

impl Default for NameServers {
    fn default() -> Self {
        Self {
            host: Arc::new(HostServers::new(HOST_RESOLV)),
            by_id: Mutex::default(),
        }
    }
}

/// What one container is told.
struct OfContainer {
    engine: Weak<Inner>,
    id: String,
    host: Arc<HostServers>,
    /// In place of the host's.
    own: Vec<Server>,
    completes_names: bool,
}

impl View for OfContainer {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let engine = Engine(self.engine.upgrade()?);
        engine
            .resolve(&self.id, name)
            .ok()
            .filter(|found| !found.is_empty())
    }

    fn name_of(&self, address: IpAddr) -> Option<String> {
        let engine = Engine(self.engine.upgrade()?);
        engine.resolve_address(&self.id, address).ok()?.into_iter().next()
    }

    fn servers(&self) -> Vec<Server> {
        if !self.own.is_empty() {
            return self.own.clone();
        }
        // The host's servers are asked from the host, which would be a way out for a container that is to have none
        // (CVE-2024-29018).
        let has_way_out = self
            .engine
            .upgrade()
            .is_some_and(|engine| has_way_out(&engine, &self.id));
        if has_way_out { self.host.now() } else { Vec::new() }
    }

    fn completes_names(&self) -> bool {
        self.completes_names
    }
}

/// Does one of its networks lead out? The default bridge does.
fn has_way_out(engine: &Inner, id: &str) -> bool {
    let on_bridge = || {
        engine
            .containers
            .find(id)
            .is_ok_and(|handle| handle.snapshot().container.address.is_some())
    };
    engine.networks.reached(id, None).is_some() || engine.networks.reached6(id).is_some() || on_bridge()
}

/// Does it have a name server while it runs?
pub(crate) fn are_for(engine: &Inner, id: &str) -> bool {
    !engine.networks.of(id).is_empty()
}

impl NameServers {
    /// Close that of a container; fine if it has none.
    pub(crate) fn close(&self, id: &str) {
        self.locked().remove(id);
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<String, Service>> {
        // Each change is one call, so a panic elsewhere leaves no half of one.
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What follows for a running container from a change of its networks: the first one of a user's brings it a name
/// server, with the last one that goes, and its own files tell which there are.
pub(crate) async fn follow(engine: &Arc<Inner>, container: &Container) -> Result<(), Error> {
    let is_open = engine.name_servers.locked().contains_key(&container.id);
    let asks_us = are_for(engine, &container.id);
    if container.is_running() && asks_us && !is_open {
        open_for_running(engine, container).await?;
    }
    let (of, owned) = (Arc::clone(engine), container.clone());
    blocking(move || write(&of, &owned)).await?;
    // After the file, so that nobody asks where nobody listens.
    if !asks_us {
        engine.name_servers.close(&container.id);
    }
    Ok(())
}

/// Let the files of a running container tell of its networks and its name server.
fn write(engine: &Inner, container: &Container) -> Result<(), Error> {
    if !matches!(container.request.network, Network::Bridge | Network::User) {
        return Ok(());
    }
    let joined = engine.networks.of(&container.id);
    let folder = engine.config.container(&container.id);
    let addresses = networks::addresses(container, &joined);
    etc_files::follow_hosts(&folder, &spec::hostname(container), &addresses, &[])?;
    // With what plugins have said.
    let names = &networks::cni::informed(engine, container).request.names;
    etc_files::follow_name_server(&folder, names, !joined.is_empty())
}

/// Those of running containers went with the manager before this one; and it may have been killed in the middle of a
/// change of a container's networks.
pub(crate) async fn resume(engine: &Arc<Inner>) {
    let all = engine.containers.all().into_iter();
    let running: Vec<_> = all
        .map(|handle| handle.snapshot().container)
        .filter(|container| container.is_running())
        .collect();
    let serving = running
        .iter()
        .filter(|container| are_for(engine, &container.id))
        .map(Arc::clone);
    let open = |container: Arc<Container>| async move {
        if let Err(error) = open_for_running(engine, &container).await {
            tracing::warn!(id = container.id, %error, "it finds no names until its next start");
        }
    };
    stream::iter(serving).for_each_concurrent(AT_ONCE, open).await;
    let of = Arc::clone(engine);
    let written = blocking(move || {
        for container in running {
            if let Err(error) = write(&of, &container) {
                tracing::warn!(id = container.id, %error, "its files may not tell of all its networks");
            }
        }
        Ok(())
    });
    if let Err(error) = written.await {
        tracing::warn!(%error, "files of containers may not tell of all their networks");
    }
}

/// Open that of a container that runs, and close it again if that has ended meanwhile: its end has found none to close.
pub(crate) async fn open_for_running(engine: &Arc<Inner>, container: &Container) -> Result<(), Error> {
    open(engine, &networks::cni::informed(engine, container), container.pid).await?;
    let now = engine.containers.find(&container.id);
    if !now.is_ok_and(|handle| handle.snapshot().container.pid == container.pid) {
        engine.name_servers.close(&container.id);
    }
    Ok(())
}

/// Open that of a container whose process has the number `pid`, in place of one that is open.
pub(crate) async fn open(engine: &Arc<Inner>, container: &Container, pid: u32) -> Result<(), Error> {
    let names = &container.request.names;
    let own: Vec<_> = names
        .servers
        .iter()
        // Checked when the container was made.
        .filter_map(|server| Some(Server::of_container(server.parse().ok()?)))
        .collect();
    // Only they are asked from the container's namespace.
    let is_asked_from = !own.is_empty();
    let view = OfContainer {
        engine: Arc::downgrade(engine),
        id: container.id.clone(),
        host: Arc::clone(&engine.name_servers.host),
        own,
        completes_names: etc_files::completes_names(names),
    };
    let (engine, id) = (Arc::clone(engine), container.id.clone());
    blocking(move || {
        let netns: File = run::network_namespace(&id, pid)?;
        let sockets = ResolverSockets::open(netns.as_fd())?;
        let netns = is_asked_from.then(|| netns.into());
        let service = dns::serve(sockets, netns, Arc::new(view)).map_err(|source| Error::Runtime {
            action: "serve names to a container",
            why: source.to_string(),
        })?;
        engine.name_servers.locked().insert(id, service);
        Ok(())
    })
    .await
}
