//! The start of a container, from its record to a running process. Read top to bottom. What a step made is
//! undone when a later one does not work; only the address stays, until the container is removed.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use network::{Endpoint, PublishedPort};

use crate::container::{Container, now_unix_nanos};
use crate::engine::{Inner, blocking};
use crate::request::Network;
use crate::shim::{Shim, Streams};
use crate::spec::{self, layers::Layers};
use crate::volumes::{self, Prepared};
use crate::{Error, bundle, etc_files, name_servers, networks, ports, sys, teardown};

/// A run that has begun, and is on record.
pub(crate) struct Started {
    pub(crate) shim: Shim,
    pub(crate) pid: u32,
    pub(crate) at_unix_nanos: i64,
    pub(crate) ports: Vec<PublishedPort>,
}

/// Who has asked for a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Hand,
    Policy,
}

/// Start `container`, which is not running.
pub(crate) async fn start(engine: &Arc<Inner>, container: &Container, by: By) -> Result<Started, Error> {
    if engine.config.bundle(&container.id).exists() {
        // An end that could not be put on record has left it.
        teardown::discard(engine, &container.id).await;
    }
    match steps(engine, container, by).await {
        Ok(started) => Ok(started),
        Err(error) => {
            teardown::discard(engine, &container.id).await;
            Err(error)
        }
    }
}

async fn steps(engine: &Arc<Inner>, container: &Container, by: By) -> Result<Started, Error> {
    let id = &container.id;
    let ports = ports::claim(engine, container).await?;
    let prepared = volumes::prepare(engine, container).await?;
    failpoint::reach("start.volumes-ready");

    let rootfs = write_files(engine, container, &prepared).await?;
    failpoint::reach("start.files-written");

    let shim = Shim::launch(&engine.config, id).await?;
    failpoint::reach("start.shim-launched");

    let pid = shim
        .create(&engine.config, &rootfs, streams(engine, container))
        .await?;
    drop(prepared);
    failpoint::reach("start.created");

    connect_network(engine, container, pid).await?;
    networks::attach_all(engine, container, pid).await?;
    failpoint::reach("start.network-connected");

    if name_servers::are_for(engine, id) {
        name_servers::open(engine, container, pid).await?;
    }
    failpoint::reach("start.names-served");

    ports::publish(engine, id).await?;
    failpoint::reach("start.ports-published");

    shim.start("").await?;
    let at_unix_nanos = now_unix_nanos();
    failpoint::reach("start.process-started");

    engine
        .store
        .started(id, pid, at_unix_nanos, by, ports.clone())
        .await?;
    failpoint::reach("start.recorded");
    Ok(Started {
        shim,
        pid,
        at_unix_nanos,
        ports,
    })
}

/// The bundle, and the container's own files in /etc.
async fn write_files(
    engine: &Arc<Inner>,
    container: &Container,
    prepared: &Prepared,
) -> Result<image::Rootfs, Error> {
    let (engine, container) = (Arc::clone(engine), container.clone());
    let sources = prepared.sources.clone();
    blocking(move || {
        let image = engine.images.get(&container.image_id)?;
        let rootfs = engine.images.rootfs(&container.id)?;
        let wanted = spec::process::wanted_user(&container.request, &image.config);
        let user = spec::user::resolve(
            &Layers::new(&rootfs),
            wanted,
            &container.request.isolation.group_add,
        )?;
        let etc = engine.config.container(&container.id);
        let joined = engine.networks.of(&container.id);
        let addresses: Vec<_> = container
            .address
            .into_iter()
            .chain(joined.iter().map(|joined| joined.address))
            .collect();
        let network = joined
            .first()
            .and_then(|joined| engine.networks.get(&joined.network));
        let gateway = network
            .filter(|_| container.address.is_none())
            .and_then(|network| network.gateway)
            .unwrap_or(engine.config.bridge.gateway);
        etc_files::write(
            &etc,
            &spec::hostname(&container),
            &addresses,
            gateway,
            &container.request,
        )?;
        if name_servers::are_for(&engine, &container.id) {
            etc_files::ask_name_server(&etc, &container.request.names)?;
        }
        let config = spec::config(&container, &image.config, &user, &etc, &sources)?;
        bundle::write(
            &engine.config.bundle(&container.id),
            &config,
            container.request.open_stdin,
        )?;
        Ok(rootfs)
    })
    .await
}

fn streams(engine: &Inner, container: &Container) -> Streams {
    let log = format!("json-file://{}", engine.config.log(&container.id).display());
    let (request, tty) = (&container.request, container.request.tty);
    let stdin = bundle::stdin(&engine.config.bundle(&container.id));
    Streams {
        terminal: tty,
        stdin: if request.open_stdin {
            stdin.to_string_lossy().into_owned()
        } else {
            String::new()
        },
        stderr: if tty { String::new() } else { log.clone() },
        stdout: log,
    }
}

async fn connect_network(engine: &Arc<Inner>, container: &Container, pid: u32) -> Result<(), Error> {
    let Some(address) = container
        .address
        .filter(|_| container.request.network == Network::Bridge)
    else {
        return Ok(());
    };
    let (engine, id) = (Arc::clone(engine), container.id.clone());
    blocking(move || {
        let netns = network_namespace(&id, pid)?;
        let endpoint = Endpoint::only(&id, address, netns.as_fd());
        Ok(engine.config.bridge.attach(&endpoint)?)
    })
    .await
}

/// The network namespace of the container's main process.
pub(crate) fn network_namespace(id: &str, pid: u32) -> Result<File, Error> {
    open_of_process(id, pid, "ns/net", || {
        Error::shim(
            id,
            format!("the main process (number {pid}) ended before its start"),
        )
    })
}

/// Open what `/proc` has of the container's main process. Its number may be another process's by now: what is opened by
/// it counts only if the process is in the container's cgroup, and still alive afterwards.
pub(crate) fn open_of_process(
    id: &str,
    pid: u32,
    name: &str,
    ended: impl Fn() -> Error,
) -> Result<File, Error> {
    let folder = Path::new("/proc").join(pid.to_string());
    let number = i32::try_from(pid).map_err(|_| ended())?;
    let process = sys::pidfd_open(number).map_err(|_| ended())?;
    let groups = fs::read_to_string(folder.join("cgroup")).map_err(|_| ended())?;
    if !groups.contains(id) {
        return Err(ended());
    }
    let path = folder.join(name);
    let opened = File::open(&path).map_err(Error::file("open", &path))?;
    match sys::pidfd_wait(process.as_fd(), Duration::ZERO) {
        Err(error) if error.raw_os_error() == Some(libc::ETIMEDOUT) => Ok(opened),
        _ => Err(ended()),
    }
}
