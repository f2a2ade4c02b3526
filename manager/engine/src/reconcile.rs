//! Putting right, at the manager's start, what is with what should be: the database says which containers there
//! are; bundles, layers, links and folders carry the id of their owner in their name. What has no owner is
//! removed; a running container is watched again; one that ended meanwhile gets its exit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};

use crate::container::{Container, Exit, State};
use crate::engine::{Inner, blocking};
use crate::lifecycle::Handle;
use crate::restart::{self, Next};
use crate::shim::{self, Shim};
use crate::{Error, bundle, commit, exec, name_servers, networks, spec, sys, teardown, volumes};

/// As many shims are asked at once. Each answers in well under a millisecond.
const AT_ONCE: usize = 32;
/// One that does not say whether it is paused keeps the start of the manager no longer than this.
const STATE_TIMEOUT: Duration = Duration::from_secs(1);
/// Between the end of a process and its shim's word of it: output is drained, and the exit written to disk.
const ENDING_TIMEOUT: Duration = Duration::from_secs(10);

/// Put everything right. Errors with single containers are logged; an error is returned when the engine cannot
/// work at all.
pub(crate) async fn all(engine: &Arc<Inner>, containers: Vec<Container>) -> Result<(), Error> {
    networks::cni::load(engine).await?;
    let known: BTreeSet<String> = containers.iter().map(|container| container.id.clone()).collect();
    let settled: Vec<_> = stream::iter(containers)
        .map(|container| settle(engine, container))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;

    let mut running = BTreeSet::new();
    let mut needed = BTreeSet::new();
    for settled in settled.into_iter().flatten() {
        let Settled {
            container,
            shim,
            unrecorded,
        } = settled;
        if shim.is_some() {
            running.insert(container.id.clone());
        }
        if shim.is_some() || unrecorded.is_some() {
            needed.insert(container.id.clone());
        }
        engine.adopt(Handle::resume(engine, container, shim, unrecorded));
    }
    failpoint::reach("reconcile.settled");
    // Names are answered as soon as all are known.
    name_servers::resume(engine).await;
    remove_bundles(engine, &needed).await;
    if let Err(error) = engine.cgroup_parents.restore(&engine.config) {
        tracing::warn!(%error, "empty cgroups above those of containers stay");
    }
    volumes::reconcile::all(engine).await?;
    let (of, still_running) = (Arc::clone(engine), running.clone());
    blocking(move || {
        let engine = of;
        networks::reconcile::ensure_all(&engine);
        remove_links(&engine, &running);
        networks::reconcile::remove_orphans(&engine);
        engine.ports.restore(&engine.config);
        remove_layers(&engine, &known);
        remove_folders(&engine, &known);
        Ok(())
    })
    .await?;
    networks::cni::reconcile(engine, still_running).await;
    Ok(())
}

/// A container as it is now.
struct Settled {
    container: Container,
    /// That of a running one.
    shim: Option<Shim>,
    /// How it ended, if only its bundle keeps that.
    unrecorded: Option<(Exit, Next)>,
}

/// Find out what became of one container. None: it was to be removed at its end, and is.
async fn settle(engine: &Arc<Inner>, mut container: Container) -> Option<Settled> {
    let mut unrecorded = None;
    let removes_itself = container.request.auto_remove;
    if container.is_running() {
        let (exit, next) = match find_shim(engine, &container).await {
            Ok((shim, None)) => {
                commit::resume_interrupted(engine, &container.id, &shim).await;
                // Asked after that: what a commit had paused runs on.
                match tokio::time::timeout(STATE_TIMEOUT, shim.is_paused()).await {
                    Ok(Ok(Some(true))) => container.state = State::Paused,
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => tracing::warn!(id = container.id, %error, "it counts as running"),
                    Err(_) => tracing::warn!(id = container.id, "its shim is slow: it counts as running"),
                }
                take_over(engine, &container, &shim).await;
                engine.ports.resume(engine, &container);
                let groups = &engine.config.groups;
                let parent = groups.asked_parent(&container.request.resources.cgroup_parent);
                if let Err(error) = engine
                    .cgroup_parents
                    .enter(&engine.config, &parent, &container.id)
                {
                    tracing::warn!(id = container.id, %error, "the cgroup above its own");
                }
                return Some(Settled {
                    container,
                    shim: Some(shim),
                    unrecorded,
                });
            }
            Ok((shim, Some(told))) => {
                let exit = shim::with_record(&engine.config, &container.id, told);
                let next = restart::next(&container, exit, container.stopped_by_hand);
                match teardown::settle(engine, &container, &shim, exit, next).await {
                    Ok(()) => teardown::remove_bundle(engine, &container.id).await,
                    Err(error) => {
                        tracing::error!(id = container.id, %error, "an exit is not on record");
                        unrecorded = Some((exit, next));
                    }
                }
                (exit, next)
            }
            Err(error) => {
                tracing::info!(id = container.id, %error, "its shim is gone");
                let exit = teardown::end(engine, &container.id).await;
                let next = restart::next(&container, exit, container.stopped_by_hand);
                if let Err(error) = teardown::record(engine, &container, exit, "", next).await {
                    tracing::error!(id = container.id, %error, "an exit is not on record");
                    unrecorded = Some((exit, next));
                }
                (exit, next)
            }
        };
        container.follow(next);
        container.pid = 0;
        container.ports.clear();
        container.exit = Some(exit);
    }
    let is_over = container.state == State::Exited || was_starting(engine, &container);
    if removes_itself && unrecorded.is_none() && is_over {
        return forget(engine, container).await;
    }
    if restart::comes_back(&container) {
        container.state = State::Restarting;
    }
    Some(Settled {
        container,
        shim: None,
        unrecorded,
    })
}

