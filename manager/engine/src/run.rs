//! The start of a container, from its record to a running process. Read top to bottom. What a step made is
//! undone when a later one does not work; only the address stays, until the container is removed.

use std::borrow::Cow;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use network::PublishedPort;
use tracing::Instrument as _;

use crate::container::{Container, now_unix_nanos};
use crate::engine::{Inner, blocking};
use crate::joined::Joined;
use crate::links::{self, Linked};
use crate::member::is_of_container;
use crate::shim::{Shim, Streams};
use crate::spec::{self, Given, layers::Layers};
use crate::volumes::{self, Prepared};
use crate::{Error, bundle, etc_files, logs, name_servers, networks, ports, sys, teardown, userns};

/// The span of a part of a start, for whoever collects traces.
macro_rules! part {
    ($name:literal) => {
        tracing::trace_span!(target: crate::SPANS, $name)
    };
}

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
        Ok(started) => {
            if by == By::Policy {
                engine.tally.restarted();
            }
            Ok(started)
        }
        Err(error) => {
            teardown::discard(engine, &container.id).await;
            Err(error)
        }
    }
}

async fn steps(engine: &Arc<Inner>, container: &Container, by: By) -> Result<Started, Error> {
    let id = &container.id;
    let joined = Arc::new(Joined::of(engine, container)?);
    let ports = ports::claim(engine, container).await?;
    let log = logs::target::uri(engine, container).await?;
    let preparing = volumes::prepare(engine, container);
    let prepared = preparing.instrument(part!("start.volumes")).await?;
    failpoint::reach("start.volumes-ready");

    let writing = write_files(engine, container, &prepared, &joined);
    let rootfs = writing.instrument(part!("start.files")).await?;
    failpoint::reach("start.files-written");

    let launching = Shim::launch(&engine.config, id);
    let shim = launching.instrument(part!("start.shim")).await?;
    failpoint::reach("start.shim-launched");

    let creating = shim.create(&engine.config, &rootfs, streams(engine, container, log));
    let pid = creating.instrument(part!("start.create")).await?;
    drop(prepared);
    joined.check(container)?;
    failpoint::reach("start.created");

    let connecting = async {
        networks::default_bridge::attach(engine, container, pid).await?;
        networks::attach_all(engine, container, pid).await
    };
    connecting.instrument(part!("start.network")).await?;
    failpoint::reach("start.network-connected");

    if name_servers::are_for(engine, id) {
        let informed = networks::cni::informed(engine, container);
        if let Cow::Owned(container) = &informed {
            let (engine, container) = (Arc::clone(engine), container.clone());
            // In place: the container has these very files mounted.
            blocking(move || {
                let links = links::of(&engine, &container)?;
                write_etc(
                    &engine,
                    &container,
                    &links,
                    &engine.config.container(&container.id),
                )
            })
            .await?;
        }
        name_servers::open(engine, &informed, pid).await?;
    }
    failpoint::reach("start.names-served");

    if !ports.is_empty() {
        let publishing = ports::publish(engine, id);
        publishing.instrument(part!("start.ports")).await?;
    }
    failpoint::reach("start.ports-published");

    shim.start("").instrument(part!("start.process")).await?;
    let at_unix_nanos = now_unix_nanos();
    failpoint::reach("start.process-started");

    let recording = engine.store.started(id, pid, at_unix_nanos, by, ports.clone());
    recording.instrument(part!("start.record")).await?;
    failpoint::reach("start.recorded");
    Ok(Started {
        shim,
        pid,
        at_unix_nanos,
        ports,
    })
}

/// The files in /etc that tell of a container's own network.
fn write_etc(engine: &Inner, container: &Container, links: &[Linked], etc: &Path) -> Result<(), Error> {
    let on_networks = engine.networks.of(&container.id);
    let addresses = networks::addresses(container, &on_networks);
    let network = on_networks
        .first()
        .and_then(|joined| engine.networks.get(&joined.network));
    let gateway = network
        // Others' gateways are not this host.
        .filter(|network| !networks::default_bridge::leads_out(engine, container) && network.is_bridge())
        .and_then(|network| network.gateway)
        .unwrap_or(engine.config.bridge.gateway);
    let hostname = spec::hostname(container);
    let asks_us = name_servers::are_for(engine, &container.id);
    etc_files::write(
        etc,
        &hostname,
        &addresses,
        gateway,
        links,
        &container.request,
        asks_us,
    )?;
    match &container.request.isolation.owners {
        Some(owners) => etc_files::give(etc, owners.root()),
        None => Ok(()),
    }
}

/// The bundle, and the container's own files in /etc.
async fn write_files(
    engine: &Arc<Inner>,
    container: &Container,
    prepared: &Prepared,
    joined: &Arc<Joined>,
) -> Result<image::Rootfs, Error> {
    let (engine, container, joined) = (Arc::clone(engine), container.clone(), Arc::clone(joined));
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
        let links = links::of(&engine, &container)?;
        // With another's network come the files that tell of it.
        let etc = engine
            .config
            .container(&joined.network.as_ref().unwrap_or(&container).id);
        if joined.network.is_none() {
            write_etc(&engine, &container, &links, &etc)?;
        }
        let folder = engine.config.bundle(&container.id);
        let own_shm = (container.request.isolation.ipc == "shareable").then(|| bundle::shm(&folder));
        let given = Given {
            etc: &etc,
            sources: &sources,
            init: &engine.config.init,
            joined: &joined,
            links: &links,
            shm: joined.shm.as_deref().or(own_shm.as_deref()),
            groups: &engine.config.groups,
        };
        let config = spec::config(&container, &image.config, &user, &given)?;
        let groups = &engine.config.groups;
        let parent = groups.asked_parent(&container.request.resources.cgroup_parent);
        engine
            .cgroup_parents
            .enter(&engine.config, &parent, &container.id)?;
        failpoint::reach("start.cgroup-noted");
        let owners = container.request.isolation.owners.as_ref();
        if let Some(owners) = owners {
            userns::mounts::check_way(&engine.config.bundles(), owners)?;
        }
        let group = owners.map(|owners| owners.root().1);
        bundle::write(&folder, &config, container.request.open_stdin, group)?;
        if own_shm.is_some() {
            let root = owners.map_or((0, 0), image::Owners::root);
            bundle::mount_shm(&folder, spec::shm_bytes(&container.request), root)?;
        }
        Ok(rootfs)
    })
    .await
}

fn streams(engine: &Inner, container: &Container, log: String) -> Streams {
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
/// it counts only if the process is of the container, and still alive afterwards.
pub(crate) fn open_of_process(
    id: &str,
    pid: u32,
    name: &str,
    ended: impl Fn() -> Error,
) -> Result<File, Error> {
    let folder = Path::new("/proc").join(pid.to_string());
    let number = i32::try_from(pid).map_err(|_| ended())?;
    let process = sys::pidfd_open(number).map_err(|_| ended())?;
    if !is_of_container(pid, id) {
        return Err(ended());
    }
    let path = folder.join(name);
    let opened = File::open(&path).map_err(Error::file("open", &path))?;
    match sys::pidfd_wait(process.as_fd(), Duration::ZERO) {
        Err(error) if error.raw_os_error() == Some(libc::ETIMEDOUT) => Ok(opened),
        _ => Err(ended()),
    }
}
