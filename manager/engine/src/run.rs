//! The start of a container, from its record to a running process. Read top to bottom. What a step made is
//! undone when a later one does not work; only the address stays, until the container is removed.

use std::fs::{self, File, Permissions};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use network::Endpoint;

use crate::container::{Container, now_unix_nanos};
use crate::engine::{Inner, blocking};
use crate::request::Network;
use crate::shim::{Shim, Streams};
use crate::spec::{self, layers::Layers};
use crate::{Error, bundle, etc_files, sys, teardown};

/// A run that has begun, and is on record.
pub(crate) struct Started {
    pub(crate) shim: Shim,
    pub(crate) pid: u32,
    pub(crate) at_unix_nanos: i64,
}

/// Start `container`, which is not running.
pub(crate) async fn start(engine: &Arc<Inner>, container: &Container) -> Result<Started, Error> {
    if engine.config.bundle(&container.id).exists() {
        // An end that could not be put on record has left it.
        teardown::discard(engine, &container.id).await;
    }
    match steps(engine, container).await {
        Ok(started) => Ok(started),
        Err(error) => {
            teardown::discard(engine, &container.id).await;
            Err(error)
        }
    }
}

async fn steps(engine: &Arc<Inner>, container: &Container) -> Result<Started, Error> {
    let id = &container.id;
    let rootfs = write_files(engine, container).await?;
    failpoint::reach("start.files-written");

    let shim = Shim::launch(&engine.config, id).await?;
    failpoint::reach("start.shim-launched");

    let pid = shim
        .create(&engine.config, &rootfs, streams(engine, container))
        .await?;
    failpoint::reach("start.created");

    connect_network(engine, container, pid).await?;
    failpoint::reach("start.network-connected");

    shim.start("").await?;
    let at_unix_nanos = now_unix_nanos();
    failpoint::reach("start.process-started");

    engine.store.started(id, pid, at_unix_nanos).await?;
    failpoint::reach("start.recorded");
    Ok(Started {
        shim,
        pid,
        at_unix_nanos,
    })
}

/// The bundle, the container's own files in /etc, and the host's side of its binds.
async fn write_files(engine: &Arc<Inner>, container: &Container) -> Result<image::Rootfs, Error> {
    let (engine, container) = (Arc::clone(engine), container.clone());
    blocking(move || {
        let image = engine.images.get(&container.image_id)?;
        let rootfs = engine.images.rootfs(&container.id)?;
        let wanted = spec::process::wanted_user(&container.request, &image.config);
        let user = spec::user::resolve(&Layers::new(&rootfs), wanted)?;
        for bind in &container.request.binds {
            make_source(Path::new(&bind.source))?;
        }
        let etc = engine.config.container(&container.id);
        etc_files::write(
            &etc,
            &spec::hostname(&container),
            container.address,
            container.request.network,
        )?;
        let config = spec::config(&container, &image.config, &user, &etc)?;
        bundle::write(
            &engine.config.bundle(&container.id),
            &config,
            container.request.open_stdin,
        )?;
        Ok(rootfs)
    })
    .await
}

/// As docker does for `-v`: a source that is not there becomes a directory.
fn make_source(source: &Path) -> Result<(), Error> {
    if fs::symlink_metadata(source).is_ok() {
        return Ok(());
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(source)
        // Whatever umask this process has: the container's users are to find it open.
        .and_then(|()| fs::set_permissions(source, Permissions::from_mode(0o755)))
        .map_err(Error::file("make the source of a bind", source))
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
        let endpoint = Endpoint {
            container_id: &id,
            address,
            netns: netns.as_fd(),
        };
        Ok(engine.config.bridge.attach(&endpoint)?)
    })
    .await
}

/// The network namespace of the container's main process. Its number may be another process's by now: what is
/// opened by it counts only if the process is in the container's cgroup, and still alive afterwards.
fn network_namespace(id: &str, pid: u32) -> Result<File, Error> {
    let folder = Path::new("/proc").join(pid.to_string());
    let ended = || {
        Error::shim(
            id,
            format!("the main process (number {pid}) ended before its start"),
        )
    };
    let number = i32::try_from(pid).map_err(|_| ended())?;
    let process = sys::pidfd_open(number).map_err(|_| ended())?;
    let groups = fs::read_to_string(folder.join("cgroup")).map_err(|_| ended())?;
    if !groups.contains(id) {
        return Err(ended());
    }
    let path = folder.join("ns/net");
    let netns = File::open(&path).map_err(Error::file("open", &path))?;
    match sys::pidfd_wait(process.as_fd(), Duration::ZERO) {
        Err(error) if error.raw_os_error() == Some(libc::ETIMEDOUT) => Ok(netns),
        _ => Err(ended()),
    }
}