/// Was it new, and its first start under way or refused? Whoever asked for that went away with the manager.
fn was_starting(engine: &Inner, container: &Container) -> bool {
    let begun = engine.config.bundle(&container.id).exists() || !container.error.is_empty();
    container.state == State::Created && begun
}

/// The shim of a container that is on record as running, and its exit if it has ended meanwhile. An error means
/// that there is no shim.
async fn find_shim(engine: &Arc<Inner>, container: &Container) -> Result<(Shim, Option<Exit>), Error> {
    let shim = Shim::reconnect(&engine.config, &container.id).await?;
    if bundle::exit(&engine.config.bundle(&container.id)).is_none() && sys::is_alive(container.pid) {
        return Ok((shim, None));
    }
    // It has ended, and the shim may still be at seeing it out. Nobody is to be told that it runs.
    match tokio::time::timeout(ENDING_TIMEOUT, shim.wait("")).await {
        Ok(Ok(exit)) => Ok((shim, Some(exit))),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            tracing::warn!(
                id = container.id,
                "its process is gone, but its shim does not say so"
            );
            Ok((shim, None))
        }
    }
}

/// Go on where the manager before this one was with a running container.
async fn take_over(engine: &Arc<Inner>, container: &Container, shim: &Shim) {
    if container.update_pending
        && let Err(error) = finish_update(engine, container, shim).await
    {
        tracing::warn!(id = container.id, %error, "it has what was on record before its last update, or some of both");
    }
    let request = &container.request;
    // The client that had it open went away with the manager it was connected to.
    if request.stdin_once
        && !request.tty
        && let Err(error) = shim.close_stdin("").await
    {
        tracing::debug!(id = container.id, %error, "standard input stays open");
    }
    exec::drain_abandoned(&engine.config.bundle(&container.id), shim);
}

/// What is on record counts, however far an update has come.
async fn finish_update(engine: &Inner, container: &Container, shim: &Shim) -> Result<(), Error> {
    // What it was is not known any more: a limit that is not asked for is taken away.
    shim.update(&spec::update_from_any(&container.request)?).await?;
    engine
        .store
        .updated(&container.id, &container.request, false)
        .await
}

async fn forget(engine: &Arc<Inner>, container: Container) -> Option<Settled> {
    match engine.store.delete(&container.id, true).await {
        // Its layer and folder go with those that have no owner.
        Ok(()) => {
            engine.networks.forget(&container.id);
            None
        }
        Err(error) => {
            tracing::error!(id = container.id, %error, "could not be removed");
            Some(Settled {
                container,
                shim: None,
                unrecorded: None,
            })
        }
    }
}

/// Starts that were not recorded, and ends that were not finished; not what is needed still.
async fn remove_bundles(engine: &Arc<Inner>, needed: &BTreeSet<String>) {
    let orphans = names_in(&engine.config.bundles())
        .into_iter()
        .filter(|id| !needed.contains(id));
    let remove = |id: String| async move {
        tracing::info!(id, "removing an orphaned bundle");
        teardown::discard(engine, &id).await;
    };
    stream::iter(orphans).for_each_concurrent(AT_ONCE, remove).await;
}

fn remove_links(engine: &Inner, running: &BTreeSet<String>) {
    let bridge = &engine.config.bridge;
    let links = match bridge.attached() {
        Ok(links) => links,
        Err(error) => {
            tracing::warn!(%error, "cannot look for orphaned links");
            return;
        }
    };
    let all = links.into_iter().chain(networks::reconcile::links(engine));
    let there: BTreeMap<String, bool> = all.map(|link| (link.name, link.is_complete)).collect();
    let mut owned = BTreeSet::new();
    for id in running {
        owned.extend(networks::reconcile::links_of(engine, id));
        if let Ok(handle) = engine.containers.find(id) {
            let container = handle.snapshot().container;
            let link = network::link_name(id);
            networks::default_bridge::attach_missing(engine, &container, there.get(&link).copied());
            networks::reconcile::attach_missing(engine, &container, &there);
            owned.extend(container.address.map(|_| link));
        }
    }
    for link in there.keys().filter(|link| !owned.contains(*link)) {
        tracing::info!(link, "removing an orphaned link");
        // A link's name is made from the beginning of its owner's id, so that beginning names it as well.
        let id = link.strip_prefix("bth").unwrap_or(link);
        if let Err(error) = bridge.detach(id) {
            tracing::warn!(link, %error, "cannot remove an orphaned link");
        }
    }
}

fn remove_layers(engine: &Inner, known: &BTreeSet<String>) {
    let leases = match engine.images.leases() {
        Ok(leases) => leases,
        Err(error) => {
            tracing::warn!(%error, "cannot look for orphaned layers");
            return;
        }
    };
    for id in leases.iter().filter(|id| !still_there(engine, known, id)) {
        tracing::info!(id, "removing an orphaned layer");
        if let Err(error) = engine.images.release(id) {
            tracing::warn!(id, %error, "cannot remove an orphaned layer");
        }
    }
}

fn remove_folders(engine: &Inner, known: &BTreeSet<String>) {
    let folder = engine.config.containers();
    for id in names_in(&folder)
        .iter()
        .filter(|id| !still_there(engine, known, id))
    {
        tracing::info!(id, "removing an orphaned folder");
        if let Err(error) = std::fs::remove_dir_all(folder.join(id)) {
            tracing::warn!(id, %error, "cannot remove an orphaned folder");
        }
    }
}

/// Is it on record, and was it not removed just now?
fn still_there(engine: &Inner, known: &BTreeSet<String>, id: &str) -> bool {
    known.contains(id) && engine.containers.find(id).is_ok()
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}
