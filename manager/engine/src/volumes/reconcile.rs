//! Putting volumes right at the manager's start: removals are finished, folders that a row wants are made, copies that
//! were cut off go on or begin anew, and what no running container uses is unmounted.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::local::LocalOptions;
use super::{
    Volume, copy_up, finish_local_removals, finish_plugin_removals, folder, local, part, release, retry,
};
use crate::Error;
use crate::engine::{Inner, apart, blocking};
use crate::request::storage::LOCAL;

/// Put everything right. The containers are known by now. Errors with single volumes are logged.
pub(crate) async fn all(engine: &Arc<Inner>) -> Result<(), Error> {
    let mut in_use = BTreeSet::new();
    let mut volumes = engine.store.volumes().await?;
    let far: BTreeSet<String> = volumes
        .iter()
        .filter(|volume| is_remote(volume))
        .map(|volume| volume.name.clone())
        .collect();
    for handle in engine.containers.all() {
        let container = handle.snapshot().container;
        if !container.is_running() {
            continue;
        }
        for volume in container.mounts.iter().filter_map(|mount| mount.volume()) {
            engine.volumes.slots.resume(&volume.name, &container.id).await;
            if volume.driver != LOCAL {
                engine.volumes.slots.note_plugin(&volume.name);
            }
            in_use.insert(volume.name.clone());
        }
        if !handle.snapshot().container.is_running() {
            // It has just ended, before its volumes were known to be in use.
            let mut of_it = container.mounts.iter().filter_map(|mount| mount.volume());
            if of_it.any(|volume| volume.driver != LOCAL || far.contains(&volume.name)) {
                // A server of one may be away.
                let (engine, id) = (Arc::clone(engine), container.id.clone());
                tokio::spawn(async move { release(&engine, &id).await });
            } else {
                release(engine, &container.id).await;
            }
        }
    }
    // A plugin may take its time, and the manager's start does not wait for it.
    retry::keep_trying(engine);
    let of_plugins = finish_local_removals(engine).await;
    if !of_plugins.is_empty() {
        let engine = Arc::clone(engine);
        tokio::spawn(async move { finish_plugin_removals(&engine, &of_plugins).await });
    }
    // Removals are finished by now.
    volumes = engine.store.volumes().await?;
    let known: BTreeSet<String> = volumes.iter().map(|volume| volume.name.clone()).collect();
    volumes.retain(|volume| volume.driver == LOCAL);
    let (remote, volumes): (Vec<_>, Vec<_>) = volumes.into_iter().partition(is_remote);
    for volume in remote {
        let guard = engine.volumes.slots.of_volume(&volume.name).lock_owned().await;
        let is_mounted = in_use.contains(&volume.name);
        let of = Arc::clone(engine);
        // Its server may be away: then the volume's containers wait, and nobody else.
        tokio::spawn(apart("volume", move || {
            put_right(&of, &volume.name, is_mounted);
            drop(guard);
            Ok(())
        }));
    }
    let of = Arc::clone(engine);
    blocking(move || {
        part::remove_all(&of.config.parts())?;
        let root = of.config.volumes();
        for volume in volumes {
            let is_mounted = in_use.contains(&volume.name) && !volume.options.is_empty();
            put_right(&of, &volume.name, is_mounted);
        }
        let folders = folder::all(&root)?;
        for name in folders.iter().filter(|name| !known.contains(*name)) {
            tracing::warn!(
                name,
                "a folder among the volumes that is no volume: it stays as it is"
            );
        }
        Ok(())
    })
    .await
}

/// May what is looked at in there wait for another machine, for as long as that is away? A folder that is bound may lie on
/// one, too.
fn is_remote(volume: &Volume) -> bool {
    let options = LocalOptions::parse(&volume.options);
    options.is_ok_and(|options| options.is_some_and(|options| !options.is_memory()))
}

fn put_right(engine: &Inner, name: &str, is_mounted: bool) {
    let data = engine.config.volume_data(name);
    let righted = folder::make(&engine.config.volumes(), name)
        .and_then(|()| copy_up::resume(&data, is_mounted))
        .and_then(|()| if is_mounted { Ok(()) } else { local::unmount(&data) });
    if let Err(error) = righted {
        tracing::warn!(volume = name, %error, "it is not as it should be");
    }
}
